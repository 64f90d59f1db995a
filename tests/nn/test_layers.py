"""Every model's head and layers: found by one rule, in the order from the input."""

import pytest
import torch
from torch import nn

from stepwell.errors import UserError
from stepwell.nn import registry
from stepwell.nn.configs import CONFIGS
from stepwell.nn.dropout import Dropout
from stepwell.nn.layers import head_of, layers_of
from stepwell.nn.without_memory import without_memory

# Model → keys, input shape, kind, and the number of its layers with the head.
MODELS = {
    "linear": ({}, (5,), "features", 1),
    "mlp": ({"hidden": [4, 3], "dropout": 0.5}, (5,), "features", 3),
    "cnn": ({"channels": [4, 8], "dropout": 0.5}, (1, 8, 8), "image", 3),
    "resnet": ({"depth": 14, "width": 2}, (1, 8, 8), "image", 8),
    "rnn": ({"layers": 3, "width": 4}, (6,), "text", 5),
    "transformer": ({"layers": 2, "width": 4, "heads": 1}, (6,), "text", 4),
}


def made(name: str) -> nn.Module:
    keys, shape, kind, _ = MODELS[name]
    return registry.build(CONFIGS[name](**keys), shape, 7, kind)


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_hold_each_parameter_once_in_order(name):
    """Together they are all parameters of the body, in its order, and the last one is the head alone."""
    body = made(name)
    head = head_of(body, 7)
    layers = layers_of(body, head)
    assert len(layers) == MODELS[name][3]
    found = [p for layer in layers for p in layer.parameters]
    assert [id(p) for p in found] == [id(p) for p in body.parameters()]
    assert [id(p) for p in layers[-1].parameters] == [id(p) for p in body.get_submodule(head).parameters()]
    assert body.get_submodule(head) is list(body.modules())[-1]


@pytest.mark.parametrize("name", CONFIGS)
def test_frozen_layers_with_all_their_modules_are_a_function_without_chance(name):
    """With the modules of all layers in evaluation mode, the body draws nothing and changes nothing."""
    torch.manual_seed(0)
    body = made(name)
    layers = layers_of(body, head_of(body, 7))
    body.train()
    for layer in layers:
        for module in layer.modules:
            module.eval()
    _, shape, kind, _ = MODELS[name]
    x = torch.randint(0, 7, (4, *shape)) if kind == "text" else torch.randn(4, *shape)
    before = {key: value.clone() for key, value in body.state_dict().items()}
    assert torch.equal(body(x), body(x))
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())


@pytest.mark.parametrize("name", CONFIGS)
def test_models_can_be_built_without_memory(name):
    """As those of files are: names, shapes and types are there before any number."""
    real = {key: (value.shape, value.dtype) for key, value in made(name).state_dict().items()}
    with without_memory():
        body = made(name)
    assert {key: (value.shape, value.dtype) for key, value in body.state_dict().items()} == real
    assert all(p.is_meta for p in body.parameters())


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("dropout", [0, 0.5])
def test_each_layer_of_an_rnn_is_one(norm, dropout):
    """With and without dropout and norms: a layer, its norm, the dropout before it; the head has the last."""
    config = CONFIGS["rnn"](layers=3, width=4, norm=norm, dropout=dropout)
    body = registry.build(config, (6, 2), 7, "sequence")
    names = {id(p): name for name, p in body.named_parameters()}
    *layers, head = layers_of(body, head_of(body, 7))
    own = [{names[id(p)] for p in layer.parameters} for layer in layers]
    if norm == "none" and not dropout:
        assert own == [{f"recurrent.{n}_l{k}" for n in WEIGHTS} for k in range(3)]
    else:
        norms = [{f"recurrent.norms.{k}.{n}" for n in ("weight", "bias")} for k in range(3)]
        lstms = [{f"recurrent.layers.{k}.{n}_l0" for n in WEIGHTS} for k in range(3)]
        assert own == [a | (b if norm != "none" else set()) for a, b in zip(lstms, norms, strict=True)]
    drops = [[m for m in layer.modules if isinstance(m, Dropout)] for layer in [*layers, head]]
    assert [len(d) for d in drops] == ([0, 1, 1, 1] if dropout else [0] * 4)


WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Own(nn.Module):
    """A wrapped model: positions of its own, a tied weight, and the head registered first."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 7)
        self.position = nn.Parameter(torch.zeros(4))
        self.inner = nn.ModuleDict({"a": nn.Embedding(7, 4), "b": nn.Linear(4, 7), "norm": nn.LayerNorm(7)})
        self.tied = nn.Linear(4, 7)
        self.tied.weight = self.inner["a"].weight  # type: ignore[assignment]


def test_a_model_of_ones_own():
    """The head is the last fitting layer by registration; a shared weight belongs to the later layer."""
    body = Own()
    assert head_of(body, 7) == "tied"
    first, inner, last = layers_of(body, "head")[:1], *layers_of(body, "tied")[-2:]
    assert [id(p) for p in first[0].parameters] == [id(body.position)]
    names = {id(p): name for name, p in body.named_parameters()}
    assert {names[id(p)] for p in last.parameters} == {"inner.a.weight", "tied.bias"}
    assert "inner.a.weight" not in {names[id(p)] for p in inner.parameters}


def test_without_a_head_there_is_a_sentence():
    """No nn.Linear with as many outputs as the data has: the sentence says what the last layer must be."""
    with pytest.raises(UserError, match="out_features=7"):
        head_of(nn.Sequential(nn.Linear(3, 5)), 7)
