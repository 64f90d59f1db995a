"""Sparse gradients: the rows that have one move as in torch, and no others."""

import pytest
import torch
from torch import nn

import stepwell.optim as ours
from stepwell.errors import UserError

pytestmark = [
    pytest.mark.usefixtures("float64_scalars"),
    pytest.mark.filterwarnings("ignore:Sparse invariant"),  # of torch's Adagrad
]
SETTINGS = {
    "SGD": {"lr": 0.02},
    "Adagrad": {"lr": 0.3, "lr_decay": 0.1, "initial_accumulator_value": 0.1},
    "SparseAdam": {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3},
}


def problem(name):
    """A table of 12 rows, with a dense layer behind it where the class takes dense gradients too."""
    torch.manual_seed(0)
    table, head = nn.Embedding(12, 3, sparse=True), nn.Linear(3, 2)
    return table, head, [*table.parameters(), *([] if name == "SparseAdam" else head.parameters())]


def train(table, head, optimizer, start=0, end=30):
    words = torch.randint(
        0, 10, (30, 7), generator=torch.Generator().manual_seed(1)
    )  # some twice, 10, 11 never
    for step in range(start, end):
        optimizer.zero_grad()
        if step % 7 != 3:  # else no gradient
            head(table(words[step])).sin().square().sum().backward()
        optimizer.param_groups[0]["lr"] *= 0.97
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in (*table.parameters(), *head.parameters())])


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_trajectory_is_torchs(name, maximize):
    """Thirty steps on an embedding, rows repeated and missing, end at torch's weights."""
    ends = []
    for library in (ours, torch.optim):
        table, head, parameters = problem(name)
        optimizer = getattr(library, name)(parameters, maximize=maximize, **SETTINGS[name])
        ends.append(train(table, head, optimizer))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("direction", ["torch to ours", "ours to torch"])
def test_state_goes_both_ways_in_mid_run(name, direction):
    """Fifteen steps with one library, the state loaded into the other, fifteen more: torch's thirty."""
    one, two = (torch.optim, ours) if direction == "torch to ours" else (ours, torch.optim)
    table, head, parameters = problem(name)
    first = getattr(one, name)(parameters, **SETTINGS[name])
    train(table, head, first, 0, 15)
    second = getattr(two, name)(parameters)
    second.load_state_dict(first.state_dict())
    moved = train(table, head, second, 15, 30)
    table, head, parameters = problem(name)
    whole = train(table, head, getattr(torch.optim, name)(parameters, **SETTINGS[name]))
    torch.testing.assert_close(moved, whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_sparse_and_dense_gradients_are_the_same_update(name):
    """The same layer with sparse=False makes the same run, also clipped and with averaged weights."""
    ends, averages = [], []
    for sparse in (True, False):
        table, head, _ = problem(name)
        table.sparse = sparse
        parameters = [*table.parameters(), *head.parameters()]
        optimizer = getattr(ours, name)(parameters, clip_norm=0.5, clip_value=0.2, ema=0.9, **SETTINGS[name])
        ends.append(train(table, head, optimizer))
        averages.append(optimizer.state[table.weight]["ema"])
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(*averages, rtol=1e-12, atol=1e-13)


def test_rows_without_a_gradient_stay_bit_for_bit():
    """Rows 10 and 11 are never looked up: neither they nor their state move."""
    table, head, parameters = problem("SparseAdam")
    before = table.weight.detach()[10:].clone()
    optimizer = ours.SparseAdam(parameters, **SETTINGS["SparseAdam"])
    train(table, head, optimizer)
    assert torch.equal(table.weight[10:], before)
    assert not optimizer.state[table.weight]["exp_avg"][10:].any()
    assert optimizer.state[table.weight]["exp_avg"][:10].any()
    assert type(optimizer.state[table.weight]["step"]) is int  # as torch's, which computes with it


def test_a_gradient_that_becomes_sparse_goes_on_with_the_state():
    """Ten dense steps, then sparse ones: torch's run, which has both in one class."""
    ends = []
    for library in (ours, torch.optim):
        table, head, parameters = problem("Adagrad")
        optimizer = library.Adagrad(parameters, **SETTINGS["Adagrad"])
        table.sparse = False
        train(table, head, optimizer, 0, 10)
        table.sparse = True
        ends.append(train(table, head, optimizer, 10, 30))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "wrong",
    [{"decay": 0.1}, {"l1": 0.1}, {"clip_adaptive": 0.1}, {"max_norm": 0.1}, {"stochastic_rounding": True}],
)
def test_what_changes_every_row_is_refused(wrong):
    """What would act on rows without a gradient, and rounding by chance: they are named, nothing moves."""
    table, head, parameters = problem("SparseAdam")
    before = table.weight.detach().clone()
    optimizer = ours.SparseAdam(parameters, **wrong)
    with pytest.raises(UserError, match=next(iter(wrong))):
        train(table, head, optimizer, 0, 1)
    assert torch.equal(table.weight, before)


def test_dense_gradients_are_refused_by_sparse_adam():
    """As torch, which raises a RuntimeError; the sentence says what to use."""
    table, head, _ = problem("SGD")
    table.sparse = False
    optimizer = ours.SparseAdam(table.parameters())
    with pytest.raises(UserError, match="use Adam") as raised:
        train(table, head, optimizer, 0, 1)
    assert isinstance(raised.value, RuntimeError)
