"""Folds: which rows each of them holds out, by scikit-learn's splitters."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stepwell.errors import UserError

Index = NDArray[np.int64]
Bools = NDArray[np.bool_]
Fold = tuple[Index, Index]  # the rows to learn from, and those held out

FORM = r"^[1-9]\d{0,8}/[1-9]\d{0,8}(:[1-9]\d{0,8})?$"  # K/N or K/N:R


def splits(
    n: int, labels: ArrayLike | None, groups: ArrayLike | None, folds: int, repeats: int, seed: int
) -> list[Fold]:
    """Returns folds · repeats pairs of sorted row numbers; in each repeat every row is held out once.

    labels: (n,) classes, of which each fold then has its share, as nearly as possible; None: rows at random.
    groups: (n,) whatever must not be on both sides of a fold.
    Without groups equal to scikit-learn's RepeatedStratifiedKFold and RepeatedKFold with this seed, which
    for one repeat are StratifiedKFold and KFold with shuffle=True; with groups to StratifiedGroupKFold and
    GroupKFold.

    Raises UserError where there are not enough rows, rows a class, or groups.
    """
    from sklearn import model_selection

    if folds < 2:
        raise UserError(f"{folds} fold: there must be 2 or more, since one is held out")
    if folds > n:
        raise UserError(f"{folds} folds are more than the {n} rows there are: give at most {n}")
    codes = None if groups is None else numbered(groups)
    if codes is not None and (there := len(np.unique(codes))) < folds:
        raise UserError(f"{folds} folds are more than the {there} groups there are: give at most {there}")
    y = np.zeros(n, np.int64) if labels is None else numbered(labels)
    if labels is not None and (largest := np.bincount(y).max()) < folds:
        raise UserError(
            f"{folds} folds are more than any class has rows (the largest has {largest}): "
            f"give at most {largest}"
        )
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): model_selection.KFold,
        (True, False): model_selection.StratifiedKFold,
        (False, True): model_selection.GroupKFold,
        (True, True): model_selection.StratifiedGroupKFold,
    }
    kind = kinds[labels is not None, codes is not None]
    random = np.random.RandomState(seed % 2**32)  # one for all repeats, as scikit-learn's Repeated… has it
    found: list[Fold] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of small classes, which `sparse` tells
        for _ in range(repeats):
            splitter = kind(n_splits=folds, shuffle=True, random_state=random)
            found += [
                (learn.astype(np.int64), held.astype(np.int64))
                for learn, held in splitter.split(np.zeros((n, 1)), y, codes)
            ]
    if any(not len(side) for fold in found for side in fold):  # few groups of very different classes
        raise UserError(f"{folds} folds of these groups leave one of them empty: give fewer")
    return found


def one(fold: str, n: int, labels: ArrayLike | None, groups: ArrayLike | None, seed: int) -> Fold:
    """Returns the fold that `data.fold` names: the K-th of N, of the R-th repeat (the first, if not said)."""
    number, folds, repeat = parsed(fold)
    if number > folds:
        raise UserError(
            f"data.fold={fold}: there is no fold {number} of {folds}; give 1/{folds} to {folds}/{folds}"
        )
    try:
        found = splits(n, labels, groups, folds, repeat, seed)
    except UserError as error:
        raise UserError(f"data.fold={fold}: {error}") from None
    return found[(repeat - 1) * folds + number - 1]


def parsed(fold: str) -> tuple[int, int, int]:
    """K/N:R as three numbers."""
    first, _, repeat = fold.partition(":")
    number, _, folds = first.partition("/")
    return int(number), int(folds), int(repeat or 1)


def called(number: int, folds: int, repeats: int) -> str:
    """How `data.fold` calls the fold with this number (from 0) of all repeats."""
    repeat, place = divmod(number, folds)
    return f"{place + 1}/{folds}" + (f":{repeat + 1}" if repeats > 1 else "")


def sparse(labels: ArrayLike, folds: int) -> list[int]:
    """The numbers of the classes that have fewer rows than there are folds: some folds hold none of them."""
    return np.flatnonzero(np.bincount(numbered(labels)) < folds).tolist()


def numbered(values: ArrayLike) -> Index:
    """Returns 0, 1, … for the different values, in their order."""
    return np.unique(np.asarray(values), return_inverse=True)[1].reshape(-1).astype(np.int64)
