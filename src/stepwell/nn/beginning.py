"""Keys of every model: where its weights begin, and which of them learn how fast."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    create_model,
    model_validator,
)

HUB = "hf:"  # begins the name of a model in the hub, hf:ORG/NAME


def _absolute(place: str) -> str:
    """A folder's whole path, since a run may go on from another directory."""
    return place if place.startswith(HUB) else os.path.abspath(os.path.expanduser(place))


def _body_or_count(value: Any) -> Any:
    if value in ("none", None) or (isinstance(value, int) and value == 0):
        return None
    if value == "body" or (type(value) is int and value > 0):
        return value
    raise ValueError("give body, or how many layers from the input, or none")


class _Named(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


# "from" is a word of Python's, so that this field cannot be written in the class.
_Place = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]
_FROM: dict[str, Any] = {
    "from": (
        _Place | None,  # type: ignore[operator]
        Field(None, description="trained model to begin with: a run, a pushed folder, hf:ORG/NAME"),
    )
}
_From: Any = create_model("_From", __base__=_Named, **_FROM)


class Beginning(_From):
    """What a model begins with, and how it is fine-tuned; the base of every model's config."""

    freeze: Annotated[Literal["body"] | int | None, BeforeValidator(_body_or_count)] = Field(
        None, description="what stays as it is in model.from: body, or that many layers from the input"
    )
    layer_rates: float | None = Field(
        None, gt=0, lt=1, description="each layer learns at this share of the rate of the one above it"
    )
    unfreeze: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the run in which layers join the head, which learns alone at first",
    )

    @model_validator(mode="after")
    def _of_trained_weights(self) -> Beginning:
        for key in ("freeze", "unfreeze"):
            if getattr(self, key) is not None and getattr(self, "from") is None:
                raise ValueError(
                    f"{key}={getattr(self, key)} would keep random weights: name the trained run as "
                    f"model.from, or leave {key} out"
                )
        for key, default in (("init", "auto"), ("zero_init_residual", False)):
            if getattr(self, "from") is not None and getattr(self, key, default) != default:
                raise ValueError(f"{key} would start trained weights anew: leave it out, or model.from")
        if getattr(self, "init", "auto") == "lsuv" and self.norm.kind == "spectral":  # type: ignore[attr-defined]
            raise ValueError("init=lsuv has no effect with norm=spectral, which takes the scale away again")
        if self.freeze == "body" and self.unfreeze is not None:
            raise ValueError("freeze=body and unfreeze contradict each other: keep one")
        return self


class SourcesModel(Beginning):
    """The model of `model.from`: its name and its keys are the source's, known once that is read."""

    model_config = ConfigDict(extra="allow")
    name: Literal["the source's"] = "the source's"
