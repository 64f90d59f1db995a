"""What of an augmentation does not go with the data: for each one sentence, before anything is trained."""

from __future__ import annotations

from stepwell.data.augment.configs import AugmentConfig, TestTime
from stepwell.data.dataset import Kind
from stepwell.errors import UserError

KINDS: dict[Kind, str] = {"image": "images", "features": "tables", "sequence": "sequences", "text": "text"}
_FOR: dict[str, tuple[Kind, ...]] = {
    "noise": ("image", "features", "sequence"),
    "mixup": ("image", "features", "sequence"),
}
_NEEDS = {  # sides of more than one pixel, as far as (height, width) say
    **dict.fromkeys(("flip", "test_time"), lambda h, w: w > 1),
    "vertical_flip": lambda h, w: h > 1,
    **dict.fromkeys(("resized_crop", "scale", "rotation", "translation", "cutmix"), lambda h, w: h * w > 1),
}


def require_fitting(config: AugmentConfig, kind: Kind, shape: tuple[int, ...], update: int) -> None:
    """Raises UserError where a key cannot have its effect.

    shape: of one sample. update: how many samples an update has.
    """
    asked = {**config.settings(), **({"test_time": config.test_time} if config.test_time else {})}
    for name in asked:
        kinds = _FOR.get(name, ("image",))
        if kind not in kinds:
            wanted = ", ".join(KINDS[k] for k in kinds)
            raise UserError(
                f"augment.{name} has no effect: it is for {wanted}, and this data is {KINDS[kind]}; remove it"
            )
        if name in _NEEDS and not _NEEDS[name](*shape[-2:]):
            raise UserError(
                f"augment.{name} has no effect on images of {shape[-2]} × {shape[-1]} pixels: remove it"
            )
        if name in ("mixup", "cutmix") and update < 2:
            raise UserError(
                f"augment.{name} has no effect where an update has one sample, which would be mixed with "
                "itself: raise training.batch_size, or remove it"
            )
    if config.crop is not None and config.crop.pad >= min(shape[-2:]):
        raise UserError(
            f"augment.crop={config.crop.pad} is as large as the images, {shape[-2]} × {shape[-1]} pixels, so "
            f"some would be all padding: give less than {min(shape[-2:])}"
            if min(shape[-2:]) > 1
            else f"augment.crop has no effect on images of {shape[-2]} × {shape[-1]} pixels: remove it"
        )
    if config.fill is not None and not (asked.keys() & {"scale", "rotation", "translation"}):
        raise UserError(
            "augment.fill has no effect without augment.scale, rotation or translation: remove it "
            "(for crops there is augment.crop.fill)"
        )
    jitter = config.jitter
    if jitter is not None and shape[0] not in (3, 4):
        key = "saturation" if jitter.saturation else "hue" if jitter.hue else None
        if key is not None:
            raise UserError(f"augment.jitter.{key} has no effect on grey images: remove it")
    _check_test_time(config.test_time)


def _check_test_time(config: TestTime | None) -> None:
    if config is not None and config.views == "flip" and config.share is not None:
        raise UserError(
            "augment.test_time.share has no effect with flip, which has no windows: remove it, or "
            "choose five-crop or ten-crop"
        )
