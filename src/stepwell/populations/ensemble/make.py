"""`ensemble`: from a recipe to a finished folder with one model in it."""

from __future__ import annotations

import copy
import json
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepwell.data import sources
from stepwell.data.augment import label_changes
from stepwell.errors import UserError
from stepwell.nn import losses, registry
from stepwell.nn.ensemble import Ensemble, together
from stepwell.nn.network import Network
from stepwell.populations.ensemble import asked as asking
from stepwell.populations.ensemble import folds, snapshots
from stepwell.populations.ensemble.average import averaged
from stepwell.populations.ensemble.job import Bench, Job, Made, Served, State
from stepwell.populations.ensemble.kinds import KINDS, MEANS
from stepwell.populations.ensemble.measure import Measured
from stepwell.populations.train import Stopped
from stepwell.progress import Progress, quietly
from stepwell.recipe import choose_device, read_recipe, resolve
from stepwell.training import checkpoint, evaluate, files, generate, mistakes, model_file, show, source
from stepwell.training.environment import environment
from stepwell.training.reproducible import own_randomness, undisturbed
from stepwell.training.run_folder import RunFolder
from stepwell.training.signals import StopRequest, stop_on_signals

ORDER = "ensemble.json"  # in the folder: the kind and how many, from its beginning


@undisturbed()
def ensemble(
    recipe: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    kind: str = "independent",
    members: int | None = None,
    out: str | None = None,
    quiet: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Trains the members, puts them together and measures them; returns the result and the folder.

    recipe, changes, out: as of `train`. kind: a row of KINDS. members: at least two (default: five, or as
    many as the schedule that the recipe names has cycles).
    Raises UserError before anything is written if something is wrong, Diverged where members do not come to
    their end, and Interrupted when a signal asked to stop.
    """
    asking.require(kind, members)
    given = asking.named(recipe, changes)
    asked = read_recipe(recipe, {**asking.schedule(kind, members, given), **(changes or {})})
    asking.refuse_without_effect(kind, asked)
    asked, begun = source.settle(asked)
    with quietly(quiet):
        data = sources.load(asked.data)
    whole = resolve(asked, data)
    if kind == "soup" and not len(data.validation):
        raise UserError("--kind soup chooses its members on the validation part, and there is none: set "
                        "data.validation")  # fmt: skip
    job = Job(whole, data, begun, members or asking.MEMBERS, Path())
    if asking.has_cycles(kind, whole):
        snapshots.require_cycles(job, members)
        job.count = members or len(snapshots.ends(job))
    elif kind == "folds":
        folds.of(data, job.count, whole.seed)  # refuses before anything is written
    folder = RunFolder.create(out, whole)
    try:
        folder.save_recipe(whole)
        source.keep(begun, folder)
        files.write_json(folder.path / ORDER, {"kind": kind, "members": job.count, "command": _command()})
    except BaseException:
        (folder.path / ORDER).unlink(missing_ok=True)
        folder.discard()
        raise
    try:
        return _conduct(kind, job, folder, quiet), folder.path
    finally:
        folder.close()


@undisturbed()
def resume(path: str | Path, quiet: bool = False) -> tuple[dict[str, Any], bool]:
    """Goes on with an interrupted ensemble to its end; returns the result, and whether it was finished."""
    folder = RunFolder.open(path)
    try:
        order, result = _order(folder), folder.result()
        if result is not None and _is_whole(folder.model_file, result):
            return result, True
        recipe = folder.recipe()
        with quietly(quiet):
            data = sources.load(recipe.data)
        job = Job(recipe, data, source.kept(recipe, folder), order["members"], Path())
        return _conduct(order["kind"], job, folder, quiet), False
    finally:
        folder.close()


def is_ensemble(path: str | Path) -> bool:
    """Whether `ensemble` has begun in this folder."""
    return (Path(path).expanduser() / ORDER).exists()


# -- the folder -------------------------------------------------------------------------------------


def _order(folder: RunFolder) -> dict[str, Any]:
    try:
        order = json.loads((folder.path / ORDER).read_text(encoding="utf-8"))
        if order["kind"] in KINDS and type(order["members"]) is int:
            return order
    except FileNotFoundError:
        raise UserError(
            f"{folder.path} holds no ensemble: go on with it by stepwell train --resume "
            f"{shlex.quote(str(folder.path))}"
        ) from None
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{folder.path / ORDER} is damaged: put it back, or start a new ensemble")


def _is_whole(model: Path, result: dict[str, Any]) -> bool:
    try:
        checkpoint.read(model)
        return checkpoint.digest(model) == result["weights"]["digest"]
    except UserError:
        return False


def _command() -> str:
    called = Path(sys.argv[0]).name in ("stepwell", "__main__.py")
    return shlex.join(["stepwell", *sys.argv[1:]]) if called else "sw.ensemble(…)"


# -- training, putting together, measuring ----------------------------------------------------------


def _conduct(kind: str, job: Job, folder: RunFolder, quiet: bool) -> dict[str, Any]:
    """Trains the members and writes what a finished folder has; result.json comes last."""
    began = time.monotonic()
    with quietly(quiet), stop_on_signals() as stop:
        job.folder, job.interrupted = folder.checkpoints, lambda: stop.signal is not None
        job.data.notes += label_changes.notes(job.recipe.augment, job.data)
        _say([*job.data.notes])
        try:
            made = KINDS[kind].train(job)
        except Stopped:
            stop.raise_if_asked(folder.path)
            raise
        stop.raise_if_asked(folder.path)
        bench = _bench(job)
        served = KINDS[kind].serve(job, made, bench)
        stop.raise_if_asked(folder.path)
        _write_curves(folder, made)
        weights = served.states[0] if len(served.states) == 1 else together(served.states)
        count = len(served.states)
        digest = model_file.save(folder.model_file, weights, job.data, job.recipe, count)
        network = _network(bench, served.states)
        result = _measured(kind, job, folder, stop, made, served, bench, network)
        result["weights"] = {"delivered": kind, "best": {}, "digest": digest}
        result["seconds"] = time.monotonic() - began
        files.write_json(folder.result_file, result)
        return result


def _say(notes: list[str]) -> None:
    if notes:
        with Progress(lambda: {"fraction": 0.0, "text": ""}) as progress:
            for note in notes:
                progress.say(f"Note: {note.rstrip('.')}.")


def _bench(job: Job) -> Bench:
    recipe, data = job.recipe, job.data
    device = choose_device(recipe.training.device)
    with own_randomness(recipe.seed, device):
        body = registry.build(recipe.model, data.input_shape, data.outputs, data.kind)
    network = Network.of(body, data).to(device).eval()
    network.views = model_file.views(recipe.augment)
    return Bench(network, losses.build(recipe.loss, data.task), data.task)


def _network(bench: Bench, states: list[State]) -> Network:
    """The network to serve: of one state, or of the mean prediction of several."""
    bodies = []
    for state in states:
        bench.network.load_state_dict(state)
        bodies.append(copy.deepcopy(bench.network.body))
    if len(bodies) == 1:
        return bench.network.around(bodies[0])
    return bench.network.around(Ensemble(bodies, bench.task))


def _measured(
    kind: str,
    job: Job,
    folder: RunFolder,
    stop: StopRequest,
    made: Made,
    served: Served,
    bench: Bench,
    network: Network,
) -> dict[str, Any]:
    """The result, and evaluation.json."""
    recipe, data = job.recipe, job.data
    members = Measured(bench, data, made.states, recipe.seed)
    stop.raise_if_asked(folder.path)
    tested = data.test if len(data.test) else data.validation
    if len(tested):
        found = evaluate.predictions(network, bench.loss, tested, members.device)
        about = (data.classes, data.targets, tested.rows, show.shower(data, tested, recipe.data.name))
        record = mistakes.evaluation_record(data.task, found.outputs, found.targets, found.loss, *about)
        if data.kind == "text":
            record["samples"] = generate.samples(network, data, tested, members.device, recipe.seed)
        files.write_json(folder.evaluation_file, record)
    own_folds = kind == "folds"
    each = [
        {**one, "validation": one.pop("alone") if own_folds else validation}
        for one, validation in zip(made.each, members.validation, strict=True)
    ]
    told: dict[str, Any] = {
        "kind": kind,
        "means": MEANS[kind].format(count=len(made.states), chosen=len(served.chosen)),
        "members": len(made.states),
        "chosen": served.chosen,
        "networks": len(served.states),
        "each": each,
    }
    test: dict[str, Any] = {}
    if len(data.test):
        if own_folds:
            members.validation = [one["validation"] for one in each]
        ours = members.predictions(network)
        test = evaluate.full(ours, data.task, members.names, recipe.seed)
        for one, result in zip(each, members.test, strict=True):
            one["test"] = result
        told |= members.gains(ours)
        told["curve"] = _curve(job, made, served, bench, members)
        told["calibration"] = members.calibration(ours)
        told["uncertainty"] = members.uncertainty() if len(served.states) > 1 and members.outputs else None
    notes = [*made.notes, *served.notes]
    if not len(data.test):
        notes.append("there is no test part (data.test=0), so what the ensemble gains is not measured")
    weights = sum(p.numel() for p in network.parameters())
    return {
        "status": "finished",
        "name": folder.path.resolve().name,
        "task": data.task,
        "kind": data.kind,
        "updates": made.updates,
        "epochs": made.epochs,
        "ended_early": False,
        "parameters": weights,
        **({"from": {"model": job.source.place, "digest": job.source.digest}} if job.source else {}),
        "roll_backs": 0,
        "data": {
            "name": data.name,
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
            "notes": data.notes,
        },
        "validation": {} if own_folds else members.quick(network),
        "test": test,
        "classes": data.classes,
        "notes": notes,
        "environment": environment(members.device),
        "command": _order(folder).get("command", ""),
        "ensemble": told,
    }


def _curve(job: Job, made: Made, served: Served, bench: Bench, members: Measured) -> list[dict[str, Any]]:
    """The test metrics by number of members: over subsets; of text and mean weights, of the first m."""
    states = [made.states[k] for k in served.chosen]
    if len(served.states) > 1:
        if job.data.kind != "text":
            return members.by_subsets()
        return members.by_prefixes(lambda m: _network(bench, states[:m]), len(states))
    return members.by_prefixes(lambda m: _network(bench, [averaged(job, states[:m], bench)]), len(states))


def _write_curves(folder: RunFolder, made: Made) -> None:
    """metrics.jsonl: the rows of each training under its own name."""
    lines = []
    for curve in made.curves:
        for row in curve["rows"]:
            found = {f"validation_{name}": value for name, value in row["validation"].items()}
            about = {key: row[key] for key in ("update", "epoch", "loss")}
            lines.append(json.dumps({**about, "split": curve["name"], **found}, allow_nan=False))
    files.write_text(folder.metrics_file, "".join(f"{line}\n" for line in lines))
