"""Counted random numbers are SplitMix64's, and look random."""

import torch
from scipy import stats

from stepwell.data import counter


def test_values_are_splitmix64s():
    """Seed 1234567 gives the sequence that the reference implementation gives."""
    reference = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    ours = counter.uniform(1234567, torch.arange(1, 5)).tolist()
    assert ours == [(value >> 11) * 2.0**-53 for value in reference]


def test_uniform_and_normal_have_their_distributions():
    """Kolmogorov's test on 20,000 draws, and no correlation between neighbours, seeds or streams."""
    index = torch.arange(20_000)
    u, z = counter.uniform(counter.key(1, 2), index), counter.normal(counter.key(1, 3), index)
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    other = counter.uniform(counter.key(1, 4), index)
    for a, b in ((u[1:], u[:-1]), (u, other), (u, (z + 3) / 6)):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 4 / 20_000**0.5


def test_keys_depend_on_order_and_every_part():
    """Keys of different parts differ: no epoch shares its numbers with another seed."""
    keys = {counter.key(a, b, c) for a in range(12) for b in range(12) for c in (0, 1, -1, 2**63)}
    assert len(keys) == 12 * 12 * 4
    assert all(0 <= k < 2**63 for k in keys)


def test_streams_of_a_tensor_of_keys_are_those_of_each():
    """A population's keys in one tensor, also under vmap: the same streams and numbers as one by one."""
    keys, index = [counter.key(seed, 9) for seed in range(5)], torch.arange(7)
    found = counter.stream(torch.tensor(keys), 12)
    assert isinstance(found, torch.Tensor) and found.tolist() == [counter.key(k, 12) for k in keys]

    def numbers(key):
        return counter.uniform(counter.stream(key, 3), index)

    each = torch.stack([numbers(k) for k in keys])
    assert torch.equal(torch.vmap(numbers)(torch.tensor(keys)), each)
