"""What `import stepwell as sw` offers as functions: the command line's verbs for use in a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from stepwell.errors import Diverged, UserError
from stepwell.nn.network import Predictor
from stepwell.populations import find_lr as finding
from stepwell.populations import own_loop
from stepwell.populations.compare import compare as comparing
from stepwell.populations.compare.grid import flatten
from stepwell.populations.cross_validate import run as folds_run
from stepwell.populations.cross_validate.question import FOLDS, Question
from stepwell.populations.ensemble import make as ensembles
from stepwell.populations.recipes import members_of, network_of
from stepwell.populations.train import train as train_members
from stepwell.progress import quietly
from stepwell.report.compare_page import write_comparison
from stepwell.report.folds_view import write_page as write_folds_page
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

    folder: of `train` or of `ensemble`.
    Returns what that does, and "resumed": False if the run had been finished before.
    """
    go_on = ensembles.resume if ensembles.is_ensemble(Path(folder)) else training.resume
    result, was_finished = go_on(Path(folder), quiet)
    page = os.path.join(folder, "report.html")
    if not was_finished or not os.path.exists(page):
        page = str(write_report(Path(folder)))
    return {**result, "folder": str(folder), "report": page, "resumed": not was_finished}


def cross_validate(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    folds: int | None = None,
    repeats: int = 1,
    groups: Any = None,
    splitter: Any = None,
    inner: int | None = None,
    values: Mapping[str, Sequence[Any]] | None = None,
    out: str | None = None,
    quiet: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Trains once for each of N folds (default 5), each tested on the rows that it has not seen.

    recipe, changes: as for `train`. repeats: how often the rows are shuffled and folded anew. groups: a
    column of a table, or an array with one entry a row; no group is on both sides of a fold. splitter:
    one of scikit-learn's, or pairs of row numbers, instead of folds and repeats. values: key → list, of
    which each fold chooses one without its held-out rows: by `inner` folds of its training rows, or by its
    validation part. out: the folder (default: a new one in runs/).
    Returns result.json's content, and "folder", "report", "predictions" (paths).

    Raises UserError (a ValueError) in one sentence for whatever is wrong.
    """
    if isinstance(recipe, Mapping):
        recipe, changes = None, {**recipe, **changes}
    if splitter is not None and (folds is not None or repeats != 1):
        raise UserError("splitter says what the folds are: leave out folds and repeats")
    if isinstance(groups, str):
        if "data.groups" in changes:
            raise UserError("groups and data.groups both say what goes together: keep one")
        groups, changes = None, {**changes, "data.groups": groups}
    question = Question(
        None if recipe is None else Path(recipe),
        dict(changes),
        FOLDS if folds is None else folds,
        repeats,
        inner,
        {key: list(some) for key, some in (values or {}).items()},
        groups=groups,
        splitter=None if splitter is None else type(splitter).__name__,
    )
    result, folder = folds_run.cross_validate(question, splitter, out, quiet)
    return _with_folds_page(result, folder)


def resume_cross_validate(folder: str | os.PathLike[str], *, quiet: bool = False) -> dict[str, Any]:
    """Goes on with an interrupted cross-validation; its answer is that of one never interrupted.

    Returns what `cross_validate` does, and "resumed": False if it had been finished before.
    """
    result, was_finished = folds_run.resume(Path(folder), quiet)
    return {**_with_folds_page(result, Path(folder)), "resumed": not was_finished}


def _with_folds_page(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    report, predictions = write_folds_page(folder), folder / "predictions.csv"
    return {**result, "folder": str(folder), "report": str(report), "predictions": str(predictions)}


def population(
    models: Iterable[Mapping[str, Any]],
    recipe: str | os.PathLike[str] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    quiet: bool = False,
    **common: Any,
) -> list[dict[str, Any]]:
    """Trains many models as one program: one for each mapping of recipe keys, over those common to all.

    models: such as [{"seed": 0, "optimizer.lr": 1e-3}, {"seed": 1, "optimizer.lr": 1e-2}]. recipe: a YAML
    file below them. folder: where the state is kept, so that the same call goes on after a kill; None: in
    memory alone. Each ends as `train` alone would end it, but for rounding, and except that one that
    diverges is not rolled back: it is reported, and the others go on.
    Returns for each, in their order, {"recipe", "updates", "epochs", "diverged", "curve", "validation",
    "test", "how", "model", …}: see `stepwell.populations.member.Outcome`; "model" is what `load` returns,
    None of a model that diverged.

    Raises UserError in one sentence for whatever is wrong, before anything is trained.
    """
    members = members_of(None if recipe is None else Path(recipe), models, common)
    with quietly(quiet):
        outcomes = train_members(members, folder=None if folder is None else Path(folder), weights=True)
    return [
        {**outcome.as_json(), "recipe": member.recipe.model_dump(), "model": network_of(member, outcome)}
        for member, outcome in zip(members, outcomes, strict=True)
    ]


def ensemble(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    kind: str = "independent",
    members: int | None = None,
    out: str | None = None,
    quiet: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """Trains several networks, puts them together to one model, and measures what that gains.

    kind: "independent", "folds", "snapshots" (mean of predictions), "average" or "soup" (mean of weights).
    members: how many, at least two; default five. recipe, changes, out: as of `train`.
    The folder is that of one trained model: `load`, predict, evaluate, export and push take it as such.
    Returns result.json's content, under "ensemble" what the members are worth, and "folder" and "report".
    """
    if isinstance(recipe, Mapping):
        recipe, changes = None, {**recipe, **changes}
    path = None if recipe is None else Path(recipe)
    result, folder = ensembles.ensemble(path, changes, kind, members, out, quiet)
    return {**result, "folder": str(folder), "report": str(write_report(folder))}


def compare(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    seeds: int | None = None,
    tune: Sequence[str] | None = None,
    halving: bool | None = None,
    target: float | None = None,
    out: str | None = None,
    quiet: bool = False,
    **values: Any,
) -> dict[str, Any]:
    """Trains several values of several keys with the same seeds, and says what the difference is.

    recipe: as for `train`; in it and in `values` a key may have several values: a list, a text with commas,
    "log(1e-4,1,9)" or "range(0,0.5,6)". seeds: trainings of each (default 5). tune: keys of which each entry
    gets its best value by the validation part (default: those with a range, if others are compared).
    halving: give up the worse half of the tuned values at 1/8, 1/4 and 1/2 of the run. target: of the
    validation metric, for the updates to it. out: the folder; default a new one in runs/.
    Returns result.json's content (docs/compare.md), and "folder" and "report" (paths).

    Raises UserError (a ValueError) in one sentence before anything is trained, and Diverged (a
    RuntimeError) if every run diverges.
    """
    if isinstance(recipe, Mapping):
        recipe, values = None, {**flatten(recipe), **flatten(values)}
    options = {"seeds": seeds, "tune": tune, "halving": halving, "target": target}
    path = None if recipe is None else Path(recipe)
    result, folder = comparing.compare(path, values, options, out, quiet)
    return {**result, "folder": str(folder), "report": str(write_comparison(folder))}


def resume_comparison(folder: str | os.PathLike[str], *, quiet: bool = False) -> dict[str, Any]:
    """Goes on with an interrupted comparison, to the same table.

    Returns what `compare` does, and "resumed": False if it had been finished before.
    """
    result, was_finished = comparing.resume(Path(folder), quiet)
    page = str(write_comparison(Path(folder)))
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
