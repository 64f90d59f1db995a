"""Every scheme of initialization by name: what fills a layer's matrix, and with which gain."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from stepwell.errors import UserError
from stepwell.nn.init_key import canonical
from stepwell.nn.initialization import tensors


class Scheme(NamedTuple):
    """fill: (matrix, gain, generator) → the matrix, in place.

    gain: of a layer that an activation follows, where `initialize` is given none. bad: whether it is one
    to compare with, which fills every weight alike, recurrent ones and embeddings too.
    """

    fill: Callable[..., Tensor]
    gain: float = 1.0
    bad: bool = False


def _fixed(fill: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda matrix, gain, generator: fill(matrix, generator=generator)


SCHEMES: dict[str, Scheme] = {
    "xavier-uniform": Scheme(tensors.xavier_uniform_),
    "xavier-normal": Scheme(tensors.xavier_normal_),
    "he-uniform": Scheme(lambda w, gain, g: tensors.he_uniform_(w, gain, generator=g), math.sqrt(2.0)),
    "he-normal": Scheme(lambda w, gain, g: tensors.he_normal_(w, gain, generator=g), math.sqrt(2.0)),
    "orthogonal": Scheme(tensors.orthogonal_),
    "lsuv": Scheme(tensors.orthogonal_),  # and then scaled, see `lsuv`
    "zeros": Scheme(lambda w, gain, g: tensors.zeros_(w), bad=True),
    "small-normal": Scheme(_fixed(tensors.small_normal_), bad=True),
    "large-normal": Scheme(_fixed(tensors.large_normal_), bad=True),
}


def scheme_named(name: str) -> tuple[str, Scheme]:
    """The scheme and its own name, of an alias too; UserError with the nearest for a wrong one."""
    try:
        name = canonical(name)
    except ValueError as error:
        raise UserError(str(error)) from None
    return name, SCHEMES[name]
