"""L-BFGS goes torch's way, and finds minima that are known."""

import copy

import pytest
import torch

import stepwell.optim as ours
from stepwell.errors import UserError
from stepwell.optim.lbfgs import newton_direction

SETTINGS = {
    "plain": {"lr": 0.1, "max_iter": 6},
    "strong Wolfe": {"line_search_fn": "strong_wolfe", "max_iter": 5},
    "short memory": {"line_search_fn": "strong_wolfe", "max_iter": 7, "history_size": 3},
    "one pair": {"lr": 0.05, "max_iter": 4, "history_size": 1},
    "few calls": {"line_search_fn": "strong_wolfe", "max_eval": 3},
    "long first step": {"line_search_fn": "strong_wolfe", "lr": 50.0, "max_iter": 4},
    "short first step": {"line_search_fn": "strong_wolfe", "lr": 1e-4, "max_iter": 4},
    "loose": {"line_search_fn": "strong_wolfe", "tolerance_grad": 1e-2, "tolerance_change": 1e-4},
}


def weights():
    """Two tensors and one that has no gradient: Rosenbrock's valley in five dimensions, from far away."""
    start = torch.tensor([-1.2, 1.0, 0.7, -0.4, 2.0], dtype=torch.float64)
    return [start[:2].clone().requires_grad_(), start[2:].view(3, 1).clone().requires_grad_(), torch.zeros(2)]


def rosenbrock(params):
    x = torch.cat([params[0], params[1].view(-1)])
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def train(params, optimizer, steps):
    """Returns the weights and how often the closure was called."""
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = rosenbrock(params)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return torch.cat([p.detach().reshape(-1) for p in params]), calls


@pytest.mark.parametrize("name", SETTINGS)
def test_trajectory_and_calls_are_torchs(name):
    """After each of twelve steps the weights are torch's, and the closure was called as often."""
    mine, theirs = weights(), weights()
    one = ours.LBFGS(mine, **SETTINGS[name])
    two = torch.optim.LBFGS(theirs, **SETTINGS[name])
    for _ in range(12):
        (a, calls), (b, expected) = train(mine, one, 1), train(theirs, two, 1)
        assert calls == expected
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["plain", "strong Wolfe", "short memory"])
@pytest.mark.parametrize("direction", ["torch to ours", "ours to torch"])
def test_state_goes_both_ways_in_mid_run(name, direction):
    """Three steps with one library, the state loaded into the other, three more: torch's six."""
    makes = (
        (torch.optim.LBFGS, ours.LBFGS) if direction == "torch to ours" else (ours.LBFGS, torch.optim.LBFGS)
    )
    moved, whole = weights(), weights()
    first = makes[0](moved, **SETTINGS[name])
    train(moved, first, 3)
    second = makes[1](moved)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    found, _ = train(moved, second, 3)
    expected, _ = train(whole, torch.optim.LBFGS(whole, **SETTINGS[name]), 6)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert second.state[moved[0]]["n_iter"] > SETTINGS[name]["max_iter"] * 3


def test_rosenbrocks_minimum_is_found():
    """From (−1.2, 1) the search goes round the valley to (1, 1), as exactly as its tolerance asks."""
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    params = [start[:1].clone().requires_grad_(), start[1:].clone().requires_grad_()]
    optimizer = ours.LBFGS(params, line_search_fn="strong_wolfe", max_iter=100, tolerance_change=1e-15)
    found, calls = train(params, optimizer, 1)
    torch.testing.assert_close(found, torch.ones(2, dtype=torch.float64), rtol=1e-7, atol=1e-7)
    assert calls < 60


def test_the_direction_is_newtons_where_the_pairs_span_the_space():
    """On a parabola with as many pairs along the axes of its Hessian as dimensions, −H g is Newton's step."""
    torch.manual_seed(0)
    root = torch.randn(4, 4, dtype=torch.float64)
    hessian = root @ root.T + torch.eye(4, dtype=torch.float64)
    _, axes = torch.linalg.eigh(hessian)
    steps = list(axes.T)
    changes = [hessian @ s for s in steps]
    g = torch.randn(4, dtype=torch.float64)
    found = newton_direction(
        g, steps, changes, [1 / y.dot(s) for s, y in zip(steps, changes, strict=True)], scale=7.0
    )
    torch.testing.assert_close(found, -torch.linalg.solve(hessian, g), rtol=1e-12, atol=1e-12)


def test_an_infinite_loss_is_stepped_back_from():
    """w − 1 − log w with a first try at w < 0, where it is NaN: the search turns back, and finds w = 1."""
    w = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    optimizer = ours.LBFGS([w], lr=100.0, line_search_fn="strong_wolfe", max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = (w - 1 - w.log()).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert abs(w.item() - 1) < 1e-6


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"line_search_fn": "wolfe"}, "strong_wolfe"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"history_size": 0}, "history_size=0"),
        ({"ema": 0.9}, "does not take ema"),
        ({"clip_norm": 1.0}, "does not take clip_norm"),
        ({"weight_decay": 0.1}, "has no argument weight_decay"),
    ],
)
def test_wrong_arguments_are_refused(wrong, said):
    """Each is named in the sentence."""
    with pytest.raises(UserError, match=said):
        ours.LBFGS(weights(), **wrong)


def test_a_schedule_a_copy_and_what_is_told():
    """lr can be a schedule; a deep copy goes on alone; hyperparameters() and gradient_norm tell today's."""
    params = weights()
    optimizer = ours.LBFGS(params, lr=lambda step: 0.1 / (1 + step), max_iter=2)
    train(params, optimizer, 2)
    assert optimizer.hyperparameters()["lr"] == 0.05
    assert optimizer.gradient_norm is not None and optimizer.gradient_norm.item() > 0
    again, optimizer2 = copy.deepcopy((params, optimizer))
    assert torch.equal(train(again, optimizer2, 2)[0], train(params, optimizer, 2)[0])
    with pytest.raises(UserError, match="closure"):
        optimizer.step(None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="one"):
        optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)]})
