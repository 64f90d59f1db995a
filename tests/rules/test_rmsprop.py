"""Where RMSprop's variance is 0."""

import pytest
import torch

import stepwell.optim as ours


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_a_variance_that_rounding_makes_negative_is_zero(engine):
    """A constant gradient: v − m² rounds below 0 in float32, and no weight becomes NaN."""
    w = torch.linspace(1, 2, 64, requires_grad=True)
    optimizer = ours.RMSprop([w], lr=1e-9, alpha=0.5, centered=True, engine=engine)
    w.grad = torch.linspace(0.1, 0.9, 64)
    negative = False
    for _ in range(200):
        optimizer.step()
        state = optimizer.state[w]
        negative |= bool((state["square_avg"] - state["grad_avg"] ** 2 < 0).any())
    assert negative and w.isfinite().all()
