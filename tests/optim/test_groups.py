"""The group helper: every trained parameter once, and decay where it belongs."""

import pytest
import torch
from torch import nn

import stepwell.optim as ours
from stepwell.errors import UserError
from stepwell.nn.registry import MODELS, build


class RootNorm(nn.Module):
    """A normalization of somebody's own, with a weight of two dimensions."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4))


class Odd(nn.Module):
    """One of each: what decays stands in `decays` by name."""

    decays = frozenset(
        {
            "table.weight",
            "rnn.weight_ih_l0",
            "rnn.weight_hh_l0",
            "attention.in_proj_weight",
            "attention.out_proj.weight",
            "linear.weight",
            "filters.weight",
            "bilinear.weight",
            "position",
            "blocks.0.0.weight",
        }
    )

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.rnn = nn.LSTM(4, 3)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)  # bias_k has three dimensions
        self.linear = nn.Linear(4, 3)
        self.filters = nn.Conv2d(2, 3, 2)
        self.bilinear = nn.Bilinear(2, 3, 4)
        self.layer_norm = nn.LayerNorm([3, 4])  # a weight of two dimensions
        self.group_norm, self.batch_norm = nn.GroupNorm(1, 4), nn.BatchNorm3d(4)
        self.instance_norm, self.rms_norm = nn.InstanceNorm1d(4, affine=True), nn.RMSNorm([3, 4])
        self.root = RootNorm()
        self.slope = nn.PReLU(4)
        self.position = nn.Parameter(torch.zeros(1, 6, 4))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, 2))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(3, 3))])


def names(model, groups):
    of = {id(p): name for name, p in model.named_parameters()}
    return [{of[id(p)] for p in group["params"]} for group in groups]


def test_each_kind_of_parameter_is_where_it_belongs():
    """Matrices, filters and tables decay; biases of whatever shape and all of normalization do not."""
    model = Odd()
    groups = ours.decay_groups(model, 0.1)
    decays, does_not = names(model, groups)
    assert decays == Odd.decays
    assert decays | does_not == dict(model.named_parameters()).keys() and not decays & does_not
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


# Shape and kind of the data of each of our models, and how many of its parameters decay.
OURS = {
    "linear": ((4,), "features"),
    "mlp": ((4,), "features"),
    "cnn": ((1, 8, 8), "image"),
    "resnet": ((3, 16, 16), "image"),
    "rnn": ((12, 4), "sequence"),
    "transformer": ((12,), "text"),
}


@pytest.mark.parametrize("name", MODELS)
def test_our_models(name):
    """In the models of a recipe what decays are the parameters that end in weight, but for norms'."""
    shape, kind = OURS[name]
    model = build(MODELS[name][0](), shape, 11, kind)
    decays, does_not = names(model, ours.decay_groups(model, 0.1))
    norms = {path for path, module in model.named_modules() if "Norm" in type(module).__name__}
    for path, _ in model.named_parameters():
        module, _, last = path.rpartition(".")
        assert (path in decays) == (last.startswith("weight") and module not in norms), path
        assert (path in decays) != (path in does_not)


@pytest.mark.parametrize(
    "first", [nn.Linear(4, 3), nn.Conv2d(2, 3, 3), nn.LSTM(4, 3), nn.Transformer(8, 2, 1, 1)]
)
def test_every_trained_parameter_is_there_once_in_the_models_order(first):
    """Also shared ones; frozen ones are left out."""
    norm = nn.LayerNorm(3)
    norm.bias.requires_grad_(False)
    model = nn.Sequential(first, norm, first, nn.Linear(3, 3))
    groups = ours.decay_groups(model, 0.1)
    every = [p for p in model.parameters() if p.requires_grad]
    placed = [p for group in groups for p in group["params"]]
    assert len(placed) == len(every) and {*map(id, placed)} == {*map(id, every)}
    for group in groups:
        order = [i for p in group["params"] for i, q in enumerate(every) if p is q]
        assert order == sorted(order)


def test_a_shared_parameter_decays_if_it_does_everywhere():
    """A head tied to its table decays, unless tables are asked not to."""
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5))
    model[1].weight = model[0].weight
    assert names(model, ours.decay_groups(model, 0.1)) == [{"0.weight"}, {"1.bias"}]
    assert names(model, ours.decay_groups(model, 0.1, without=[nn.Embedding])) == [
        set(),
        {"0.weight", "1.bias"},
    ]


@pytest.mark.parametrize("make", [ours.AdamW, torch.optim.AdamW, ours.SGD])
def test_only_the_first_group_shrinks(make):
    """With gradients of 0, ten steps leave biases and norms as they are and shrink the others."""
    model = Odd()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make(ours.decay_groups(model, 0.5), lr=0.1)
    for _ in range(10):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    for name, p in model.named_parameters():
        expected = before[name] * (1 - 0.1 * 0.5) ** 10 if name in Odd.decays else before[name]
        torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [ours.AdamW, torch.optim.AdamW, ours.LARS])
def test_an_empty_group_is_no_trouble(make):
    """A model without biases trains with its two groups, and its state_dict comes back."""
    model = nn.Linear(3, 2, bias=False)
    optimizer = make(ours.decay_groups(model, 0.5), lr=0.1)
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    make(ours.decay_groups(model, 0.5)).load_state_dict(optimizer.state_dict())


def test_what_is_wrong_is_refused():
    """A decay below 0 or none at all, and a lazy layer without shape."""
    for wrong in (-0.1, float("nan"), "0.1", True, None):
        with pytest.raises(UserError, match=r"^weight_decay="):
            ours.decay_groups(nn.Linear(2, 2), wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="weight has no shape yet"):
        ours.decay_groups(nn.Sequential(nn.LazyLinear(3)), 0.1)
    with pytest.raises(UserError, match="decay_groups needs the model"):
        ours.decay_groups(nn.Linear(2, 2).parameters(), 0.1)  # type: ignore[arg-type]
