"""Which kinds of data a model takes."""

from __future__ import annotations

from stepwell.data.dataset import Kind
from stepwell.errors import UserError

# The model to name when another one was chosen that cannot take this kind of data.
FITTING: dict[Kind, str] = {"features": "mlp", "image": "cnn", "sequence": "rnn", "text": "transformer"}
PLURAL: dict[Kind, str] = {"features": "features", "image": "images", "sequence": "sequences", "text": "text"}


def kind_of(input_shape: tuple[int, ...]) -> Kind:
    """Returns the kind that a sample's shape implies: (D,), (T, D) or (C, H, W).

    Trap: text (T,) looks like features; whoever has text must say so.
    """
    by_length: dict[int, Kind] = {1: "features", 2: "sequence", 3: "image"}
    if len(input_shape) not in by_length:
        raise UserError(
            f"samples of shape {input_shape} fit no model: they need one, two or three dimensions"
        )
    return by_length[len(input_shape)]


def accept(model: str, wanted: tuple[Kind, ...], kind: Kind | None, input_shape: tuple[int, ...]) -> Kind:
    """Returns the kind of data, or raises UserError where `model` takes only the `wanted` ones."""
    kind = kind or kind_of(input_shape)
    if kind in wanted:
        return kind
    wants = " or ".join(PLURAL[one] for one in wanted)
    has = described(kind, input_shape)
    raise UserError(f"model {model} wants {wants}, but the data has {has}: use model={FITTING[kind]}")


def described(kind: Kind, input_shape: tuple[int, ...]) -> str:
    """Data of a kind and shape in words: images of 1×8×8."""
    size = "×".join(str(side) for side in input_shape)
    return {
        "features": f"{size} features",
        "image": f"images of {size}",
        "sequence": f"sequences of {size}",
        "text": "text",
    }[kind]
