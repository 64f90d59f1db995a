"""The rules that torch lacks give the same numbers however they are run."""

import math
from typing import Any

import pytest
import torch

import stepwell.optim as ours

MAKES: dict[str, Any] = {
    "RMS": lambda p, **h: ours.RMS(p, lr=0.02, **h),
    "NesterovClassic": lambda p, **h: ours.NesterovClassic(p, lr=0.02, **h),
    "Adam uncorrected": lambda p, **h: ours.Adam(p, lr=0.02, bias_correction=False, **h),
    "Adam inside": lambda p, **h: ours.Adam(p, lr=0.02, eps_inside=True, **h),
    "AdamThenSGD": lambda p, **h: ours.AdamThenSGD(p, lr=0.02, threshold=0.05, **h),
    "Lion": lambda p, **h: ours.Lion(p, lr=0.02, **h),
    "AdEMAMix": lambda p, **h: ours.AdEMAMix(p, lr=0.02, alpha_warmup=10, beta3_warmup=20, **h),
    "Adan": lambda p, **h: ours.Adan(p, lr=0.02, **h),
    "Prodigy": lambda p, **h: ours.Prodigy(p, d0=1e-2, **h),
    "ScheduleFreeSGD": lambda p, **h: ours.ScheduleFreeSGD(p, lr=0.02, warmup_steps=5, **h),
    "ScheduleFreeAdamW": lambda p, **h: ours.ScheduleFreeAdamW(p, lr=0.02, **h),
    "ScheduleFreeRAdam": lambda p, **h: ours.ScheduleFreeRAdam(p, lr=0.02, **h),
}
EVERYTHING: dict[str, Any] = {
    "clip_norm": 1.0,
    "clip_value": 0.5,
    "weight_decay": 0.1,
    "decay": 0.05,
    "ema": 0.9,
    "maximize": True,
}


def run(make, dtype=torch.float64, steps=24, overflows=False, **options):
    """The weights and the optimizer after `steps`; with overflows every third is done after one skipped."""
    torch.manual_seed(0)
    parameters = [torch.randn(shape).to(dtype).requires_grad_() for shape in ((3, 4), (5,), ())]
    optimizer = make(parameters, **options)
    for k in range(steps):
        for wrong in (True, False) if overflows and k % 3 == 1 else (False,):
            for p in parameters:
                p.grad = torch.sin(2 * p.detach() + k) * (math.inf if wrong else 1.0)
            if overflows:  # as a GradScaler does around a step
                optimizer.found_inf, optimizer.grad_scale = torch.tensor(float(wrong)), None
            optimizer.step()
    return parameters, optimizer


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)], ids=str
)
@pytest.mark.parametrize("name", MAKES)
def test_fused_is_eager(name, dtype, tolerance):
    """Weights and state agree after 24 steps, with everything that is folded into the update."""
    (a, one), (b, two) = (run(MAKES[name], dtype, engine=e, **EVERYTHING) for e in ("eager", "fused"))
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(one.state[p], two.state[q], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("engine", ["eager", "fused"])
@pytest.mark.parametrize("name", MAKES)
def test_skipped_updates_leave_no_trace(name, engine):
    """Updates that a GradScaler skips change neither weights nor state nor the count of steps."""
    (a, one), (b, two) = (run(MAKES[name], overflows=o, engine=engine) for o in (False, True))
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(one.state[p], two.state[q], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", ["eager", "fused"])
@pytest.mark.parametrize("name", MAKES)
def test_state_is_of_the_type_asked_for(name, engine):
    """state_dtype holds for all state with a value for each element, copies of the weights among it."""
    parameters, optimizer = run(MAKES[name], torch.bfloat16, engine=engine, state_dtype=torch.float32)
    for p in parameters:
        elements = {s.name for s in optimizer.rule_of(optimizer.param_groups[0]).state if not s.scalar}
        assert {optimizer.state[p][key].dtype for key in elements} == {torch.float32}


@pytest.mark.parametrize("name", MAKES)
def test_a_checkpoint_resumes_to_the_last_bit(name):
    """float32 weights with a new optimizer that loads the state end where the uninterrupted run does."""
    whole, _ = run(MAKES[name], torch.float32, steps=24)
    parameters, first = run(MAKES[name], torch.float32, steps=13)
    second = MAKES[name](parameters)
    second.load_state_dict(first.state_dict())
    for k in range(13, 24):
        for p in parameters:
            p.grad = torch.sin(2 * p.detach() + k)
        second.step()
    assert all(map(torch.equal, whole, parameters))
