"""K models in one engine are K models in engines of their own."""

from typing import Any

import pytest
import torch

from stepwell.engine.eager import Eager
from stepwell.engine.fused import Fused
from stepwell.engine.stacked import Stacked
from stepwell.engine.state import Unsupported
from stepwell.engine.sums import add_up
from stepwell.engine.text import Folded
from stepwell.rules import RULES

K, STEPS = 5, 20
SHAPES = [(4, 3), (3,), (), (2, 3, 3)]


def draw(seed, dtype):
    torch.manual_seed(seed)
    return [torch.randn(K, *shape, dtype=torch.float64).to(dtype) for shape in SHAPES]


def own_values(rule):
    """Hyperparameters and foldings that differ between the members."""
    spread = torch.linspace(0.8, 1.0, K, dtype=torch.float64)
    # Counts (of iterations, or of steps between two refreshes) are whole and everybody's.
    h = {n: v if isinstance(v, int) and v > 1 else v * spread for n, v in rule.defaults.items()}
    folded = {
        "scale": 2 * spread,
        "clip_value": 1.5 * spread,
        "l2": 0.1 * spread,
        "decay": 0.05 * spread,
        "l1": 0.01 * spread,
        "ema": 0.9 * spread,
    }
    return h, folded


def member(values, k):
    return {name: float(v[k]) if isinstance(v, torch.Tensor) else v for name, v in values.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [Fused, Stacked])
@pytest.mark.parametrize("name", RULES)
def test_stacked_equals_separate_engines(name, kind, dtype):
    """Every hyperparameter, the clipping, decays, L1 and average of each member are its own."""
    rule = RULES[name]
    h, folded = own_values(rule)
    stacked = draw(0, dtype)
    apart = [[p[k].clone() for p in stacked] for k in range(K)]
    try:
        engine = kind(rule, stacked, h, average=True, members=K)
    except Unsupported:
        assert not rule.elementwise
        return
    engines = [Eager(rule, own, member(h, k), average=True) for k, own in enumerate(apart)]
    for step in range(1, STEPS + 1):
        gradients: list[Any] = list(draw(step, dtype))
        if step % 4 == 1:
            gradients[1] = None
        totals = []
        for k, single in enumerate(engines):
            own: dict[str, Any] = member(h, k)
            around = Folded(**member(folded, k))
            mine = [None if g is None else g[k] for g in gradients]
            if rule.sums is not None:
                totals.append(add_up(rule, single.parameters, mine, single.state, single.steps, own, around))
                own["sums"] = tuple(totals[-1])
            single.step(mine, own, around)
        together = {**h, "sums": tuple(map(torch.stack, zip(*totals, strict=True)))} if totals else h
        norm = engine.step(gradients, together, Folded(**folded))
        assert norm is not None and norm.shape == (K,)
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 3e-2}[dtype]
    for k, single in enumerate(engines):
        for i, own in enumerate(apart[k]):
            pairs = [(stacked[i][k], own)]
            pairs += [(engine.state[i][n][k], value) for n, value in single.state[i].items()]
            for one, two in pairs:
                torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", [Fused, Stacked])
def test_norms_are_each_members(kind):
    """A population's norm has one value a member, before and during the update."""
    weights, gradients = draw(0, torch.float64), draw(1, torch.float64)
    engine = kind(RULES["sgd"], weights, {"lr": 0.1}, members=K)
    flat = torch.cat([g.reshape(K, -1) for g in gradients], dim=1)
    for found in (engine.norm(gradients), engine.step(gradients, {"lr": 0.1})):
        torch.testing.assert_close(found, flat.norm(dim=1), rtol=1e-12, atol=0)
