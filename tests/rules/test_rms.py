"""Root mean square, against the mean of a list of all squares."""

import numpy as np
import pytest
import torch
from trajectories import ENGINES, assert_same, by_optimizer, by_paper

from stepwell.optim import RMS


def by_hand():
    squares = []

    def step(w, g, t, lr):
        squares.append(g**2)
        return w - lr * g / np.sqrt(np.mean(squares, axis=0))

    return step


@pytest.mark.parametrize("engine", ENGINES)
def test_each_step_is_divided_by_the_root_of_the_mean_of_all_squares(engine):
    """w ← w − η g / σ, σ² = (1/t) Σ g²; a gradient that is missing counts in no mean."""
    gap = {(3, 0), (4, 0), (9, 1)}
    ours = by_optimizer(lambda p: RMS(p, engine=engine), gap=gap)
    assert_same(ours, by_paper(by_hand, gap=gap))


@pytest.mark.parametrize("engine", ENGINES)
def test_where_no_gradient_differed_from_0_the_weight_stays(engine):
    """At σ = 0 nothing is divided; the first gradient that is not 0 makes a step of g / √(g²/t)."""
    p = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = RMS([p], lr=0.1, engine=engine)
    p.grad = torch.tensor([0.0, 3.0], dtype=torch.float64)
    optimizer.step()
    assert p.tolist() == [1.0, 0.9]  # the first step has length η
    p.grad = torch.tensor([-2.0, 0.0], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([1 + 0.1 * 2**0.5, 0.9], dtype=torch.float64))
