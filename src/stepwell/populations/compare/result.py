"""From the members' outcomes to what result.json says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stepwell.metrics.intervals import student_t
from stepwell.populations.compare.choice import rank
from stepwell.populations.compare.command import command
from stepwell.populations.compare.curves import best_of, mean_curve, updates_to
from stepwell.populations.compare.holm import holm
from stepwell.populations.compare.paired import difference
from stepwell.populations.compare.plan import Candidate, Entry, Plan
from stepwell.populations.compare.tunability import tunability
from stepwell.populations.compare.verdict import verdict
from stepwell.populations.member import Outcome

MAIN = {"regression": "rmse", "multi-label": "f1", "text": "bits_per_character"}  # of a task; else accuracy
SHARES = ("accuracy", "f1")
Runs = Mapping[int, Outcome]  # of one candidate, by seed


def main_metric(task: str) -> str:
    """The metric that entries are compared by."""
    return MAIN.get(task, "accuracy")


def status(outcome: Outcome) -> str:
    """finished, diverged, or given up at a rung. A run whose outputs are not finite has diverged too."""
    if outcome.diverged is not None or "loss" not in outcome.validation or "loss" not in outcome.test:
        return "diverged"
    return "finished" if outcome.stopped_at is None else "given up"


def summarize(
    plan: Plan, outcomes: Sequence[Outcome], target: float | None = None, rungs: Sequence[int] = ()
) -> dict[str, Any]:
    """Returns result.json's content but for what is not of the numbers. The entries stand best first.

    outcomes: in the order of `plan.members()`. target: of the main metric on the validation part; None:
    what the entry that is worst at its best reaches.
    """
    metric = main_metric(plan.data.task)
    higher = metric in SHARES
    runs = _by_candidate(plan, outcomes)
    found = [_entry(plan, entry, runs[k], metric, not rungs) for k, entry in enumerate(plan.entries)]
    reference = _reference(found, metric, higher)
    pairs = _pairs(found, metric, 1 / len(plan.data.test) if metric == "accuracy" else 0.0)
    for entry in found:
        entry["difference"] = None
        if reference is not None and entry["name"] != reference:
            entry["difference"] = _difference(pairs, entry["name"], reference)
    reached = [v for entry in found if (v := best_of(entry["curves"][metric], higher)) is not None]
    aim = target if target is not None else (min if higher else max)(reached, default=None)
    for entry in found:
        curve = entry["curves"][metric]
        entry["updates_to_target"] = None if aim is None else updates_to(curve, aim, higher)
    found.sort(key=lambda entry: _place(entry, metric, higher))
    return {
        "metric": metric,
        "higher_is_better": higher,
        "tuned_by": criterion(plan),
        "reference": reference,
        "verdict": verdict(found, reference, higher, len(plan.seeds)),
        "target": {"value": aim, "given": target is not None},
        "entries": found,
        "pairs": pairs,
        "notes": _notes(plan, found, reference),
    }


def criterion(plan: Plan) -> str:
    """What a tuned value is chosen by: the loss, unless what is tuned changes the loss itself."""
    keys = {key for entry in plan.entries for key in entry.tuned}
    return main_metric(plan.data.task) if any(key.startswith("loss.") for key in keys) else "loss"


def _by_candidate(plan: Plan, outcomes: Sequence[Outcome]) -> list[list[Runs]]:
    each = iter(outcomes)
    return [
        [dict(zip(plan.seeds, itertools.islice(each, len(plan.seeds)), strict=True)) for _ in e.candidates]
        for e in plan.entries
    ]


def _finished(runs: Runs) -> dict[int, Outcome]:
    return {seed: outcome for seed, outcome in runs.items() if status(outcome) == "finished"}


def _chosen(plan: Plan, runs: Sequence[Runs]) -> int:
    """The candidate that is best on the validation part; one that was given up has no finished run."""
    by = criterion(plan)
    sign = -1.0 if by in SHARES else 1.0

    def place(k: int) -> tuple[int, float]:
        ok = _finished(runs[k])
        return rank([sign * ok[seed].validation[by] if seed in ok else math.inf for seed in runs[k]])

    return min(range(len(runs)), key=place)


def _entry(plan: Plan, entry: Entry, runs: Sequence[Runs], metric: str, whole: bool) -> dict[str, Any]:
    """whole: every candidate was trained to its end, so that they can be set beside each other."""
    k = _chosen(plan, runs)
    chosen, ok = entry.candidates[k], _finished(runs[k])
    counted = [status(outcome) for each in runs for outcome in each.values()]
    curves = [outcome.curve for outcome in ok.values()]
    return {
        "name": entry.name,
        "values": plain(entry.values),
        "tuned": plain(chosen.values),
        "finished": len(ok),
        "trainings": len(counted),
        "diverged": counted.count("diverged"),
        "given_up": counted.count("given up"),
        "validation": {m: _mean({s: o.validation.get(m) for s, o in ok.items()}) for m in ("loss", metric)},
        "test": {m: _mean({s: o.test.get(m) for s, o in ok.items()}) for m in ("loss", metric)},
        "tunability": _tunability(entry, chosen, runs, metric) if whole else {},
        "candidates": [_candidate(c, r, metric) for c, r in zip(entry.candidates, runs, strict=True)],
        "curves": {m: mean_curve(curves, m) for m in ("loss", metric)},
        "updates": max((outcome.updates for outcome in ok.values()), default=0),
        "recipe": plain(chosen.recipe.model_dump()),
        "command": command(chosen.changes, plan.seeds[0]),
    }


def _mean(by_seed: Mapping[int, float | None]) -> dict[str, Any]:
    """Mean and 95 % interval over seeds, and the values themselves."""
    values = {seed: value for seed, value in by_seed.items() if value is not None}
    low, high = student_t(list(values.values())) or (None, None)
    mean = math.fsum(values.values()) / len(values) if values else None
    return {"mean": mean, "low": low, "high": high, "by_seed": {str(s): v for s, v in values.items()}}


def _candidate(candidate: Candidate, runs: Runs, metric: str) -> dict[str, Any]:
    ok = _finished(runs)
    states = [status(outcome) for outcome in runs.values()]
    means = {m: _mean({s: o.validation.get(m) for s, o in ok.items()})["mean"] for m in ("loss", metric)}
    return {
        "values": plain(candidate.values),
        "validation": means,
        "diverged": states.count("diverged"),
        "given_up": states.count("given up"),
    }


def _tunability(entry: Entry, chosen: Candidate, runs: Sequence[Runs], metric: str) -> dict[str, Any]:
    """For each tuned key of numbers, at the chosen values of the others."""
    found: dict[str, Any] = {}
    for key, axis in entry.tuned.items():
        if not all(_is_number(value) for value in axis.values):
            continue
        others = {k: v for k, v in chosen.values.items() if k != key}
        means: dict[float, float | None] = {}
        for candidate, each in zip(entry.candidates, runs, strict=True):
            if {k: v for k, v in candidate.values.items() if k != key} == others:
                ok = _finished(each)
                mean = _mean({s: o.validation.get(metric) for s, o in ok.items()})["mean"]
                means[candidate.values[key]] = mean if len(ok) == len(each) else None
        ascending = sorted(means)
        ordered = [means[value] for value in ascending]
        found[key] = tunability(ascending, ordered, metric in SHARES, metric in SHARES)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _place(entry: dict[str, Any], metric: str, higher: bool) -> tuple[bool, float]:
    mean = entry["test"][metric]["mean"]
    return mean is None, 0.0 if mean is None else -mean if higher else mean


def _reference(entries: Sequence[dict[str, Any]], metric: str, higher: bool) -> str | None:
    """The entry that is best on the validation part; of two alike the one with the lower loss."""
    able = [entry for entry in entries if entry["finished"]]

    def place(entry: dict[str, Any]) -> tuple[int, float, float]:
        mean, loss = (entry["validation"][m]["mean"] for m in (metric, "loss"))
        failed = -entry["finished"]
        return failed, -mean if higher else mean, loss

    return min(able, key=place)["name"] if able else None


def _pairs(entries: Sequence[dict[str, Any]], metric: str, step: float) -> list[dict[str, Any]]:
    """Every two entries on the test part, with Holm's correction over all of them."""
    values = {e["name"]: {int(s): v for s, v in e["test"][metric]["by_seed"].items()} for e in entries}
    pairs = [
        {"first": first, "second": second, **difference(values[first], values[second], step)}
        for first, second in itertools.combinations(values, 2)
    ]
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = corrected
    return pairs


def _difference(pairs: Sequence[dict[str, Any]], name: str, reference: str) -> dict[str, Any]:
    """name − reference, out of the pairs."""
    pair = next(pair for pair in pairs if {pair["first"], pair["second"]} == {name, reference})
    same = {key: pair[key] for key in ("p", "p_holm", "n")}
    if pair["first"] == name:
        return {"mean": pair["mean"], "low": pair["low"], "high": pair["high"], **same}
    turned = {"mean": pair["mean"], "low": pair["high"], "high": pair["low"]}
    return {**{key: None if value is None else 0.0 - value for key, value in turned.items()}, **same}


def _notes(plan: Plan, entries: Sequence[dict[str, Any]], reference: str | None) -> list[str]:
    """What the reader must know before he believes the table."""
    notes = list(plan.data.notes)
    axes = {entry.name: entry.tuned for entry in plan.entries}
    ends: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        for key, value in entry["tuned"].items():
            values = axes[entry["name"]][key].values
            if entry["finished"] and all(map(_is_number, values)) and value in (min(values), max(values)):
                side = "largest" if value == max(values) else "smallest"
                ends.setdefault((key, side), []).append(entry["name"])
    for (key, side), names in ends.items():
        notes.append(f"the best {key} is the {side} tried for {', '.join(names)}: widen the range")
    for key, axis in plan.compared.items():
        best = next((entry for entry in entries if entry["name"] == reference), None)
        if axis.is_range and best is not None and best["values"][key] in (axis.values[0], axis.values[-1]):
            side = "largest" if best["values"][key] == axis.values[-1] else "smallest"
            notes.append(f"the best {key} is the {side} tried: widen the range")
    for entry in entries:
        missing = len(plan.seeds) - entry["finished"]
        if 0 < missing < len(plan.seeds):
            notes.append(
                f"{missing} of {len(plan.seeds)} runs of {entry['name']} diverged at its best value; "
                "its figures are of the others"
            )
    if len({len(entry.candidates) for entry in plan.entries}) > 1:
        notes.append("entries were tuned over different numbers of values")
    if len({plan.updates(candidate) for _, candidate in plan.candidates()}) > 1:
        notes.append("entries have the same number of epochs, but batches of other sizes: other updates")
    return notes


def plain(value: Any) -> Any:
    """A value as strict JSON has it: numbers that are not finite as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
