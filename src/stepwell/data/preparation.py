"""Whether a preparation is one that a source of ours has written: the file of a model may be a stranger's."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stepwell.data.archive import is_utf8
from stepwell.data.columns import DATE_FORMATS, feature_names
from stepwell.data.dataset import Kind, Task
from stepwell.data.npz import Layout


def _writable(text: str) -> str:
    if not is_utf8(text):
        raise ValueError("half a pair of code points")
    return text


def _a_format(text: str | None) -> str | None:
    if text is not None and text not in DATE_FORMATS:
        raise ValueError("no format of a date")
    return text


def _of_numbers(text: str) -> str:
    try:
        kind = np.dtype(text).kind
    except (TypeError, SyntaxError):
        kind = ""
    if kind not in tuple("biuf"):
        raise ValueError("no type of numbers")
    return text


def _different(texts: list[str]) -> list[str]:
    if len(set(texts)) < len(texts):
        raise ValueError("one comes twice")
    return texts


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


_Text = Annotated[str, AfterValidator(_writable)]
_Texts = Annotated[list[_Text], AfterValidator(_different)]
_Style = Literal[".", "1,000.5", ",", "1.000,5"]
_Moment = Annotated[int, Field(gt=-(1 << 61), lt=1 << 61)]  # microseconds: years that polars can tell
_Side = Annotated[int, Field(gt=0, lt=1 << 31)]


class _Number(_Strict):
    name: _Text
    kind: Literal["number", "boolean"]
    style: _Style
    strays: list[_Text]
    fill: float
    offset: float
    indicator: bool


class _Date(_Strict):
    name: _Text
    kind: Literal["date"]
    format: Annotated[str | None, AfterValidator(_a_format)]
    strays: list[_Text]
    fill: _Moment
    reference: _Moment
    parts: list[Literal["year", "month", "day", "weekday", "hour"]]
    indicator: bool


class _Category(_Strict):
    name: _Text
    kind: Literal["category"]
    values: _Texts
    other: bool
    missing: bool
    rare: list[_Text] | None = None


_Column = Annotated[_Number | _Date | _Category, Field(discriminator="kind")]


class _Target(_Strict):
    names: Annotated[_Texts, Field(min_length=1)]
    styles: dict[str, _Style]
    task: Task
    classes: list[_Text]
    numeric: bool = False


class _Table(_Strict):
    source: Literal["table"]
    columns: list[_Column]
    features: list[_Text]
    target: _Target

    def agrees(self, about: dict[str, Any]) -> bool:
        names = [name for column in self.columns for name in feature_names(column.model_dump())]
        target, read = self.target, [column.name for column in self.columns]
        told = ("features", [len(names)], target.task, target.classes, target.names)
        complete = self.features == names and target.styles.keys() >= set(target.names)
        return complete and len(set(read)) == len(read) and told == _told(about, "targets")


class _Bundled(_Strict):
    source: Literal["bundled"]
    name: _Text
    shape: list[_Side]
    features: list[_Text]
    columns: Annotated[list[_Number], Field(min_length=1)]
    task: Task
    classes: list[_Text]

    def agrees(self, about: dict[str, Any]) -> bool:
        plain = not any(column.indicator for column in self.columns)  # a feature each
        fits = plain and math.prod(self.shape) == len(self.columns)
        kind = "image" if len(self.shape) == 3 else "features"
        return fits and (kind, self.shape, self.task, self.classes) == _told(about)


class _Npz(_Strict):
    source: Literal["npz"]
    kind: Kind
    task: Task
    classes: list[_Text]
    targets: list[_Text]
    raw: Annotated[list[_Side], Field(max_length=3)]
    order: Literal["as is", "HW", "HWC"]
    pixels: bool
    dtype: Annotated[str, AfterValidator(_of_numbers)] = "float32"  # older models do not tell

    def agrees(self, about: dict[str, Any]) -> bool:
        if len(self.raw) != {"HW": 2, "HWC": 3}.get(self.order, len(self.raw)):
            return False
        shape = list(Layout(self.kind, tuple(self.raw), self.order, self.pixels).shape)
        return (self.kind, shape, self.task, self.classes, self.targets) == _told(about, "targets")


class _Images(_Strict):
    source: Literal["images"]
    classes: list[_Text]
    shape: Annotated[list[_Side], Field(min_length=3, max_length=3)]
    size: _Side | None
    mode: Literal["L", "RGB"]

    def agrees(self, about: dict[str, Any]) -> bool:
        task = "binary" if len(self.classes) == 2 else "multi-class"
        channels = 1 if self.mode == "L" else 3
        return self.shape[0] == channels and ("image", self.shape, task, self.classes) == _told(about)


class _TextFile(_Strict):
    source: Literal["text"]
    classes: list[Annotated[_Text, Field(min_length=1, max_length=1)]]
    length: _Side

    def agrees(self, about: dict[str, Any]) -> bool:
        return ("text", [self.length], "text", self.classes) == _told(about)


def _told(about: dict[str, Any], *more: str) -> tuple[Any, ...]:
    return tuple(about[key] for key in ("kind", "input_shape", "task", "classes", *more))


_OF_A_SOURCE: TypeAdapter[Any] = TypeAdapter(
    Annotated[_Table | _Bundled | _Npz | _Images | _TextFile, Field(discriminator="source")]
)
_SIDES = {"features": 1, "sequence": 2, "image": 3, "text": 1}


def is_sound(about: dict[str, Any]) -> bool:
    """Whether new files can be prepared as `about["preparation"]` says, and then fit the rest of `about`.

    about: as of a model's file, each key of the right type. The rest: kind and task, input_shape, classes
    and targets, of which there is one for each of the outputs.
    """
    names = about["targets"] if about["task"] == "regression" else about["classes"]
    if len(names) != about["outputs"] or len(about["input_shape"]) != _SIDES[about["kind"]]:
        return False
    try:
        return _OF_A_SOURCE.validate_python(about["preparation"]).agrees(about)
    except ValidationError:
        return False
