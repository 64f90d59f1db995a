"""What is asked of a cross-validation, so that it can be asked again after a kill."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stepwell.data import folds as folding
from stepwell.data import sources
from stepwell.data.folds import Fold, Index
from stepwell.data.split import Opened, SplitConfig
from stepwell.errors import UserError
from stepwell.populations.cross_validate.values import combinations
from stepwell.recipe import Recipe, read_recipe

FOLDS = 5
MOST = 10_000  # trainings


@dataclass
class Question:
    """A recipe, its folds, and the values to choose from.

    recipe: a YAML file, or None. changes: keys over it. values: key → values, one of which each fold
    chooses without its held-out rows: by `inner` folds of its training rows, or by its validation part.
    pairs, groups: rows (learnt from, held out) and groups (N,) that the caller has decided itself.
    """

    recipe: Path | None
    changes: dict[str, Any]
    folds: int = FOLDS
    repeats: int = 1
    inner: int | None = None
    values: dict[str, list[Any]] = field(default_factory=dict)
    pairs: list[Fold] | None = None
    groups: Index | None = None
    splitter: str | None = None  # the caller's own, in words
    file: str | None = None  # how the caller has named `recipe`

    def candidates(self) -> list[tuple[dict[str, Any], Recipe]]:
        """Each choice of values, with its recipe."""
        return [
            (chosen, read_recipe(self.recipe, {**self.changes, **chosen}))
            for chosen in combinations(self.values)
        ]

    def check(self, recipe: Recipe) -> None:
        """Raises UserError for what has no effect here, or none with these options."""
        data = recipe.data
        if getattr(data, "fold", None) is not None:
            raise UserError(
                f"data.fold={data.fold} is one of the folds, and here is trained on all: remove it"
            )
        if data.test != type(data).model_fields["test"].default:
            raise UserError(
                f"data.test={data.test} has no effect: each fold is the test part in turn; remove it"
            )
        if recipe.training.track:
            raise UserError("training.track has no effect on folds: remove it")
        if getattr(recipe.model, "from") is not None:
            raise UserError(
                "model.from: its weights may come from the very rows that a fold holds out, so they are not "
                "cross-validated: remove it"
            )
        if self.folds * self.repeats > MOST:
            raise UserError(
                f"--folds {self.folds} --repeats {self.repeats}: these are more than {MOST:,} trainings; "
                "lower one"
            )
        if self.repeats < 1:
            raise UserError(f"--repeats {self.repeats}: it must be at least 1")
        if self.inner is not None and not self.values:
            raise UserError(
                "--inner has no effect without values to choose from, such as optimizer.lr=log(1e-4,1e-1,4)"
            )


def opened(question: Question, recipe: Recipe) -> Opened:
    """The data, read and not split yet."""
    if isinstance(recipe.data, SplitConfig):
        question.check(recipe)
    return sources.opened(recipe.data)  # which refuses text


def grouped(opened: Opened, groups: ArrayLike) -> Index:
    """The caller's groups as numbers; one for each row."""
    found = np.asarray(groups)
    if found.shape != (opened.rows,):
        raise UserError(
            f"groups has shape {found.shape}; one group for each of the {opened.rows} rows is needed"
        )
    return folding.numbered(found)


def split_by_hand(opened: Opened, splitter: Any, groups: Index | None) -> list[Fold]:
    """The folds of any splitter of scikit-learn's kind, or of an iterable of (train, test) row numbers."""
    if hasattr(splitter, "split"):
        y = np.zeros(opened.rows, np.int64) if opened.labels is None else np.asarray(opened.labels)
        try:
            pairs = list(splitter.split(np.zeros((opened.rows, 1)), y, groups))
        except ValueError as error:
            raise UserError(f"splitter: {str(error).rstrip('.')}") from None
    elif isinstance(splitter, Iterable):
        pairs = list(splitter)
    else:
        raise UserError("splitter must have `split`, as scikit-learn's have, or be pairs of row numbers")
    found = []
    for number, pair in enumerate(pairs, 1):
        learn, held = (np.asarray(side) for side in pair)
        for side in (learn, held):
            whole = side.ndim == 1 and side.dtype.kind in "iu" and len(np.unique(side)) == len(side) > 0
            if not whole or side.min() < 0 or side.max() >= opened.rows:
                raise UserError(
                    f"splitter: fold {number} is not two lists of different rows, 0 to {opened.rows - 1}"
                )
        if len(both := np.intersect1d(learn, held)):
            raise UserError(f"splitter: fold {number} learns from row {both[0]}, which it holds out")
        found.append((np.sort(learn).astype(np.int64), np.sort(held).astype(np.int64)))
    if not found:
        raise UserError("splitter: it gives no folds")
    return found
