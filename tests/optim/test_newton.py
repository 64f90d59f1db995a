"""Newton's method solves quadratics in one step, and goes to any critical point."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from matrices import symmetric

from stepwell.errors import UserError
from stepwell.optim import Newton


def parameter(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def quadratic(H, centre):
    """½ (w − c)ᵀ H (w − c) of two parameters that share a vector, from 0."""
    w = [torch.zeros(len(H) // 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def closure():
        rest = torch.cat(w) - centre
        return rest @ H @ rest / 2

    return w, closure


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e5, 1e10])
@pytest.mark.parametrize("solver", ["direct", "cg"])
def test_one_step_solves_a_quadratic(condition, solver):
    """What is left of the gradient and of the loss is 1e-10 of what was, on any conditioning."""
    H = symmetric(torch.logspace(0, float(np.log10(condition)), 20, dtype=torch.float64))
    centre = torch.linspace(-1, 2, 20, dtype=torch.float64)
    w, closure = quadratic(H, centre)
    optimizer = Newton(w, solver=solver, iterations=2000, tolerance=1e-12)
    before = optimizer.step(closure)
    rest = torch.cat(w).detach() - centre
    assert float((H @ rest).norm()) <= 1e-10 * float((H @ centre).norm())
    assert closure().item() <= 1e-10 * float(before)
    if condition <= 1e5:  # beyond, rounding of H itself moves the solution further than that
        torch.testing.assert_close(torch.cat(w).detach(), centre, rtol=0, atol=1e-10)
    if solver == "direct":
        assert optimizer.products == 20


@pytest.mark.parametrize("solver", ["direct", "cg"])
def test_it_follows_the_formula_with_rate_and_damping(solver):
    """Six steps on Rosenbrock's function, with its Hessian by hand: w ← w − η (H + λI)⁻¹ g in NumPy."""
    a = np.array([-0.5, 0.4])
    w = parameter(*a)
    optimizer = Newton([w], lr=0.7, damping=300.0, solver=solver, tolerance=1e-14, search=False)
    for _ in range(6):
        optimizer.step(lambda: (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2)
        x, y = a
        g = np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])
        H = np.array([[2 - 400 * (y - 3 * x**2), -400 * x], [-400 * x, 200.0]])
        a = a - 0.7 * np.linalg.solve(H + 300.0 * np.eye(2), g)
        np.testing.assert_allclose(w.detach().numpy(), a, rtol=1e-11)


def test_convergence_is_quadratic():
    """Σ cosh(w) − w/2, the minimum at asinh(½): each step's error is at most the square of the last."""
    w = parameter(1.0, 0.2)
    for solver in ("direct", "cg"):
        with torch.no_grad():
            w.copy_(torch.tensor([1.0, 0.2]))
        optimizer, error = Newton([w], solver=solver, tolerance=1e-10), []
        for _ in range(5):
            optimizer.step(lambda: (w.cosh() - w / 2).sum())
            error.append(float((w - np.arcsinh(0.5)).detach().abs().max()))
        assert all(new <= old**2 + 1e-15 for old, new in pairwise(error))
        assert error[-1] < 1e-14


def test_direct_goes_to_saddles_and_maxima_and_cg_does_not():
    """x² − y² and −x² − y²: one direct step ends at 0, the critical point; cg's goes downhill."""
    for signs in ([1.0, -1.0], [-1.0, -1.0]):
        s = torch.tensor(signs, dtype=torch.float64)
        w = parameter(0.5, 0.25)
        Newton([w]).step(lambda s=s, w=w: (s * w**2).sum())
        torch.testing.assert_close(w.detach(), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-15)
        w = parameter(0.5, 0.25)
        before = Newton([w], solver="cg").step(lambda s=s, w=w: (s * w**2).sum())
        assert float((s * w.detach() ** 2).sum()) < float(before)


def test_a_flat_direction_is_left_alone():
    """(w1 + w2 − 2)²: the step goes to the nearest minimum, (1.5, 0.5) from (1, 0); damping keeps it near."""
    w = parameter(1.0, 0.0)
    Newton([w]).step(lambda: (w.sum() - 2) ** 2)
    torch.testing.assert_close(w.detach(), parameter(1.5, 0.5).detach(), rtol=0, atol=1e-14)
    w = parameter(1.0, 1.0)
    Newton([w]).step(lambda: w[0] ** 2 + w[1])  # the Hessian says nothing of the slope of w2
    torch.testing.assert_close(w.detach(), parameter(0.0, 1.0).detach(), rtol=0, atol=1e-14)
    w = parameter(1.0, 1.0)
    Newton([w], damping=2.0).step(lambda: w[0] ** 2 + w[1])
    torch.testing.assert_close(w.detach(), parameter(0.5, 0.5).detach(), rtol=0, atol=1e-14)


def test_auto_is_direct_up_to_the_limit(monkeypatch):
    """With a limit of 6, 6 parameters take 6 products, 7 conjugate gradients; direct refuses 7."""
    monkeypatch.setattr("stepwell.optim.newton.LIMIT", 6)
    monkeypatch.setattr("stepwell.curvature.products.LIMIT", 6)
    for n in (6, 7):
        w = torch.ones(n, dtype=torch.float64, requires_grad=True)
        optimizer = Newton([w])
        optimizer.step(lambda w=w: (w**2).sum())
        assert optimizer.products == (6 if n == 6 else 1)
        torch.testing.assert_close(w.detach(), torch.zeros(n, dtype=torch.float64), rtol=0, atol=1e-12)
    with pytest.raises(UserError, match="7 parameters"):
        Newton([w], solver="direct").step(lambda: (w**2).sum())


def test_iterations_limit_the_products():
    """`iterations` is the most products of an update by conjugate gradients; `products` counts all."""
    H = symmetric(torch.logspace(0, 4, 40, dtype=torch.float64))
    w, closure = quadratic(H, H[0])
    optimizer = Newton(w, solver="cg", iterations=7, tolerance=1e-12)
    for k in range(1, 4):
        optimizer.step(closure)
        assert optimizer.products == 7 * k


def test_the_search_halves_a_step_until_the_loss_falls():
    """√(1 + w²) from 2, where Newton's step goes to −8: halved once it ends at −3, twice at −½, lower.

    H⁻¹g = w (1 + w²) = 10. The slope is −g · 10 = −20/√5; f(−3) > f(2) > f(−½).
    """
    w, tried = parameter(2.0), []

    def closure():
        tried.append(float(w.detach()))
        return (1 + w**2).sqrt().sum()

    Newton([w]).step(closure)
    assert tried == pytest.approx([2, -8, -3, -0.5], abs=1e-12)
    assert float(w.detach()) == pytest.approx(-0.5, abs=1e-12)
    w = parameter(2.0)
    Newton([w], search=False).step(closure)
    assert float(w.detach()) == pytest.approx(-8, abs=1e-12)


def test_the_search_gives_up_without_a_step():
    """A closure that gives a higher loss each time: 30 halvings, then the weights are as they were."""
    w, calls = parameter(2.0), []

    def closure():
        calls.append(1)
        return (w**2).sum() + 10 * len(calls)

    optimizer = Newton([w])
    optimizer.step(closure)
    assert w.tolist() == [2.0] and len(calls) == 31 and optimizer.updates == 1
