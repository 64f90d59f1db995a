"""Max-norm: torch's renorm, the nearest point, and the same in the optimizer's pass with its average."""

import math

import pytest
import torch
from torch import nn

import stepwell.optim as ours
from stepwell.errors import UserError

SHAPES = [(5, 4), (3, 2, 3, 3), (6,), (), (0, 3)]


def weights(dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in SHAPES]


@pytest.mark.parametrize("limit", [0.1, 1.0, 2.0, 100.0])
def test_a_weight_is_torchs_renorm(limit):
    """Rows and filters as torch.renorm has them but for its 1e-7; vectors and scalars stay."""
    for w in weights():
        found = ours.max_norm(w, limit)
        expected = torch.renorm(w, 2, 0, limit) if w.dim() > 1 and w.numel() else w
        torch.testing.assert_close(found, expected, rtol=2e-7, atol=0)
        if w.dim() > 1 and w.numel():
            assert found.flatten(1).norm(dim=1).max() <= limit * (1 + 1e-12)


def test_units_within_the_limit_keep_their_bits():
    """Those that are longer keep their direction; a unit of zeros stays one."""
    w = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    found = ours.max_norm(w, 1.0)
    assert torch.equal(found[1:], w[1:]) and found[0].tolist() == pytest.approx([0.6, 0.8])


def test_each_member_has_its_own_limit():
    """Stacked by vmap with a limit each, members are what they are alone."""
    torch.manual_seed(0)
    w, limits = torch.randn(3, 5, 4), torch.tensor([0.2, 1.0, 50.0])
    found = torch.func.vmap(ours.max_norm)(w, limits)
    assert torch.equal(found, torch.stack([ours.max_norm(a, c) for a, c in zip(w, limits, strict=True)]))


def test_in_place_for_a_loop_of_ones_own():
    """A parameter or several; what is no limit is refused."""
    w = nn.Parameter(torch.full((2, 4), 5.0))
    ours.max_norm_(w, 1.0)
    assert w.norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    for wrong in (0, -1, math.nan, math.inf, True, "1"):
        with pytest.raises(UserError, match="limit="):
            ours.max_norm_([w], wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_the_optimizers_pass_is_sgd_with_renorm(engine):
    """100 steps of momentum: weights are torch's with renorm after each, the average that of those."""
    start, gradients = weights()[:2], [[torch.randn_like(w) for w in weights()[:2]] for _ in range(100)]
    mine = [w.clone().requires_grad_() for w in start]
    theirs = [w.clone().requires_grad_() for w in start]
    optimizer = ours.SGD(mine, lr=0.05, momentum=0.9, max_norm=1.5, ema=0.9, engine=engine)
    other = torch.optim.SGD(theirs, lr=0.05, momentum=0.9)
    averages = [w.clone() for w in start]
    for step in gradients:
        for p, q, g in zip(mine, theirs, step, strict=True):
            p.grad, q.grad = g.clone(), g.clone()
        optimizer.step()
        other.step()
        with torch.no_grad():
            for q, a in zip(theirs, averages, strict=True):
                q.copy_(torch.renorm(q, 2, 0, 1.5))
                a.lerp_(q, 0.1)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)  # renorm's 1e-7 in a hundred steps
    with optimizer.averaged():
        torch.testing.assert_close([p.detach() for p in mine], averages, rtol=0, atol=1e-4)


def test_a_parameter_without_gradient_stays():
    """As it does in every update."""
    frozen, learning = nn.Parameter(torch.full((2, 2), 5.0)), nn.Parameter(torch.full((2, 2), 5.0))
    learning.grad = torch.zeros(2, 2)
    ours.SGD([frozen, learning], lr=0.1, max_norm=1.0).step()
    assert torch.equal(frozen.detach(), torch.full((2, 2), 5.0))
    assert learning.norm(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_what_has_no_place_for_it_refuses():
    """A schedule-free optimizer steps from another point than the weights."""
    with pytest.raises(UserError, match=r"max_norm=1\.0 cannot be used with ScheduleFreeSGD"):
        ours.ScheduleFreeSGD([nn.Parameter(torch.ones(2, 2))], max_norm=1.0)
