"""Predictions for new files, and text that goes on from a prompt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stepwell.data import sources
from stepwell.data.archive import file_fingerprint, is_utf8, special_kind
from stepwell.data.dataset import Inputs, NewData, Part
from stepwell.data.tablefile import batch_rows, reading
from stepwell.data.text import decode
from stepwell.errors import UserError
from stepwell.metrics import by_task as metrics
from stepwell.nn import losses
from stepwell.nn.ensemble import members_of
from stepwell.progress import SILENT_SECONDS, Progress
from stepwell.training import evaluate, model_file, pushed, uncertain
from stepwell.training.generate import generate
from stepwell.training.model_file import Trained
from stepwell.training.run_folder import existing


def trained(run: str | Path) -> Trained:
    """The trained network of a run folder, or of a folder that `stepwell push` or `pull` wrote."""
    if pushed.is_pushed(run):
        return pushed.trained(Path(run).expanduser())
    folder = existing(run)
    weights = (folder.result() or {}).get("weights", {})  # none yet where the run was killed at its very end
    return model_file.load(folder.model_file, folder.recipe(), weights.get("digest"))


@dataclass
class Predicted:
    """A new file's rows with their predictions, which are computed as they are taken.

    rows: N. frames: polars DataFrames, in the file's order, each of as many rows as fit in memory.
    notes: plain sentences on what of the file the model did not know.
    """

    rows: int
    frames: Iterator[Any]
    notes: list[str]


def predict(run: str | Path, file: str | Path, monte_carlo: int = 0, seed: int = 0) -> Any:
    """Returns the file's rows in order, as one polars DataFrame, with what the model says of each.

    Classes: a column `prediction` (class names) and a column `probability_CLASS` for each class.
    Several labels: `prediction` lists those above one half. Regression: `prediction`, for several
    targets `prediction_TARGET`.
    monte_carlo: predictions are the mean over so many passes with dropout on, whose masks follow from
    `seed` and the row's number alone; further columns tell how sure the network is (see `uncertain`).
    Of an ensemble they always do, by the disagreement of its members.

    Raises UserError where the file has a column of such a name itself: it would be lost.
    """
    import polars

    model = trained(run)
    if monte_carlo:
        uncertain.require_dropout(model, run)
    return polars.concat(predicted(model, file, monte_carlo, seed).frames)


def predicted(model: Trained, file: str | Path, monte_carlo: int = 0, seed: int = 0) -> Predicted:
    """As `predict`, for a file of any size."""
    if model.task == "text":
        raise UserError(
            "this run is of text: `predict` goes on from the file's text, write it to a .txt file"
        )
    new = sources.read_new(model.preparation, str(file))
    own = new.table.lazy().collect_schema().names()
    several = len(members_of(model.network)) > 1
    further = uncertain.names(model) if monte_carlo or several else []
    added = columns(model, np.zeros((0, _width(model) + len(further))), further)
    if taken := [name for name in added if name in own]:
        raise UserError(
            f"{file}: it has a column {taken[0]!r} itself, and the predictions go into a column of that name:"
            " rename the file's own (if the model was trained with it, in the training data too, and train"
            " again)"
        )
    height = batch_rows(len(own) + len(added))
    if monte_carlo:
        blocks = _uncertain(model, new.inputs, monte_carlo, seed)
    else:
        blocks = _outputs(model, new.inputs, several)
    return Predicted(len(new.inputs), _frames(model, new, height, file, blocks, further), new.notes)


def _frames(
    model: Trained,
    new: NewData,
    height: int,
    file: str | Path,
    outputs: Iterator[np.ndarray],
    further: list[str],
) -> Iterator[Any]:
    """Yields the table's rows, `height` at a time, with the columns of predictions."""
    done, rows = 0, len(new.inputs)

    def state() -> dict[str, Any]:
        return {"fraction": done / rows, "text": f"{done:,} of {rows:,} rows"}

    with Progress(state, after=SILENT_SECONDS), reading(file):
        waiting: list[np.ndarray] = []  # predicted, but not of this frame: the network has batches of its own
        for frame in new.table.lazy().collect_batches(chunk_size=height, maintain_order=True):
            while sum(map(len, waiting)) < len(frame):
                waiting.append(next(outputs))
            block = np.concatenate(waiting)
            waiting = [block[len(frame) :]]
            done += len(frame)
            yield frame.with_columns(**columns(model, block[: len(frame)], further))


def _width(model: Trained) -> int:
    return len(model.targets if model.task == "regression" else model.classes)


def _outputs(model: Trained, inputs: Inputs, several: bool) -> Iterator[np.ndarray]:
    for index in evaluate.slices(len(inputs), inputs.shape, model.kind):
        if several:
            yield uncertain.of_members(model, inputs.gather(index))
            continue
        with torch.no_grad():  # not around the yield, where it would hold for the caller too
            block = model.network.predict(inputs.gather(index))
        yield block.numpy()


def _uncertain(model: Trained, inputs: Inputs, samples: int, seed: int) -> Iterator[np.ndarray]:
    for index in evaluate.slices(len(inputs), inputs.shape, model.kind):
        yield uncertain.outputs(model, inputs.gather(index), samples, seed, int(index[0]))


def columns(model: Trained, outputs: np.ndarray, further: list[str]) -> dict[str, Any]:
    """The columns of predictions by name, and after them `further` ones, the last of `outputs`."""
    import polars

    last = outputs.shape[1] - len(further)
    added = {name: polars.Series(v) for name, v in zip(further, outputs[:, last:].T, strict=True)}
    return _predictions(model, outputs[:, :last]) | added


def _predictions(model: Trained, outputs: np.ndarray) -> dict[str, Any]:
    import polars

    if model.task == "regression":
        if outputs.shape[1] == 1:
            return {"prediction": polars.Series(outputs[:, 0])}
        return {f"prediction_{t}": polars.Series(v) for t, v in zip(model.targets, outputs.T, strict=True)}
    if model.task == "multi-label":
        names = [
            ", ".join(c for c, yes in zip(model.classes, row, strict=True) if yes) for row in outputs > 0.5
        ]
    else:
        names = [model.classes[k] for k in outputs.argmax(1)]
    found = {"prediction": polars.Series(names, dtype=polars.String)}
    for name, column in zip(model.classes, outputs.T, strict=True):
        found[f"probability_{name}"] = polars.Series(np.ascontiguousarray(column))
    return found


def require_writable(out: str | Path, kinds: tuple[str, ...], option: str = "--out") -> Path:
    """Refuses a place that cannot be written before any work is done for it; a link is its target."""
    if not is_utf8(str(out)):
        raise UserError(f"{option} {str(out)!a}: this name is not UTF-8; give another file")
    path = Path(out).expanduser()
    if path.suffix.lower() not in kinds:
        raise UserError(f"{option} {out}: give a file ending in {', '.join(kinds)}")
    if path.is_symlink():  # whoever writes puts a new file in place, which would replace the link
        path = Path(os.path.realpath(path))
        if path.suffix.lower() != Path(out).suffix.lower():
            raise UserError(f"{option} {out}: this is a link to {path}, of another ending; give another file")
    if path.is_dir():
        raise UserError(f"{option} {out}: there is a folder of this name; give another file")
    if kind := special_kind(path):
        raise UserError(f"{option} {out}: this is a {kind}; give another file")
    if not path.parent.is_dir():
        raise UserError(f"{option} {out}: there is no folder {path.parent}")
    return path


def continue_text(
    run: str | Path, prompt: str | Path, length: int = 500, temperature: float = 0.8, seed: int = 0
) -> str:
    """Returns the prompt file's text and `length` more characters drawn from the model.

    temperature: divides the logits; 0 takes the likeliest character each time.
    """
    model = trained(run)
    if model.task != "text":
        raise UserError(f"{run} is not a run of text: --length and --temperature are for text")
    return continued(model, prompt, length, temperature, seed)[0]


def continued(
    model: Trained, prompt: str | Path, length: int, temperature: float, seed: int
) -> tuple[str, list[str]]:
    """As `continue_text`, with notes on what of the prompt the model did not know."""
    new = sources.read_new(model.preparation, str(prompt))
    tokens = new.inputs.gather(torch.tensor([0]))
    written = generate(model.network, tokens, model.input_shape[0], length, temperature, seed)
    return decode(written[0], model.preparation), new.notes


def _seed(run: str | Path) -> int:
    """The seed of a run's recipe, from which its intervals are drawn."""
    if not pushed.is_pushed(run):
        return existing(run).recipe().seed
    seed = pushed.read_config(Path(run).expanduser())["recipe"].get("seed")
    return seed if type(seed) is int and 0 <= seed < 2**63 else 0


def evaluate_file(run: str | Path, file: str | Path | None) -> dict[str, Any]:
    """Every metric with its 95 % interval on a file with targets; without one, on the run's own test part.

    Returns {"task", "samples", "test"}, and "notes" where the file has what the model did not know.
    """
    notes: list[str] = []
    model = trained(run)
    if file is None:
        if pushed.is_pushed(run):
            raise UserError(f"{run} has no data with it: name a file with targets to evaluate on")
        data = sources.load(existing(run).recipe().data)
        if data.fingerprint != model.fingerprint:
            raise UserError(
                f"{data.name} has changed since this run was trained: put the data back, or name a file"
            )
        part = data.test if len(data.test) else data.validation
    else:
        new = sources.read_new(model.preparation, str(file), True)
        if new.targets is None:
            raise UserError(f"{file}: it has no targets to compare with")
        part = Part(new.inputs, new.targets, torch.arange(len(new.inputs)))
        notes = list(new.notes)
        if Path(file).is_file() and file_fingerprint(str(file)) == model.fingerprint:
            own = "; without a file the run's own test part is measured" * (not pushed.is_pushed(run))
            notes.append(f"{file} is what this run learnt from, so most of its rows are no test{own}")
    if not len(part):
        raise UserError("there is nothing to evaluate on: the test part is empty; name a file")
    loss = losses.build(model.loss, model.task)
    found = evaluate.predictions(model.network, loss, part, torch.device("cpu"))
    names = model.targets if model.task == "regression" else model.classes
    test = metrics.full(model.task, found.outputs, found.targets, found.loss, names, _seed(run))
    return {"task": model.task, "samples": len(part), "test": test} | ({"notes": notes} if notes else {})
