"""The list of trained models in some folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from stepwell.errors import UserError
from stepwell.report.wording import elide_middle, metric
from stepwell.sharing.card import Card, card_of
from stepwell.training import pushed

WIDTH = 110  # of the table
LIMITS = (WIDTH, 10, 11, 10, 36, 10, 10)  # of its columns; the first one takes what the others leave
DEFAULT = "runs"


def zoo(folders: Iterable[str | Path] = ()) -> list[Card]:
    """The cards of all trained models in the folders and below them, by path; default: those of runs/.

    Only small files and the headers of the weights are read. A model that is damaged or without a card
    has its `problem` said in its place. UserError where a folder does not exist.
    """
    wanted = [Path(folder).expanduser() for folder in folders]
    if not wanted:
        wanted = [Path(DEFAULT)] if Path(DEFAULT).is_dir() else []
    for folder in wanted:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise UserError(f"{folder} {what}: name a folder with trained models in it")
    every = dict.fromkeys(place for folder in wanted for place in _places(folder))
    return [card_of(place) for place in every]


def _places(folder: Path) -> Iterator[Path]:
    """Yields the folders of models; what is inside of one is not looked at, nor links and hidden folders."""
    for at, folders, files in os.walk(folder):
        place = Path(at)
        if "recipe.yaml" in files or pushed.MODEL in files or (pushed.CONFIG in files and _is_ours(place)):
            yield place
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _is_ours(place: Path) -> bool:
    """Whether a config.json without weights beside it is one of ours: many programs write such files."""
    try:
        pushed.read_config(place)
    except UserError:
        return False
    return True


def table(cards: list[Card]) -> list[str]:
    """The cards as lines of a table of at most WIDTH columns, and below it the models with a problem."""
    whole = [card for card in cards if not card.problem]
    rows = [("model", "data", "network", "weights", "result", "licence", "trained")]
    for card in whole:
        licence = "–" if card.licence is None else card.licence
        rows.append((card.path, card.data, card.model, _count(card), result(card), licence, card.date))
    longest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = [min(pair) for pair in zip(longest, LIMITS, strict=True)]
    widths[0] = min(longest[0], WIDTH - sum(widths[1:]) - 2 * (len(widths) - 1))
    lines = []
    for row in rows if whole else []:
        cells = [f"{elide_middle(text, n):<{n}}" for text, n in zip(row, widths, strict=True)]
        cells[3] = f"{row[3]:>{widths[3]}}"
        lines.append("  ".join(cells).rstrip())
    wrong = [card for card in cards if card.problem]
    if wrong:
        lines += [*([""] if lines else []), "Not to be used:"]
        lines += [f"  {card.path}: {card.problem.rstrip('.')}" for card in wrong]
    return lines


def _count(card: Card) -> str:
    if card.parameters is None:
        return "–"
    return f"{card.parameters:,}" if card.parameters < 10**8 else f"{card.parameters / 1e9:.3g} G"


def result(card: Card) -> str:
    """The result with its interval: accuracy 97.2 % [95.1 %, 98.4 %]."""
    if card.estimate is None:
        return "–"
    figure = metric(card.metric)
    value, limits = figure.written(card.estimate)
    shown = f"{figure.label} {value}" + (f" [{limits.replace(' to ', ', ')}]" if limits else "")
    return shown + (" (validation)" if card.part == "validation" else "")
