"""What an ensemble is made from, and what training its members gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stepwell.data.dataset import DataSet, Task
from stepwell.nn.losses import Loss
from stepwell.nn.network import Network
from stepwell.recipe import Recipe
from stepwell.training.transfer import Source

State = dict[str, Tensor]  # of a `Network`


@dataclass
class Job:
    """The order: `count` members of a resolved recipe.

    source: the weights that they begin with, None where they begin anew. folder: where the state of the
    training is kept. interrupted: asked now and then; once it is true the state is saved and `Stopped`
    raised.
    """

    recipe: Recipe
    data: DataSet
    source: Source | None
    count: int
    folder: Path
    interrupted: Callable[[], bool] = lambda: False


@dataclass
class Made:
    """The trained members.

    states: their weights, of those that are whole. each: what is to be said of each of them, "name" at least.
    curves: {"name", "rows": as `Outcome.curve`} of each training. updates, epochs: of all trainings together.
    """

    states: list[State]
    each: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    updates: int
    epochs: float
    notes: list[str] = field(default_factory=list)


@dataclass
class Served:
    """What predicts in the end: the members whose predictions are averaged, or one state of averaged weights.

    chosen: the members that have a part in it, in the order in which they were taken.
    """

    states: list[State]
    chosen: list[int]
    notes: list[str] = field(default_factory=list)


@dataclass
class Bench:
    """A network to put states into, and its loss: what choosing and measuring need."""

    network: Network
    loss: Loss
    task: Task
