"""Every model × every law: models are found in the registry, so a new one is held to the laws by its row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from stepwell.data.dataset import Kind
from stepwell.errors import UserError
from stepwell.nn.configs import CONFIGS
from stepwell.nn.network import Network, Predictor
from stepwell.nn.registry import MODELS, build

SHAPES: dict[Kind, tuple[int, ...]] = {
    "features": (13,),
    "sequence": (7, 3),
    "image": (2, 9, 11),
    "text": (12,),
}
SMALL = {"resnet": {"depth": 8, "width": 4}, "transformer": {"layers": 2, "width": 8}, "rnn": {"width": 8}}
# A second form of a model, where a switch changes what it is made of.
VARIANTS = {
    "linear": [{"norm": "layer"}],
    "mlp": [{"activation": "tanh", "dropout": 0.3}, {"norm": "batch"}],
    "cnn": [
        {"norm": "none", "dropout": 0.3},
        {"channels": [4, 8], "dropout": {"p": 0.3, "kind": "spatial"}},
        {"norm": "spectral"},
    ],
    "resnet": [
        {"depth": 14, "width": 4, "dropout": 0.3, "stochastic_depth": 0.5},
        {"depth": 8, "width": 4, "norm": "none"},
    ],
    "rnn": [{"cell": "gru", "layers": 2, "dropout": 0.3, "width": 8}, {"norm": "batch", "width": 8}],
    "transformer": [
        {"layers": 1, "heads": 2, "width": 8, "dropout": 0.3, "stochastic_depth": 0.5},
        {"layers": 1, "heads": 2, "width": 8, "norm": "weight"},
    ],
}
OUTPUTS = 5


def network(name: str, options: dict, kind: Kind, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    body = build(MODELS[name][0](**options), SHAPES[kind], OUTPUTS, kind)
    return Network(body, kind, "text" if kind == "text" else "multi-class")


def samples(kind: Kind, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    if kind == "text":
        return torch.randint(OUTPUTS, (n, *SHAPES[kind]), generator=generator)
    return torch.randn((n, *SHAPES[kind]), generator=generator, dtype=dtype)


def loss(net: nn.Module, x: Tensor) -> Tensor:
    outputs = net(x).flatten(0, -2)
    return F.cross_entropy(outputs, torch.arange(len(outputs)) % OUTPUTS)


def takes(name: str, options: dict, kind: Kind) -> bool:
    try:
        network(name, options, kind)
    except UserError:
        return False
    return True


FORMS = [(name, options) for name in MODELS for options in (SMALL.get(name, {}), *VARIANTS.get(name, []))]
CASES = [
    pytest.param(name, options, kind, id=f"{name}-{kind}-{options}")
    for name, options in FORMS
    for kind in SHAPES
    if takes(name, options, kind)
]
laws = pytest.mark.parametrize(("name", "options", "kind"), CASES)


def test_every_model_stands_in_both_tables():
    """The configs that need no torch and the models have the same names, and each takes some data."""
    assert list(MODELS) == list(CONFIGS) == [config().model_dump()["name"] for config, _ in MODELS.values()]
    assert {case.values[0] for case in CASES} == set(MODELS)


@laws
def test_outputs_have_the_promised_shape(name, options, kind):
    """(B, outputs), and (B, T, outputs) for text; also for a single sample in evaluation."""
    net = network(name, options, kind).eval()
    for n in (1, 4):
        assert net(samples(kind, n)).shape == (n, *SHAPES["text"] * (kind == "text"), OUTPUTS)


@laws
def test_float64_gradients_are_finite_and_reach_every_weight(name, options, kind):
    """A float64 network computes in float64 throughout; no weight is left without a gradient."""
    net = network(name, options, kind).double()
    value = loss(net, samples(kind, 4, torch.float64))
    value.backward()
    assert value.dtype == torch.float64
    for weight_name, weight in net.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), weight_name
        assert weight.is_contiguous() and weight.grad.is_contiguous(), weight_name


@laws
def test_bf16_autocast_agrees_with_float32(name, options, kind):
    """Under autocast the outputs stay within bfloat16's rounding of the float32 ones."""
    net, x = network(name, options, kind).eval(), samples(kind, 4)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x).float()
    exact = net(x)
    assert (rough - exact).abs().max() <= 0.05 * exact.abs().max() + 0.02


@laws
def test_the_seed_alone_decides_the_weights(name, options, kind):
    """The same seed builds bit for bit the same network, another seed another one."""
    one, two, other = (network(name, options, kind, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@laws
def test_evaluation_is_deterministic_and_sees_each_sample_alone(name, options, kind):
    """In eval mode: bitwise the same twice, and a sample's output does not depend on its batch."""
    net, x = network(name, options, kind).double().eval(), samples(kind, 6, torch.float64)
    whole = net(x)
    assert torch.equal(whole, net(x))
    order = torch.tensor([5, 0, 3])
    torch.testing.assert_close(net(x[order]), whole[order], rtol=1e-12, atol=1e-13)


@laws
def test_state_dict_round_trip(name, options, kind):
    """After a training step, the state loaded into a differently seeded network gives bitwise its outputs."""
    net, x = network(name, options, kind), samples(kind, 4)
    loss(net, x).backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    copy = network(name, options, kind, seed=9)
    copy.load_state_dict(net.state_dict())
    assert torch.equal(copy.eval()(x), net.eval()(x))


@laws
@pytest.mark.filterwarnings("ignore:The tensor attributes")  # torch's own recurrent layers, during export
def test_exports_with_a_batch_of_any_size(name, options, kind):
    """torch.export of raw input → probabilities, traced at 4 samples, gives the same numbers for 9 and 1."""
    predictor = Predictor(network(name, options, kind)).eval()
    dynamic = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(predictor, (samples(kind, 4),), dynamic_shapes=dynamic).module()
    for n in (9, 1):
        x = samples(kind, n)
        torch.testing.assert_close(program(x), predictor(x), rtol=1e-5, atol=1e-6)


@laws
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_stack_of_networks_has_the_gradients_of_each(name, options, kind):
    """vmap over three networks' weights equals three backward passes, in training mode."""
    nets = [network(name, options, kind, seed).double() for seed in range(3)]
    x = samples(kind, 4, torch.float64)
    nets = [net.eval() if options.get("dropout") else net for net in nets]  # or each draws its own mask
    weights, buffers = stack_module_state(nets)

    def of_stack(weights, buffers, x):
        return loss(lambda x: functional_call(nets[0], (weights, buffers), (x,)), x)  # pyright: ignore

    stacked = vmap(grad(of_stack), in_dims=(0, 0, None))(weights, buffers, x)
    for k, net in enumerate(nets):
        loss(net, x).backward()
        for key, weight in net.named_parameters():
            torch.testing.assert_close(stacked[key][k], weight.grad, rtol=1e-9, atol=1e-12)
