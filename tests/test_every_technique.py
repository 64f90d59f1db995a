"""Every technique × every way of running it: a file in the rooms without a case here fails.

A new technique is one file and one `Case`. Random layers get their numbers from `fixed`, so that two ways
of running one can be compared bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import stepwell as sw
from stepwell.nn import draws, losses

SOURCE = Path(sw.__file__).parent
ROOMS = (
    "nn/normalization/*.py",
    "nn/dropout.py",
    "nn/stochastic_depth.py",
    "optim/max_norm.py",
    "nn/losses.py",
)
NO_TECHNIQUE = ("__init__", "registry")
MEMBERS = 3


class Case(NamedTuple):
    """A technique as a module, and the shape of a batch for it."""

    file: str  # in the rooms, without ending
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


class Residual(nn.Module):
    """A block that can be left out, with statistics that must then stay."""

    def __init__(self, p: float, by: Any) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), sw.nn.BatchNorm(6)
        self.depth = sw.nn.StochasticDepth(p, by)

    def branch(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.depth(x, self.branch, x)


class Limited(nn.Module):
    """A layer whose units are no longer than a limit, which some of them are beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 18).view(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ sw.optim.max_norm(self.weight, 1.2).mT


class Smoothed(nn.Module):
    """The loss of smoothed labels, with outputs for its input."""

    def __init__(self, name: Any, task: Any) -> None:
        super().__init__()
        self.loss, self.task = losses.build(losses.LossConfig(name=name), task, 0.2), task

    def forward(self, z: Tensor) -> Tensor:
        y = torch.arange(z[..., 0].numel()).view(z.shape[:-1]) % z.shape[-1]
        return self.loss(z, F.one_hot(y, z.shape[-1]).to(z.dtype) if self.task == "multi-label" else y)


IMAGES, TABLE, TEXT = (7, 6, 5, 5), (7, 6), (7, 5, 6)
NORM = "nn/normalization/"
CASES: dict[str, Case] = {
    "batch norm": Case(NORM + "batch", lambda: sw.nn.BatchNorm(6), IMAGES),
    "batch norm, cumulative": Case(NORM + "batch", lambda: sw.nn.BatchNorm(6, momentum=None), TABLE),
    "batch norm of text": Case(NORM + "batch", lambda: sw.nn.BatchNorm(6, channel_dim=-1), TEXT),
    "layer norm": Case(NORM + "layer", lambda: sw.nn.LayerNorm(6), TEXT),
    "layer norm of images": Case(NORM + "layer", lambda: sw.nn.LayerNorm(6, channel_dim=1), IMAGES),
    "rms norm": Case(NORM + "rms", lambda: sw.nn.RMSNorm(6), TEXT),
    "rms norm of images": Case(NORM + "rms", lambda: sw.nn.RMSNorm(6, channel_dim=1), IMAGES),
    "instance norm": Case(NORM + "instance", lambda: sw.nn.InstanceNorm(6), IMAGES),
    "instance norm over time": Case(NORM + "instance", lambda: sw.nn.InstanceNorm(6, channel_dim=-1), TEXT),
    "group norm": Case(NORM + "group", lambda: sw.nn.GroupNorm(2, 6), IMAGES),
    "group norm of text": Case(NORM + "group", lambda: sw.nn.GroupNorm(2, 6, channel_dim=-1), TEXT),
    "weight norm": Case(NORM + "weight", lambda: sw.nn.weight_norm(nn.Conv2d(6, 3, 3)), IMAGES),
    "weight norm of a matrix": Case(NORM + "weight", lambda: sw.nn.weight_norm(nn.Linear(6, 3)), TABLE),
    "spectral norm": Case(NORM + "spectral", lambda: sw.nn.spectral_norm(nn.Conv2d(6, 3, 3)), IMAGES),
    "spectral norm of a matrix": Case(NORM + "spectral", lambda: sw.nn.spectral_norm(nn.Linear(6, 3)), TABLE),
    "dropout": Case("nn/dropout", lambda: sw.nn.Dropout(0.4), IMAGES),
    "scaled dropout": Case("nn/dropout", lambda: sw.nn.Dropout(0.4, "scaled"), TABLE),
    "spatial dropout": Case("nn/dropout", lambda: sw.nn.Dropout(0.4, "spatial"), IMAGES),
    "spatial dropout of text": Case(
        "nn/dropout", lambda: sw.nn.Dropout(0.4, "spatial", channel_dim=-1), TEXT
    ),
    "stochastic depth": Case("nn/stochastic_depth", lambda: Residual(0.4, "sample"), IMAGES),
    "max-norm": Case("optim/max_norm", Limited, TABLE),
    "label smoothing": Case("nn/losses", lambda: Smoothed("cross-entropy", "multi-class"), TABLE),
    "label smoothing of text": Case("nn/losses", lambda: Smoothed("cross-entropy", "text"), TEXT),
    "label smoothing of squares": Case("nn/losses", lambda: Smoothed("mse", "multi-class"), TABLE),
    "label smoothing of several": Case("nn/losses", lambda: Smoothed("cross-entropy", "multi-label"), TABLE),
    "stochastic depth by batch": Case("nn/stochastic_depth", lambda: Residual(0.4, "batch"), IMAGES),
}

every_case = pytest.mark.parametrize("name", CASES)
both_modes = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])


def module(name: str, training: bool, seed: int = 0) -> nn.Module:
    """The case's module in float64, its weights away from 0 and 1, its buffers from their start."""
    torch.manual_seed(seed)
    net = CASES[name].build().double()
    for weight in net.parameters():
        weight.data.add_(0.3 * torch.randn_like(weight))
    with fixed(0.9), torch.no_grad():  # in training, so that evaluation has statistics
        net(inputs(name, 9))
    return net.train(training)


def inputs(name: str, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(CASES[name].shape, generator=generator, dtype=torch.float64) + 0.5


def fixed(start: float | Tensor) -> AbstractContextManager[None]:
    """Random numbers: multiples of the golden ratio, modulo 1. Each member of a stack has its start."""

    def source(shape: tuple[int, ...], device: torch.device) -> Tensor:
        size = torch.Size(shape).numel()
        steps = torch.arange(size, device=device, dtype=torch.float64).view(shape)
        return torch.frac(steps * 0.6180339887498949 + start)

    return draws.supplied(source)


def weighed(y: Tensor) -> Tensor:
    """A sum in which every output counts otherwise: that of normalized values alone does not depend on x."""
    weights = torch.arange(y.numel(), dtype=torch.float64, device=y.device).cos().view(y.shape) + 1.5
    return (y * weights.to(torch.promote_types(y.dtype, torch.float32))).sum()


def seen(net: nn.Module, x: Tensor, start: float, call: Callable[[Tensor], Tensor] | None = None) -> dict:
    """All there is to see of two forward passes: outputs, gradients, and the buffers after them."""
    x, run = x.detach().requires_grad_(), net if call is None else call
    with fixed(start):
        first, second = (run(part) for part in (x, 0.5 * x - 1))
        (weighed(first) + weighed(second)).backward()
    found = {"first": first, "second": second, "gradient of x": x.grad}
    found |= {f"gradient of {n}": _or_zero(w) for n, w in net.named_parameters()}
    return {key: value.detach() for key, value in (found | dict(net.named_buffers())).items()}


def _or_zero(weight: nn.Parameter) -> Tensor:
    """A branch that does not run gives no gradient, and one that is multiplied by 0 gives zeros."""
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def assert_same(found: dict, expected: dict, rtol: float = 1e-9, atol: float = 1e-11) -> None:
    assert found.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(
            found[key], expected[key], msg=lambda text, k=key: f"{k}: {text}", rtol=rtol, atol=atol
        )


# Numbers from here on: the first draw of a batch, () for stochastic depth, is kept (0.5) or dropped (0.1).
STARTS = (0.5, 0.1, 0.7)


def test_every_file_has_a_case():
    """A technique that is added to the rooms is held to the laws, or this fails."""
    files = {path for room in ROOMS for path in SOURCE.glob(room) if path.stem not in NO_TECHNIQUE}
    names = {path.relative_to(SOURCE).with_suffix("").as_posix() for path in files}
    assert len(names) >= 9 and names == {case.file for case in CASES.values()}


@every_case
@both_modes
def test_compiled_equals_eager(name, training):
    """As one graph, without a break, forward and backward: outputs, gradients, buffers."""
    for start in STARTS[:2]:
        torch._dynamo.reset()
        net, copy, x = module(name, training), module(name, training), inputs(name)
        compiled = torch.compile(copy, backend="aot_eager", fullgraph=True)
        assert_same(seen(copy, x, start, compiled), seen(net, x, start))


@every_case
@both_modes
def test_a_stack_equals_its_members(name, training):
    """vmap(grad(functional_call)) with weights, buffers and draws of each member, against each alone."""
    members = [nn.Sequential(module(name, training, seed)) for seed in range(MEMBERS)]
    weights, buffers = (
        {
            key: torch.stack([dict(part(net))[key] for net in members]).detach()
            for key in dict(part(members[0]))
        }
        for part in (nn.Module.named_parameters, nn.Module.named_buffers)
    )
    x = torch.stack([inputs(name, seed) for seed in range(MEMBERS)])

    def alone(weights: dict, buffers: dict, x: Tensor, start: Tensor) -> tuple[Tensor, dict]:
        state = {**weights, **buffers}
        with fixed(start):
            first, second = (functional_call(members[0], state, (part,)) for part in (x, 0.5 * x - 1))
        after = {key: state[key] for key in buffers}
        return weighed(first) + weighed(second), {"first": first, "second": second, **after}

    of_all = vmap(grad(alone, argnums=(0, 2), has_aux=True))
    (by_weight, by_x), outputs = of_all(weights, buffers, x, torch.tensor(STARTS, dtype=torch.float64))
    found = outputs | {"gradient of x": by_x} | {f"gradient of {n}": g for n, g in by_weight.items()}
    for number, net in enumerate(members):
        expected = seen(net, x[number], STARTS[number])
        assert_same({key: value[number] for key, value in found.items()}, expected)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.shape) == 4])
@both_modes
def test_channels_last_equals_contiguous(name, training):
    """The same numbers from the other layout in memory, in which the outputs stay."""
    net, copy, x = module(name, training), module(name, training), inputs(name)
    expected = seen(net, x, STARTS[0])
    found = seen(copy, x.to(memory_format=torch.channels_last), STARTS[0])
    assert found["first"].is_contiguous(memory_format=torch.channels_last)
    assert_same(found, expected)


@every_case
@both_modes
def test_bf16_is_close_to_fp32(name, training):
    """Under autocast with bfloat16 inputs, to a few of their 2⁻⁸; buffers stay float32."""
    net, copy, x = module(name, training).float(), module(name, training).float(), inputs(name).bfloat16()
    expected = seen(net, x.float(), STARTS[0])

    def rough(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return copy(x)

    found = seen(copy, x, STARTS[0], rough)
    for key in dict(net.named_buffers()):
        assert found[key].dtype == expected[key].dtype, key
    for key, value in expected.items():
        size = value.abs().max().clamp_min(1e-3) if value.is_floating_point() else torch.tensor(1.0)
        assert ((found[key].float() - value) / size).abs().max() < 0.06, key


@every_case
def test_evaluation_is_deterministic(name):
    """No draws, no new statistics: the same bits twice, and the module as it was."""
    net, x = module(name, False), inputs(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with draws.supplied(lambda shape, device: pytest.fail("a draw in evaluation")):
        assert torch.equal(net(x), net(x))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@every_case
def test_only_draws_from_the_one_place(name):
    """Two training passes with the same supplied numbers are equal, whatever torch's generator says."""
    results = []
    for seed in (1, 2):
        net = module(name, True)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        results.append(seen(net, inputs(name), 0.3))
        assert torch.equal(torch.get_rng_state(), state)
    assert_same(*results, rtol=0, atol=0)


@every_case
@both_modes
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_agrees(name, training):
    """float64 on a GPU: outputs, gradients and buffers of the CPU."""
    net, copy, x = module(name, training), module(name, training).cuda(), inputs(name)
    found = seen(copy, x.cuda(), STARTS[0])
    assert_same({key: value.cpu() for key, value in found.items()}, seen(net, x, STARTS[0]))
