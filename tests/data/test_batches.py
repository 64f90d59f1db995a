"""Batches are found by arithmetic: each sample once an epoch, the same at any way of getting there."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.data.batches import Batches
from stepwell.data.dataset import Part, TensorInputs
from stepwell.recipe.resolve import updates_per_epoch


def batches(n, size, accumulate=1, seed=3, resident=True, transform=None):
    values = torch.arange(n, dtype=torch.float32)[:, None]
    part = Part(TensorInputs(values, resident), torch.arange(n), torch.arange(n))
    count = updates_per_epoch(n, size, accumulate)
    return Batches(part, size, accumulate, count, seed, torch.device("cpu"), transform), count


def labels(found):
    return [y.tolist() for _, y in found]


@settings(max_examples=60)
@given(n=st.integers(1, 300), size=st.integers(1, 70), accumulate=st.integers(1, 4), epoch=st.integers(0, 5))
def test_every_sample_once_an_epoch(n, size, accumulate, epoch):
    """An epoch brings each sample once, but for a last batch of one; inputs and targets stay together."""
    source, count = batches(n, size, accumulate)
    seen = []
    for update in range(epoch * count, (epoch + 1) * count):
        found = source.at(update)
        assert 1 <= len(found) <= accumulate
        sizes = [len(y) for _, y in found]
        assert max(sizes) - min(sizes) <= 1 and max(sizes) <= (3 if size == 2 and accumulate > 1 else size)
        assert min(sizes) > 1 or size == 1 or sizes == [1]
        assert all(torch.equal(x[:, 0].long(), y) for x, y in found)
        seen += [label for y in labels(found) for label in y]
    assert len(seen) == len(set(seen))
    alone = n % (size * accumulate) == 1 and n > 1 and size * accumulate > 1
    assert len(seen) == n - alone


def test_batch_norm_trains_on_what_is_left_over():
    """147 samples in updates of 2 × 2 end with one batch of 3, where 2 + 1 would stop batch norm."""
    source, count = batches(147, 2, accumulate=2)
    norm = torch.nn.BatchNorm1d(1)
    assert all(norm(x).isfinite().all() for update in range(count) for x, _ in source.at(update))
    assert [len(y) for _, y in source.at(count - 1)] == [3]


@settings(max_examples=30)
@given(
    n=st.integers(2, 400),
    size=st.integers(1, 64),
    places=st.lists(st.integers(0, 60), min_size=1, max_size=12),
)
def test_any_place_at_once_equals_walking_there(n, size, places):
    """Jumping to an update, also backwards, gives the batch that walking gives; prefetched data too."""
    walking, _ = batches(n, size)
    walked = [labels(walking.at(update)) for update in range(61)]
    for resident in (True, False):
        jumping, _ = batches(n, size, resident=resident)
        assert [labels(jumping.at(place)) for place in places] == [walked[place] for place in places]
        jumping.close()


def test_epochs_and_seeds_have_orders_of_their_own():
    """No two of ten epochs, and no two seeds, share an order; first places are spread over all samples."""
    source, count = batches(64, 8)
    orders = {
        tuple(map(tuple, (labels(source.at(e * count + k))[0] for k in range(count)))) for e in range(10)
    }
    orders |= {
        tuple(map(tuple, (labels(batches(64, 8, seed=s)[0].at(k))[0] for k in range(8)))) for s in (4, 5)
    }
    assert len(orders) == 12


def test_the_transform_sees_the_samples_numbers_and_the_epochs_key():
    """Augmentation is called with each sample's own number, and with another key in another epoch."""
    keys = set()

    def transform(x, y, sample, key, update):
        assert torch.equal(x[:, 0].long(), sample) and len(y) == len(x) and update == source.size
        keys.add(key)
        return x + 0.5, y

    source, count = batches(10, 4, transform=transform)
    assert all((x % 1 == 0.5).all() for update in range(3 * count) for x, _ in source.at(update))
    assert len(keys) == 3
