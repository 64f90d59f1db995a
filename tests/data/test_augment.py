"""`Augment`: methods in their order, one sample alike in every batch, mixing, refusals, notes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stepwell as sw
from stepwell.data import counter, sources
from stepwell.data.augment import affine, label_changes
from stepwell.data.augment.configs import AugmentConfig
from stepwell.data.augment.crop import crop
from stepwell.data.augment.draws import Draws
from stepwell.data.augment.flip import flip
from stepwell.data.augment.noise import noise
from stepwell.data.augment.rotation import rotation
from stepwell.data.augment.translation import translation
from stepwell.data.augment.units import Units
from stepwell.errors import UserError
from stepwell.recipe import read_recipe

ALL = {
    "flip": 0.5,
    "vertical_flip": 0.5,
    "crop": {"pad": 2, "fill": "edge"},
    "resized_crop": 0.5,
    "scale": 0.8,
    "rotation": 20,
    "translation": 0.1,
    "fill": "zero",
    "jitter": {"strength": 0.3, "hue": 0.1},
    "erasing": 0.5,
    "noise": 0.1,
}


def images(n=40, size=(3, 6, 9)):
    return torch.randint(0, 256, (n, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_the_order_is_that_of_the_table():
    """Crop, flip, one interpolation of a turned and shifted image, noise: the same steps by hand."""
    x, sample = images(), torch.arange(40)
    augment = sw.data.Augment(seed=5, sd=40.0, noise=0.5, rotation=30, translation=0.2, flip=0.5, crop=2)
    out, _ = augment(x, sample=sample, epoch=3)
    draws = Draws(counter.key(5, 3), sample)
    want = flip(crop(x, draws, pad=2), draws, share=0.5)
    maps = affine.compose(rotation(draws, (6, 9), degrees=30), translation(draws, (6, 9), share=0.2))
    want = noise(affine.warp(want, maps), draws, Units(sd=40.0), sd=0.5)
    assert torch.equal(out, want)


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.sampled_from([1, 3]), st.integers(3, 7), st.integers(3, 7)),
    cut=st.integers(1, 11),
    epoch=st.integers(0, 3),
)
def test_a_batch_may_be_cut_anywhere(size, cut, epoch):
    """All at once: twelve samples give bit for bit what their two halves give, wherever they are cut."""
    x, sample = images(12, size), torch.arange(100, 112)
    keys = ALL if size[0] == 3 else {**ALL, "jitter": 0.3}
    augment = sw.data.Augment(**keys)
    whole, _ = augment(x, sample=sample, epoch=epoch)
    parts = [augment(x[k], sample=sample[k], epoch=epoch)[0] for k in (slice(cut), slice(cut, None))]
    assert torch.equal(torch.cat(parts), whole)


def test_partners_are_mixed_as_the_targets_say():
    """Several updates in a row: each is mixed within itself, and the targets name the same partner and λ."""
    x = torch.arange(23.0)[:, None].expand(-1, 4)
    augment = sw.data.Augment(mixup=0.5)
    out, y = augment.apply(x, torch.arange(23), torch.arange(23), counter.key(1), 5)
    want = y.lam * y.own + (1 - y.lam) * y.partner
    torch.testing.assert_close(out[:, 0], want)
    assert bool((y.own // 5 == y.partner // 5).all()) and y.partner[22] == 20
    one, alone = augment.apply(x[7:8], torch.tensor([7]), torch.tensor([7]), counter.key(1), 5)
    assert torch.equal(one, x[7:8]) and torch.equal(alone.own, alone.partner)


def test_mixup_and_cutmix_share_the_samples():
    """With both on, half of the samples are blended and half pasted, within four standard errors."""
    n = 4000
    x = torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(0)) + torch.arange(n).view(-1, 1, 1, 1)
    augment = sw.data.Augment(mixup=1.0, cutmix=1.0)
    out, y = augment(x, torch.arange(n), sample=torch.arange(n), epoch=0)
    partner = x.roll(-1, 0)
    pasted = ((out == x) | (out == partner)).flatten(1).all(1)
    assert abs(pasted.double().mean() - 0.5) < 4 * (0.25 / n) ** 0.5 + 0.01
    blended = y.lam.view(-1, 1, 1, 1) * x + (1 - y.lam.view(-1, 1, 1, 1)) * partner
    torch.testing.assert_close(out[~pasted], blended[~pasted])
    area = (out == partner).flatten(1).double().mean(1)
    torch.testing.assert_close(1 - area[pasted], y.lam[pasted].double(), rtol=0, atol=1e-6)


def test_all_at_once_for_a_population():
    """Every method and both mixtures under vmap: two members with keys of their own."""
    x, sample, keys = images(12), torch.arange(12), torch.tensor([counter.key(1), counter.key(2)])
    augment = sw.data.Augment(**ALL, mixup=0.4, cutmix=1.0)

    def member(key):
        out, y = augment.apply(x, sample, sample, key, 6)
        return out, y.partner, y.lam

    alone = [member(int(key)) for key in keys]
    for k, found in enumerate(zip(*torch.vmap(member)(keys), strict=True)):
        assert all(map(torch.equal, found, alone[k]))


def test_everything_goes_where_the_batch_is():
    """Sample numbers, tables and statistics follow the batch to its device, which is asked for no value."""
    x, sample, mean = images(12), torch.arange(12), torch.zeros(3, 1, 1)
    augment = sw.data.Augment(**ALL, mixup=0.4, cutmix=1.0, mean=mean, sd=mean + 1)
    here = augment(x, sample, sample=sample, epoch=1)[0]
    out, y = augment(x.to("meta"), sample.to("meta"), sample=sample, epoch=1)
    assert {t.device.type for t in (out, y.own, y.partner, y.lam)} == {"meta"} and out.shape == here.shape


def test_without_a_key_nothing_is_changed():
    """No augmentation hands on the same tensors."""
    x, y = images(), torch.arange(40)
    out = sw.data.Augment()(x, y, sample=y, epoch=0)
    assert out[0] is x and out[1] is y


@pytest.mark.parametrize(
    ("keys", "shape", "word"),
    [
        ({"flipp": 0.5}, (2, 1, 4, 4), "flipp"),
        ({"flip": 2}, (2, 1, 4, 4), "augment.flip"),
        ({"flip": True}, (2, 1, 4, 4), "true does not say"),
        ({"crop": {"pad": 1, "fill": "red"}}, (2, 1, 4, 4), "augment.crop.fill"),
        ({"crop": 4}, (2, 1, 4, 9), "less than 4"),
        ({"crop": 1}, (2, 1, 1, 1), "no effect"),
        ({"resized_crop": 0.5}, (2, 1, 1, 1), "1 × 1"),
        ({"flip": 0.5}, (2, 3, 4, 1), "no effect"),
        ({"vertical_flip": 0.5}, (2, 3, 1, 4), "no effect"),
        ({"scale": 1.5}, (2, 1, 4, 4), "high"),
        ({"scale": {"low": 2, "high": 1}}, (2, 1, 4, 4), "low=2 is above high=1"),
        ({"erasing": {"share": 0.5, "low": 0.6}}, (2, 1, 4, 4), "above high"),
        ({"erasing": {"share": 0.5, "high": 1.5}}, (2, 1, 4, 4), "less than or equal to 1"),
        ({"jitter": {"strength": 0.1, "hue": 0.2}}, (2, 1, 4, 4), "grey"),
        ({"jitter": {"hue": 0}}, (2, 3, 4, 4), "no effect"),
        ({"jitter": 0.5}, (2, 3, 4, 4), "values="),
        ({"fill": "zero", "flip": 0.5}, (2, 3, 4, 4), "augment.fill"),
        ({"cutmix": 1.0}, (2, 4), "tables"),
        ({"rotation": 5}, (2, 4, 3), "sequences"),
        ({"mixup": 1.0}, (2, 4), "give y"),
        ({"noise": 1.0}, (2,), "a batch is"),
    ],
)
def test_refusals(keys, shape, word):
    """What cannot have its effect is said in one sentence that names the key."""
    with pytest.raises(UserError, match=word):
        sw.data.Augment(**keys)(
            torch.zeros(shape), None if "mixup" in keys else torch.arange(2), sample=torch.arange(2), epoch=0
        )


def data_set(classes, channels):
    data = sources.load(read_recipe().data)
    data.classes, data.input_shape = classes, (channels, 8, 8)
    return data


DIGITS, CIFAR = [str(k) for k in range(10)], ["airplane", "cat", "dog"]


@pytest.mark.parametrize(
    ("keys", "classes", "channels", "noted"),
    [
        ({"flip": 0.5}, DIGITS, 1, ["augment.flip"]),
        ({"vertical_flip": 0.5, "rotation": 90}, DIGITS, 1, ["augment.vertical_flip", "augment.rotation=90"]),
        ({"rotation": 30, "crop": 1, "noise": 0.1}, DIGITS, 1, []),
        ({"flip": 0.5}, ["a", "b"], 3, ["augment.flip"]),
        ({"test_time": "ten-crop"}, DIGITS, 1, ["augment.test_time=ten-crop"]),
        ({"test_time": "five-crop"}, DIGITS, 1, []),
        ({"flip": 0.5, "vertical_flip": 0.5, "rotation": 180}, CIFAR, 3, []),
        ({"flip": 0.5, "vertical_flip": 0.5}, CIFAR, 1, []),
        ({"flip": 0.5}, DIGITS, 3, []),
    ],
)
def test_notes_on_choices_that_change_the_label(keys, classes, channels, noted):
    """Digits and letters that are mirrored, put upside down or turned far; nothing else raises an alarm."""
    found = label_changes.notes(AugmentConfig(**keys), data_set(classes, channels))
    assert len(found) == len(noted)
    assert all(note.startswith(start) for note, start in zip(found, noted, strict=True))
