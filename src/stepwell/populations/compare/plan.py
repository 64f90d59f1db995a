"""What a comparison trains: its entries, the values that each is tuned over, and the seeds they all share."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepwell.data import sources
from stepwell.data.dataset import DataSet
from stepwell.errors import UserError
from stepwell.populations.compare.grid import Values, as_text, lists_values, parts, values_of
from stepwell.populations.member import Member
from stepwell.recipe import Recipe, choose_device, read_recipe, resolve, updates_per_epoch
from stepwell.training.reproducible import own_randomness
from stepwell.training.run import Run

MOST_MEMBERS = 10_000

# Keys of which every member must have the same value, and why.
SAME = {
    "seed": "each entry is trained with the seeds seed, seed + 1, …: say how many by seeds=5",
    "training.epochs": "every entry has the same budget",
    "training.updates": "every entry has the same budget",
    "training.seconds": "every entry has the same budget",
    "training.device": "another device has other rounding",
    "training.track": "a comparison is not logged elsewhere",
    "model.from": "a comparison begins with new weights",
}


@dataclass(frozen=True)
class Candidate:
    """One recipe but for its seed. values: of the tuned keys; changes: all keys, as `train` takes them."""

    values: dict[str, Any]
    changes: dict[str, Any]
    recipe: Recipe


@dataclass(frozen=True)
class Entry:
    """What a line of the table stands for. values: of the compared keys."""

    name: str
    values: dict[str, Any]
    tuned: dict[str, Values]
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """All that is trained, checked. asked: what gives this plan again."""

    entries: list[Entry]
    compared: dict[str, Values]
    tuned: dict[str, Values]
    seeds: list[int]
    data: DataSet
    asked: dict[str, Any]

    def members(self) -> list[Member]:
        """A member for each entry, candidate and seed, in this order."""
        return [
            Member(candidate.recipe.model_copy(update={"seed": seed}), self.data)
            for _, candidate in self.candidates()
            for seed in self.seeds
        ]

    def candidates(self) -> Iterator[tuple[Entry, Candidate]]:
        """Every entry with each of its candidates."""
        return ((entry, candidate) for entry in self.entries for candidate in entry.candidates)

    def updates(self, candidate: Candidate) -> int:
        """How many updates a member of this candidate makes."""
        training = candidate.recipe.training
        epoch = updates_per_epoch(len(self.data.train), training.batch_size, training.accumulate)
        return training.updates or (training.epochs or 0) * epoch


def make_plan(asked: Mapping[str, Any], seeds: int = 5, tune: Sequence[str] | None = None) -> Plan:
    """Reads and checks every recipe before anything is trained.

    asked: keys with one value or several (see `grid`). tune: the keys that are tuned; None: those given by
    log() or range(), if another key lists values to compare.
    Raises UserError in one sentence, which names the entry where only that is wrong.
    """
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise UserError(f"seeds={as_text(seeds)} must be a whole number of at least 1")
    single, listed = _sorted_out(asked)
    if not listed:
        raise UserError("there is nothing to compare: list values of a key, such as optimizer.name=sgd,adam")
    tuned = _tuned(listed, tune)
    compared = {key: values for key, values in listed.items() if key not in tuned}
    if not compared:
        raise UserError(
            f"there is nothing to compare: {' and '.join(tuned)} "
            f"{'is' if len(tuned) == 1 else 'are'} tuned; list values of another key"
        )
    entries = list(_entries(compared, tuned, single))
    count = seeds * sum(math.prod(len(v.values) for v in entry.tuned.values()) for entry in entries)
    if count > MOST_MEMBERS:
        raise UserError(
            f"this comparison has {count:,} trainings, more than {MOST_MEMBERS:,}: list fewer values or seeds"
        )
    if len(entries) < 2:
        raise UserError(f"there is nothing to compare: {entries[0].name} is the only entry")
    first = _read(entries, single)
    _refuse_without_effect(first)
    data = sources.load(first.data)
    _require_parts(data)
    decided = _decided(first, single, data)
    for entry in entries:
        own = {key: v for key, v in decided.items() if key not in entry.values}
        for values in _product(entry.tuned):
            changes = {**own, **_below(entry.values), **values}
            entry.candidates.append(Candidate(values, changes, _resolved(entry, values, changes, data)))
    if first.seed + seeds > 2**63:
        raise UserError(f"seed={first.seed} leaves no room for {seeds} seeds: lower it")
    plan = Plan(entries, compared, tuned, [first.seed + k for k in range(seeds)], data, {**asked, **decided})
    for entry in entries:
        _try_out(entry, plan)
    return plan


def _sorted_out(asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Values]]:
    """Keys with one value, and keys with several."""
    single: dict[str, Any] = {}
    listed: dict[str, Values] = {}
    for key, value in asked.items():
        _refuse_several_data(key, value)
        values = values_of(key, value)
        if values is None:
            single[key] = value
        elif key in SAME:
            raise UserError(f"{key} cannot be compared: {SAME[key]}")
        else:
            listed[key] = values
    return single, listed


def _refuse_without_effect(recipe: Recipe) -> None:
    """Keys of `stepwell train` that a comparison cannot follow."""
    if recipe.training.seconds is not None:
        raise UserError(
            "training.seconds is no equal budget, since some rules are slower: give training.epochs or "
            "training.updates instead"
        )
    begun = getattr(recipe.model, "from")
    for key, value in (("training.track", recipe.training.track), ("model.from", begun)):
        if value:
            raise UserError(f"{key} has no place in a comparison, since {SAME[key]}: remove it")


def _refuse_several_data(key: str, value: Any) -> None:
    """Entries are compared on the same rows."""
    if not key.startswith("data."):
        return
    several = isinstance(value, (Values, tuple)) or (isinstance(value, list) and lists_values(key, value))
    if isinstance(value, str):
        items = parts(value)
        numbers = all(item.replace(".", "", 1).isdecimal() for item in items)
        named = key == "data.name" and not os.path.exists(os.path.expanduser(value))
        several = value.startswith(("log(", "range(")) or (len(items) > 1 and (numbers or named))
    if several:
        raise UserError(f"{key} cannot be compared: every entry has the same data; compare once for each")


def _tuned(listed: Mapping[str, Values], tune: Sequence[str] | None) -> dict[str, Values]:
    if tune is None:
        ranges = {key: values for key, values in listed.items() if values.is_range}
        return ranges if len(ranges) < len(listed) else {}
    for key in tune:
        if key not in listed:
            raise UserError(f"--tune {key}: this key lists no values; {', '.join(listed)} do")
    return {key: values for key, values in listed.items() if key in tune}


def _entries(
    compared: Mapping[str, Values], tuned: Mapping[str, Values], single: Mapping[str, Any]
) -> Iterator[Entry]:
    """The product of the compared values; a value that is a mapping brings keys of its own along."""
    every = [dict(zip(compared, row, strict=True)) for row in itertools.product(*_listed(compared))]
    names = _names(every)
    for name, values in zip(names, every, strict=True):
        own: dict[str, Values] = {}
        for key, value in values.items():
            if not isinstance(value, Mapping):
                continue
            for inner, v in _below({key: value}).items():
                if inner in single or inner in tuned or (inner in compared and inner != key):
                    raise UserError(f"{inner} is given twice: by itself, and for {name}; keep one")
                if (several := values_of(inner, v)) is not None:
                    own[inner] = several
        yield Entry(name, values, {**tuned, **own})


def _listed(axes: Mapping[str, Values]) -> list[tuple[Any, ...]]:
    return [axis.values for axis in axes.values()]


def _product(axes: Mapping[str, Values]) -> list[dict[str, Any]]:
    return [dict(zip(axes, row, strict=True)) for row in itertools.product(*_listed(axes))]


def _below(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a recipe: {"optimizer.name": {"name": "sgd", "lr": 1}} has optimizer.name and optimizer.lr."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{key.removesuffix('.name')}.{inner}": v for inner, v in value.items()}
        else:
            found[key] = value
    return found


def _names(every: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each entry, with whole keys and numbers where the short ones do not tell it apart."""
    for whole in (False, True):
        names = [
            ", ".join(shown(key, value, whole) for key, value in values.items()) or "all" for values in every
        ]
        if len(set(names)) == len(names):
            break
    return names


def shown(key: str, value: Any, whole: bool = False) -> str:
    """A key's value in a few letters: adam · batch_size 32 · lr 0.0003162."""
    if isinstance(value, Mapping):
        rest = {k: v for k, v in value.items() if k != "name"}
        return " ".join([str(value.get("name", key)), *(f"{k} {_short(v, whole)}" for k, v in rest.items())])
    if key.endswith(".name"):
        return str(value)
    return f"{key if whole else key.rpartition('.')[2]} {_short(value, whole)}"


def _short(value: Any, whole: bool) -> str:
    return f"{value:.4g}" if isinstance(value, float) and not whole else as_text(value).strip('"')


def _read(entries: Sequence[Entry], single: Mapping[str, Any]) -> Recipe:
    """The first entry's recipe; an error that all entries have is said without naming one."""
    said: list[UserError] = []
    for entry in entries:
        first = {key: axis.values[0] for key, axis in entry.tuned.items()}
        try:
            recipe = read_recipe(None, {**single, **_below(entry.values), **first})
        except UserError as error:
            said.append(error)
            continue
        if said:
            raise _of(entries[0].name, said[0], entries[0].values)
        return recipe
    common = len({str(error) for error in said}) == 1
    raise said[0] if common else _of(entries[0].name, said[0], entries[0].values)


def _decided(first: Recipe, single: Mapping[str, Any], data: DataSet) -> dict[str, Any]:
    """The single keys, with the budget that all entries have, and the data's whole path."""
    found = {**single, "data.name": first.data.name}
    if first.training.epochs is None and first.training.updates is None:
        found["training.epochs"] = resolve(first, data).training.epochs
    return found


def _resolved(entry: Entry, values: Mapping[str, Any], changes: Mapping[str, Any], data: DataSet) -> Recipe:
    try:
        recipe = read_recipe(None, changes)
        _refuse_without_effect(recipe)
        return resolve(recipe, data)
    except UserError as error:
        which = ", ".join([entry.name, *(shown(key, value) for key, value in values.items())])
        raise _of(which, error, {**entry.values, **values}) from None


def _of(which: str, error: UserError, values: Mapping[str, Any]) -> UserError:
    """The error with the entry's name, unless it begins with a value that tells the entry."""
    own = any(str(error).startswith(f"{key}=") for key in values)
    return error if own else UserError(f"{which}: {error}")


def _require_parts(data: DataSet) -> None:
    for part, use in (("validation", "chosen by"), ("test", "compared on")):
        if not len(getattr(data, part)):
            raise UserError(f"data.{part}: entries are {use} the {part} part, and there is none; set it")


def _try_out(entry: Entry, plan: Plan) -> None:
    """Builds one model and its optimizer: what does not go together is found before the first training."""
    recipe = entry.candidates[0].recipe
    device = choose_device(recipe.training.device)
    try:
        with own_randomness(recipe.seed, device):
            Run(recipe, plan.data).batches.close()
    except UserError as error:
        raise UserError(f"{entry.name}: {error}") from None
