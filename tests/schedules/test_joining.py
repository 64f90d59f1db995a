"""Functions that join schedules give what torch's joined schedulers are meant to give."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepwell import schedules

T = torch.optim.lr_scheduler
LR, STEPS = 0.5, 40

# Each of torch's schedulers, and the same as a function.
PARTS = {
    "step": (lambda o: T.StepLR(o, 3, 0.5), schedules.step(LR, 3, 0.5)),
    "exponential": (lambda o: T.ExponentialLR(o, 0.9), schedules.exponential(LR, -math.log(0.9))),
    "polynomial": (lambda o: T.PolynomialLR(o, 50, 2.0), schedules.polynomial(LR, 50, 2.0)),
    "linear": (lambda o: T.LinearLR(o, 0.2, 1.0, 4), schedules.linear(0.2 * LR, 4, LR)),
    "cosine": (lambda o: T.CosineAnnealingLR(o, 50, 0.1), schedules.cosine(LR, 50, 0.1)),
    "restarts": (lambda o: T.CosineAnnealingWarmRestarts(o, 3, 2), schedules.restarts(LR, 3, 2)),
    "inverse": (lambda o: T.LambdaLR(o, lambda t: 1 / (1 + t)), schedules.inverse_time(LR, 1)),
}


def torchs(make):
    """The rates that torch's scheduler sets."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler, values = make(optimizer), []
        for _ in range(STEPS):
            values.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return values


@given(
    names=st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=4),
    lengths=st.lists(st.integers(1, 12), min_size=3, max_size=3),
)
def test_join_is_sequential(names, lengths):
    """Any of torch's schedulers one after the other, each from its own 0 (SequentialLR).

    That torch's recursive parts do this is recent: pytorch issues 67586 (wrong first values) and 116776
    (a warning about a call that the user did not write).
    """
    boundaries = [sum(lengths[:k]) for k in range(1, len(names))]
    ours = schedules.join([PARTS[name][1] for name in names], boundaries)
    theirs = torchs(lambda o: T.SequentialLR(o, [PARTS[name][0](o) for name in names], boundaries))
    assert [ours(k) for k in range(STEPS)] == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_joins_stand_inside_joins():
    """Closed forms, where torch 2.13's SequentialLR errs: nested (pytorch issue 196243), and with parts that
    change the first rate of all (OneCycleLR) or go on from the rate before (MultiplicativeLR)."""
    inner = schedules.join([schedules.constant(0.25), schedules.constant(0.1)], [2])
    assert [schedules.join([inner], [])(k) for k in range(4)] == [0.25, 0.25, 0.1, 0.1]
    outer = schedules.join([schedules.constant(0.5), inner], [3])
    assert [outer(k) for k in range(7)] == [0.5, 0.5, 0.5, 0.25, 0.25, 0.1, 0.1]
    rise = schedules.join([schedules.linear(0.1, 4, 0.5), schedules.one_cycle(0.5, 10)], [4])
    assert [rise(0), rise(2), rise(4), rise(6)] == pytest.approx([0.1, 0.3, 0.02, 0.5])
    parts = [schedules.exponential(0.5, math.log(2)), schedules.multiplicative(0.5, lambda t: 0.9)]
    assert [schedules.join(parts, [3])(k) for k in (2, 3, 5)] == pytest.approx([0.125, 0.5, 0.405])
    assert schedules.join([schedules.constant(1), schedules.constant(2)], [0])(0) == 2


@given(
    names=st.lists(st.sampled_from(["step", "exponential", "linear", "polynomial"]), min_size=1, max_size=3)
)
def test_chain_is_the_product(names):
    """ChainedScheduler of schedulers that multiply the rate: one rate, the others as factors of 1."""
    rate, *factors = [PARTS[name][1] for name in names]
    ours = schedules.chain([rate, *(schedules.scale(factor, 1 / LR) for factor in factors)])
    theirs = torchs(lambda o: T.ChainedScheduler([PARTS[name][0](o) for name in names]))
    assert [ours(k) for k in range(STEPS)] == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_chain_and_scale_are_products_of_anything():
    """Closed form with restarts and an end above 0, where torch's is no product (pytorch issue 129565)."""
    parts = [schedules.restarts(0.5, 4), schedules.step(1, 2, 0.5), schedules.cosine(1, 9, 0.1)]
    for t in range(20):
        wanted = 0.25 * (1 + math.cos(math.pi * (t % 4) / 4)) * 0.5 ** (t // 2)
        wanted *= 0.1 + 0.45 * (1 + math.cos(math.pi * min(t, 9) / 9))
        assert schedules.chain(parts)(t) == pytest.approx(wanted, rel=1e-12)
        assert schedules.scale(schedules.chain(parts), 3)(t) == pytest.approx(3 * wanted, rel=1e-12)
