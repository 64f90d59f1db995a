"""Signals and gradients by layer as numbers, as text, and as a figure: `stepwell inspect`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.data import sources
from stepwell.data.dataset import DataSet
from stepwell.errors import UserError
from stepwell.nn.configs import UserModel
from stepwell.nn.ensemble import Ensemble
from stepwell.nn.inspection import WIDTH, Layer, Signals, measure
from stepwell.recipe import Recipe, any_rate, choose_device, read_recipe, resolve
from stepwell.report.log_chart import Panel, Point, svg
from stepwell.report.schedule_view import require_svg as require_svg
from stepwell.training import files
from stepwell.training.predict import trained
from stepwell.training.reproducible import own_randomness, products_repeat, same_arithmetic, undisturbed
from stepwell.training.run import Run
from stepwell.training.run_folder import existing


@dataclass(frozen=True)
class View:
    """What was measured; `title` says of which model and batch, `notes` are for the user."""

    title: str
    signals: Signals
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """The layers' numbers, the two courses and the verdict."""
        return {"title": self.title, **self.signals.as_json(), "notes": self.notes}

    def lines(self) -> list[str]:
        """What is shown in a terminal."""
        verdict = textwrap.wrap(self.signals.verdict, WIDTH)
        return [*textwrap.wrap(self.title, WIDTH), "", *self.signals.lines(), "", *verdict]


@undisturbed()
def of_recipe(recipe: str | Path | None = None, changes: Mapping[str, Any] | None = None) -> View:
    """Builds data and model of a recipe, as a run does, and looks at its first batch before any update."""
    asked = read_recipe(recipe, changes)
    data = sources.load(asked.data)
    return _view(resolve(any_rate(asked), data), data, None)


@undisturbed()
def of_run(folder: str | Path) -> View:
    """The same of a finished run's weights, on the batch that the run began with."""
    recipe = existing(folder).recipe()
    network = trained(folder).network
    if isinstance(network.body, Ensemble):
        raise UserError(
            f"{folder} is an ensemble of {len(network.body.members)} models, and inspect looks into one: "
            "name a single run"
        )
    weights = network.state_dict()
    return _view(recipe, sources.load(recipe.data), weights, f" as trained in {folder}")


def write_figure(path: Path, view: View) -> None:
    """Two panels: standard deviation of outputs, and of gradients, by layer on logarithmic axes."""
    layers = view.signals.layers
    forward = [Point(_label(layer), layer.sd, layer.product) for layer in layers]
    backward = [Point(_label(layer), layer.gradient_sd, layer.product) for layer in layers]
    panels = [
        Panel("standard deviation of the output", forward),
        Panel("standard deviation of the gradient", backward),
    ]
    files.write_text(path, svg(panels, view.title, view.signals.verdict))


def _label(layer: Layer) -> str:
    """A name that is a number alone says little: with the kind."""
    return f"{layer.name} {layer.kind}" if layer.name.rpartition(".")[2].isdigit() else layer.name


def _view(recipe: Recipe, data: DataSet, weights: dict[str, Any] | None, where: str = "") -> View:
    device = choose_device(recipe.training.device)
    repeats = products_repeat(device)
    with own_randomness(recipe.seed, device):
        run = Run(recipe, data)
        try:
            if weights is not None:
                run.network.load_state_dict(weights)
            warn = isinstance(recipe.model, UserModel) or not repeats
            with same_arithmetic(run.is_small, warn):
                found = measure(run.network, lambda: next(iter(run.losses())))
            samples = len(run.batches.at(0)[0][1])
        finally:
            run.batches.close()
    for layer in found.layers:
        layer.name = layer.name.removeprefix("body.").removeprefix("body")
    start = where or f" at the start, model.init={recipe.model.init}"
    title = f"{recipe.model.name} on {data.name}{start}; one batch of {samples} samples"
    return View(title, found, [*data.notes, *run.notes])
