"""Mixup and cutmix: the law of λ, the area, the partners."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import betaincinv

from stepwell.data import counter
from stepwell.data.augment.beta import ERROR, Quantiles
from stepwell.data.augment.cutmix import cutmix
from stepwell.data.augment.draws import Draws
from stepwell.data.augment.mixup import mixup
from stepwell.data.augment.partners import Mixed, partners


def draws(n, key=7):
    return Draws(counter.key(key), torch.arange(n))


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.2, 0.4, 1.0, 1.7, 4.0, 20.0, 100.0])
def test_quantiles_are_those_of_beta(alpha):
    """The table's draws differ from SciPy's inverse by less than ERROR, in the tails too."""
    generator = torch.Generator().manual_seed(1)
    u = torch.cat([torch.rand(20_000, generator=generator).double(), torch.logspace(-17, -2, 500).double()])
    u = torch.cat([u, torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64)])
    found = Quantiles.of(alpha)(u)
    assert np.abs(found.numpy() - betaincinv(alpha, alpha, u.numpy())).max() < ERROR


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lambda_has_betas_distribution(alpha):
    """20,000 draws: mean ½ and variance 1 / (4 (2α + 1)) within four standard errors; Kolmogorov's test."""
    n, x = 20_000, torch.zeros(20_000, 1)
    lam = mixup(x, x, draws(n), alpha=Quantiles.of(alpha))[1].double()
    variance = 1 / (4 * (2 * alpha + 1))
    fourth = stats.beta(alpha, alpha).stats(moments="k") * variance**2 + 3 * variance**2
    assert abs(lam.mean() - 0.5) < 4 * (variance / n) ** 0.5
    assert abs(lam.var() - variance) < 4 * ((fourth - variance**2) / n) ** 0.5
    if alpha >= 1:  # below, float32 rounds the smallest to the same number
        assert stats.kstest(lam.numpy(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_mixup_blends_sample_and_partner():
    """x̃ = λ x + (1 − λ) x' for every sample, of tables, sequences and uint8 images; share leaves the rest."""
    for shape in ((5,), (4, 3), (3, 6, 6)):
        x = torch.randint(
            0, 256, (200, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
        )
        other = x.roll(1, 0)
        out, lam = mixup(x, other, draws(200), alpha=Quantiles.of(0.4), share=0.6)
        assert out.dtype == torch.float32
        for k in range(200):
            want = float(lam[k]) * x[k].double() + (1 - float(lam[k])) * other[k].double()
            torch.testing.assert_close(out[k].double(), want, rtol=0, atol=1e-4)
        assert abs((lam == 1).double().mean() - 0.4) < 4 * (0.24 / 200) ** 0.5


def test_cutmix_pastes_a_rectangle_of_the_area_that_lambda_says():
    """Inside a filled rectangle the partner, outside the image; λ is 1 − area to the last bit; type kept."""
    n, height, width = 500, 9, 13
    x = torch.zeros(n, 2, height, width, dtype=torch.uint8)
    out, lam = cutmix(x, x + 1, draws(n), alpha=Quantiles.of(1.0))
    assert out.dtype == torch.uint8
    for mask, share in zip(out, lam, strict=True):
        assert torch.equal(mask[0], mask[1])
        pasted = mask[0].nonzero()
        area = int(mask[0].sum())
        assert float(share) == float(np.float32(1 - area / (height * width)))
        if area:
            spread = pasted.amax(0) - pasted.amin(0) + 1
            assert int(spread.prod()) == area


def test_cutmix_area_before_cutting_is_1_minus_lambda():
    """Where the rectangle lies inside, its sides are √(1 − λ) of the image's, within rounding."""
    n, side = 4000, 101
    x = torch.zeros(n, 1, side, side, dtype=torch.uint8)
    out, _ = cutmix(x, x + 1, draws(n), alpha=Quantiles.of(1.0))
    lam = counter.uniform(counter.stream(counter.key(7), 26), torch.arange(n))  # Beta(1, 1) is uniform
    whole = (out[:, 0, 0] + out[:, 0, -1] + out[:, 0, :, 0] + out[:, 0, :, -1]).sum(1) == 0
    drawn = out[whole, 0].any(1).sum(1).double()
    assert whole.sum() > 300
    assert (drawn - side * (1 - lam[whole]).sqrt()).abs().max() <= 0.5 + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    updates=st.lists(st.integers(1, 9), min_size=1, max_size=1),
    full=st.integers(0, 4),
    rest=st.integers(0, 8),
)
def test_partners_are_the_next_of_their_update(updates, full, rest):
    """Everyone is partner once, in the own update; of a chunk's last update, which may be smaller, too."""
    size = updates[0]
    count = full * size + min(rest, size)
    if not count:
        return
    found = partners(count, size, torch.device("cpu")).tolist()
    for start in range(0, count, size):
        end = min(start + size, count)
        assert found[start:end] == [*range(start + 1, end), start]


def test_mixed_targets_are_cut_like_tensors():
    """split, tensor_split, len and map do to both targets and λ what torch does to one tensor."""
    y = Mixed(torch.arange(10), torch.arange(10).roll(-1), torch.rand(10))
    for pieces, truth in ((y.split(4), y.own.split(4)), (y.tensor_split(3), y.own.tensor_split(3))):
        assert all(torch.equal(a.own, b) for a, b in zip(pieces, truth, strict=True))
        assert torch.equal(torch.cat([p.lam for p in pieces]), y.lam)
        assert torch.equal(torch.cat([p.partner for p in pieces]), y.partner)
    assert len(y) == 10 and torch.equal(y.map(lambda t: t * 2).partner, y.partner * 2)
