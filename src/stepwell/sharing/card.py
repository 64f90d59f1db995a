"""What a card says of a trained model, in a run folder or in a pushed one."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stepwell.errors import UserError
from stepwell.recipe.read import read_yaml
from stepwell.report.run_folder import number
from stepwell.report.wording import Estimate, estimate, in_order
from stepwell.training import checkpoint, pushed
from stepwell.training.run_folder import existing

UNKNOWN = "unknown"  # a licence that nobody has named; the hub's own word for it


@dataclass
class Card:
    """path: of the folder. metric, value, low, high: of the test part, with a 95 % interval, or of the
    validation part where there is no test part. licence: None of a run that was not pushed. date: on which it
    was trained. problem: what is wrong with the folder, "" of a whole one.
    """

    path: str
    name: str = ""
    data: str = ""
    model: str = ""
    task: str = ""
    parameters: int | None = None
    metric: str = ""
    part: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    licence: str | None = None
    date: str = ""
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def estimate(self) -> Estimate | None:
        return None if self.value is None else Estimate(self.value, self.low, self.high)


def card_of(folder: Path) -> Card:
    """The card of a run folder or a pushed one, by their small files and the header of the weights.

    Never raises for what the folder holds: what is wrong with it is the card's `problem`.
    """
    try:
        if pushed.is_pushed(folder):
            config = pushed.read_config(folder)
            facts, model = config["card"], config["recipe"].get("model")
            digest = config.get("digest")
        elif (folder / "recipe.yaml").exists():
            facts, model = facts_of(folder), read_yaml(folder / "recipe.yaml").get("model")
            digest = facts["digest"]
        else:
            return Card(str(folder), problem="it has weights but no card: no recipe.yaml and no config.json")
        card = _card(folder, facts, model if isinstance(model, dict) else {})
    except (UserError, OSError) as error:
        said = plain(str(error).removeprefix(f"{folder}/"), 400)
        return Card(str(folder), problem=said.removeprefix(f"{folder}: ").removeprefix(f"{folder} "))
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError):  # odd values, in odd places
        return Card(str(folder), problem="its card is damaged, or was not written by Stepwell")
    if pushed.is_pushed(folder) and not (folder / pushed.CARD).is_file():
        card.problem = f"it has no card for people ({pushed.CARD}): push the model again"
    else:
        card.problem = _wrong_with(folder / pushed.MODEL, digest)
    return card


def facts_of(run: Path) -> dict[str, Any]:
    """What a finished run's card says, as a pushed folder keeps it; UserError where it is not finished."""
    folder = existing(run)
    result = folder.result()
    if result is None:
        raise UserError(f"{run} is not finished: there is no result yet")
    data, trained = result["data"], folder.result_file.stat().st_mtime
    networks = (result.get("ensemble") or {}).get("networks", 1)
    return {
        "name": str(result.get("name") or run.resolve().name),
        **({"networks": networks} if networks != 1 else {}),
        "data": {"name": Path(str(data.get("name"))).name, **{p: data.get(p) for p in PARTS}},
        "task": result["task"],
        "parameters": result["parameters"] + (result.get("frozen_parameters") or 0),
        "updates": result["updates"],
        "test": result["test"],
        "validation": result["validation"],
        "licence": None,
        "date": datetime.fromtimestamp(trained, UTC).date().isoformat(),
        "digest": result["weights"].get("digest"),
        "environment": result.get("environment") or {},
    }


PARTS = ("train", "validation", "test")


def _card(folder: Path, facts: dict[str, Any], model: dict[str, Any]) -> Card:
    """The card of facts that may be a stranger's: texts are cut, and numbers are numbers."""
    task, data = str(facts.get("task")), facts.get("data")
    key, part, found = chosen(facts)
    parameters = number(facts.get("parameters"))
    licence = facts.get("licence")
    return Card(
        str(folder),
        plain(facts.get("name"), 80),
        plain(data.get("name") if isinstance(data, dict) else "", 80),
        plain(model.get("name"), 80),
        plain(task, 20),
        None if parameters is None else int(parameters),
        plain(key, 40),
        part,
        *((None, None, None) if found is None else (found.value, found.low, found.high)),
        licence=None if licence is None else plain(licence, 40),
        date=plain(facts.get("date"), 10),
    )


def chosen(facts: dict[str, Any]) -> tuple[str, str, Estimate | None]:
    """The most telling metric of a card's facts, the part it is of, and its value."""
    for part in ("test", "validation"):
        own = facts.get(part)
        own = own if isinstance(own, dict) else {}
        found = {str(k): e for k, v in own.items() if (e := read_estimate(v)) is not None}
        keys = [key for key in in_order(str(facts.get("task")), list(found)) if key != "perplexity"]
        if keys:
            return keys[0], part, found[keys[0]]
    return "", "", None


def read_estimate(entry: Any) -> Estimate | None:
    """A metric with its interval, or a bare number; None where it is not finite."""
    return estimate(entry if isinstance(entry, dict) else {"value": entry})


def _wrong_with(model: Path, digest: Any) -> str:
    """What the header of the weights' file shows to be wrong, "" if nothing."""
    if not model.is_file():
        return f"{model.name} is missing"
    try:
        found = checkpoint.digest(model)
    except Exception:  # whatever a damaged header leads to
        return f"{model.name} is damaged"
    return "" if found == digest else f"{model.name} is not the model that the card tells of"


def plain(text: Any, width: int) -> str:
    """One line of printable characters: a card may be a stranger's."""
    shown = re.sub(r"\s+", " ", str("" if text is None else text)).strip()
    shown = "".join(c if c.isprintable() else "�" for c in shown)
    return shown if len(shown) <= width else shown[: width - 1] + "…"
