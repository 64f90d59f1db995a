"""A member that trains by itself: the way of models that cannot be stacked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from stepwell.nn.gradient_flow import tensor_norms
from stepwell.populations.member import Member, Outcome, newest_loss
from stepwell.training import evaluate, model_file
from stepwell.training.evaluated_weights import deliver, evaluated_weights
from stepwell.training.finish import choose_weights
from stepwell.training.loop import fit
from stepwell.training.reproducible import (
    own_randomness,
    random_state,
    restore_random_state,
    same_arithmetic,
)
from stepwell.training.run import Run


class Alone:
    """Trains one member by the loop of `stepwell train`, without a run folder.

    `run_to` may be called again to go on; between calls nothing of this member is changed by others.
    """

    how, count, place = "alone", 1, 0

    def __init__(self, number: int, member: Member) -> None:
        self.numbers, self.member = [number], member
        with own_randomness(member.recipe.seed, torch.device("cpu")):
            self.run = Run(member.recipe, member.data)
            self._random = random_state(self.run.device)
        self.outcome = Outcome(0, 0.0)
        self._loss: list[float] = []  # of the updates since the last row of the curve
        self._until = math.inf

    @property
    def update(self) -> int:
        """Updates made."""
        return self.run.update

    @property
    def fraction(self) -> float:
        """How much of the training is done, in [0, 1]."""
        return self.run.fraction

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        given_up = self.outcome.diverged is not None or self.outcome.stopped_at is not None
        return given_up or self.run.finished

    def run_to(self, update: float, interrupted: Any) -> None:
        """Trains until so many updates are made, the budget is spent, or `interrupted()` is true."""
        if self.finished or self.run.update >= update:
            return
        self._until, self._interrupted = update, interrupted
        with self._surroundings():
            fit(self.run, self)

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        run = self.run
        with own_randomness(run.recipe.seed, run.device), same_arithmetic(run.is_small, False):
            restore_random_state(self._random, run.device)
            try:
                yield
            finally:
                self._random = random_state(run.device)

    # -- the loop's hooks ---------------------------------------------------------------------------

    def looking(self, run: Run) -> AbstractContextManager[None]:
        return nullcontext()

    def on_gradients(self, run: Run) -> None:
        pass

    def interrupted(self) -> bool:
        return self.run.update >= self._until or self._interrupted()

    def on_update_end(self, run: Run) -> bool:
        training = run.recipe.training
        by_number = training.evaluate_every is not None and run.update % training.evaluate_every == 0
        evaluating = run.finished or by_number
        due = evaluating or run.update % training.log_every == 0
        if due and not self._is_sound():
            return True
        if evaluating:
            self._evaluate()
        return self.interrupted()

    def _is_sound(self) -> bool:
        """Whether the losses and gradients since the last look were finite; else says where they were not."""
        run = self.run
        losses, norms = (torch.stack(values) for values in zip(*run.pending, strict=True))
        finite = losses.isfinite() & norms.isfinite()
        if not bool(finite.all()):
            first = int(finite.logical_not().nonzero()[0])
            self.outcome.diverged = run.update - len(run.pending) + first + 1
            return False
        weights = [p.detach() for p in run.parameters.values()]
        if not bool(torch.stack(tensor_norms(weights)).isfinite().all()):
            self.outcome.diverged = run.update
            return False
        self._loss += losses.double().tolist()
        run.pending.clear()
        return True

    def _evaluate(self) -> None:
        run = self.run
        with evaluated_weights(run):
            found = evaluate.quick(run.network, run.sample_loss, run.data.validation, run.device)
            if len(run.data.validation):
                run.pace.look(found.get("loss", math.inf))
            if found and found["loss"] < run.best.get("loss", math.inf):
                run.best = {"update": run.update, "loss": found["loss"]}
                run.best_weights = {name: value.clone() for name, value in run.weights().items()}
        row = {"update": run.update, "epoch": run.epoch, "loss": math.fsum(self._loss) / len(self._loss)}
        self.outcome.curve.append({**row, "validation": found})
        self._loss.clear()

    def losses(self) -> dict[int, float]:
        """The newest validation loss; nothing of a member that diverged or was given up."""
        ours = self.outcome
        return {self.numbers[0]: newest_loss(ours)} if ours.diverged is ours.stopped_at is None else {}

    def leave(self, number: int, update: int) -> None:
        """Gives the member up at this update: it trains no further."""
        self.outcome.stopped_at = update

    def outcomes(self, weights: bool = False) -> dict[int, Outcome]:
        """How it ended: the delivered weights are chosen and tested, as at the end of `stepwell train`."""
        run, outcome = self.run, self.outcome
        outcome.updates = outcome.diverged or outcome.stopped_at or run.update
        outcome.epochs, outcome.best = outcome.updates / run.updates_per_epoch, run.best
        outcome.ended_early = run.pace.ended_early
        run.batches.close()
        if outcome.diverged is None:
            with self._surroundings():
                deliver(run)
                outcome.delivered = choose_weights(run)
                run.network.views = model_file.views(run.recipe.augment)
                for part in ("validation", "test"):
                    samples = getattr(run.data, part)
                    setattr(
                        outcome,
                        part,
                        evaluate.quick(run.network, run.sample_loss, samples, run.device),
                    )
            if weights:
                outcome.weights = {name: v.detach().clone() for name, v in run.network.state_dict().items()}
        return {self.numbers[0]: outcome}
