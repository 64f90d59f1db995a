"""What `import stepwell as sw` offers as functions: the command line's verbs for use in a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from stepwell.errors import Diverged, UserError
from stepwell.nn.network import Predictor
from stepwell.population import find_lr as finding
from stepwell.population import own_loop
from stepwell.progress import quietly
from stepwell.report.page import write_report
from stepwell.sharing import push as sharing
from stepwell.sharing.zoo import zoo as _zoo
from stepwell.training import predict
from stepwell.training import train as training


def train(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    out: str | None = None,
    quiet: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Trains what a recipe says and writes the run folder with its report.

    recipe: a YAML file, or a mapping of keys; None is the default, an MLP on digits. changes: recipe
    keys over it, as `train("recipe.yaml", **{"optimizer.lr": 1e-2})`. out: the run folder; default a
    new one in runs/.
    Returns result.json's content, and "folder" and "report" (paths).

    Raises UserError (a ValueError) in one sentence for whatever is wrong with recipe or data, and
    Diverged (a RuntimeError) if loss or gradients stay non-finite.
    """
    if isinstance(recipe, Mapping):
        recipe, changes = None, {**recipe, **changes}
    try:
        result, folder = training.train(
            None if recipe is None else Path(recipe), changes, out, quiet, finding.settle
        )
    except Diverged as error:
        write_report(error.folder)  # its curves say more than the sentence
        raise
    return {**result, "folder": str(folder), "report": str(write_report(folder))}


def resume(folder: str | os.PathLike[str], *, quiet: bool = False) -> dict[str, Any]:
    """Goes on with an interrupted run, bit for bit as if it had not been.

    Returns what `train` does, and "resumed": False if the run had been finished before.
    """
    result, was_finished = training.resume(Path(folder), quiet)
    page = os.path.join(folder, "report.html")
    if not was_finished or not os.path.exists(page):
        page = str(write_report(Path(folder)))
    return {**result, "folder": str(folder), "report": page, "resumed": not was_finished}


def find_lr(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    updates: int = finding.UPDATES,
    seeds: int = finding.SEEDS,
    quiet: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Finds a learning rate for a recipe by a range test over several seeds; nothing is written or changed.

    recipe, changes: as for `train`. low, high: ends of the range of rates (default: 10⁻⁴ and 10³ times
    the rule's own rate). updates: over which the rate rises. seeds: how many trainings.

    Returns {"rate", "low", "high": the usable rates, "spread": lowest and highest rate by a seed alone,
    "picks": (K,), "rates": (U,), "losses", "smoothed": (K, U), None from where a loss blew up, "notes"}.
    Raises UserError in one sentence where no rate lowers the loss.
    """
    if isinstance(recipe, Mapping):
        recipe, changes = None, {**recipe, **changes}
    with quietly(quiet):
        _, _, found = finding.of_recipe(recipe, changes, low=low, high=high, updates=updates, seeds=seeds)
    if found.rate is None:
        raise UserError(finding.no_rate(found))
    return found.as_json()


def range_test(
    model: Module,
    optimizer: Optimizer,
    step: Callable[[], Any],
    *,
    low: float | None = None,
    high: float | None = None,
    updates: int = finding.UPDATES,
) -> dict[str, Any]:
    """Finds a learning rate for a loop of your own; model, optimizer and random state are then as before.

    step: makes one whole update (batch, forward, backward, optimizer.step) and returns its loss, a number
    or a tensor. It is called `updates` times with a rate that rises from low to high (default: 10⁻⁴ and 10³
    times the optimizer's present rate). Groups keep the ratios of their rates; the rate found is the highest
    one's.

    Returns what `find_lr` does, for one seed. What is put back, also after an error: see
    `own_loop.as_before`.
    Raises UserError in one sentence where no rate lowers the loss.

    Trap: batches that `step` takes from an iterator are used up, and a scheduler that it steps has moved on:
    give it an iterator of its own, and leave the scheduler out.
    """
    found = own_loop.range_test(model, optimizer, step, low, high, updates)
    if found.rate is None:
        raise UserError(finding.no_rate(found))
    return found.as_json()


def zoo(*folders: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The cards of the trained models in folders (default: runs/); a damaged one has a "problem"."""
    return [card.as_json() for card in _zoo([Path(folder) for folder in folders])]


def push(
    run: str | os.PathLike[str], to: str | os.PathLike[str], *, licence: str | None = None
) -> dict[str, Any]:
    """Writes a finished run with its card to a new folder, or to the hub as "hf:ORG/NAME".

    Returns {"to", "digest", "licence", "notes"}.
    """
    return sharing.push(Path(run), os.fspath(to), licence)


def pull(source: str | os.PathLike[str], to: str | os.PathLike[str]) -> dict[str, Any]:
    """Fetches a pushed model into a new folder and verifies it; a failed pull leaves nothing.

    Returns {"to", "digest", "name", "notes"}.
    """
    return sharing.pull(os.fspath(source), os.fspath(to))


def load(run: str | os.PathLike[str]) -> Predictor:
    """A trained model as a torch module in evaluation mode: raw inputs to probabilities or target values.

    run: a run folder, or a folder that was pushed or pulled. The module has `classes` and `targets`, names in
    the order of its outputs; `network.body` is the network without standardization.
    """
    trained = predict.trained(Path(run))
    module = Predictor(trained.network).eval()
    module.classes, module.targets = trained.classes, trained.targets
    return module
