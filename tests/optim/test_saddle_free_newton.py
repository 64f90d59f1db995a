"""Saddle-free Newton takes the absolute values of the Hessian's eigenvalues."""

import numpy as np
import pytest
import torch
from matrices import symmetric
from small_nets import problem
from test_newton import parameter, quadratic

from stepwell.curvature import Curvature
from stepwell.optim import Newton, SaddleFreeNewton


def test_it_follows_the_formula():
    """Ten steps on cos(w1) w2² + w1² w2 with its Hessian by hand: w ← w − η (|H| + λI)⁻¹ g in NumPy."""
    a = np.array([0.8, -0.6])
    w, signs = parameter(*a), set()
    optimizer = SaddleFreeNewton([w], lr=0.3, damping=0.5, search=False)
    for _ in range(10):
        optimizer.step(lambda: w[0].cos() * w[1] ** 2 + w[0] ** 2 * w[1])
        x, y = a
        g = np.array([-np.sin(x) * y**2 + 2 * x * y, 2 * np.cos(x) * y + x**2])
        mixed = -2 * np.sin(x) * y + 2 * x
        H = np.array([[-np.cos(x) * y**2 + 2 * y, mixed], [mixed, 2 * np.cos(x)]])
        values, vectors = np.linalg.eigh(H)
        signs.add(values[0] > 0)
        a = a - 0.3 * vectors @ ((vectors.T @ g) / (np.abs(values) + 0.5))
        np.testing.assert_allclose(w.detach().numpy(), a, rtol=1e-11)
    assert False in signs  # the Hessian was indefinite on the way


def test_a_saddle_attracts_newton_and_repels_it():
    """x² − y² from (1, 0.01): Newton's step ends at the saddle, this one's at (0, 0.02), below it."""
    ends = []
    for kind in (Newton, SaddleFreeNewton):
        w = parameter(1.0, 0.01)
        optimizer = kind([w], damping=0.0)
        optimizer.step(lambda w=w: w[0] ** 2 - w[1] ** 2)
        ends.append(w.detach())
    torch.testing.assert_close(ends[0], parameter(0.0, 0.0).detach(), rtol=0, atol=1e-15)
    torch.testing.assert_close(ends[1], parameter(0.0, 0.02).detach(), rtol=0, atol=1e-15)


def test_it_leaves_the_lectures_saddle_for_the_minimum():
    """(1 − w1 w2)² from beside its saddle at 0: the loss falls to 0, while Newton stays at the saddle."""
    w = parameter(0.02, 0.01)
    optimizer = SaddleFreeNewton([w], damping=0.1)
    for _ in range(60):
        optimizer.step(lambda: (1 - w[0] * w[1]) ** 2)
    assert float((1 - w[0] * w[1]).detach().abs()) < 1e-6
    w = parameter(0.02, 0.01)
    newton = Newton([w])
    for _ in range(60):
        newton.step(lambda: (1 - w[0] * w[1]) ** 2)
    assert float(w.detach().norm()) < 1e-12


def test_a_maximum_is_left_downhill():
    """−x² − 3y²: each coordinate moves away from 0 by its own distance, whatever its curvature."""
    w = parameter(0.5, -0.25)
    SaddleFreeNewton([w], damping=0.0).step(lambda: -(w[0] ** 2) - 3 * w[1] ** 2)
    torch.testing.assert_close(w.detach(), parameter(1.0, -0.5).detach(), rtol=0, atol=1e-15)


def test_at_a_minimum_of_any_conditioning_it_is_newton():
    """A positive definite quadratic is solved in one step, by the whole matrix and in the Krylov space."""
    H = symmetric(torch.logspace(0, 4, 20, dtype=torch.float64))
    centre = torch.linspace(-1, 2, 20, dtype=torch.float64)
    for k in (None, 20):
        w, closure = quadratic(H, centre)
        SaddleFreeNewton(w, damping=0.0, k=k).step(closure)
        torch.testing.assert_close(torch.cat(w).detach(), centre, rtol=0, atol=1e-10)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_krylov_step(k):
    """k vectors give −Qᵀ |Q H Qᵀ|⁻¹ Q g with Q an orthonormal basis of g, Hg, …, Hᵏ⁻¹g, from NumPy's QR."""
    net, closure, *_ = problem("mlp")
    at = Curvature(closure, net.parameters())
    H, g = at.matrix().numpy(), at.gradient.numpy()
    H = H / np.abs(np.linalg.eigvalsh(H)).max()  # keeps the powers in range; their space is the same
    Q = np.linalg.qr(np.stack([np.linalg.matrix_power(H, j) @ g for j in range(k)], 1))[0].T
    values, vectors = np.linalg.eigh(Q @ at.matrix().numpy() @ Q.T)
    expected = -Q.T @ vectors @ ((vectors.T @ Q @ g) / (np.abs(values) + 0.01))
    before = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    optimizer = SaddleFreeNewton(net.parameters(), damping=0.01, k=k, search=False)
    optimizer.step(closure)
    step = torch.cat([p.detach().reshape(-1) for p in net.parameters()]) - before
    torch.testing.assert_close(step, torch.from_numpy(expected), rtol=1e-6, atol=1e-8)
    assert optimizer.products == k


def test_above_the_limit_it_takes_thirty_vectors():
    """2,001 parameters: 30 products an update at most, fewer where g's Krylov space is smaller."""
    d = torch.linspace(-1, 3, 2001, dtype=torch.float64)
    for curvatures, products in ((d, 30), (d.sign(), 2)):
        w = torch.ones(2001, dtype=torch.float64, requires_grad=True)
        optimizer = SaddleFreeNewton([w], damping=0.1)
        optimizer.step(lambda w=w, c=curvatures: (c * w**2).sum())
        assert optimizer.products == products
    # Two curvatures, ±2: w ← w ∓ 2/(2 + 0.1) w, exact from two products.
    torch.testing.assert_close(w.detach(), 1 - d.sign() * (2 / 2.1), rtol=1e-10, atol=1e-12)


def test_the_whole_matrix_up_to_the_limit(monkeypatch):
    """With a limit of 6, 6 parameters cost 6 products; 7 of one curvature cost one."""
    monkeypatch.setattr("stepwell.optim.saddle_free_newton.LIMIT", 6)
    for n, products in ((6, 6), (7, 1)):
        optimizer = SaddleFreeNewton([w := torch.ones(n, dtype=torch.float64, requires_grad=True)])
        optimizer.step(lambda w=w: (w**2).sum())
        assert optimizer.products == products


def test_a_flat_direction_and_no_gradient():
    """Where |λᵢ| is 0 the step has no part, and at a critical point there is none."""
    for k in (None, 2):
        w = parameter(1.0, 0.0)
        SaddleFreeNewton([w], damping=0.0, k=k).step(lambda w=w: (w.sum() - 2) ** 2)
        torch.testing.assert_close(w.detach(), parameter(1.5, 0.5).detach(), rtol=0, atol=1e-14)
        w = parameter(0.0, 0.0)
        SaddleFreeNewton([w], damping=0.0, k=k).step(lambda w=w: w[0] * w[1])
        assert not w.detach().any()
