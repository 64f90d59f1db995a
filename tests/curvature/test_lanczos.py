"""Lanczos' eigenpairs are those of the whole matrix, within the bounds it gives."""

import pytest
import torch
from matrices import symmetric
from small_nets import NETS, problem

from stepwell.curvature import Curvature, eigenpairs
from stepwell.curvature.lanczos import lanczos
from stepwell.errors import UserError


@pytest.mark.parametrize("name", NETS)
def test_both_ends_of_a_networks_hessian(name):
    """Two eigenvalues of each end equal torch.linalg.eigh's to 1e-6 of the largest, with their vectors."""
    net, closure, *_ = problem(name)
    at = Curvature(closure, net.parameters())
    expected, vectors = torch.linalg.eigh(at.matrix())
    scale = float(expected.abs().max())
    low = 1 if name == "softmax" else 2  # its smallest is 0, many times over: one vector is found
    found = eigenpairs(at.product, at.gradient, low, 2, steps=150, tolerance=1e-7)
    right = torch.cat([expected[:low], expected[-2:]])
    torch.testing.assert_close(found.values, right, rtol=0, atol=1e-6 * scale)
    assert bool(((found.values - right).abs() <= found.errors).all())
    assert bool((found.errors <= 2e-7 * scale).all())
    assert abs(float(found.vectors[-1] @ vectors[:, -1])) > 1 - 1e-6
    residual = at.product(found.vectors) - found.values[:, None] * found.vectors
    assert bool((residual.norm(dim=1) <= found.errors).all())


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 30])
def test_the_bound_holds_however_few_the_steps(steps):
    """Stopped early, each value is within its bound of an eigenvalue, and inside of the spectrum."""
    for seed in range(5):
        H = symmetric([-3.0, *torch.linspace(-1, 4, 38).tolist(), 9.0], seed)
        exact = torch.linalg.eigvalsh(H)
        found = eigenpairs(H.mv, H[0], steps=steps, tolerance=0, seed=seed)
        nearest = (found.values[:, None] - exact).abs().min(1).values
        assert bool((nearest <= found.errors).all())
        assert exact[0] - 1e-12 <= found.values.min() and found.values.max() <= exact[-1] + 1e-12


def test_float32_has_bounds_of_its_own_precision():
    """In float32 the bounds take in what rounding does to products, and hold against float64."""
    H = symmetric([-3.0, *torch.linspace(-1, 4, 98).tolist(), 900.0])
    found = eigenpairs(H.float().mv, H[0].float(), tolerance=1e-9)
    exact = torch.tensor([-3.0, 900.0], dtype=torch.float64)
    assert found.values.dtype == torch.float32
    assert bool(((found.values.double() - exact).abs() <= found.errors).all())
    assert float(found.errors.max()) < 0.01


def test_the_space_is_orthonormal_and_t_is_the_projection():
    """Q Qᵀ = I and Q H Qᵀ = T to rounding, also after the ends have converged, where plain Lanczos fails."""
    H = symmetric([*torch.linspace(0, 1, 80).tolist(), 1e6])
    *_, (Q, T, beta) = lanczos(H.mv, torch.ones(81, dtype=torch.float64), 60)
    torch.testing.assert_close(Q @ Q.T, torch.eye(60, dtype=torch.float64), rtol=0, atol=1e-13)
    torch.testing.assert_close(Q @ H @ Q.T, T, rtol=0, atol=1e-8)
    rest = H @ Q.T - Q.T @ T
    torch.testing.assert_close(rest[:, :-1], torch.zeros(81, 59, dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(float(rest[:, -1].norm()), beta, rtol=1e-6, atol=0)


def test_an_invariant_space_ends_it():
    """Two eigenvalues, four of each: two steps, exact values; H = 0: one step, the value 0."""
    H = symmetric([2.0, 2, 2, 2, -1, -1, -1, -1])
    count = []
    found = eigenpairs(lambda v: count.append(1) or H @ v, H[0], 2, 2)
    torch.testing.assert_close(found.values, torch.tensor([-1.0, 2.0], dtype=torch.float64))
    assert len(count) == 2 and float(found.errors.max()) < 1e-14
    found = eigenpairs(torch.zeros_like, H[0])
    assert found.values.tolist() == [0.0] and found.errors.tolist() == [0.0]


def test_a_saddles_two_directions():
    """y = w1·w2·x at 0 with x = 1 and the target 1: the gradient is 0, the eigenvalues are −2 and 2."""
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    at = Curvature(lambda: (1 - w[0] * w[1]) ** 2, [w])
    assert not at.gradient.any()
    found = eigenpairs(at.product, at.gradient)
    torch.testing.assert_close(found.values, torch.tensor([-2.0, 2.0], dtype=torch.float64))
    out = found.vectors[0]  # w1 = w2: along it the product grows
    torch.testing.assert_close(out[0], out[1])
    torch.testing.assert_close(out.norm(), torch.tensor(1.0, dtype=torch.float64))


def test_the_same_seed_gives_the_same_pairs():
    """A seed determines every bit, whatever torch's own generator did before."""
    H = symmetric(torch.linspace(-1, 1, 30).tolist())
    one = eigenpairs(H.mv, H[0], steps=10, seed=3)
    torch.manual_seed(99)
    two = eigenpairs(H.mv, H[0], steps=10, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_what_cannot_be_asked():
    """Counts below 1, and products that are not finite, get a sentence."""
    v = torch.ones(3)
    for smallest, largest, steps in [(0, 0, 5), (-1, 1, 5), (1, 1, 0)]:
        with pytest.raises(UserError, match="at least 1"):
            eigenpairs(lambda v: v, v, smallest, largest, steps=steps)
    with pytest.raises(UserError, match="not finite"):
        eigenpairs(lambda v: v * float("nan"), v)
