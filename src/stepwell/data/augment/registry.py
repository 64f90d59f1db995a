"""Every method by its key, in the order in which they are applied. A new one is a file, a setting, a row.

1. whole pixels are moved: (x, draws, **keys) → x
2. affine maps: (draws, size, **keys) → matrices, which are multiplied, and the image is interpolated once
3. values are changed: (x, draws, units, **keys) → x
4. samples are mixed: (x, partners' x, draws, **keys) → x, λ; where several are on, each sample has one
"""

from __future__ import annotations

from collections.abc import Callable

from stepwell.data.augment.crop import crop
from stepwell.data.augment.cutmix import cutmix
from stepwell.data.augment.erasing import erasing
from stepwell.data.augment.flip import flip
from stepwell.data.augment.jitter import jitter
from stepwell.data.augment.mixup import mixup
from stepwell.data.augment.noise import noise
from stepwell.data.augment.resized_crop import resized_crop
from stepwell.data.augment.rotation import rotation
from stepwell.data.augment.scale import scale
from stepwell.data.augment.translation import translation
from stepwell.data.augment.vertical_flip import vertical_flip

MOVES: dict[str, Callable] = {"crop": crop, "flip": flip, "vertical_flip": vertical_flip}

MAPS: dict[str, Callable] = {
    "resized_crop": resized_crop,
    "scale": scale,
    "rotation": rotation,
    "translation": translation,
}

CHANGES: dict[str, Callable] = {"jitter": jitter, "noise": noise, "erasing": erasing}

MIXES: dict[str, Callable] = {"mixup": mixup, "cutmix": cutmix}

METHODS = {**MOVES, **MAPS, **CHANGES, **MIXES}
