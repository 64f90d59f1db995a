"""Every augmentation × (eager, compiled, vmapped, channels-last, bf16); methods are found by their files."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import stepwell.data.augment
from stepwell.data import counter
from stepwell.data.augment import affine, registry
from stepwell.data.augment.beta import Quantiles
from stepwell.data.augment.configs import AugmentConfig
from stepwell.data.augment.draws import Draws
from stepwell.data.augment.units import Units

ROOM = Path(stepwell.data.augment.__file__).parent
# A method's file holds a function of the file's name that draws.
METHODS = sorted(
    path.stem
    for path in ROOM.glob("*.py")
    if path.stem != "__init__"
    and "draws"
    in inspect.signature(
        getattr(import_module(f"{stepwell.data.augment.__name__}.{path.stem}"), path.stem, lambda: 0)
    ).parameters
)
KEYS: dict[str, dict[str, Any]] = {
    "flip": {"share": 0.5},
    "vertical_flip": {"share": 0.5},
    "crop": {"pad": 2, "fill": "zero"},
    "resized_crop": {"low": 0.3},
    "scale": {"low": 0.5},
    "rotation": {"degrees": 30.0},
    "translation": {"share": 0.2},
    "jitter": {"strength": 0.5, "hue": 0.2},
    "noise": {"sd": 0.1},
    "erasing": {"share": 0.8, "value": "noise"},
    "mixup": {"alpha": Quantiles.of(0.4)},
    "cutmix": {"alpha": Quantiles.of(1.0)},
}
N, SIZE = 24, (3, 7, 9)
KEY = counter.key(3, 1)


def images(dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (N, *SIZE), generator=generator, dtype=torch.uint8).to(dtype)


def changed(name: str, x: Tensor, key: counter.Key, sample: Tensor, keys: dict[str, Any] | None = None):
    """The method applied to a batch, as the pipeline applies it; mixing returns λ too."""
    draws, keys, method = Draws(key, sample), {**KEYS[name], **(keys or {})}, registry.METHODS[name]
    if name in registry.MOVES:
        return (method(x, draws, **keys),)
    if name in registry.MAPS:
        return (affine.warp(x, method(draws, (x.shape[-2], x.shape[-1]), **keys)),)
    if name in registry.MIXES:
        return method(x, x.roll(1, 0), draws, **keys)
    return (method(x, draws, Units(120.0, 60.0, 0.0, 255.0), **keys),)


def equal(found, wanted):
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_every_file_is_in_the_table():
    """Each method's file, each row of the table, each key of the recipe: the same twelve."""
    recipe = set(AugmentConfig.model_fields) - {"fill", "test_time"}
    assert set(METHODS) == set(registry.METHODS) == recipe == set(KEYS)


@pytest.mark.parametrize("name", METHODS)
def test_a_settings_keys_are_the_methods(name):
    """What a recipe may say is what the method's function takes, and its defaults are the same."""
    setting = AugmentConfig.model_fields[name].annotation.__args__[0]  # type: ignore[union-attr]
    found = inspect.signature(registry.METHODS[name]).parameters.values()
    keywords = {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}
    assert keywords.keys() == setting.model_fields.keys()
    for key, field in setting.model_fields.items():
        assert field.is_required() == (keywords[key] is inspect.Parameter.empty)
        assert field.is_required() or field.default == keywords[key]


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_is_changed_alike_wherever_it_stands(name):
    """Alone, in another order, in a larger batch: the same bits for a sample; in another epoch others."""
    x, sample = images(), torch.arange(N)
    whole, *lam = changed(name, x, KEY, sample)
    assert not torch.equal(whole, x)
    assert not torch.equal(changed(name, x, KEY + 1, sample)[0], whole)
    if name in registry.MIXES:  # their partner is another one, so only what is drawn can be compared
        assert torch.equal(changed(name, x[5:9], KEY, sample[5:9])[-1], lam[0][5:9])
        return
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    assert torch.equal(changed(name, x[order], KEY, order)[0], whole[order])
    for k in range(N):
        assert torch.equal(changed(name, x[k : k + 1], KEY, sample[k : k + 1])[0], whole[k : k + 1])


@pytest.mark.parametrize("name", METHODS)
def test_compiled(name):
    """torch.compile, whole, with the key as a tensor so that no epoch compiles again: the same bits."""
    torch._dynamo.reset()
    x, sample = images(), torch.arange(N)
    compiled = torch.compile(
        lambda x, key, sample: changed(name, x, key, sample), backend="aot_eager", fullgraph=True
    )
    for key in (KEY, KEY + 1):
        assert equal(compiled(x, torch.tensor(key), sample), changed(name, x, key, sample))


@pytest.mark.parametrize("name", METHODS)
def test_vmapped(name):
    """Members with keys, and images, of their own: each one's bits are those of the member alone."""
    x, sample = torch.stack([images(), images().flip(0)]), torch.arange(N)
    keys = torch.tensor([KEY, KEY + 5])
    found = torch.vmap(lambda x, key: changed(name, x, key, sample))(x, keys)
    alone = [changed(name, x[k], int(keys[k]), sample) for k in range(2)]
    assert equal(found, map(torch.stack, zip(*alone, strict=True)))


STRENGTHS = {  # of two members; alpha is a table and its number
    **{key: {"share": [0.2, 0.7]} for key in ("flip", "vertical_flip", "translation", "erasing")},
    "crop": {"pad": [1, 3]},
    "resized_crop": {"low": [0.2, 0.8], "aspect": [0.5, 0.9]},
    "scale": {"low": [0.5, 0.9], "high": [1.5, 1.0]},
    "rotation": {"degrees": [5.0, 90.0]},
    "jitter": {"strength": [0.1, 0.9], "hue": [0.0, 0.5]},
    "noise": {"sd": [0.0, 2.0]},
    "mixup": {"share": [0.2, 0.9]},
    "cutmix": {"share": [0.2, 0.9]},
}


@pytest.mark.parametrize("name", METHODS)
def test_members_may_have_strengths_of_their_own(name):
    """Strengths as tensors [K]: each member is changed as it would be alone, to float64's rounding."""
    x, sample = images(torch.float32), torch.arange(N)
    strengths = {
        key: torch.tensor(values).to(torch.int64 if name == "crop" else torch.float64)
        for key, values in STRENGTHS[name].items()
    }
    found = torch.vmap(lambda keys: changed(name, x, KEY, sample, keys))(strengths)
    for k in range(2):
        alone = changed(name, x, KEY, sample, {key: values[k].item() for key, values in strengths.items()})
        for a, b in zip(found, alone, strict=True):
            torch.testing.assert_close(a[k].double(), b.double(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", sorted(registry.MIXES))
def test_members_may_have_an_alpha_of_their_own(name):
    """Tables of several alphas stack like any tensor."""
    x, sample, alphas = images(), torch.arange(N), (0.2, 2.0)
    tables = torch.stack([Quantiles.of(a).table for a in alphas])

    def member(table, alpha):
        return changed(name, x, KEY, sample, {"alpha": Quantiles(table, alpha)})

    found = torch.vmap(member)(tables, torch.tensor(alphas, dtype=torch.float64))
    alone = [changed(name, x, KEY, sample, {"alpha": Quantiles.of(a)}) for a in alphas]
    assert equal(found, map(torch.stack, zip(*alone, strict=True)))


@pytest.mark.parametrize("name", METHODS)
def test_channels_last(name):
    """Images whose channels lie beside each other in memory get the same bits."""
    x, sample = images(), torch.arange(N)
    last = x.contiguous(memory_format=torch.channels_last)
    assert equal(changed(name, last, KEY, sample), changed(name, x, KEY, sample))


@pytest.mark.parametrize("name", METHODS)
def test_bf16(name):
    """bf16 in, bf16 out: the result of float32, rounded once; uint8 becomes float32 or stays exact."""
    x, sample = images(torch.bfloat16), torch.arange(N)
    found = changed(name, x, KEY, sample)
    wanted = changed(name, x.float(), KEY, sample)
    assert found[0].dtype == torch.bfloat16 and torch.equal(found[0], wanted[0].to(torch.bfloat16))
    assert changed(name, images(), KEY, sample)[0].dtype in (torch.uint8, torch.float32)
    exact = name in {"flip", "vertical_flip", "crop", "cutmix"}
    assert (changed(name, images(), KEY, sample)[0].dtype == torch.uint8) == exact
