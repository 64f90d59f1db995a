"""The learning rate along a run as numbers, as text, and as a figure: `stepwell schedule`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.errors import UserError
from stepwell.optim.configs import momentum_of
from stepwell.recipe import is_open, parse_changes, read_recipe
from stepwell.report.line_chart import Panel, svg
from stepwell.report.text_chart import text_chart
from stepwell.schedules import Plateau, Schedule
from stepwell.schedules.configs import SCHEDULES, ScheduleConfig, build
from stepwell.training import files

COLUMNS, ROWS = 60, 10  # of the text curve, and of the table
EVALUATIONS = 60  # of the run that a schedule is drawn for which goes by the loss


@dataclass(frozen=True)
class View:
    """A schedule over a run of `updates` updates; `lr` is None where rates are shares of it."""

    config: ScheduleConfig
    lr: float | None
    updates: int
    momentum: Schedule | None = None  # where the schedule moves it

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def help(self) -> str:
        text = (type(self.config).__doc__ or "").strip()
        if self._plateau is not None:
            text += f" Drawn for {EVALUATIONS} evaluations, whose loss falls for the first third."
        return text

    @property
    def keys(self) -> dict[str, Any]:
        """The schedule's own keys, those that are open left out."""
        return self.config.model_dump(exclude={"name"}, exclude_none=True)

    @property
    def words(self) -> str:
        """The keys as a recipe's words."""
        shown = {k: f"{v:g}" if isinstance(v, float) else v for k, v in self.keys.items()}
        return " ".join(f"{key}={value}" for key, value in shown.items())

    @property
    def rate(self) -> Schedule:
        """The rate of a run; of one that goes by the loss, for the example that `help` tells."""
        rate, plateau = build(self.config, 1.0 if self.lr is None else self.lr, self.updates), self._plateau
        if plateau is None:
            return rate
        # The loss of the k-th of EVALUATIONS falls for the first third of them.
        factors = [plateau.update(max(EVALUATIONS / 3 - k, 1)) for k in range(EVALUATIONS)]
        return lambda step: rate(step) * factors[min(int(step / self.updates * EVALUATIONS), EVALUATIONS - 1)]

    @property
    def _plateau(self) -> Plateau | None:
        return self.config.watching()

    @property
    def label(self) -> str:
        return "learning rate" if self.lr is not None else "learning rate / optimizer.lr"

    def along(self, count: int) -> list[int]:
        """At most `count` updates at equal distances, the first and the last among them."""
        return sorted({min(self.updates * k // (count - 1), self.updates - 1) for k in range(count)})

    def as_json(self) -> dict[str, Any]:
        """The rate of every update."""
        rate = self.rate
        return {
            "name": self.name,
            "keys": self.keys,
            "lr": self.lr,
            "updates": self.updates,
            "rates": [rate(step) for step in range(self.updates)],
            "momenta": self.momentum and [self.momentum(step) for step in range(self.updates)],
        }

    def lines(self, blocks: bool) -> list[str]:
        """What is shown in a terminal: keys, a table, a curve."""
        rate = self.rate
        table = [f"{step:>10,}  {rate(step):.4g}" for step in self.along(ROWS + 1)]
        head = f"{'update':>10}  {self.label}"
        if self.momentum is not None:
            momenta = [f"{self.momentum(step):.4g}" for step in self.along(ROWS + 1)]
            width = len(head) + 2
            table = [f"{row:{width}}{momentum}" for row, momentum in zip(table, momenta, strict=True)]
            head = f"{head:{width}}momentum"
        curve = [rate(step) for step in self.along(COLUMNS)]
        chart = text_chart(curve, f"update {self.updates - 1:,}", blocks=blocks)
        return [f"{self.name} {self.words}", self.help, "", head, *table, "", *chart]


def every(updates: int) -> list[View]:
    """All schedules as they are by default."""
    return [View(kind.model_validate({}), None, updates) for kind in SCHEDULES.values()]


def read(words: Iterable[str], updates: int) -> View:
    """From NAME and KEY=VALUE words: keys with or without `schedule.`, and `lr`, which is optimizer.lr."""
    name, *rest = words
    if "=" in name:
        raise UserError(
            f"'{name}': give a schedule's name first, such as stepwell schedule cosine warmup=0.1"
        )
    changes: dict[str, Any] = {"schedule.name": name}
    for word in rest:
        if "=" not in word:
            raise UserError(f"'{word}' is not key=value: give keys of {name}, such as warmup=0.1")
    for given, value in parse_changes(rest).items():
        short = {"lr": "optimizer.lr", "schedule": "schedule.name"}
        key = short.get(given, given if "." in given else f"schedule.{given}")
        if not key.startswith("schedule.") and key != "optimizer.lr":
            raise UserError(f"{key} does not change the schedule: give keys of {name}, or lr")
        if key in changes:
            raise UserError(f"{key} is given twice: keep one")
        changes[key] = value
    recipe = read_recipe(None, changes)
    if is_open(recipe):
        raise UserError("lr=auto is found by training (stepwell find-lr): give a number here")
    momentum = recipe.schedule.momentum(momentum_of(recipe.optimizer), updates)
    return View(
        recipe.schedule, recipe.optimizer.lr if "optimizer.lr" in changes else None, updates, momentum
    )


def require_svg(plot: str) -> Path:
    """Refuses a figure that cannot be written before anything is computed for it."""
    path = Path(plot).expanduser()
    if path.suffix.lower() != ".svg":
        raise UserError(f"--plot {plot}: figures are written as SVG, which browsers show; give a file.svg")
    if path.is_dir():
        raise UserError(f"--plot {plot}: there is a folder of this name; give another file")
    if not path.parent.is_dir():
        raise UserError(f"--plot {plot}: there is no folder {path.parent}")
    return path


def write_figure(path: Path, views: Sequence[View]) -> None:
    """One large panel, or small ones in three columns."""
    size, columns = ((640, 360), 1) if len(views) == 1 else ((320, 200), 3)
    panels = []
    for view in views:
        rate, steps = view.rate, view.along(size[0])
        panels.append(Panel(view.name, steps, [rate(step) for step in steps]))
    files.write_text(path, svg(panels, "update", views[0].label, views[0].updates, columns, size))
