"""The optimizer behaves as torch's does between its steps: copies, state, groups, wrong values."""

import copy
import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from optimizer_classes import LIKE_ADAM
from torch import nn

import stepwell.optim as ours
from stepwell.engine import choose
from stepwell.engine.eager import pack
from stepwell.errors import UserError
from stepwell.optim import checked

pytestmark = pytest.mark.usefixtures("float64_scalars")

MAKES = {
    **LIKE_ADAM,
    "momentum": lambda p: ours.SGD(p, lr=0.1, momentum=0.9),
    "RMSprop both": lambda p: ours.RMSprop(p, momentum=0.9, centered=True),
    "ASGD averaging": lambda p: ours.ASGD(p, lr=0.1, t0=4),
}


def problem():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def train(net, optimizer, start, end):
    for k in range(start, end):
        x = torch.linspace(-1, 1, 20, dtype=torch.float64).view(5, 4) * math.cos(k)
        optimizer.zero_grad()
        (net(x) - x[:, :2].sin()).square().mean().backward()
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("before", [0, 5])
def test_a_deep_copy_goes_on_identically_and_on_its_own(make, before):
    """(model, optimizer) copied in mid-run: copy and original end at the uninterrupted run's weights."""
    whole, net = problem(), problem()
    pack(net.parameters())
    optimizer = make(net.parameters())
    train(net, optimizer, 0, before)
    net2, optimizer2 = copy.deepcopy((net, optimizer))
    expected = train(whole, make(whole.parameters()), 0, 10)
    torch.testing.assert_close(train(net2, optimizer2, before, 10), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(train(net, optimizer, before, 10), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", [name for name in LIKE_ADAM if hasattr(torch.optim, name)])
def test_state_is_torchs_after_each_step(name):
    """state[p] is empty before the first step, then has torch's keys and values; step keeps counting."""
    a, b = problem(), problem()
    one, two = getattr(ours, name)(a.parameters()), getattr(torch.optim, name)(b.parameters())
    assert not one.state
    for k in range(3):
        train(a, one, k, k + 1)
        train(b, two, k, k + 1)
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            mine, theirs = dict(one.state[p]), {k: v for k, v in two.state[q].items() if v is not None}
            if not theirs:  # torch's SGD counts no steps
                mine.pop("step")
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-15)


def test_state_is_the_engines_own_and_can_be_replaced():
    """Writing to a state tensor, and putting in an empty state, act on the next step as in torch."""
    a, b = problem(), problem()
    one, two = ours.Adam(a.parameters()), torch.optim.Adam(b.parameters())
    for net, optimizer in ((a, one), (b, two)):
        train(net, optimizer, 0, 3)
        for p in net.parameters():
            optimizer.state[p]["exp_avg"].zero_()
        train(net, optimizer, 3, 6)
        optimizer.state = type(optimizer.state)(dict)
    torch.testing.assert_close(train(a, one, 6, 9), train(b, two, 6, 9), rtol=1e-12, atol=1e-13)


def test_a_group_added_after_steps_is_torchs():
    """A parameter group added in mid-run starts its own count, and a copy and its state have both."""
    ends = []
    for make in (ours.Adam, torch.optim.Adam):
        net = problem()
        optimizer = make(net[0].parameters(), lr=0.01)
        train(net, optimizer, 0, 4)
        optimizer.add_param_group({"params": net[2].parameters(), "lr": 0.1})
        train(net, optimizer, 4, 8)
        assert [int(s["step"]) for s in optimizer.state.values()] == [8, 8, 4, 4]
        net, optimizer = copy.deepcopy((net, optimizer))
        ends.append(train(net, optimizer, 8, 12))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)


def test_torchs_momentum_is_kept_before_a_step():
    """torch's momentum has no step count: loaded, it is still there when saved again at once."""
    net = problem()
    torchs = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, torchs, 0, 3)
    optimizer = MAKES["momentum"](net.parameters())
    optimizer.load_state_dict(torchs.state_dict())
    optimizer.engines()
    for p in net.parameters():
        assert torch.equal(optimizer.state[p]["momentum_buffer"], torchs.state[p]["momentum_buffer"])


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", -0.1),
        ("betas", [0.9, math.nan]),
        ("weight_decay", math.nan),
    ],
)
def test_a_wrong_value_set_later_is_refused(key, wrong):
    """Set in a group, in a loaded state or in a new group, it is named, and no weight changes."""
    net = problem()
    optimizer = ours.Adam([{"params": [p]} for p in net.parameters()])
    before = train(net, optimizer, 0, 2)
    state = optimizer.state_dict()
    state["param_groups"][1][key] = wrong
    with pytest.raises(UserError, match=key):
        optimizer.load_state_dict(state)
    with pytest.raises(UserError, match=key):
        optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)], key: wrong})
    assert len(optimizer.param_groups) == 4
    right = optimizer.param_groups[1][key]
    optimizer.param_groups[1][key] = wrong
    for _ in range(2):
        with pytest.raises(UserError, match=key):
            train(net, optimizer, 2, 3)
    assert torch.equal(before, torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
    optimizer.param_groups[1][key] = right
    assert not torch.equal(before, train(net, optimizer, 2, 3))


def test_betas_changed_in_place_are_refused():
    """A list of betas is checked by what it holds now."""
    net = problem()
    optimizer = ours.Adam(net.parameters(), betas=[0.9, 0.99])  # type: ignore[arg-type]
    train(net, optimizer, 0, 2)
    optimizer.param_groups[0]["betas"][1] = 1.5
    with pytest.raises(UserError, match="betas"):
        train(net, optimizer, 2, 3)


@pytest.mark.parametrize("into", ["SGD", "momentum", "Adagrad"])
def test_the_state_of_another_rule_is_refused(into):
    """Adam's averages are neither dropped nor taken for a velocity."""
    net = problem()
    adam = MAKES["Adam"](net.parameters())
    train(net, adam, 0, 2)
    optimizer = MAKES[into](net.parameters())
    optimizer.state = adam.state
    with pytest.raises(UserError, match="exp_avg"):
        train(net, optimizer, 2, 3)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_complex_parameters_and_sparse_gradients_are_refused(make):
    """What torch's rules treat in another way, ours refuse in a sentence instead of computing otherwise."""
    with pytest.raises(UserError, match="complex"):
        make([torch.zeros(3, dtype=torch.complex64, requires_grad=True)])
    table = nn.Embedding(4, 3, sparse=True)
    optimizer = make(table.parameters())
    if optimizer.rule_of(optimizer.param_groups[0]) in optimizer.lazy:
        return  # see test_sparse
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(UserError, match="sparse"):
        optimizer.step()


def test_a_refused_parameter_leaves_the_groups_as_they_were():
    """A complex parameter in a new group is refused, and the optimizer goes on without that group."""
    net = problem()
    optimizer = ours.Adam(net.parameters())
    with pytest.raises(UserError, match="complex"):
        optimizer.add_param_group({"params": [torch.zeros(3, dtype=torch.complex64, requires_grad=True)]})
    assert len(optimizer.param_groups) == 1
    train(net, optimizer, 0, 1)


def test_adaptive_clipping_is_the_same_under_a_grad_scaler():
    """Gradients that a GradScaler has enlarged are clipped by what they are without it."""
    ends = []
    for scaled in (False, True):
        net = problem()
        optimizer = ours.SGD(net.parameters(), lr=0.1, clip_adaptive=0.05)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)  # type: ignore[attr-defined]
        for k in range(10):
            x = torch.linspace(-1, 1, 20, dtype=torch.float64).view(5, 4) * math.cos(k)
            optimizer.zero_grad()
            scaler.scale((net(x) - x[:, :2].sin()).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-10)
    plain = problem()
    optimizer = ours.SGD(plain.parameters(), lr=0.1)
    assert (train(plain, optimizer, 0, 10) - ends[0]).abs().max() > 1e-3


def test_a_schedule_goes_on_after_torchs_state():
    """State made by torch, which counts no updates of a group, puts a schedule where its steps are."""

    def rate(step: float) -> float:
        return 0.1 / (1 + step)

    net = problem()
    first = ours.Adam(net.parameters(), lr=rate)
    train(net, first, 0, 3)
    torchs = torch.optim.Adam(net.parameters())
    torchs.load_state_dict(first.state_dict())
    train(net, torchs, 3, 5)
    again = ours.Adam(net.parameters(), lr=rate)
    again.load_state_dict(torchs.state_dict())
    train(net, again, 5, 6)
    assert again.hyperparameters()["lr"] == 0.1 / 6
    fresh = torch.optim.Adam(net.parameters(), lr=0.5)
    train(net, fresh, 0, 2)
    again.load_state_dict(fresh.state_dict())
    train(net, again, 2, 3)
    assert again.hyperparameters()["lr"] == 0.1 / 3


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        ({"clip_nrom": 1.0}, "a parameter group of Adam has clip_nrom; did you mean clip_norm?"),
        ({"engine": "eager"}, "engine is of the whole optimizer, not of a group: give it to the constructor"),
    ],
)
def test_what_a_group_cannot_have_is_refused(group, sentence):
    """A misspelt hyperparameter and what belongs to the whole optimizer; other keys are the user's own."""
    p = torch.zeros(2, requires_grad=True)
    with pytest.raises(UserError, match=re.escape(sentence)):
        ours.Adam([{"params": [p], **group}])
    ours.Adam([{"params": [p], "name": "head", "layer": 3}])


def clone_storage(state):
    for value in state.values():
        value.data = value.data.clone()


MOVES = {
    "shared memory": lambda state: [value.share_memory_() for value in state.values()],
    "other storage": clone_storage,
    "other tensors": lambda state: state.update({name: value.clone() for name, value in state.items()}),
}


@pytest.mark.parametrize("engine", ["fused", "eager"])
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_state_moved_by_the_program_is_followed(move, engine):
    """Its tensors moved, shared or replaced by copies between steps: torch's trajectory all the same."""
    ends = []
    for make in (lambda p: ours.Adam(p, lr=0.1, engine=engine), lambda p: torch.optim.Adam(p, lr=0.1)):
        p = torch.linspace(-1, 1, 7, dtype=torch.float64).requires_grad_()
        optimizer = make([p])
        for step in range(6):
            p.grad = (p * (step + 1)).detach().sin()
            optimizer.step()
            for state in optimizer.state.values():
                move(state)
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("engine", ["fused", "eager"])
def test_state_that_is_cleared_starts_again(engine):
    """`state.clear()` forgets the momentum, as in torch."""
    ends = []
    for kind, extra in ((ours.SGD, {"engine": engine}), (torch.optim.SGD, {})):
        p = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        optimizer = kind([p], lr=0.1, momentum=0.9, **extra)
        for sign in (1.0, -1.0):
            p.grad = sign * torch.ones_like(p)
            optimizer.step()
            optimizer.state.clear()
        ends.append(p.detach().clone())
    torch.testing.assert_close(*ends)


@pytest.mark.parametrize("engine", ["fused", "eager"])
def test_another_parameter_in_the_group_and_another_view_of_it(engine):
    """A parameter replaced in its group, transposed in place, or cut down is what the next step moves."""
    p = torch.ones(3, 3, requires_grad=True)
    optimizer = ours.SGD([p], lr=1.0, engine=engine)
    p.grad = torch.zeros(3, 3)
    optimizer.step()
    p.data = p.data.t()
    p.grad = torch.arange(9.0).reshape(3, 3)
    optimizer.step()
    torch.testing.assert_close(p.detach(), 1 - torch.arange(9.0).reshape(3, 3))
    whole = torch.zeros(100)
    p.data = whole
    p.grad = torch.zeros(100)
    optimizer.step()
    p.data = whole[:8]
    p.grad = torch.ones(8)
    optimizer.step()
    assert whole[:8].eq(-1).all() and whole[8:].eq(0).all()
    q = torch.zeros(2, requires_grad=True)
    optimizer.param_groups[0]["params"][0] = q
    q.grad = torch.ones(2)
    optimizer.step()
    assert q.detach().eq(-1).all()


@pytest.mark.parametrize("engine", ["fused", "eager"])
def test_gradients_whose_memory_is_not_what_they_say(engine):
    """Negative-bit views and zero tensors without memory are read as their values."""
    p = torch.ones(3, requires_grad=True)
    optimizer = ours.SGD([p], lr=1.0, engine=engine)
    p.grad = torch._neg_view(torch.ones(3))  # pyright: ignore[reportPrivateImportUsage]
    optimizer.step()
    assert p.detach().eq(2).all()
    p.grad = torch._efficientzerotensor(3)  # pyright: ignore[reportPrivateImportUsage]
    optimizer.step()
    assert p.detach().eq(2).all()


def test_a_large_gradient_does_no_lasting_harm():
    """One gradient whose square float32 cannot hold, then ordinary ones: torch's numbers, and no NaN."""
    ends = []
    for make in (ours.Adam, torch.optim.Adam):
        p = torch.ones(3, requires_grad=True)
        optimizer = make([p], lr=0.1)
        for g in (torch.tensor([1.0, 3e19, 1e20]), torch.ones(3), torch.ones(3)):
            p.grad = g
            optimizer.step()
        ends.append(p.detach())
    assert ends[0].isfinite().all()
    torch.testing.assert_close(*ends)


def test_a_step_inside_the_averages_is_refused():
    """The weights would be lost at the end of the block."""
    p = torch.ones(3, requires_grad=True)
    optimizer = ours.SGD([p], lr=1.0, ema=0.9)
    p.grad = torch.ones(3)
    optimizer.step()
    with optimizer.averaged(), pytest.raises(UserError, match="step after the block"):
        optimizer.step()
    optimizer.step()


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_values_set_between_two_steps_count_at_the_next(engine):
    """Numbers, tuples, tensors changed in place and extras: as in an optimizer made with them."""
    changes: list[dict[str, Any]] = [
        {"lr": 0.03},
        {"betas": (0.5, 0.9)},
        {"weight_decay": 0.2},
        {"clip_norm": 0.1, "l1": 0.01},
        {"l1": 0.0, "clip_value": 1e-3},
        {"lr": torch.tensor(0.05, dtype=torch.float64), "betas": (torch.tensor(0.5), torch.tensor(0.9))},
        {},  # below these tensors are changed in place
        {"maximize": True, "clip_value": None, "clip_norm": None},
        {},
    ]
    one, two = ([torch.ones(4, dtype=torch.float64, requires_grad=True)] for _ in range(2))
    first = ours.Adam(one, lr=0.1, engine=engine)
    values: dict[str, Any] = {"lr": 0.1}
    state = None
    for k, change in enumerate(changes):
        first.param_groups[0].update(change)
        values.update(change)
        if k == 6:
            values["lr"].mul_(0.5)
            values["betas"][0].fill_(0.25)
        second = ours.Adam(two, **values, engine=engine)
        if state is not None:
            second.load_state_dict({**second.state_dict(), "state": state})
        for (p,), optimizer in ((one, first), (two, second)):
            p.grad = torch.sin(p.detach() + k)
            optimizer.step()
        state = second.state_dict()["state"]
        torch.testing.assert_close(*one, *two, rtol=1e-14, atol=0)


def test_a_first_step_in_inference_mode():
    """The state it makes is changed by the steps outside."""
    w = torch.ones(3, requires_grad=True)
    optimizer = ours.Adam([w])
    w.grad = torch.ones(3)
    with torch.inference_mode():
        optimizer.step()
    optimizer.step()
    assert int(optimizer.state[w]["step"]) == 2


@pytest.mark.parametrize("kind", [ours.AdamW, ours.ScheduleFreeAdamW])
def test_torch_compile_around_a_step(kind):
    """A compiled function steps as the plain one does."""
    nets = [problem(), problem()]
    x = torch.linspace(-1, 1, 20, dtype=torch.float64).view(5, 4)
    for k, net in enumerate(nets):
        optimizer = kind(net.parameters(), lr=0.1, clip_norm=0.1)

        def step(net=net, optimizer=optimizer):
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()

        run = torch.compile(step, backend="eager") if k else step
        for _ in range(4):
            run()
    for p, q in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-15)


def test_an_engine_that_cannot_run_says_so_once(monkeypatch):
    """With the reason; not where the eager engine was asked for."""
    monkeypatch.setattr(choose, "_said", set())
    memory = torch.zeros(6)

    def steps(kind, **extras):
        views = [memory[:4].requires_grad_(), memory[2:].requires_grad_()]
        optimizer = kind(views, lr=0.1, **extras)
        for p in views:
            p.grad = torch.ones(4)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            optimizer.step()
        return [str(w.message) for w in said]

    assert steps(ours.SGD) == ["sgd runs on the eager engine here: two parameters share memory"]
    assert steps(ours.SGD) == steps(ours.SGD, engine="eager") == steps(ours.LAMB, engine="eager") == []
    assert steps(ours.LAMB) == ["lamb runs on the eager engine here: it needs whole tensors"]
    assert steps(ours.LAMB, engine="fused") == []


def test_a_group_merged_into_another_takes_its_state_along():
    """What was the second group's goes on in the first; its own engine is gone."""
    results = []
    for library in (torch.optim, ours):
        a, b = (torch.full((3,), v, dtype=torch.float64, requires_grad=True) for v in (1.0, 2.0))
        optimizer = library.Adam([{"params": [a]}, {"params": [b]}], lr=0.1)
        for k in range(8):
            if k == 3:
                optimizer.param_groups[0]["params"].append(b)
                optimizer.param_groups.pop()
            for p in (a, b):
                p.grad = torch.sin(p.detach() + k)
            optimizer.step()
            optimizer.state_dict()
        results.append((a, b, optimizer.state[b]["exp_avg"], float(optimizer.state[b]["step"])))
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_an_average_switched_on_and_off(engine):
    """From then on it is kept, from the weights as they are; and is no more where it is off."""
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = ours.SGD([w], lr=0.1, engine=engine)
    seen = []
    for k in range(6):
        optimizer.param_groups[0]["ema"] = 0.5 if k in (2, 3) else None
        w.grad = torch.ones_like(w)
        before = w.detach().clone()
        optimizer.step()
        if k in (2, 3):
            seen = [0.5 * (seen[0] if seen else before) + 0.5 * w.detach()]
            torch.testing.assert_close(optimizer.state[w]["ema"], seen[0], rtol=1e-14, atol=0)
    torch.testing.assert_close(w.detach(), torch.full_like(w, 0.4), rtol=1e-14, atol=0)
    with pytest.raises(UserError, match="there is no average"), optimizer.averaged():
        pass


def test_weights_whose_memory_is_not_what_they_say():
    """A negated view and an expanded weight: as the eager engine has them."""
    for engine in ("eager", "auto"):
        w = torch._neg_view(torch.arange(5, dtype=torch.float64))  # pyright: ignore[reportPrivateImportUsage]
        w.requires_grad_()
        w.grad = torch.ones(5, dtype=torch.float64)
        ours.SGD([w], lr=0.1, engine=engine).step()
        torch.testing.assert_close(w.detach(), -torch.arange(5, dtype=torch.float64) - 0.1)
        w = torch.ones(1, dtype=torch.float64).expand(4).requires_grad_()
        w.grad = torch.ones(4, dtype=torch.float64)
        optimizer = ours.SGD([w], lr=0.1, momentum=0.9, engine=engine)
        with pytest.raises(RuntimeError, match="single memory location"):
            optimizer.step()


def test_the_state_of_another_class_is_refused_when_it_is_loaded():
    """Nothing is changed by what does not fit."""
    w = torch.ones(3, requires_grad=True)
    other = torch.optim.SGD([w], momentum=0.9)
    w.grad = torch.ones(3)
    other.step()
    optimizer = ours.AdamW([w], lr=0.5)
    with pytest.raises(UserError, match="momentum_buffer"):
        optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.5 and not optimizer.state


def test_a_scheduler_beside_a_schedule_is_warned_of(monkeypatch):
    """Its value would be replaced at the next update."""
    monkeypatch.setattr(checked, "_said", set())
    w = torch.ones(3, requires_grad=True)
    optimizer = ours.SGD([w], lr=lambda t: 0.1 / (1 + t))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    w.grad = torch.ones(3)
    optimizer.step()
    scheduler.step()
    with pytest.warns(RuntimeWarning, match="lr is a schedule of the optimizer's"):
        optimizer.step()


def test_numpys_numbers_are_numbers():
    """As in torch; words are none, and truth values are asked for where they are meant."""
    w = torch.ones(3, requires_grad=True)
    optimizer = ours.SGD([w], lr=np.float32(0.5))  # type: ignore[arg-type]
    w.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(w.detach(), torch.full((3,), 0.5))
    wrongs: list[dict[str, Any]] = [{"maximize": "no"}, {"decoupled": "False"}, {"lr": np.array("0.1")}]
    for wrong in wrongs:
        with pytest.raises(UserError, match=next(iter(wrong))):
            ours.SGD([w], **wrong)
