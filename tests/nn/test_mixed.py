"""The loss of mixed samples is the weighted mean of the losses at both targets, for every loss."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from stepwell.data.augment.partners import Mixed
from stepwell.errors import UserError
from stepwell.nn import losses, mixed_loss

CASES = [
    ("multi-class", {"name": "cross-entropy"}),
    ("multi-class", {"name": "mse"}),
    ("multi-label", {"name": "cross-entropy"}),
    ("multi-label", {"name": "mse"}),
    ("regression", {"name": "mse"}),
    ("regression", {"name": "mae"}),
    ("regression", {"name": "huber", "delta": 0.4}),
]


def targets(task, n, generator):
    if task == "multi-class":
        return torch.randint(0, 5, (n,), generator=generator)
    if task == "multi-label":
        return torch.randint(0, 2, (n, 5), generator=generator).double()
    return torch.randn(n, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("task", "config"), CASES)
def test_one_sample_at_a_time(task, config):
    """Mean over the batch of λ L(z, own) + (1 − λ) L(z, partner), each sample by itself in float64."""
    generator = torch.Generator().manual_seed(0)
    n, z = 12, torch.randn(12, 5, generator=generator, dtype=torch.float64)
    y: Any = Mixed(
        targets(task, n, generator), targets(task, n, generator), torch.rand(n, generator=generator).double()
    )
    loss = losses.build(losses.LOSSES[config["name"]].model_validate(config), task)
    want = []
    for k in range(n):
        one = slice(k, k + 1)
        own, partner = float(loss(z[one], y.own[one])), float(loss(z[one], y.partner[one]))
        want.append(float(y.lam[k]) * own + (1 - float(y.lam[k])) * partner)
    found = losses.mean(mixed_loss(loss))(z, y)
    assert float(found) == pytest.approx(sum(want) / n, rel=1e-12)


def test_cross_entropy_is_that_of_the_blended_target():
    """Linear in the target: torch's cross-entropy of λ · onehot + (1 − λ) · onehot', gradient included."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(9, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    own, partner = (torch.randint(0, 4, (9,), generator=generator) for _ in range(2))
    lam = torch.rand(9, generator=generator, dtype=torch.float64)
    blended = lam[:, None] * F.one_hot(own, 4) + (1 - lam[:, None]) * F.one_hot(partner, 4)
    y: Any = Mixed(own, partner, lam)
    loss = losses.mean(mixed_loss(lambda z, y: F.cross_entropy(z, y, reduction="none")))(z, y)
    truth = F.cross_entropy(z, blended)
    torch.testing.assert_close(loss, truth, rtol=1e-13, atol=0)
    gradients = [torch.autograd.grad(value, z)[0] for value in (loss, truth)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_what_is_not_mixed_passes_and_a_mean_is_refused():
    """Plain targets go to the loss as they are; a loss that is a mean over the batch would be wrong."""
    z, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    each = mixed_loss(lambda z, y: F.cross_entropy(z, y, reduction="none"))
    assert torch.equal(each(z, y), F.cross_entropy(z, y, reduction="none"))
    with pytest.raises(UserError, match="reduction="):
        mixed_loss(F.cross_entropy)(z, Mixed(y, y.flip(0), torch.rand(4)))  # type: ignore[arg-type]
