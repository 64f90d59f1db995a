"""What happens between updates: checks, roll-backs, metrics, evaluations, checkpoints."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from stepwell.data.dataset import DataSet
from stepwell.errors import Diverged
from stepwell.nn.gradient_flow import finite, tensor_norms
from stepwell.progress import Progress
from stepwell.training import checkpoint, evaluate, trackers
from stepwell.training.evaluated_weights import evaluated_weights
from stepwell.training.gradient_flow import GradientFlow
from stepwell.training.run import Run
from stepwell.training.run_folder import Lines, RunFolder
from stepwell.training.signals import StopRequest
from stepwell.training.snapshot import Snapshot

ROLL_BACKS = 3  # then the run stops
RATE_CUT = 0.1  # what a roll-back multiplies the learning rate with
CHECKPOINT_SECONDS = 30.0
SHARE = 0.01  # of a budget in seconds, between evaluations


class Conductor:
    """The loop's hooks for a run in a folder (see `loop.Hooks`).

    Everything but the clock's part (timing.jsonl, checkpoints by time) happens at updates that the
    recipe alone decides, so that an interrupted run does the same as an uninterrupted one.
    """

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        stop: StopRequest,
        loaded: checkpoint.Loaded | None,
        tracking: list[trackers.Tracker],
    ) -> None:
        self.run, self.folder, self.stop, self.tracking = run, folder, stop, tracking
        metrics, timing = loaded.state["lines"] if loaded else ((0, None), (0, None))
        self.metrics = Lines(folder.metrics_file, metrics[0], metrics[1])
        self.timing = Lines(folder.timing_file, timing[0])  # that is no part of the promise
        self.good = loaded.good if loaded else Snapshot.of(run)
        self.evaluated_at = loaded.state["evaluated_at"] if loaded else 0
        self.latest = dict(loaded.state["latest"]) if loaded else {}  # newest metrics, for the bar
        self.progress: Progress | None = None
        self.flow = GradientFlow(run)
        self._next_share = run.fraction + SHARE  # of a budget in seconds: then comes an evaluation
        self._restart_clock()
        self._saved_at = time.monotonic()
        self._saved_update = run.update if loaded else -1

    # -- the loop's hooks ---------------------------------------------------------------------------

    def looking(self, run: Run) -> AbstractContextManager[None]:
        return self.flow.looking()

    def on_gradients(self, run: Run) -> None:
        self.flow.keep()

    def interrupted(self) -> bool:
        training = self.run.recipe.training
        if self.stop.signal is not None or self._share_is_due():
            return True
        if training.checkpoint_every is not None:
            return self.run.update % training.checkpoint_every == 0
        return time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS

    def on_update_end(self, run: Run) -> bool:
        ended, training = run.finished, run.recipe.training
        by_number = training.evaluate_every is not None and run.update % training.evaluate_every == 0
        evaluating = ended or by_number or self._share_is_due()
        due = evaluating or run.update % training.log_every == 0
        if not self._check(due):
            return False
        if due:
            self._log()
            if evaluating:
                self.evaluate()
                self._say_early_end()
            self.good.take(run)
            if run.updates is None:
                run.progress = run.fraction
        if self.stop.signal is not None:
            self.save()
            return True
        every = training.checkpoint_every
        by_clock = every is None and time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS
        if ended or by_clock or (every is not None and run.update % every == 0):
            self.save()
        return False

    # -- its parts ----------------------------------------------------------------------------------

    def _check(self, weights_too: bool) -> bool:
        """Waits for the device once and looks at every loss and gradient since the last check.

        Weights are looked at only where something is due: at other updates, where a signal or the clock
        brought us here, the uninterrupted run would not look either, and both must do the same.
        """
        run = self.run
        if not run.pending:
            return True
        losses, norms = _columns(run.pending)
        finite = losses.isfinite() & norms.isfinite()
        if bool(finite.all()):
            weights = [p.detach() for p in run.parameters.values()] if weights_too else []
            if not weights or bool(torch.stack(tensor_norms(weights)).isfinite().all()):
                return True
            self._roll_back(run.update, "weights")
            return False
        first = int(finite.logical_not().nonzero()[0])
        loss_is_bad = not math.isfinite(float(losses[first]))
        self._roll_back(run.update - len(run.pending) + first + 1, "loss" if loss_is_bad else "gradient")
        return False

    def _roll_back(self, update: int, what: str) -> None:
        run = self.run
        cause = f"the {what} of update {update} {'were' if what == 'weights' else 'was'} not finite"
        if run.roll_backs == ROLL_BACKS:
            raise Diverged(
                f"{cause}, after {ROLL_BACKS} roll-backs that each divided the learning rate by "
                f"{1 / RATE_CUT:g}: look for values that are not finite or very large in the data, or "
                f"start with a lower optimizer.lr; the run so far is in {self.folder.path}",
                self.folder.path,
            )
        run.roll_backs += 1
        if run.rolled_back_to == self.good.update:
            # Finite is not yet sound: weights that have exploded fail again from the same state.
            self.good.become_start(run)
        self.good.restore(run)
        run.rolled_back_to = run.update
        run.pending.clear()
        self.flow.forget()
        self._restart_clock()
        run.rate_factor *= RATE_CUT
        rate = run.recipe.optimizer.lr * run.rate_factor
        message = (
            f"{cause}: back to {f'update {run.update}' if run.update else 'the start'}, learning rate now at "
            f"most {rate:.3g} ({run.roll_backs} of {ROLL_BACKS} roll-backs)"
        )
        self._write({"update": update, "event": "rolled back", "message": message})
        if run.best.get("update", 0) > run.update:
            run.best, run.best_weights = {}, {}
        checkpoint.forget_after(self.folder.checkpoints, run.update)
        self._saved_update = -1
        self.save()
        if self.progress is not None:
            self.progress.say(f"Rolled back: {message}.")

    def _log(self) -> None:
        """Writes the line of metrics for the updates since the last one."""
        run = self.run
        if not run.pending:
            return
        losses, norms = _columns(run.pending)
        row = {
            "update": run.update,
            "epoch": run.epoch,
            "split": "train",
            "loss": float(losses.double().mean()),
            "grad_norm": float(norms[-1]),
            "hyperparameters": {k: finite(v) for k, v in run.optimizer.hyperparameters().items()},
        }
        row |= self.flow.row()
        self.latest["loss"] = row["loss"]
        run.pending.clear()
        self._write(row)
        training = time.monotonic() - self._clock
        if training >= 1.0 or run.finished:
            speed = (run.samples - self._clock_samples) / max(training, 1e-9)
            self.timing.write({"update": run.update, "seconds": run.seconds, "samples_per_second": speed})
            self._restart_clock()

    def _restart_clock(self) -> None:
        """Speed is measured from here on."""
        self._clock, self._clock_samples = time.monotonic(), self.run.samples

    def _share_is_due(self) -> bool:
        """Whether a budget in seconds is spent, or so much of it that the run is to be evaluated."""
        run = self.run
        if run.updates is not None:
            return False
        return run.finished or (
            run.recipe.training.evaluate_every is None and run.fraction >= self._next_share
        )

    def evaluate(self) -> None:
        """Loss and metrics of the validation and the test part; the test part's are for the curve alone."""
        run, data = self.run, self.run.data
        began, self.evaluated_at = time.monotonic(), run.update
        with evaluated_weights(run):
            self._evaluate(data)
        # Evaluating is not training: its time must not lower the speed that is shown, and is to be at
        # most a fifth of a budget in seconds.
        took = time.monotonic() - began
        self._clock += took
        self._next_share = run.fraction + max(SHARE, 4 * took / (run.recipe.training.seconds or 1.0))

    def _evaluate(self, data: DataSet) -> None:
        run = self.run
        for split, part in (("validation", data.validation), ("test", data.test)):
            found = evaluate.quick(run.network, run.sample_loss, part, run.device)
            if found:
                self._write({"update": run.update, "epoch": run.epoch, "split": split, **found})
            elif len(part):
                message = f"the {split} loss after update {run.update} is not finite"
                self._write({"update": run.update, "event": "not finite", "message": message})
            if split == "validation" and len(part):
                run.pace.look(found.get("loss", math.inf))
            if split == "validation" and found:
                self.latest["validation"] = found
                if found["loss"] < run.best.get("loss", math.inf):
                    run.best = {"update": run.update, "loss": found["loss"]}
                    run.best_weights = {name: value.clone() for name, value in run.weights().items()}

    def _say_early_end(self) -> None:
        run, patience = self.run, self.run.pace.patience
        if patience is not None and patience.spent:
            message = (
                f"the validation loss has not fallen for {patience.config.patience} "
                f"evaluations: the run ends with the weights of update {run.best.get('update', run.update)}"
            )
            self._write({"update": run.update, "event": "ended early", "message": message})
            if self.progress is not None:
                self.progress.say(f"Ended early: {message}.")

    def save(self) -> None:
        """Writes a checkpoint, unless this very update has one."""
        run = self.run
        if self._saved_update != run.update:
            extra = {
                "lines": [self.metrics.sync(), self.timing.sync()],
                "evaluated_at": self.evaluated_at,
                "latest": self.latest,
            }
            keep = run.recipe.training.keep_checkpoints
            checkpoint.save(self.folder.checkpoints, run, self.good, extra, keep)
        self._saved_update, self._saved_at = run.update, time.monotonic()

    def close(self) -> None:
        self.metrics.close()
        self.timing.close()
        self.run.batches.close()
        for tracker in self.tracking:
            tracker.close()

    def state(self) -> dict[str, object]:
        """What the bar shows; read by its thread."""
        run, latest = self.run, self.latest
        place = f"epoch {run.epoch:.1f}" if run.updates_per_epoch > 1 else f"update {run.update}"
        text = [place]
        if "loss" in latest:
            text.append(f"loss {latest['loss']:.3g}")
        if "validation" in latest:  # the task's first metric, else the loss
            name, value = list(latest["validation"].items())[:2][-1]
            text.append(f"val. {name.replace('_', ' ')} {value:.3g}")
        return {"fraction": run.fraction, "text": " · ".join(text)}

    def _write(self, row: dict) -> None:
        self.metrics.write(row)
        for tracker in list(self.tracking):
            try:
                tracker.log(trackers.scalars(row), row["update"])
            except Exception as error:  # whatever a tracker raises: the training is worth more
                self.tracking.remove(tracker)
                if self.progress is not None:
                    self.progress.say(f"Note: {type(tracker).__name__} failed and is given up ({error}).")


def _columns(pending: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Losses and gradient norms, one tensor each: a stack of all is far cheaper than a stack of pairs."""
    losses, norms = zip(*pending, strict=True)
    return torch.stack(losses), torch.stack(norms)
