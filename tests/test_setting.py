"""Keys that are one value or a mapping: `pad=4`, `{pad: 4, fill: zero}`."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError

from stepwell.setting import ALONE, OFF, Setting, keys_of, setting_of


class Crop(Setting):
    """A setting of two keys."""

    pad: int = Field(ge=1)
    fill: str = "mirror"


class Section(BaseModel):
    """A section with a setting that is off by default, and a plain key."""

    crop: Annotated[Crop | None, OFF] = None
    rate: float = 0.1


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (4, (4, "mirror")),
        ({"pad": 4}, (4, "mirror")),
        ({"pad": 4, "fill": "zero"}, (4, "zero")),
        ({ALONE: 4, "fill": "zero"}, (4, "zero")),
    ],
)
def test_a_lone_value_is_the_first_keys(given, found):
    """A value alone, a mapping, and a value with keys below it mean what they say."""
    crop = Section(crop=given).crop
    assert crop is not None and (crop.pad, crop.fill) == found


@pytest.mark.parametrize("given", [0, 0.0, False, None])
def test_nothing_is_off(given):
    """0, false and null are no setting, and are written as null."""
    assert Section(crop=given).model_dump() == {"crop": None, "rate": 0.1}


@pytest.mark.parametrize(
    "given", [-1, {"fill": "zero"}, {"pad": 0}, {"pad": 1, "side": 2}, {ALONE: 1, "pad": 2}]
)
def test_what_does_not_fit_is_refused(given):
    """A value out of range, a missing main key, an unknown key, one thing said twice."""
    with pytest.raises(ValidationError):
        Section(crop=given)


def test_what_was_written_is_read_again():
    """A dumped section makes the same section."""
    section = Section(crop={"pad": 2, "fill": "zero"})  # type: ignore[arg-type]
    assert Section(**section.model_dump()) == section


def test_keys_of_a_section_with_settings():
    """The setting's main key goes by the setting's name, the others below it."""
    assert keys_of(Section) == {"crop": (Crop, "pad"), "crop.fill": (Crop, "fill"), "rate": (Section, "rate")}
    assert setting_of(int) is None and setting_of(int | None) is None
