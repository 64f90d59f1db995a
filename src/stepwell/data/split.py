"""Training, validation and test part: which row goes where."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from stepwell.data import folds
from stepwell.data.dataset import DataSet
from stepwell.data.folds import FORM, Bools, Index, numbered
from stepwell.errors import UserError

Parts = tuple[Index, Index, Index]  # the rows of the training, validation and test part


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
    fold: str | None = Field(
        default=None,
        pattern=FORM,
        description="2/5: test on the second of five folds; 2/5:3: on that of the third shuffle",
    )


@dataclass(frozen=True)
class Opened:
    """A source that is read but not split yet: parts can be drawn from it again and again.

    rows: how many there are to draw from, N. labels: (N,) classes, or None where there are none.
    own: the parts that the source brings along. groups: (N,) whatever must stay together, or None.
    names: of the rows where they have any, such as files.
    prepare: the rows of the training, validation and test part → the data; a part without rows is the
    source's own, if it has one. All that is learnt from data is learnt from these training rows.
    """

    rows: int
    labels: ArrayLike | None
    own: Collection[str]
    prepare: Callable[[Index, Index, Index], DataSet]
    groups: ArrayLike | None = None
    names: list[str] | None = None

    def load(self, config: SplitConfig) -> DataSet:
        """The data, split as the recipe says."""
        return self.prepare(*split_by(config, self.rows, self.labels, self.own, self.groups))


def split_by(
    config: SplitConfig,
    n: int,
    labels: ArrayLike | None,
    own: Collection[str] = (),
    groups: ArrayLike | None = None,
) -> Parts:
    """Returns `split` of n rows as the recipe says; parts that the data brings along (`own`) get none.

    With data.fold the test part is that fold, whether or not the data has one of its own.
    Raises UserError where a key of the recipe would have no effect.
    """
    _refuse_unused(config, own, groups is not None)
    if config.fold is not None:
        learn, held = folds.one(config.fold, n, labels, groups, config.split_seed)
        return with_validation(config, learn, held, labels, own, groups)
    test, validation = (0.0 if part in own else getattr(config, part) for part in ("test", "validation"))
    return split(n, labels, test, validation, config.split_seed, groups)


def with_validation(
    config: SplitConfig,
    learn: Index,
    held: Index,
    labels: ArrayLike | None,
    own: Collection[str] = (),
    groups: ArrayLike | None = None,
) -> Parts:
    """Returns the parts where `held` is tested: the validation part is drawn from the other rows, `learn`."""
    share = 0.0 if "validation" in own else config.validation
    theirs = (None if values is None else np.asarray(values)[learn] for values in (labels, groups))
    train, validation, _ = split(len(learn), next(theirs), 0.0, share, config.split_seed, next(theirs))
    return learn[train], learn[validation], held


def split(
    n: int,
    labels: ArrayLike | None,
    test: float,
    validation: float,
    seed: int,
    groups: ArrayLike | None = None,
) -> Parts:
    """Returns the sorted row numbers (int64) of the training, validation and test part.

    Every row of 0 … n−1 is in exactly one part, and the same arguments give the same parts.

    test: share of the n rows; validation: share of what the test part leaves. A part with a share
    above 0 has at least one row.
    labels: (n,) classes. Each class then has its share in each part to within one row (quotas
    n_c · share, whole numbers by largest remainder), and at least one row in the training part:
    a class with a single row is trained on.
    groups: (n,) whatever must stay together. Then the parts are of whole groups in random order, their
    rows as near to the shares as that order allows, and classes are not looked at.

    Raises UserError where n, or the number of rows a class, is too small for the parts.

    Example: split(10, None, 0.2, 0.25, seed=0) has 6, 2 and 2 rows.
    """
    random = np.random.default_rng(seed)
    stratum = np.zeros(n, np.int64) if labels is None else numbered(labels)
    take = _take
    if groups is not None:
        stratum, take = numbered(groups), _take_groups
    order = random.permutation(n)

    taken = take(stratum[order], test, random)
    left = order[~taken]
    also = take(stratum[left], validation, random)
    parts = []
    for name, share, chosen in (
        ("training", 1.0, left[~also]),
        ("validation", validation, left[also]),
        ("test", test, order[taken]),
    ):
        if share > 0 and not len(chosen):
            if groups is not None:
                raise UserError(
                    f"{stratum.max() + 1} groups are too few for a training, a validation and a test part"
                    f" (the {name} part would be empty): bring more, or change data.test and data.validation."
                )
            raise UserError(
                f"{n} samples are too few for a training, a validation and a test part"
                f" (the {name} part would be empty): bring more, or change data.test and data.validation."
            )
        parts.append(np.sort(chosen).astype(np.int64))
    return parts[0], parts[1], parts[2]


def _refuse_unused(config: SplitConfig, own: Collection[str], grouped: bool) -> None:
    """Raises UserError where the data's `own` parts, or shares of 0, leave a key without effect.

    Only what differs from its default is refused: a saved recipe has every key and can be trained again.
    """
    parts = ("validation", "test")
    unused = {part: f"{config.name} has a {part} part of its own" for part in parts if part in own}
    drawn = [part for part in parts if part not in own]
    if config.fold is not None:
        unused["test"] = f"data.fold={config.fold} says what is tested on"
    elif not drawn:
        unused["split_seed"] = f"{config.name} has its own parts"
    elif not any(getattr(config, part) for part in drawn):
        shares = " and ".join(f"data.{part}=0" for part in drawn)
        unused["split_seed"] = f"with {shares} no part is drawn at random"
        if grouped:
            unused["groups"] = unused["split_seed"]
    for key, why in unused.items():
        value = getattr(config, key)
        if value != type(config).model_fields[key].default:
            raise UserError(f"data.{key}={value} has no effect: {why}; remove the key")


def _take_groups(group: Index, share: float, random: np.random.Generator) -> Bools:
    """Marks whole groups, in random order, until their rows are nearest to `share` of all; one stays."""
    if share <= 0 or not len(group):
        return np.zeros(len(group), bool)
    group = numbered(group)
    sizes = np.bincount(group)
    order = random.permutation(len(sizes))
    count = int(np.abs(np.cumsum(sizes[order]) - share * len(group)).argmin()) + 1
    return np.isin(group, order[: min(count, len(sizes) - 1)])


def _take(stratum: Index, share: float, random: np.random.Generator) -> Bools:
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
