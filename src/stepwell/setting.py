"""Keys of a recipe that are one value or a mapping of several: `augment.crop=4 augment.crop.fill=zero`."""

from __future__ import annotations

import typing
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

ALONE = ""  # where a reader of recipes keeps the lone value that came together with keys below it


class Setting(BaseModel):
    """Several keys of which the first stands for all: a lone value is that one's."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def main(cls) -> str:
        """The key that a lone value stands for."""
        return next(iter(cls.model_fields))

    @model_validator(mode="before")
    @classmethod
    def _lone_value(cls, given: Any) -> Any:
        if isinstance(given, BaseModel):
            return given
        if isinstance(given, bool):  # false is none at all, see OFF
            raise ValueError("true does not say how much: give a value")
        if not isinstance(given, dict):
            return {cls.main(): given}
        if ALONE in given:
            alone = {key: value for key, value in given.items() if key != ALONE}
            if cls.main() in alone:
                raise ValueError(f"given both alone and as {cls.main()}: keep one")
            return {cls.main(): given[ALONE], **alone}
        return given


def _off(value: Any) -> Any:
    """0 and false are no setting at all."""
    return None if value is False or (isinstance(value, (int, float)) and value == 0) else value


OFF = BeforeValidator(
    _off
)  # Annotated[Crop | None, OFF]: `crop: 0` is None, which a written recipe shows as null


def setting_of(annotation: Any) -> type[Setting] | None:
    """The Setting that a field holds, if it is one: of Crop, Crop | None, Annotated[Crop | None, …]."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, Setting) else None
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        inner = inner[:1]
    return next((found for part in inner if (found := setting_of(part))), None)


def keys_of(kind: type[BaseModel]) -> dict[str, tuple[type[BaseModel], str]]:
    """Every key of a section's class, with those of its settings: name → (class, field).

    `crop` is described by the setting's main field, `crop.fill` by that of its own.
    """
    found: dict[str, tuple[type[BaseModel], str]] = {}
    for name, field in kind.model_fields.items():
        setting = setting_of(field.annotation)
        if setting is None:
            found[name] = (kind, name)
        else:
            for key in setting.model_fields:
                found[name if key == setting.main() else f"{name}.{key}"] = (setting, key)
    return found
