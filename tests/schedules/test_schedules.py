"""Schedules give torch's values where torch has them, and closed forms elsewhere."""

import math
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepwell import schedules

T = torch.optim.lr_scheduler
LR = 0.5
STEPS = 60

lengths = st.integers(1, 50)
factors = st.floats(0.05, 1)
ends = st.floats(0, 0.4)


def torchs(make, steps=STEPS, key="lr"):
    """What torch's scheduler sets at each step, in float64 as all of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's old ways, inside torch
        scheduler, values = make(optimizer), [optimizer.param_groups[0][key]]
        for _ in range(steps - 1):
            optimizer.step()
            scheduler.step()
            values.append(optimizer.param_groups[0][key])
    return values


def same(ours, theirs, steps=STEPS, key="lr"):
    """Equal at every step but for rounding, which torch's recursive forms add up."""
    assert [ours(k) for k in range(steps)] == pytest.approx(torchs(theirs, steps, key), rel=1e-9, abs=1e-12)


@given(every=lengths, factor=factors)
def test_step_is_torchs(every, factor):
    """StepLR."""
    same(schedules.step(LR, every, factor), lambda o: T.StepLR(o, every, factor))


@given(milestones=st.lists(st.integers(1, STEPS), max_size=6), factor=factors)
def test_multi_step_is_torchs(milestones, factor):
    """MultiStepLR, also with a milestone twice."""
    milestones = sorted(milestones)
    same(schedules.multi_step(LR, milestones, factor), lambda o: T.MultiStepLR(o, milestones, factor))


@given(rate=st.floats(-0.05, 0.5))
def test_exponential_is_torchs(rate):
    """ExponentialLR with gamma = e^(−k), down and up."""
    same(schedules.exponential(LR, rate), lambda o: T.ExponentialLR(o, math.exp(-rate)))


@given(steps=lengths, power=st.floats(0.2, 5))
def test_polynomial_is_torchs(steps, power):
    """PolynomialLR, and at its end 0."""
    same(schedules.polynomial(LR, steps, power), lambda o: T.PolynomialLR(o, steps, power))


@given(steps=lengths, start=factors, end=st.floats(0, 1))
def test_linear_is_torchs(steps, start, end):
    """LinearLR from and to any factor; so a line at the start is torch's warm-up."""
    same(schedules.linear(start * LR, steps, end * LR), lambda o: T.LinearLR(o, start, end, steps))


@given(steps=lengths, factor=factors)
def test_two_constants_are_torchs(steps, factor):
    """ConstantLR."""
    ours = schedules.join([schedules.constant(factor * LR), schedules.constant(LR)], [steps])
    same(ours, lambda o: T.ConstantLR(o, factor, steps))


@given(steps=st.integers(1, 200), end=ends)
def test_cosine_is_torchs(steps, end):
    """CosineAnnealingLR until it is down; then torch's rises again and ours stays."""
    same(schedules.cosine(LR, steps, end), lambda o: T.CosineAnnealingLR(o, steps, end), steps + 1)
    assert schedules.cosine(LR, steps, end)(3 * steps) == end


@given(first=st.integers(1, 20), growth=st.integers(1, 4), end=ends)
def test_restarts_are_torchs(first, growth, end):
    """CosineAnnealingWarmRestarts."""
    theirs = lambda o: T.CosineAnnealingWarmRestarts(o, first, growth, end)  # noqa: E731
    same(schedules.restarts(LR, first, growth, end), theirs, 200)


def test_restarts_begin_exactly_where_cycles_end():
    """The n-th cycle begins at first · (3ⁿ − 1) / 2; torch's step(epoch=242) misses it by a logarithm."""
    rate = schedules.restarts(LR, 2, 3)
    for begin in (3**n - 1 for n in range(1, 25)):
        assert rate(begin) == LR and rate(begin - 1) < 0.6 * LR
    assert schedules.restarts(1.0, 10, 1.5)(10 + 7.5) == pytest.approx(0.5)


@given(
    rise=lengths,
    fall=st.none() | lengths,
    kind=st.sampled_from(["triangular", "triangular2", "exp_range"]),
    decay=st.floats(0.9, 1),
    low=ends,
)
def test_cyclical_is_torchs(rise, fall, kind, decay, low):
    """CyclicLR in its three kinds; momentum is the same function, from high to low."""
    gamma = decay if kind == "exp_range" else 1.0

    def theirs(o):
        return T.CyclicLR(o, low, LR, rise, fall, kind, gamma, base_momentum=0.8, max_momentum=0.95)

    same(schedules.cyclical(low, LR, rise, fall, kind, gamma), theirs, 200)
    same(schedules.cyclical(0.95, 0.8, rise, fall, kind, gamma), theirs, 200, "momentum")


@given(
    steps=st.integers(1, 200),
    rise=st.floats(0, 1),
    start=st.floats(1, 50),
    end=st.floats(1, 1e5),
    shape=st.sampled_from(["cosine", "linear"]),
    three=st.booleans(),
)
def test_one_cycle_is_torchs(steps, rise, start, end, shape, three):
    """OneCycleLR in both shapes and with three phases, rate and momentum."""
    rise = rise / 2 if three else rise
    if abs(rise * steps - 1) < 1e-9:
        rise = 0.3  # torch divides by zero where the first phase has no length
    strategy = "cos" if shape == "cosine" else "linear"

    def theirs(o):
        return T.OneCycleLR(
            o,
            LR,
            steps,
            pct_start=rise,
            anneal_strategy=strategy,
            base_momentum=0.7,
            max_momentum=0.95,
            div_factor=start,
            final_div_factor=end,
            three_phase=three,
        )

    same(schedules.one_cycle(LR, steps, rise, start, end, shape, three), theirs, steps)
    momentum = schedules.one_cycle_momentum(steps, rise, 0.95, 0.7, shape, three)
    same(momentum, theirs, steps, "momentum")


def test_one_cycle_without_a_rise():
    """Where the rise has no length, torch divides by zero; ours begins low, and stays after the last step."""
    rate, momentum = schedules.one_cycle(LR, 10, 0.1), schedules.one_cycle_momentum(10, 0.1)
    assert rate(0) == pytest.approx(LR / 25) and momentum(0) == pytest.approx(0.95)
    assert rate(1) == pytest.approx(LR * (1 + math.cos(math.pi / 9)) / 2, rel=1e-5)
    assert rate(9) == rate(99) == pytest.approx(LR / 250_000) and momentum(99) == pytest.approx(0.95)


@given(rate=st.floats(0, 5), step=st.integers(0, 10**6))
def test_inverse_time_is_its_formula(rate, step):
    """η0 / (1 + k t): what torch's LambdaLR gives for that factor."""
    assert schedules.inverse_time(LR, rate)(step) == LR / (1 + rate * step)
    same(schedules.inverse_time(LR, rate), lambda o: T.LambdaLR(o, lambda t: 1 / (1 + rate * t)))


def test_multiplicative_is_torchs():
    """MultiplicativeLR; asked out of order too, and at a fraction of a step."""
    ours = schedules.multiplicative(LR, lambda t: 1 - 1 / (t + 3))
    last = ours(STEPS - 1)
    same(ours, lambda o: T.MultiplicativeLR(o, lambda t: 1 - 1 / (t + 3)))
    assert ours(STEPS - 1) == last and ours(7.9) == ours(7)


@given(rise=st.integers(0, 30), stable=st.integers(0, 30), decay=lengths, end=ends)
def test_warm_up_stable_decay_is_its_formula(rise, stable, decay, end):
    """Each phase by its own formula, written out step by step for the three shapes of the decay."""
    left = {
        "linear": lambda s: 1 - s,
        "1-sqrt": lambda s: 1 - s**0.5,
        "cosine": lambda s: 0.5 + 0.5 * math.cos(math.pi * s),
    }
    for shape, share in left.items():
        wanted = [LR * (t + 1) / (rise + 1) for t in range(rise)] + [LR] * stable
        wanted += [end + (LR - end) * share(k / decay) for k in range(decay + 1)] + [end] * 5
        ours = schedules.warm_up_stable_decay(LR, rise, stable, decay, shape, end)  # type: ignore[arg-type]
        assert [ours(t) for t in range(len(wanted))] == pytest.approx(wanted, rel=1e-12, abs=1e-15)


def test_warm_up_rises_linearly_and_then_follows():
    """After the rise the schedule runs as if it had begun then; without steps it is the schedule."""
    after = schedules.cosine(1.0, 20)
    values = [schedules.warm_up(after, 4)(k) for k in range(24)]
    assert values[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert values[4:] == [after(k) for k in range(20)]
    assert schedules.warm_up(after, 0)(3) == after(3)
    rise = schedules.linear(LR / 5, 4, LR)
    same(schedules.warm_up(schedules.constant(LR), 4), lambda o: T.LinearLR(o, 1 / 5, 1, 4))
    assert [rise(k) for k in range(9)] == pytest.approx(torchs(lambda o: T.LinearLR(o, 1 / 5, 1, 4), 9))


def test_only_the_adapter_loads_torch():
    """`import stepwell.schedules` is pure arithmetic; nothing large is loaded for it."""
    code = "import sys, stepwell.schedules as s; s.cosine(1, 9)(3); s.Plateau(1.0); "
    code += "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules); "
    code += "s.LRScheduler; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
