"""Schedule-free SGD, AdamW and RAdam, against the three sequences z, x, y of Defazio et al. 2024."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from trajectories import ENGINES, assert_same, by_optimizer, by_paper, gradient, rate, start

from stepwell.errors import UserError
from stepwell.optim import ScheduleFreeAdamW, ScheduleFreeRAdam, ScheduleFreeSGD

BETA, BETA2, EPS, DECAY = 0.85, 0.9, 1e-3, 0.1


def sequences(direction, r=0.0, power=2.0):
    """z, x and y all kept, as in the paper; direction: (y, g, t, η) → (d, γ)."""

    def begin():
        z: Any = None
        x: Any = None
        weight_sum, largest, own = 0.0, 0.0, direction()

        def step(y, g, t, lr):
            nonlocal z, x, weight_sum, largest
            if z is None:
                z = x = y
            d, gamma = own(y, g, t, lr)
            z = z - gamma * d
            largest = max(largest, gamma)
            weight = t**r * largest**power
            weight_sum += weight
            c = weight / weight_sum if weight_sum else 0.0
            x = (1 - c) * x + c * z
            step.x = x
            return (1 - BETA) * z + BETA * x

        return step

    return begin


def sgd(warmup):
    return lambda: lambda y, g, t, lr: (g + DECAY * y, lr * min(1, t / warmup))


def adamw(warmup):
    def begin():
        v = 0.0

        def direction(y, g, t, lr):
            nonlocal v
            v = BETA2 * v + (1 - BETA2) * g**2
            gamma = lr * math.sqrt(1 - BETA2**t) * min(1, t / warmup)
            return g / (np.sqrt(v) + EPS) + DECAY * y, gamma

        return direction

    return begin


def radam(silent):
    def begin():
        v = 0.0

        def direction(y, g, t, lr):
            nonlocal v
            v = BETA2 * v + (1 - BETA2) * g**2
            rho_inf = 2 / (1 - BETA2) - 1
            rho = rho_inf - 2 * t * BETA2**t / (1 - BETA2**t)
            if rho <= 4:
                return g + DECAY * y, 0.0 if silent else lr
            rect = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            return g / (np.sqrt(v / (1 - BETA2**t)) + EPS) + DECAY * y, lr * rect

        return direction

    return begin


COMMON = {"weight_decay": DECAY}
ADAM = {"betas": (BETA, BETA2), "eps": EPS, **COMMON}
CASES = {
    "sgd": (ScheduleFreeSGD, {"momentum": BETA, **COMMON}, sequences(sgd(1))),
    "sgd, both decays": (
        ScheduleFreeSGD,
        {"momentum": BETA, "weight_decay": DECAY / 2, "decay": DECAY / 2},
        sequences(sgd(1)),
    ),
    "sgd, warm-up": (ScheduleFreeSGD, {"momentum": BETA, "warmup_steps": 15, **COMMON}, sequences(sgd(15))),
    "sgd, weights": (
        ScheduleFreeSGD,
        {"momentum": BETA, "r": 1.5, "weight_lr_power": 0.5, **COMMON},
        sequences(sgd(1), 1.5, 0.5),
    ),
    "adamw": (ScheduleFreeAdamW, ADAM, sequences(adamw(1))),
    "adamw, warm-up": (ScheduleFreeAdamW, {**ADAM, "warmup_steps": 12, "r": 1.0}, sequences(adamw(12), 1.0)),
    "radam": (ScheduleFreeRAdam, ADAM, sequences(radam(True))),
    "radam, loud": (ScheduleFreeRAdam, {**ADAM, "silent_sgd_phase": False}, sequences(radam(False))),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_taken_at_y(case, engine):
    """The parameters hold y after each of 40 steps with a changing rate and missing gradients."""
    kind, options, algorithm = CASES[case]
    gap = {(1, 1), (2, 1), (20, 0)}
    ours = by_optimizer(lambda p: kind(p, engine=engine, **options), gap=gap)
    assert_same(ours, by_paper(algorithm, gap=gap), rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_eval_shows_the_average_and_train_goes_back(case):
    """eval() puts x in the parameters, train() y to its last bit; a second call changes nothing."""
    kind, options, algorithm = CASES[case]
    p = torch.tensor(start()[0], requires_grad=True)
    optimizer, step, y = kind([p], **options), algorithm(), start()[0]
    optimizer.eval()  # before the first step x is y
    assert np.array_equal(p.detach().numpy(), y)
    optimizer.train()
    for k in range(30):
        optimizer.param_groups[0]["lr"] = rate(k)
        p.grad = torch.tensor(gradient(0, p.detach().numpy(), k))
        optimizer.step()
        y = step(y, gradient(0, y, k), k + 1, rate(k))
    held = p.detach().clone()
    for _ in range(2):
        optimizer.eval()
        np.testing.assert_allclose(p.detach().numpy(), step.x, rtol=1e-9)
    for _ in range(2):
        optimizer.train()
        assert torch.equal(p.detach(), held)


def one(kind: Any = ScheduleFreeAdamW, **options):
    p = torch.tensor([1.0, -2.0], requires_grad=True)
    return p, kind([p], lr=0.1, **options)


def go(p, optimizer, steps):
    for k in range(steps):
        p.grad = torch.sin(p.detach() + k)
        optimizer.step()


@pytest.mark.parametrize("kind", [ScheduleFreeSGD, ScheduleFreeAdamW, ScheduleFreeRAdam])
def test_the_wrong_mode_is_refused(kind):
    """In eval mode a step, a checkpoint and new parameters are refused, and nothing has changed."""
    p, optimizer = one(kind)
    go(p, optimizer, 8)
    optimizer.eval()
    shown = p.detach().clone()
    with pytest.raises(UserError, match=r"call optimizer\.train\(\) before the forward pass"):
        go(p, optimizer, 1)
    with pytest.raises(UserError, match=r"call optimizer\.train\(\) before saving"):
        optimizer.state_dict()
    with pytest.raises(UserError, match="train mode"):
        optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)]})
    assert torch.equal(p.detach(), shown)
    optimizer.train()
    optimizer.state_dict()
    go(p, optimizer, 1)


def test_evaluating_in_between_changes_nothing():
    """A run with eval() and train() between its steps ends at the same bits as one without."""
    (p, a), (q, b) = one(), one()
    for _ in range(10):
        go(p, a, 2)
        a.eval()
        a.train()
        go(q, b, 2)
    assert torch.equal(p, q)


def test_a_checkpoint_of_train_mode_resumes_exactly():
    """Model and optimizer saved in train mode go on as if never stopped, also loaded into eval mode."""
    (p, a), (q, b) = one(), one()
    go(p, a, 9)
    saved = {"p": p.detach().clone(), "optimizer": copy.deepcopy(a.state_dict())}
    go(p, a, 9)
    go(q, b, 2)
    b.eval()
    with torch.no_grad():
        q.copy_(saved["p"])
    b.load_state_dict(saved["optimizer"])
    go(q, b, 9)
    assert torch.equal(p, q)


def test_a_copy_in_eval_mode_is_in_eval_mode():
    """Copied with its parameters while it shows x, it goes back to the same y."""
    p, optimizer = one()
    go(p, optimizer, 9)
    held = p.detach().clone()
    optimizer.eval()
    q, copied = copy.deepcopy((p, optimizer))
    with pytest.raises(UserError, match="train"):
        copied.step()
    copied.train()
    assert torch.equal(q.detach(), held) and not torch.equal(p.detach(), held)


def test_bfloat16_weights_have_the_same_average():
    """x of bfloat16 weights is computed in float32 from y and z as they are."""
    p = torch.tensor([1.0, -2.0], dtype=torch.bfloat16, requires_grad=True)
    optimizer = ScheduleFreeSGD([p], lr=0.1)
    go(p, optimizer, 12)
    y, z = p.detach().float(), optimizer.state[p]["z"].float()
    optimizer.eval()
    assert torch.equal(p.detach(), ((y - 0.1 * z) / 0.9).bfloat16())


def test_what_has_no_average_is_refused():
    """β = 0 and l1 are refused at the start and when set later."""
    with pytest.raises(UserError, match="momentum=0"):
        one(ScheduleFreeSGD, momentum=0.0)
    with pytest.raises(UserError, match="beta1=0"):
        one(betas=(0.0, 0.9))
    with pytest.raises(UserError, match="l1="):
        one(l1=0.1)
    p, optimizer = one()
    optimizer.param_groups[0]["l1"] = 0.1
    with pytest.raises(UserError, match="l1="):
        go(p, optimizer, 1)
