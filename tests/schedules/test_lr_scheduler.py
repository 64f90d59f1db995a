"""The adapter behaves as torch's LRScheduler, for torch's optimizers and for ours."""

import copy
import io
import warnings

import pytest
import torch

import stepwell as sw
from stepwell import schedules
from stepwell.errors import UserError

T = torch.optim.lr_scheduler


def weights(count=1):
    return [torch.ones(2, requires_grad=True) for _ in range(count)]


def run(optimizer, scheduler, steps, key="lr"):
    """A loop as in torch's tutorials; returns what each group had at each step."""
    seen = []
    for _ in range(steps):
        seen.append([group[key] for group in optimizer.param_groups])
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
        assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    return seen


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, sw.optim.SGD, sw.optim.Adam])
def test_a_loop_sees_torchs_rates(kind):
    """The optimizer has the schedule's value at every step, and all warnings and attributes are torch's."""
    ours, theirs = kind(weights(), lr=0.5), kind(weights(), lr=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler = schedules.LRScheduler(ours, schedules.cosine(0.5, 30, 0.1))
        torchs = T.CosineAnnealingLR(theirs, 30, 0.1)
        assert isinstance(scheduler, T.LRScheduler) and scheduler.last_epoch == 0
        for seen, wanted in zip(run(ours, scheduler, 30), run(theirs, torchs, 30), strict=True):
            assert seen == pytest.approx(wanted)
    assert scheduler.last_epoch == torchs.last_epoch == 30
    assert ours.param_groups[0]["initial_lr"] == 0.5
    early = schedules.LRScheduler(torch.optim.SGD(weights(), lr=1.0), schedules.constant(1.0))
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        early.step()


@pytest.mark.parametrize("kind", [torch.optim.SGD, sw.optim.SGD])
def test_rate_and_momentum_of_one_cycle(kind):
    """A mapping sets several hyperparameters, as OneCycleLR does with the rate and the momentum."""
    ours, theirs = kind(weights(), lr=0.1, momentum=0.9), kind(weights(), lr=0.1, momentum=0.9)
    both = {"lr": schedules.one_cycle(0.5, 40), "momentum": schedules.one_cycle_momentum(40)}
    scheduler, torchs = schedules.LRScheduler(ours, both), T.OneCycleLR(theirs, 0.5, 40)
    for _ in range(39):
        run(ours, scheduler, 1)
        run(theirs, torchs, 1)
        for key in ("lr", "momentum"):
            assert ours.param_groups[0][key] == pytest.approx(theirs.param_groups[0][key], rel=1e-12)


def test_betas_are_beta1_and_beta2():
    """beta1 is cycled as OneCycleLR cycles it in Adam; beta2 stays; a rate without schedule stays too."""
    ours, theirs = torch.optim.Adam(weights(), lr=0.1), torch.optim.Adam(weights(), lr=0.1)
    scheduler = schedules.LRScheduler(ours, {"beta1": schedules.one_cycle_momentum(20)})
    torchs = T.OneCycleLR(theirs, 0.5, 20)
    for _ in range(19):
        assert ours.param_groups[0]["betas"] == pytest.approx(theirs.param_groups[0]["betas"])
        assert ours.param_groups[0]["lr"] == 0.1
        run(ours, scheduler, 1)
        run(theirs, torchs, 1)


def groups():
    first, second = weights(2)
    return torch.optim.SGD([{"params": [first]}, {"params": [second], "lr": 0.1}], lr=1.0)


def test_groups_with_their_own_rates():
    """A list has one schedule for each group; relative ones are factors of each group's own (LambdaLR)."""
    optimizer = groups()
    each = [schedules.constant(0.3), schedules.linear(0.1, 4)]
    seen = run(optimizer, schedules.LRScheduler(optimizer, each), 3)
    assert seen == [pytest.approx([0.3, 0.1 - 0.025 * k]) for k in range(3)]
    ours, theirs = groups(), groups()
    factor = schedules.inverse_time(1.0, 0.5)
    relative = run(ours, schedules.LRScheduler(ours, factor, relative=True), 20)
    assert relative == run(theirs, T.LambdaLR(theirs, factor), 20)


def test_one_schedule_does_not_make_groups_alike():
    """Groups with different rates and one schedule of rates: refused, as their difference would be lost."""
    with pytest.raises(UserError, match=r"that have 1, 0\.1: give a list .* relative=True"):
        schedules.LRScheduler(groups(), schedules.cosine(1.0, 9))


def test_a_group_added_later_is_scheduled_too():
    """As in a run that unfreezes layers: the new group has the schedule, relative to its own rate."""
    optimizer = torch.optim.SGD(weights(), lr=1.0)
    scheduler = schedules.LRScheduler(optimizer, schedules.inverse_time(1.0, 1.0), relative=True)
    run(optimizer, scheduler, 2)
    optimizer.add_param_group({"params": weights(), "lr": 0.6})
    run(optimizer, scheduler, 1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1 / 4)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.6 / 4)


@pytest.mark.parametrize("order", ["optimizer first", "scheduler first", "scheduler alone"])
def test_resume_goes_on(order):
    """Saved and loaded in mid-run, in any order, the values go on; the state is numbers, safe to load."""
    both = {"lr": schedules.one_cycle(0.5, 40), "momentum": schedules.one_cycle_momentum(40)}

    def begin():
        optimizer = torch.optim.SGD(weights(), lr=0.1, momentum=0.9)
        return optimizer, schedules.LRScheduler(optimizer, both)

    optimizer, scheduler = begin()
    run(optimizer, scheduler, 15)
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, resumed = begin()
    for what in {"optimizer first": "os", "scheduler first": "so", "scheduler alone": "s"}[order]:
        again.load_state_dict(saved[0]) if what == "o" else resumed.load_state_dict(saved[1])
    assert resumed.get_last_lr() == scheduler.get_last_lr() and resumed.last_epoch == 15
    assert again.param_groups[0]["momentum"] == optimizer.param_groups[0]["momentum"]
    assert run(again, resumed, 20) == run(optimizer, scheduler, 20)


def test_last_epoch_and_torchs_state():
    """last_epoch goes on as in torch; so does the state that a scheduler of torch's saved."""
    optimizer = torch.optim.SGD(weights(), lr=1.0)
    torchs = T.LinearLR(optimizer, 1.0, 0.0, 50)
    run(optimizer, torchs, 20)
    on = schedules.LRScheduler(optimizer, schedules.linear(1.0, 50), last_epoch=torchs.last_epoch - 1)
    assert on.last_epoch == 20 and on.get_last_lr() == pytest.approx([0.6])
    fresh = torch.optim.SGD(weights(), lr=1.0)
    loaded = schedules.LRScheduler(fresh, schedules.linear(1.0, 50))
    loaded.load_state_dict(torchs.state_dict())
    assert loaded.last_epoch == 20 and fresh.param_groups[0]["lr"] == pytest.approx(0.6)
    with pytest.raises(UserError, match="no initial_lr: load the optimizer's state first"):
        schedules.LRScheduler(torch.optim.SGD(weights(), lr=1.0), schedules.constant(1.0), last_epoch=5)


def test_a_plateau_is_saved_with_the_scheduler():
    """The value at the next step is what the metrics have made of it, also after loading."""
    optimizer = torch.optim.SGD(weights(), lr=1.0)
    plateau = schedules.Plateau(1.0, factor=0.5, patience=0)
    scheduler = schedules.LRScheduler(optimizer, plateau)
    for metric in (3.0, 3.0, 2.0, 2.0):
        plateau.update(metric)
        run(optimizer, scheduler, 1)
    assert optimizer.param_groups[0]["lr"] == 0.25
    fresh = torch.optim.SGD(weights(), lr=1.0)
    loaded = schedules.LRScheduler(fresh, schedules.Plateau(1.0, factor=0.5, patience=0))
    loaded.load_state_dict(copy.deepcopy(scheduler.state_dict()))
    assert fresh.param_groups[0]["lr"] == 0.25
    with pytest.raises(UserError, match="1 Plateau, not 0"):
        schedules.LRScheduler(fresh, schedules.constant(1.0)).load_state_dict(scheduler.state_dict())


def test_a_rate_that_is_a_tensor_stays_one():
    """torch's capturable optimizers read the rate from a tensor: it is filled, not replaced."""
    rate = torch.tensor(1.0)
    optimizer = torch.optim.Adam(weights(), lr=rate, foreach=False)
    scheduler = schedules.LRScheduler(optimizer, schedules.linear(1.0, 4))
    assert optimizer.param_groups[0]["lr"] is rate
    optimizer.step()
    scheduler.step()
    assert rate == 0.75 and scheduler.get_last_lr() == [torch.tensor(0.75)]
    scheduler.load_state_dict({"last_epoch": 2})
    assert optimizer.param_groups[0]["lr"] is rate and rate == 0.5


def test_stands_inside_torchs_sequence():
    """A part of torch's SequentialLR: begins at its own 0, momentum too."""
    optimizer = torch.optim.SGD(weights(), lr=1.0, momentum=0.5)
    both = {"lr": schedules.linear(0.5, 10), "momentum": schedules.linear(0.9, 10)}
    parts = [T.ConstantLR(optimizer, 1.0, 9), schedules.LRScheduler(optimizer, both)]
    run(optimizer, T.SequentialLR(optimizer, parts, [3]), 5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.72)


WRONG = {
    "optimizer": lambda: schedules.LRScheduler(weights(), schedules.constant(1.0)),  # type: ignore[arg-type]
    "function": lambda: schedules.LRScheduler(torch.optim.SGD(weights(), lr=1.0), 0.1),  # type: ignore[arg-type]
    "2 schedules of lr for 1": lambda: schedules.LRScheduler(
        torch.optim.SGD(weights(), lr=1.0), [schedules.constant(1.0)] * 2
    ),
    "did you mean momentum": lambda: schedules.LRScheduler(
        torch.optim.SGD(weights(), lr=1.0), {"momentun": schedules.constant(1.0)}
    ),
    "did you mean beta2": lambda: schedules.LRScheduler(
        torch.optim.Adam(weights()), {"beta3": schedules.constant(1.0)}
    ),
    "no number called nesterov": lambda: schedules.LRScheduler(
        torch.optim.SGD(weights(), lr=1.0), {"nesterov": schedules.constant(1.0)}
    ),
    "at step 0: lr=nan": lambda: schedules.LRScheduler(
        torch.optim.SGD(weights(), lr=1.0), lambda step: float("nan")
    ),
    "has last_epoch": lambda: schedules.LRScheduler(
        torch.optim.SGD(weights(), lr=1.0), schedules.constant(1.0)
    ).load_state_dict({}),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_refused(said):
    """One sentence each."""
    with pytest.raises(UserError, match=said):
        WRONG[said]()


def test_betas_that_are_tensors_stay_so():
    """β1 is filled, and the optimizer takes the new value at its next step."""
    betas = (torch.tensor(0.9), torch.tensor(0.99))
    optimizer = sw.optim.Adam([torch.ones(2, requires_grad=True)], betas=betas)
    scheduler = schedules.LRScheduler(optimizer, {"beta1": lambda t: 0.5 + 0.1 * t})
    optimizer.step()
    scheduler.step()
    assert float(betas[0]) == pytest.approx(0.6)
    assert optimizer.hyperparameters()["beta1"] == pytest.approx(0.6)
