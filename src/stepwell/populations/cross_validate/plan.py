"""Which members a cross-validation trains: a fold each, times values to choose from, and inner folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stepwell.data import folds as folding
from stepwell.data.dataset import DataSet
from stepwell.data.folds import Fold
from stepwell.data.sources import noted
from stepwell.data.split import Opened, with_validation
from stepwell.errors import UserError
from stepwell.populations.cross_validate.question import Question, grouped, opened, split_by_hand
from stepwell.populations.member import Member
from stepwell.recipe import Recipe, resolve


@dataclass
class OuterFold:
    """name: as `data.fold` calls it, None where the caller has split. places: of its members in the plan.

    places[c] is the member of candidate c that is tested on the held-out rows; inner[c] are the members
    of that candidate whose test parts are inner folds of the rows to learn from.
    """

    name: str | None
    learn: np.ndarray
    held: np.ndarray
    data: DataSet
    places: list[int]
    inner: list[list[int]]


@dataclass
class Plan:
    """candidates: the values of each choice. members: all of them, to be trained by one call."""

    question: Question
    source: Opened
    candidates: list[dict[str, Any]]
    folds: list[OuterFold]
    members: list[Member]
    recipe: Recipe  # of the first candidate


def plan(question: Question, splitter: Any = None) -> Plan:
    """Reads the data once and prepares it for every fold, from the fold's own training rows.

    splitter: one of scikit-learn's kind, or pairs of row numbers; its folds are kept in the question.
    """
    candidates = question.candidates()
    recipe = candidates[0][1]
    source = opened(question, recipe)
    groups = None if source.groups is None else folding.numbered(source.groups)
    if question.groups is not None:
        if groups is not None:
            raise UserError("groups and data.groups both say what goes together: keep one")
        groups = question.groups = grouped(source, question.groups)
    if splitter is not None:
        question.pairs = split_by_hand(source, splitter, groups)
    validated = recipe.data.validation or "validation" in source.own
    if len(candidates) > 1 and question.inner is None and not validated:
        raise UserError("without a validation part a fold cannot choose: set data.validation, or --inner")
    pairs = question.pairs or _pairs(question, source, groups, recipe.data.split_seed)
    members: list[Member] = []

    def prepared(learn: np.ndarray, held: np.ndarray) -> DataSet:
        return source.prepare(*with_validation(recipe.data, learn, held, source.labels, source.own, groups))

    def added(data: DataSet, config: Any) -> list[int]:
        for _, asked in candidates:
            members.append(Member(resolve(asked.model_copy(update={"data": config}), data), data))
        return list(range(len(members) - len(candidates), len(members)))

    folds = []
    for number, (learn, held) in enumerate(pairs):
        name, config = None, recipe.data
        if question.pairs is None and question.groups is None:
            name = folding.called(number, question.folds, question.repeats)
            config = recipe.data.model_copy(update={"fold": name})
        data = noted(prepared(learn, held))
        outer = OuterFold(name, learn, held, data, added(data, config), [[] for _ in candidates])
        for inner_learn, inner_held in _inner(
            question, source, groups, learn, recipe.data.split_seed, number
        ):
            inner_data = prepared(learn[inner_learn], learn[inner_held])
            for places, place in zip(outer.inner, added(inner_data, recipe.data), strict=True):
                places.append(place)
        folds.append(outer)
    return Plan(question, source, [chosen for chosen, _ in candidates], folds, members, recipe)


def _pairs(question: Question, source: Opened, groups: np.ndarray | None, seed: int) -> list[Fold]:
    try:
        return folding.splits(source.rows, source.labels, groups, question.folds, question.repeats, seed)
    except UserError as error:
        raise UserError(f"--folds {question.folds}: {error}") from None


def _inner(
    question: Question, source: Opened, groups: np.ndarray | None, learn: np.ndarray, seed: int, number: int
) -> list[Fold]:
    """The inner folds of the rows that an outer fold learns from, as numbers into these."""
    if question.inner is None:
        return []
    theirs = (None if v is None else np.asarray(v)[learn] for v in (source.labels, groups))
    try:
        return folding.splits(len(learn), next(theirs), next(theirs), question.inner, 1, seed)
    except UserError as error:
        raise UserError(f"--inner {question.inner}: in fold {number + 1}, {error}") from None
