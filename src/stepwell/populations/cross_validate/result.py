"""What the folds say together: the chosen values, means with their intervals, predictions for every row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from stepwell.data import folds as folding
from stepwell.errors import UserError
from stepwell.metrics import by_task as metrics
from stepwell.metrics.resampled import corrected_t
from stepwell.nn import losses, registry
from stepwell.nn.network import Network
from stepwell.populations.cross_validate.plan import OuterFold, Plan
from stepwell.populations.member import Member, Outcome
from stepwell.training import evaluate, model_file
from stepwell.training.evaluate import Predictions
from stepwell.training.predict import columns
from stepwell.training.reproducible import same_arithmetic

# Where the metrics cannot be: an interval that runs over the end is cut there.
LEAST = {"r2": -math.inf}
MOST: dict[str, float] = dict.fromkeys(("loss", "rmse", "mae", "median_absolute_error"), math.inf)


@dataclass
class Found:
    """The result as JSON values, and the out-of-fold predictions, a row of the data each."""

    result: dict[str, Any]
    predictions: pl.DataFrame


def summarize(plan: Plan, outcomes: Sequence[Outcome]) -> Found:
    """Chooses in each fold, tests what was chosen on the rows it holds out, and puts the folds together."""
    if all(outcomes[fold.places[c]].diverged is not None for fold in plan.folds for c in _every(plan)):
        first = outcomes[plan.folds[0].places[0]].diverged
        raise UserError(f"every fold has diverged, the first at update {first}: lower optimizer.lr")
    chosen = [_chosen(plan, fold, outcomes) for fold in plan.folds]
    members = [fold.places[c] for fold, c in zip(plan.folds, chosen, strict=True)]
    found = [predicted(plan.members[place], outcomes[place]) for place in members]
    data = plan.folds[0].data
    measured = [{} if one is None else _measured(plan, one) for one in found]
    notes = _notes(plan, [outcomes[place] for place in members], chosen)
    question = plan.question
    result = {
        "status": "finished",
        "task": data.task,
        "kind": data.kind,
        "data": {"name": data.name, "rows": plan.source.rows},
        "folds": len(plan.folds) // question.repeats,
        "repeats": question.repeats,
        "inner": question.inner,
        "splitter": question.splitter,
        "stratified": question.pairs is None and plan.source.labels is not None,
        "groups": _group_name(plan),
        "classes": data.classes,
        "results": [
            {
                "fold": number,
                "name": fold.name,
                "train": len(fold.data.train),
                "validation": len(fold.data.validation),
                "test": len(fold.data.test),
                "rows": fold.held.tolist(),
                "chosen": plan.candidates[c],
                "updates": outcomes[place].updates,
                "epochs": outcomes[place].epochs,
                "delivered": outcomes[place].delivered,
                "diverged": outcomes[place].diverged,
                "how": outcomes[place].how,
                "metrics": values,
            }
            for number, (fold, c, place, values) in enumerate(
                zip(plan.folds, chosen, members, measured, strict=True), 1
            )
        ],
        "mean": mean_of(measured, _ratio(plan)),
        "pooled": _pooled(plan, found),
        "choice": _choice(plan, chosen, outcomes) if len(plan.candidates) > 1 else None,
        "notes": notes,
    }
    return Found(result, _table(plan, found))


def _every(plan: Plan) -> range:
    return range(len(plan.candidates))


# ---- one fold


def _chosen(plan: Plan, fold: OuterFold, outcomes: Sequence[Outcome]) -> int:
    """The candidate with the lowest loss on rows that the fold does not hold out; the first of equals."""
    return int(np.argmin([_score(plan, fold, c, outcomes) for c in _every(plan)]))


def _score(plan: Plan, fold: OuterFold, candidate: int, outcomes: Sequence[Outcome]) -> float:
    """Mean loss of the inner folds, or the validation loss; infinite where it diverged."""
    if plan.question.inner is None:
        return outcomes[fold.places[candidate]].validation.get("loss", math.inf)
    parts = [outcomes[place].test.get("loss", math.inf) for place in fold.inner[candidate]]
    return math.fsum(parts) / len(parts) if all(map(math.isfinite, parts)) else math.inf


def predicted(member: Member, outcome: Outcome) -> Predictions | None:
    """What a member's delivered weights say of the rows it holds out; None where it diverged."""
    if outcome.weights is None:
        return None
    recipe, data = member.recipe, member.data
    with torch.random.fork_rng(devices=[]), same_arithmetic(True, True):
        body = registry.build(recipe.model, data.input_shape, data.outputs, data.kind)
        network = Network.of(body, data)
        network.load_state_dict(outcome.weights)
        network.views = model_file.views(recipe.augment)
        loss = losses.build(recipe.loss, data.task)
        return evaluate.predictions(network, loss, data.test, torch.device("cpu"))


def _measured(plan: Plan, found: Predictions) -> dict[str, float | None]:
    full = evaluate.full(found, plan.folds[0].data.task, _names(plan), plan.recipe.seed)
    return {name: entry["value"] for name, entry in full.items()}


def _names(plan: Plan) -> list[str]:
    data = plan.folds[0].data
    return data.targets if data.task == "regression" else data.classes


# ---- all folds


def _ratio(plan: Plan) -> float:
    return float(np.mean([len(fold.held) / len(fold.learn) for fold in plan.folds]))


def mean_of(measured: Sequence[dict[str, Any]], ratio: float) -> dict[str, metrics.Entry]:
    """Each metric's mean over the folds with its corrected interval; None where a fold has no value."""
    found: dict[str, metrics.Entry] = {}
    for name in next((values for values in measured if values), {}):
        values = [one[name] for one in measured if one.get(name) is not None]
        if len(values) < len(measured):
            found[name] = {"value": None}
            continue
        found[name] = {"value": float(np.mean(values))}
        limits = corrected_t(values, ratio)
        if limits is not None:
            plain = name.partition("/")[0]
            low, high = max(limits[0], LEAST.get(plain, 0.0)), min(limits[1], MOST.get(plain, 1.0))
            found[name] |= {"low": low, "high": high}
    return found


def _pooled(plan: Plan, found: Sequence[Predictions | None]) -> dict[str, metrics.Entry]:
    """Every metric of all rows' out-of-fold predictions together; of repeats the mean, without an interval.

    {} where a fold diverged, or where the caller's splitter does not hold out every row once.
    """
    repeats, size = plan.question.repeats, len(plan.folds) // plan.question.repeats
    whole = [one for one in found if one is not None]
    times = np.bincount(np.concatenate([fold.held for fold in plan.folds]), minlength=plan.source.rows)
    if len(whole) < len(found) or (times != repeats).any():
        return {}
    each = []
    for first in range(0, len(found), size):
        some = whole[first : first + size]
        together = Predictions(
            *(np.concatenate([getattr(one, key) for one in some]) for key in ("outputs", "targets", "loss"))
        )
        each.append(evaluate.full(together, plan.folds[0].data.task, _names(plan), plan.recipe.seed))
    if repeats == 1:
        return each[0]
    values = {name: [one[name]["value"] for one in each] for name in each[0]}
    return {name: {"value": None if None in some else float(np.mean(some))} for name, some in values.items()}


def _choice(plan: Plan, chosen: list[int], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """How often each candidate was chosen, and the honest score beside the optimistic one.

    optimistic: what one would report who compares the candidates by these very folds and takes the best.
    honest: of what each fold chose without them.
    """
    tests = [[outcomes[fold.places[c]].test for fold in plan.folds] for c in _every(plan)]
    means = [mean_of(some, _ratio(plan)) if all(some) else {} for some in tests]
    losses = [m["loss"]["value"] if m else None for m in means]
    best = int(np.argmin([math.inf if loss is None else loss for loss in losses]))
    picked = [tests[c][k] for k, c in enumerate(chosen)]
    inner = plan.question.inner
    return {
        "by": "validation loss" if inner is None else f"loss of {inner} inner folds",
        "candidates": [
            {
                "values": values,
                "chosen": chosen.count(c),
                "test": {name: entry["value"] for name, entry in means[c].items()},
            }
            for c, values in enumerate(plan.candidates)
        ],
        "optimistic": {"values": plan.candidates[best], "test": means[best]},
        "honest": {"test": mean_of(picked, _ratio(plan)) if all(picked) else {}},
    }


# ---- the predictions as a table


def _table(plan: Plan, found: Sequence[Predictions | None]) -> pl.DataFrame:
    """A line a row of the data, in its order: the fold, the target, and the prediction when it was held out.

    Of a row that is held out more than once (repeats), the mean over these times. Of one that never is,
    empty cells.
    """
    rows, data = plan.source.rows, plan.folds[0].data
    folds: list[list[str]] = [[] for _ in range(rows)]
    total: np.ndarray | None = None
    targets: np.ndarray | None = None
    times = np.zeros(rows)
    for number, (fold, one) in enumerate(zip(plan.folds, found, strict=True), 1):
        for row in fold.held.tolist():
            folds[row].append(str(number))
        if one is None:
            continue
        if total is None or targets is None:
            total = np.zeros((rows, one.outputs.shape[1]))
            targets = np.zeros((rows, *one.targets.shape[1:]), one.targets.dtype)
        total[fold.held] += one.outputs
        targets[fold.held] = one.targets
        times[fold.held] += 1
    assert total is not None and targets is not None  # not all have diverged
    known = np.flatnonzero(times)
    said = pl.DataFrame(
        {
            "row": known,
            **_targets(data, targets[known]),
            **columns(data, total[known] / times[known, None], []),  # type: ignore[arg-type]
        }
    )
    head = {"row": np.arange(rows), "fold": [" ".join(numbers) for numbers in folds]}
    table = pl.DataFrame(head).join(said, on="row", how="left", maintain_order="left")
    if plan.source.names is not None:
        table = table.with_columns(pl.Series("row", plan.source.names)).rename({"row": "file"})
    return table


def _targets(data: Any, targets: np.ndarray) -> dict[str, Any]:
    """The true values, in columns named as those of predictions."""
    if data.task == "regression":
        single = len(data.targets) == 1
        return {
            "target" if single else f"target_{name}": column
            for name, column in zip(data.targets, targets.T, strict=True)
        }
    if data.task == "multi-label":
        return {
            "target": [
                ", ".join(c for c, yes in zip(data.classes, row, strict=True) if yes) for row in targets > 0.5
            ]
        }
    return {"target": [data.classes[k] for k in targets]}


def _group_name(plan: Plan) -> str | None:
    name = getattr(plan.recipe.data, "groups", None)
    return name or ("the caller's" if plan.question.groups is not None else None)


def _notes(plan: Plan, outcomes: Sequence[Outcome], chosen: list[int]) -> list[str]:
    """Plain sentences: what diverged, what the folds lack, and what the data's reader said of which fold."""
    data = plan.folds[0].data
    notes = [
        f"fold {number} diverged at update {outcome.diverged}, so there is no mean: lower optimizer.lr"
        for number, outcome in enumerate(outcomes, 1)
        if outcome.diverged is not None
    ]
    if "test" in plan.source.own:
        notes.append(
            f"{data.name} has a test part of its own: it is in no fold, and nothing was measured on it"
        )
    if plan.question.pairs is None and plan.source.labels is not None:
        for number in folding.sparse(plan.source.labels, plan.question.folds):
            notes.append(
                f"class {data.classes[number]!r} has fewer rows than folds, so some hold out none of it"
            )
    notes += _at_an_end(plan, chosen)
    times = np.bincount(np.concatenate([fold.held for fold in plan.folds]), minlength=plan.source.rows)
    if never := int((times == 0).sum()):
        notes.append(f"{never} of {plan.source.rows} rows are in no fold's held-out part")
    said: dict[str, list[int]] = {}
    for number, fold in enumerate(plan.folds, 1):
        for note in dict.fromkeys(fold.data.notes):
            said.setdefault(note.rstrip("."), []).append(number)
    for note, folds in said.items():
        where = "" if len(folds) == len(plan.folds) else f" ({_numbers(folds)})"
        notes.append(note + where)
    return notes


def _at_an_end(plan: Plan, chosen: list[int]) -> list[str]:
    """A note on each key whose lowest or highest number most folds chose: the best may lie beyond."""
    notes = []
    for key, values in plan.question.values.items():
        if len(values) < 3 or not all(isinstance(v, int | float) for v in values):
            continue
        picked = [plan.candidates[c][key] for c in chosen]
        for end, word in ((min(values), "lowest"), (max(values), "highest")):
            if picked.count(end) > len(picked) / 2:
                notes.append(
                    f"{picked.count(end)} of {len(picked)} folds chose {key}={end}, the {word} value: "
                    "the best may lie beyond"
                )
    return notes


def _numbers(folds: list[int]) -> str:
    shown = ", ".join(map(str, folds[:8])) + (", …" if len(folds) > 8 else "")
    return f"fold{'s' * (len(folds) > 1)} {shown}"
