"""Statistics that come chunk by chunk are those of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stepwell.data.dataset import TensorInputs
from stepwell.data.statistics import LARGEST, batches, standardization, target_statistics
from stepwell.nn.network import Network


@pytest.mark.parametrize("chunk", [7, 1000])
def test_statistics_in_chunks_equal_those_in_one(chunk):
    """The pairwise update loses nothing where the mean is large beside the deviation; constants get 1."""
    x = torch.randn(1000, 3, dtype=torch.float64) + torch.tensor([0.0, 1e6, 5.0])
    x[:, 1] = 1e6 + x[:, 0]
    x[:, 2] = 5
    shift, scale = standardization(x.split(chunk), (0,))
    torch.testing.assert_close(shift, x.mean(0).float())
    expected = 1 / x[:, :2].std(0, correction=0)
    torch.testing.assert_close(scale[:2], expected.float(), rtol=1e-5, atol=0)
    assert scale[2] == 1


@pytest.mark.parametrize("x", [[-LARGEST, LARGEST], [0.0, LARGEST], [0.0, 1e-30], [5.0, 5.0], [1e-17, 3e-17]])
def test_every_value_up_to_the_limit_stays_finite(x):
    """(x − shift) · scale as the network computes it, for training's rows and the largest new ones."""
    shift, scale = standardization([torch.tensor(x)[:, None]], (0,))
    network = Network(nn.Identity(), "features", "binary", shift, scale)
    new = torch.tensor([*x, -LARGEST, LARGEST, 2 * LARGEST])[:, None]  # an offset may double a value
    assert network(new).isfinite().all() and network(-new).isfinite().all()
    assert network(torch.tensor([[x[0]]])).abs() <= 1.001


def test_pixel_statistics_are_exact():
    """Counting values gives the float64 mean and deviation per channel; a constant channel gets 1."""
    x = torch.randint(0, 256, (50, 3, 7, 5), dtype=torch.uint8)
    x[:, 1] = 9
    shift, scale = standardization(x.split(8), (0, 2, 3))
    torch.testing.assert_close(shift.flatten(), x.double().mean((0, 2, 3)).float())
    deviation = x.double().std((0, 2, 3), correction=0).float()
    torch.testing.assert_close(scale.flatten(), torch.where(deviation > 0, 1 / deviation, 1.0))


def test_target_statistics_divide_by_n_and_leave_a_constant_its_units():
    """Mean and deviation (N, not N − 1) in float64, column by column; 1 where all rows are the same."""
    targets = torch.tensor([[1e9, 1.0, 7.0], [1e9 + 2, 2.0, 7.0], [1e9 + 4, 6.0, 7.0]], dtype=torch.float64)
    mean, std = target_statistics(targets)
    assert mean.dtype == std.dtype == torch.float64
    torch.testing.assert_close(mean, torch.tensor([1e9 + 2, 3.0, 7.0], dtype=torch.float64), rtol=0, atol=0)
    expected = torch.tensor([8 / 3, 14 / 3, 1.0], dtype=torch.float64).sqrt()
    torch.testing.assert_close(std, expected)
    assert target_statistics(targets[:1])[1].tolist() == [1.0, 1.0, 1.0]


def test_batches_are_all_samples_in_order(monkeypatch):
    """However few bytes a chunk may have, together they are the whole."""
    monkeypatch.setattr("stepwell.data.statistics.CHUNK_BYTES", 40)
    x = torch.randn(11, 3)
    chunks = list(batches(TensorInputs(x)))
    assert [len(chunk) for chunk in chunks] == [3, 3, 3, 2] and torch.equal(torch.cat(chunks), x)
