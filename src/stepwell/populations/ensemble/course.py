"""One run whose weights are kept at given updates: the ends of a rate's cycles, or its end alone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stepwell.errors import Diverged
from stepwell.nn.configs import UserModel
from stepwell.nn.gradient_flow import tensor_norms
from stepwell.populations.ensemble.job import Job, State
from stepwell.populations.train import Stopped
from stepwell.progress import Progress
from stepwell.recipe import Recipe
from stepwell.training import checkpoint, evaluate
from stepwell.training.conductor import CHECKPOINT_SECONDS
from stepwell.training.evaluated_weights import evaluated_weights
from stepwell.training.loop import fit
from stepwell.training.reproducible import own_randomness, products_repeat, same_arithmetic
from stepwell.training.run import Run
from stepwell.training.snapshot import Snapshot


@dataclass
class Taken:
    """states: the weights after each of the updates asked for. curve: as `Outcome.curve`."""

    states: list[State]
    curve: list[dict[str, Any]]
    updates: int
    epochs: float


def course(job: Job, recipe: Recipe, ends: Sequence[int], folder: Path, name: str) -> Taken:
    """Trains as `stepwell train` does, to the last of `ends`, and returns the weights after each of them.

    folder: of its checkpoints; the same call goes on from there, bit for bit. name: for the bar.
    Raises `Stopped` once the job is interrupted, and Diverged where a loss, gradient or weight is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for partial in folder.glob(".*.partial"):  # what a killed process was writing
        partial.unlink()
    device = torch.device(recipe.training.device)
    repeats = products_repeat(device)
    with own_randomness(recipe.seed, device):
        run = Run(recipe, job.data, job.source)
        warn = isinstance(recipe.model, UserModel) or not repeats
        hooks = _Keeping(job, run, ends, folder, name)
        try:
            with same_arithmetic(run.is_small, warn):
                hooks.load()
                with Progress(hooks.shown, after=2.0):
                    fit(run, hooks)
                if run.update < ends[-1]:
                    raise Stopped
                return Taken([hooks.states[end] for end in ends], hooks.curve, run.update, run.epoch)
        finally:
            run.batches.close()


class _Keeping:
    """The loop's hooks: keeps weights and curve, and writes checkpoints by the clock."""

    def __init__(self, job: Job, run: Run, ends: Sequence[int], folder: Path, name: str) -> None:
        self.job, self.run, self.ends, self.folder, self.name = job, run, set(ends), folder, name
        self.states: dict[int, State] = {}
        self.curve: list[dict[str, Any]] = []
        self._loss: list[float] = []  # of the updates since the last row of the curve
        self._saved_at = time.monotonic()

    def load(self) -> None:
        """Goes on where the newest checkpoint is, with the weights that were kept up to there."""
        loaded = checkpoint.load(self.folder, self.run)
        if loaded is not None:
            self.curve, self._loss = loaded.state["curve"], loaded.state["losses"]
            for end in self.ends:
                if end <= self.run.update:
                    self.states[end] = checkpoint.read(self._file(end))[0]

    def looking(self, run: Run) -> AbstractContextManager[None]:
        return nullcontext()

    def on_gradients(self, run: Run) -> None:
        pass

    def interrupted(self) -> bool:
        return self._is_to_save() or self.job.interrupted()

    def on_update_end(self, run: Run) -> bool:
        self._check()
        every = run.recipe.training.evaluate_every
        if run.finished or (every is not None and run.update % every == 0):
            self._evaluate()
        if run.update in self.ends:
            self._take()
        ended = run.update >= max(self.ends)
        asked = self.job.interrupted()
        if asked or self._is_to_save():
            extra = {"curve": self.curve, "losses": self._loss}
            keep = run.recipe.training.keep_checkpoints
            checkpoint.save(self.folder, run, Snapshot.of(run), extra, keep)
            self._saved_at = time.monotonic()
        return ended or asked

    def _is_to_save(self) -> bool:
        """Where weights were kept, and in between by the clock or by number, as `stepwell train`."""
        if self.run.update in self.ends:
            return True
        every = self.run.recipe.training.checkpoint_every
        if every is not None:
            return self.run.update % every == 0
        return time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS

    def _check(self) -> None:
        run = self.run
        losses, norms = (torch.stack(values) for values in zip(*run.pending, strict=True))
        weights = torch.stack(tensor_norms([p.detach() for p in run.parameters.values()]))
        if not bool(losses.isfinite().all() & norms.isfinite().all() & weights.isfinite().all()):
            raise Diverged(
                f"{self.name} has diverged by update {run.update}: start with a lower optimizer.lr, or look "
                "for values in the data that are not finite or very large",
                self.folder,
            )
        self._loss += losses.double().tolist()
        run.pending.clear()

    def _evaluate(self) -> None:
        run = self.run
        with evaluated_weights(run):
            found = evaluate.quick(run.network, run.sample_loss, run.data.validation, run.device)
        if len(run.data.validation):
            run.pace.look(found.get("loss", math.inf))
        loss = math.fsum(self._loss) / max(len(self._loss), 1)
        self.curve.append({"update": run.update, "epoch": run.epoch, "loss": loss, "validation": found})
        self._loss.clear()

    def _take(self) -> None:
        """The weights to evaluate, which for some optimizers are not those that training goes on with."""
        run = self.run
        with evaluated_weights(run):
            state = {name: value.detach().to("cpu", copy=True) for name, value in run.weights().items()}
        checkpoint.write(self._file(run.update), state, {"update": run.update})
        self.states[run.update] = state

    def _file(self, update: int) -> Path:
        return self.folder / f"snapshot-{update:09d}.safetensors"

    def shown(self) -> dict[str, Any]:
        """What the bar shows."""
        text = f"{self.name} · epoch {self.run.epoch:.1f}"
        if self.curve and self.curve[-1]["validation"]:
            text += f" · val. loss {self.curve[-1]['validation']['loss']:.3g}"
        return {"fraction": min(self.run.update / max(self.ends), 1.0), "text": text}
