"""Clipping as functions: torch's numbers, the papers' formula, and what they return."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stepwell.optim as ours
from stepwell.errors import UserError

SHAPES = [(3, 4), (), (5,), (2, 3, 2, 2), (0, 3), (6, 1)]
KINDS = {
    "norm": (ours.clip_norm_, nn.utils.clip_grad_norm_),
    "value": (ours.clip_value_, nn.utils.clip_grad_value_),
}


def parameters(dtype=torch.float64, scale=1.0):
    """Every third without a gradient, one gradient strided."""
    torch.manual_seed(0)
    made = [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in SHAPES]
    for i, p in enumerate(made):
        if i != 2:
            p.grad = (scale * torch.randn(p.shape, dtype=torch.float64)).to(dtype)
    made[0].grad = (scale * torch.randn(4, 3, dtype=torch.float64)).to(dtype).t()
    return made


def gradients(made):
    return [None if p.grad is None else p.grad.clone() for p in made]


def norm(made):
    return math.sqrt(sum((p.grad.double() ** 2).sum().item() for p in made if p.grad is not None))


@pytest.mark.parametrize("limit", [1e-3, 0.3, 2.0, 5.0, 100.0])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_torchs(kind, scale, limit):
    """In float64 to 1e-12, whether the limit binds or not; the norm before is returned, in place."""
    mine, theirs = parameters(scale=scale), parameters(scale=scale)
    ids, before = [id(p.grad) for p in mine], norm(mine)
    returned = KINDS[kind][0](iter(mine), limit)
    KINDS[kind][1](theirs, limit)
    torch.testing.assert_close(gradients(mine), gradients(theirs), rtol=1e-12, atol=0)
    assert ids == [id(p.grad) for p in mine]
    assert returned.shape == () and math.isclose(returned.item(), before, rel_tol=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.3, 10.0])
def test_adaptive_clipping_is_the_papers(share):
    """Unit by unit, slowly: a gradient longer than its share of the weights' norm gets that length."""
    made = parameters()
    with torch.no_grad():
        made[0][1] = 0.0  # a unit at 0 counts as 0.001 long
    expected = []
    for p in made:
        if p.grad is None:
            expected.append(None)
            continue
        w, g = p.detach().numpy(), p.grad.numpy().copy()
        units = zip(w, g, strict=True) if w.ndim > 1 else [(w, g)]
        for a, b in units:
            limit = share * max(np.sqrt((a**2).sum()), 1e-3)
            if np.sqrt((b**2).sum()) > limit:
                b *= limit / np.sqrt((b**2).sum())
        expected.append(torch.from_numpy(g))
    before = norm(made)
    assert math.isclose(ours.clip_adaptive_(made, share).item(), before, rel_tol=1e-12)
    torch.testing.assert_close(gradients(made), expected, rtol=1e-12, atol=1e-15)


def test_functions_are_the_optimizers_own_clipping():
    """clip_norm_ and then the step is the step with clip_norm; likewise by value and by unit."""
    for name, function in (
        ("clip_norm", ours.clip_norm_),
        ("clip_value", ours.clip_value_),
        ("clip_adaptive", ours.clip_adaptive_),
    ):
        a, b = parameters(), parameters()
        clipping: Any = {name: 0.2}
        one, two = ours.Adam(a, lr=0.1), ours.Adam(b, lr=0.1, **clipping)
        for _ in range(3):
            for made in (a, b):
                for p, q in zip(made, parameters(), strict=True):
                    p.grad = None if q.grad is None else q.grad + 0.1 * p.detach()
            function(a, 0.2)
            one.step()
            two.step()
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph")
@pytest.mark.parametrize("function", [ours.clip_norm_, ours.clip_value_, ours.clip_adaptive_])
def test_odd_inputs(function):
    """One tensor, none with a gradient, gradients of two types, gradients with a graph of their own."""
    p = torch.tensor([3.0, 4.0], requires_grad=True)
    assert function(p, 1.0).item() == 0.0
    (p * torch.tensor([30.0, 40.0])).sum().backward(create_graph=True)
    assert function(p, 1.0).item() == 50.0
    assert p.grad is not None and p.grad.norm() < 6
    mixed = [*parameters(), *parameters(torch.bfloat16), *parameters(torch.float32)]
    assert math.isclose(function(mixed, 1e6).item(), norm(mixed), rel_tol=1e-6)


def test_the_norm_of_half_precision_is_float32s():
    """10,000 gradients of 0.1 in bfloat16: torch's norm of them is 10.0, but 0.1 is 0.10009766 there."""
    p = torch.zeros(10_000, dtype=torch.bfloat16, requires_grad=True)
    p.grad = torch.full_like(p, 0.1)
    found = ours.clip_norm_(p, 1e9)
    assert found.dtype is torch.float32 and math.isclose(found.item(), 10.009765625, rel_tol=1e-4)


@pytest.mark.parametrize("function", [ours.clip_norm_, ours.clip_value_, ours.clip_adaptive_])
def test_what_is_wrong_is_refused(function):
    """Limits that are not above 0, and sparse gradients; then nothing is changed."""
    made = parameters()
    before = gradients(made)
    for wrong in (0.0, -1.0, math.nan, math.inf, "1", True, None):
        with pytest.raises(UserError, match="give a number above 0"):
            function(made, wrong)
    table = nn.Embedding(4, 3, sparse=True)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(UserError, match="sparse"):
        function([*made, table.weight], 1.0)
    torch.testing.assert_close(gradients(made), before, rtol=0, atol=0)
