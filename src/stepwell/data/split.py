"""Training, validation and test part: which row goes where."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from stepwell.errors import UserError

Index = NDArray[np.int64]


class SplitConfig(BaseModel):
    """What every source that splits at random is told; it says itself what its `name` can be."""

    model_config = ConfigDict(extra="forbid")

    name: str
    validation: float = Field(
        default=0.15, ge=0, lt=1, description="share for validation, of what the test part leaves"
    )
    test: float = Field(
        default=0.2, ge=0, lt=1, description="share for testing, where the data brings no test part"
    )
    split_seed: int = Field(default=0, ge=0, description="seed of the random split")


def split_by(
    config: SplitConfig, n: int, labels: ArrayLike | None, own: Collection[str] = ()
) -> tuple[Index, Index, Index]:
    """Returns `split` of n rows as the recipe says; parts that the data brings along (`own`) get none.

    Raises UserError where a key of the recipe would have no effect.
    """
    _refuse_unused(config, own)
    test, validation = (0.0 if part in own else getattr(config, part) for part in ("test", "validation"))
    return split(n, labels, test, validation, config.split_seed)


def split(
    n: int, labels: ArrayLike | None, test: float, validation: float, seed: int
) -> tuple[Index, Index, Index]:
    """Returns the sorted row numbers (int64) of the training, validation and test part.

    Every row of 0 … n−1 is in exactly one part, and the same arguments give the same parts.

    test: share of the n rows; validation: share of what the test part leaves. A part with a share
    above 0 has at least one row.
    labels: (n,) classes. Each class then has its share in each part to within one row (quotas
    n_c · share, whole numbers by largest remainder), and at least one row in the training part:
    a class with a single row is trained on.

    Raises UserError where n, or the number of rows a class, is too small for the parts.

    Example: split(10, None, 0.2, 0.25, seed=0) has 6, 2 and 2 rows.
    """
    random = np.random.default_rng(seed)
    stratum = np.zeros(n, np.int64) if labels is None else _numbered(labels)
    order = random.permutation(n)

    taken = _take(stratum[order], test, random)
    left = order[~taken]
    also = _take(stratum[left], validation, random)
    parts = []
    for name, share, chosen in (
        ("training", 1.0, left[~also]),
        ("validation", validation, left[also]),
        ("test", test, order[taken]),
    ):
        if share > 0 and not len(chosen):
            raise UserError(
                f"{n} samples are too few for a training, a validation and a test part"
                f" (the {name} part would be empty): bring more, or change data.test and data.validation."
            )
        parts.append(np.sort(chosen).astype(np.int64))
    return parts[0], parts[1], parts[2]


def _refuse_unused(config: SplitConfig, own: Collection[str]) -> None:
    """Raises UserError where the data's `own` parts, or shares of 0, leave a key without effect.

    Only what differs from its default is refused: a saved recipe has every key and can be trained again.
    """
    parts = ("validation", "test")
    unused = {part: f"{config.name} has a {part} part of its own" for part in parts if part in own}
    drawn = [part for part in parts if part not in own]
    if not drawn:
        unused["split_seed"] = f"{config.name} has its own parts"
    elif not any(getattr(config, part) for part in drawn):
        shares = " and ".join(f"data.{part}=0" for part in drawn)
        unused["split_seed"] = f"with {shares} no part is drawn at random"
    for key, why in unused.items():
        value = getattr(config, key)
        if value != type(config).model_fields[key].default:
            raise UserError(f"data.{key}={value} has no effect: {why}; remove the key")


def _numbered(values: ArrayLike) -> Index:
    return np.unique(np.asarray(values), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _take(stratum: Index, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Marks which of the shuffled rows make up `share` of all, stratum by stratum; stratum: each row's."""
    taken = np.zeros(len(stratum), bool)
    if share <= 0 or not len(stratum):
        return taken
    members = np.bincount(stratum)
    for c, seats in enumerate(_apportion(members, share, random)):
        taken[np.flatnonzero(stratum == c)[:seats]] = True
    return taken


def _apportion(members: Index, share: float, random: np.random.Generator) -> Index:
    """Largest remainder (Hamilton): whole seats near members · share, one member a class left over."""
    quota = members * share
    seats = np.floor(quota + 1e-9).astype(np.int64)
    most = np.maximum(members - 1, 0)
    seats = np.minimum(seats, most)
    total = max(int(np.floor(members.sum() * share + 0.5)), 1)
    # Ties by lot: were they to go to the first class, its rows would be tested more often than others.
    for c in np.lexsort((random.random(len(members)), -np.round(quota - seats, 9))):
        if seats.sum() >= total:
            break
        if seats[c] < most[c] and seats[c] < quota[c]:
            seats[c] += 1
    return seats
