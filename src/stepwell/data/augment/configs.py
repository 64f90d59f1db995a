"""The keys of `augment.*`: ranges, units, defaults. Free of torch, since recipes are read without it.

A setting's keys are the keyword arguments of its method's function (see `registry`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stepwell.setting import OFF, Setting

Fill = Literal["mirror", "zero", "edge"]


class Flip(Setting):
    """Mirroring left to right."""

    share: float = Field(gt=0, le=1, description="images: share mirrored left to right")


class VerticalFlip(Setting):
    """Mirroring top to bottom."""

    share: float = Field(gt=0, le=1, description="images: share mirrored top to bottom")


class Crop(Setting):
    """A window of the image's own size out of the padded image."""

    pad: int = Field(ge=1, le=512, description="images: pixels of padding before a random crop")
    fill: Fill = Field("mirror", description="what the padding is: the image's mirror, 0, or its edge")


class ResizedCrop(Setting):
    """A window of random area and shape, brought back to the image's size."""

    low: float = Field(
        gt=0, le=1, description="images: least share of the area that a random window has; it is enlarged"
    )
    high: float = Field(1.0, gt=0, le=1, description="largest share of the area")
    aspect: float = Field(
        0.75, gt=0, le=1, description="least ratio of the window's sides; the largest is one over it"
    )

    @model_validator(mode="after")
    def _ordered(self) -> ResizedCrop:
        _require_order(self.low, self.high)
        return self


class Scale(Setting):
    """Enlarging and shrinking about the center."""

    low: float = Field(gt=0, le=100, description="images: least factor of a random enlargement")
    high: float | None = Field(None, gt=0, le=100, description="largest factor (default: 1 / scale)")

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.high is None and self.low > 1:
            raise ValueError(f"low={self.low:g} is above 1, so the largest factor, high, must be given too")
        _require_order(self.low, 1 / self.low if self.high is None else self.high)
        return self


class Rotation(Setting):
    """Turning about the center."""

    degrees: float = Field(
        gt=0, le=180, description="images: turned by a random angle of up to this many degrees each way"
    )


class Translation(Setting):
    """Shifting by parts of the side, fractions of a pixel included."""

    share: float = Field(
        gt=0, le=1, description="images: shifted by up to this share of height and width each way"
    )


class Jitter(Setting):
    """Random brightness, contrast, saturation and hue."""

    strength: float = Field(
        0.0,
        ge=0,
        le=1,
        description="images: brightness, contrast and (in color) saturation each times a random factor, "
        "off 1 by up to this",
    )
    brightness: float | None = Field(
        None, ge=0, le=1, description="the same of brightness alone (default: jitter)"
    )
    contrast: float | None = Field(
        None, ge=0, le=1, description="the same of contrast alone (default: jitter)"
    )
    saturation: float | None = Field(
        None, ge=0, le=1, description="the same of saturation alone (default: jitter); color images only"
    )
    hue: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="turns of the color circle, up to this many each way; color images only",
    )

    @model_validator(mode="after")
    def _something(self) -> Jitter:
        if not any((self.strength, self.brightness, self.contrast, self.saturation, self.hue)):
            raise ValueError("every strength is 0, which has no effect: remove it, or set one")
        return self


class Erasing(Setting):
    """A rectangle of the image is wiped out."""

    share: float = Field(gt=0, le=1, description="images: share of which a random rectangle is wiped out")
    low: float = Field(0.02, gt=0, le=1, description="least area of the rectangle, as a share of the image's")
    high: float = Field(1 / 3, gt=0, le=1, description="largest area of the rectangle")
    aspect: float = Field(
        0.3, gt=0, le=1, description="least ratio of the rectangle's sides; the largest is one over it"
    )
    value: Literal["mean", "zero", "noise"] = Field(
        "mean",
        description="what is put there: the training part's mean, 0, or noise of its mean and deviation",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Erasing:
        _require_order(self.low, self.high)
        return self


class Mixup(Setting):
    """Weighted means of two samples."""

    alpha: float = Field(
        gt=0, le=100, description="two samples are blended λ : 1 − λ, with λ ~ Beta(α, α), α this number"
    )
    share: float = Field(1.0, gt=0, le=1, description="share of the samples that are blended")


class CutMix(Setting):
    """A rectangle of another image."""

    alpha: float = Field(
        gt=0,
        le=100,
        description="images: a rectangle of area 1 − λ comes from another one, λ ~ Beta(α, α), α this number",
    )
    share: float = Field(1.0, gt=0, le=1, description="share of the images that get one")


class Noise(Setting):
    """Normal noise."""

    sd: float = Field(
        gt=0, allow_inf_nan=False, description="sd of normal noise added, in input standard deviations"
    )


class TestTime(Setting):
    """Predictions averaged over a fixed set of views; for the finished network, not for its training."""

    __test__ = False  # no test of pytest's

    views: Literal["flip", "five-crop", "ten-crop"] = Field(
        description="images: predictions are means over the image and its mirror, over five windows (corners "
        "and center), or over those and their mirrors"
    )
    share: float | None = Field(
        None, gt=0, lt=1, description="side of the windows as a share of the image's (default: 0.875)"
    )


class AugmentConfig(BaseModel):
    """Random changes of the training inputs."""

    model_config = ConfigDict(extra="forbid")
    flip: Annotated[Flip | None, OFF] = None
    vertical_flip: Annotated[VerticalFlip | None, OFF] = None
    crop: Annotated[Crop | None, OFF] = None
    resized_crop: Annotated[ResizedCrop | None, OFF] = None
    scale: Annotated[Scale | None, OFF] = None
    rotation: Annotated[Rotation | None, OFF] = None
    translation: Annotated[Translation | None, OFF] = None
    fill: Fill | None = Field(
        None,
        description="what scale, rotation and translation show outside of the image: its mirror, 0, or its "
        "edge (default: mirror)",
    )
    jitter: Annotated[Jitter | None, OFF] = None
    erasing: Annotated[Erasing | None, OFF] = None
    mixup: Annotated[Mixup | None, OFF] = None
    cutmix: Annotated[CutMix | None, OFF] = None
    noise: Annotated[Noise | None, OFF] = None
    test_time: Annotated[TestTime | None, OFF] = None

    @field_validator("*", mode="before")
    @classmethod
    def _not_true(cls, given: Any) -> Any:
        if given is True:
            raise ValueError("true does not say how much: give a number")
        return given

    def settings(self) -> dict[str, Setting]:
        """The settings that are on, by name, without `test_time`, which changes no training input."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {n: v for n, v in found.items() if isinstance(v, Setting) and not isinstance(v, TestTime)}


def _require_order(low: float, high: float) -> None:
    if low > high:
        raise ValueError(f"low={low:g} is above high={high:g}: give a range from low to high")
