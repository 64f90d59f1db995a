"""Adafactor and Muon follow torch's classes of the same name: trajectory, state, arguments, refusals."""

import copy
import math

import pytest
import torch

import stepwell.optim as ours
from stepwell.errors import UserError

SHAPES = {
    "Adafactor": ((4, 6), (5,), (6, 4), (2, 3, 4), (), (1, 1), (3, 2, 2, 2)),
    "Muon": ((4, 6), (6, 4), (5, 5), (1, 3), (7, 1)),
}
CASES = [
    ("Adafactor", {}),
    ("Adafactor", {"lr": 0.3}),
    ("Adafactor", {"lr": 5.0}),  # above 1/√t, which is taken then
    ("Adafactor", {"lr": torch.tensor(0.05, dtype=torch.float64)}),
    ("Adafactor", {"beta2_decay": -0.4}),
    ("Adafactor", {"eps": (0.1, 1e-3)}),
    ("Adafactor", {"eps": (None, 0.9)}),
    ("Adafactor", {"d": 3.0}),
    ("Adafactor", {"weight_decay": 0.7}),
    ("Adafactor", {"maximize": True, "weight_decay": 0.3}),
    ("Adafactor", {"foreach": True}),
    ("Muon", {}),
    ("Muon", {"lr": 0.1}),
    ("Muon", {"lr": torch.tensor(0.05, dtype=torch.float64)}),
    ("Muon", {"weight_decay": 0.0}),
    ("Muon", {"momentum": 0.5}),
    ("Muon", {"momentum": 0.0}),
    ("Muon", {"nesterov": False}),
    ("Muon", {"ns_coefficients": (2.0, -1.5, 0.5)}),
    ("Muon", {"eps": 10.0}),
    ("Muon", {"ns_steps": 2}),
    ("Muon", {"adjust_lr_fn": "original"}),
    ("Muon", {"adjust_lr_fn": "match_rms_adamw"}),
]


def weights(name, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in SHAPES[name]]


def train(parameters, optimizer, start=0, end=40, missing=False):
    """Gradients with noise of their own at each step, a rate that falls, now and then no gradient."""
    for step in range(start, end):
        torch.manual_seed(step)
        for i, p in enumerate(parameters):
            noise = torch.randn(p.shape, dtype=torch.float64)
            p.grad = (p.detach().double().sin() + 0.3 * noise).to(p.dtype)
            if missing and (step + i) % 4 == 0:
                p.grad = None
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 0.98
        optimizer.step()
    return [p.detach().clone() for p in parameters]


def close(one, two, tolerance=1e-12):
    torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("missing", [False, True], ids=["all", "some missing"])
@pytest.mark.parametrize(("name", "given"), CASES, ids=str)
def test_trajectory_is_torchs(name, given, missing):
    """Forty float64 steps with each argument, on matrices, vectors, filters and scalars."""
    a, b = weights(name), weights(name)
    one = train(a, getattr(ours, name)(a, **copy.deepcopy(given)), missing=missing)
    two = train(b, getattr(torch.optim, name)(b, **copy.deepcopy(given)), missing=missing)
    close(one, two)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Adafactor", {"eps": (1e-2, 0.1), "lr": 0.1}),
        ("Muon", {"nesterov": False, "adjust_lr_fn": "match_rms_adamw"}),
    ],
)
def test_groups_have_their_own_values(name, other):
    """Two groups, one with other arguments, and the rule of one changed in mid-run."""
    ends = []
    for library in (ours, torch.optim):
        p = weights(name)
        optimizer = getattr(library, name)([{"params": p[:2]}, {"params": p[2:], **other}])
        train(p, optimizer, 0, 20)
        optimizer.param_groups[0].update(other)
        ends.append(train(p, optimizer, 20, 40))
    close(*ends)


@pytest.mark.parametrize("direction", ["torch to ours", "ours to torch"])
@pytest.mark.parametrize("name", SHAPES)
def test_state_moves_in_mid_run(name, direction):
    """Twenty steps with one library, its state in the other, twenty more: torch's forty."""
    makes = [getattr(torch.optim, name), getattr(ours, name)]
    first, second = makes if direction == "torch to ours" else makes[::-1]
    a, b = weights(name), weights(name)
    optimizer = first(a)
    train(a, optimizer, 0, 20)
    later = second(a)
    later.load_state_dict(optimizer.state_dict())
    close(train(a, later, 20, 40), train(b, makes[0](b)))


@pytest.mark.parametrize("name", SHAPES)
def test_state_has_torchs_names_and_values(name):
    """By shape: Adafactor's matrices have row_var and col_var, its vectors variance."""
    a, b = weights(name), weights(name)
    one, two = getattr(ours, name)(a), getattr(torch.optim, name)(b)
    train(a, one)
    train(b, two)
    for p, q in zip(a, b, strict=True):
        mine = {key: value for key, value in one.state[p].items() if key != "step"}
        assert int(one.state[p]["step"]) == 40
        close(mine, {key: value for key, value in two.state[q].items() if key != "step"})


@pytest.mark.parametrize("name", SHAPES)
def test_bfloat16_weights_stay_near_float64(name):
    """Half precision is computed in float32 and rounded once a step, so that weights follow."""
    a, b = weights(name, torch.bfloat16), weights(name)
    one = train(a, getattr(ours, name)(a, lr=0.1))
    two = train(b, getattr(ours, name)(b, lr=0.1))
    for x, y in zip(one, two, strict=True):
        assert (x.double() - y).abs().max() < 0.15


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("Adafactor", {"lr": -1.0}, "^lr=-1"),
        ("Adafactor", {"beta2_decay": 0.8}, "^beta2_decay=0.8 cannot be used: give a number of at most 0$"),
        ("Adafactor", {"beta2_decay": math.nan}, "^beta2_decay=nan"),
        (
            "Adafactor",
            {"eps": 1e-3},
            "^eps=0.001 cannot be used: give two numbers None or of",
        ),
        ("Adafactor", {"eps": (-1.0, 1e-3)}, "^eps="),
        ("Adafactor", {"eps": (None, -1e-3)}, "^eps="),
        ("Adafactor", {"eps": (1e-3, None)}, "^eps="),
        ("Adafactor", {"eps": (1e-3, math.inf)}, "^eps="),
        ("Adafactor", {"d": 0.5}, "^d=0.5"),
        ("Adafactor", {"weight_decay": -1.0}, "^weight_decay=-1"),
        ("Muon", {"ns_coefficients": (1.0, 2.0)}, "^ns_coefficients=.*three numbers"),
        ("Muon", {"ns_steps": 100}, "^ns_steps=100"),
        ("Muon", {"adjust_lr_fn": "keller"}, "^adjust_lr_fn='keller' does not exist: give original or"),
        ("Muon", {"momentum": -0.5}, "^momentum=-0.5"),
    ],
)
def test_what_is_wrong_is_refused(name, wrong, said):
    """In the constructor, in an added group, and when set in mid-run; then no weight changes."""
    p, q = weights(name), weights(name)
    with pytest.raises(UserError, match=said):
        getattr(ours, name)(p, **wrong)
    optimizer = getattr(ours, name)(p)
    with pytest.raises(UserError, match=said):
        optimizer.add_param_group({"params": q, **wrong})
    assert len(optimizer.param_groups) == 1
    before = train(p, optimizer, 0, 2)
    optimizer.param_groups[0].update(wrong)
    with pytest.raises(UserError, match=said):
        optimizer.step()
    close([x.detach() for x in p], before, 0)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_muon_refuses_what_is_no_matrix(shape):
    """In a sentence that says the shape; a refused group is not there afterwards."""
    p = weights("Muon")
    optimizer = ours.Muon(p)
    with pytest.raises(UserError, match="Muon is for matrices"):
        optimizer.add_param_group({"params": [torch.zeros(shape, requires_grad=True)]})
    assert len(optimizer.param_groups) == 1
    train(p, optimizer, 0, 1)


def test_adafactor_refuses_the_state_of_another_rule():
    """Adam's averages are not taken for squares."""
    p = weights("Adafactor")
    adam, optimizer = ours.Adam(p), ours.Adafactor(p)
    train(p, adam, 0, 2)
    optimizer.state = adam.state
    with pytest.raises(UserError, match="exp_avg"):
        optimizer.step()


def test_adafactor_keeps_less_than_one_number_an_element():
    """That is what it is for: 96 rows and 64 columns are 160 numbers, not 6,144."""
    p = torch.ones(96, 64, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = ours.Adafactor([p])
    optimizer.step()
    assert sum(value.numel() for engine in optimizer.engines() for value in engine.state[0].values()) == 160
