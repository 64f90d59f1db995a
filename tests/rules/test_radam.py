"""RAdam at every β2, also where its formula has a pole that is not used."""

import math
from functools import partial

import pytest
import torch

import stepwell.optim as ours


@pytest.mark.parametrize("beta2", [0.0, 1 / 3, 0.5, 0.6, 0.65, 2 / 3, 0.7, 0.9, 0.9999])
@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_every_beta2_is_torchs(beta2, engine):
    """ρ∞ below, at and above 4 and 5: forty steps end at torch's weights, and all are numbers."""
    ends = []
    for make in (partial(ours.RAdam, engine=engine), partial(torch.optim.RAdam, foreach=False)):
        w = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
        optimizer = make([w], lr=0.1, betas=(0.9, beta2))
        for t in range(40):
            w.grad = w.detach().sin() + 0.1 * math.cos(t)
            optimizer.step()
        ends.append(w.detach())
    assert ends[0].isfinite().all()
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-13)
