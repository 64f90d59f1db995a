"""Conjugate gradients solve what is positive definite and stop at negative curvature."""

import numpy as np
import torch
from matrices import symmetric

from stepwell.curvature.conjugate_gradients import newton_direction


def by_the_book(B, g, tolerance, iterations):
    """Nocedal & Wright, algorithm 7.1, inner loop, in NumPy."""
    z, r, d = np.zeros(len(g)), g.copy(), -g
    for j in range(iterations):
        curvature = d @ B @ d
        if curvature <= 0:
            return (d * (r @ r) / -curvature, j) if j == 0 else (z, j)
        alpha = (r @ r) / curvature
        z = z + alpha * d
        new = r + alpha * B @ d
        if np.linalg.norm(new) < tolerance:
            return z, j + 1
        d = -new + (new @ new) / (r @ r) * d
        r = new
    return z, iterations


def test_it_is_algorithm_7_1():
    """Positive definite and indefinite matrices, loose and tight: the same direction as the book's."""
    endings = set()
    for seed in range(20):
        values = torch.linspace(0.5, 8, 25, dtype=torch.float64)
        values[: seed % 3] -= 2.5  # indefinite in two of three
        B = symmetric(values, seed)
        g = torch.randn(25, dtype=torch.float64) * 10.0 ** (-(seed % 4))
        first = float(g.norm())
        share = [None, 1e-3][seed % 2]
        limit = first * (min(0.5, first**0.5) if share is None else share)
        expected, steps = by_the_book(B.numpy(), g.numpy(), limit, 40)
        count = []
        found = newton_direction(lambda v, B=B, n=count: n.append(1) or B @ v, g, 40, share)
        torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-9, atol=1e-12)
        assert float(found @ g) < 0
        residual = float((B @ found + g).norm())
        assert residual <= limit or bool((values < 0).any())
        endings.add((len(count) > steps, residual <= limit))
    assert endings == {(False, True), (True, False)}  # converged, and stopped by negative curvature


def test_it_solves_within_n_products():
    """A matrix with 5 different eigenvalues is solved by 5 products, to 1e-12."""
    B = symmetric([1.0, 2, 3, 4, 5] * 6)
    g, count = B[3], []
    z = newton_direction(lambda v: count.append(1) or B @ v, g, 100, 1e-12)
    assert len(count) <= 6
    torch.testing.assert_close(B @ z, -g, rtol=0, atol=1e-11)


def test_the_first_direction():
    """−I: the length to the extremum, ‖g‖; 0: the gradient as it is; no gradient: no step."""
    g = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert torch.equal(newton_direction(lambda v: -v, g, 5), -g)
    torch.testing.assert_close(newton_direction(lambda v: -4 * v, g, 5), -g / 4)
    assert torch.equal(newton_direction(torch.zeros_like, g, 5), -g)
    assert torch.equal(newton_direction(lambda v: v, 0 * g, 5), 0 * g)
