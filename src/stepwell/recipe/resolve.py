"""What a recipe leaves open until the data is known, and what then has no effect."""

from __future__ import annotations

import math

import torch

from stepwell.data.augment import checks
from stepwell.data.dataset import DataSet
from stepwell.errors import UserError
from stepwell.nn import losses
from stepwell.optim.configs import momentum_of
from stepwell.recipe.rate import is_open
from stepwell.recipe.schema import Recipe
from stepwell.recipe.training import Average, TrainingConfig
from stepwell.schedules.configs import cycle_ends

# Enough updates for every default model on the data sets of docs/results.md; few enough that a small
# table ends in seconds.
UPDATES = 3000
EPOCHS = (5, 1000)
EVALUATIONS = 100  # a table of a hundred rows has a thousand epochs: a hundred points draw as good a curve


def resolve(recipe: Recipe, data: DataSet) -> Recipe:
    """Returns the recipe with every key decided; raises UserError where one has no effect.

    Open stays only what leaves the numbers alone: checkpoints by the clock, images in memory or not.
    """
    if is_open(recipe):
        raise UserError(
            "optimizer.lr=auto is for stepwell train: give a number here, the one that stepwell find-lr finds"
        )
    loss = recipe.loss or losses.LossConfig.model_validate({"name": losses.default(data.task)})
    training = recipe.training
    evaluated = len(data.validation) + len(data.test) > 0
    if training.evaluate_every is not None and not evaluated:
        raise UserError(
            "training.evaluate_every has no effect without a validation and a test part: remove it"
        )
    if training.weights == "best" and not len(data.validation):
        raise UserError("training.weights=best has no effect without a validation part: set data.validation")
    if recipe.schedule.watching() is not None and not len(data.validation):
        raise UserError(
            f"schedule={recipe.schedule.name} has no effect without a validation part: set data.validation"
        )
    low, own = getattr(recipe.schedule, "low_momentum", None), momentum_of(recipe.optimizer)
    if low is not None and not own:
        raise UserError(
            f"schedule.low_momentum has no effect with optimizer={recipe.optimizer.name}, which has no "
            "momentum that may change: remove it"
        )
    if low is not None and low >= own:
        raise UserError(
            f"schedule.low_momentum={low:g} is not below the optimizer's own momentum, {own:g}: lower it"
        )
    update = min(training.batch_size * training.accumulate, len(data.train))
    checks.require_fitting(recipe.augment, data.kind, data.input_shape, update)
    epoch = updates_per_epoch(len(data.train), training.batch_size, training.accumulate)
    decided: dict[str, object] = {"device": str(choose_device(training.device))}
    if training.early_stopping is not None:
        _check_early_stopping(training, len(data.validation))
        decided["weights"] = "best"
    if training.average is not None:
        decided["average"] = _with_its_defaults(training.average, recipe.schedule.name)
    epochs = training.epochs
    if epochs is None and training.updates is None and training.seconds is None:
        epochs = decided["epochs"] = min(max(math.ceil(UPDATES / epoch), EPOCHS[0]), EPOCHS[1])
    if training.evaluate_every is None and training.seconds is None and evaluated:
        updates = training.updates or (epochs or 0) * epoch
        decided["evaluate_every"] = epoch * max(math.ceil(updates / (EVALUATIONS * epoch)), 1)
    training = training.model_copy(update=decided)
    _check_points(training, recipe, epoch)
    _check_norm(recipe, data.kind)
    return recipe.model_copy(update={"loss": loss, "training": training})


def _check_points(training: TrainingConfig, recipe: Recipe, epoch: int) -> None:
    """An average of ends of cycles, or of epochs, needs two of them behind its start."""
    updates = training.updates or (training.epochs or 0) * epoch
    average = training.average
    if average is None or average.kind != "swa" or not updates:
        return
    ends = cycle_ends(recipe.schedule, updates) or range(epoch, updates + 1, epoch)
    points = sum((average.start or 0.0) * updates < end <= updates + 1e-6 for end in ends)
    if points < 2:
        what = "cycles" if cycle_ends(recipe.schedule, updates) else "epochs"
        raise UserError(
            f"training.average=swa has {points} ends of {what} to average: train longer, or lower "
            "training.average.start"
        )


def _check_norm(recipe: Recipe, data: str) -> None:
    kind = getattr(getattr(recipe.model, "norm", None), "kind", "none")
    single = data == "features" or recipe.model.name in ("linear", "mlp")
    if kind == "batch" and recipe.training.batch_size == 1 and single:
        raise UserError(
            "model.norm=batch has no variance in batches of one sample: raise training.batch_size, or use "
            "model.norm=layer"
        )
    if recipe.regularize.max_norm is not None and kind in ("weight", "spectral"):
        raise UserError(
            f"regularize.max_norm has no effect with model.norm={kind}, which sets the weights' length: "
            "remove one"
        )


def _check_early_stopping(training: TrainingConfig, validation: int) -> None:
    if not validation:
        raise UserError(
            "training.early_stopping has no effect without a validation part: set data.validation"
        )
    if training.weights == "last":
        raise UserError(
            "training.weights=last contradicts training.early_stopping, which delivers the best: remove one"
        )


def _with_its_defaults(average: Average, schedule: str) -> Average:
    start = {"ema": 0.0, "polyak": 0.5, "swa": 0.0 if schedule == "swa" else 0.75}[average.kind]
    return average.model_copy(
        update={
            "start": start if average.start is None else average.start,
            "decay": 0.999 if average.kind == "ema" and average.decay is None else average.decay,
        }
    )


def choose_device(name: str) -> torch.device:
    """The device that `training.device` means; UserError where this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        gpus = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
        raise UserError(f"training.device={name}: use {' or '.join(['cpu', *gpus])}, which this machine has")
    return device


def updates_per_epoch(samples: int, batch_size: int, accumulate: int) -> int:
    """How many updates one pass over the training part makes.

    A last batch that is smaller is used too, unless it is a single sample: batch norm has no variance
    there, and one sample's gradient would count as much as a whole batch's.
    """
    size = batch_size * accumulate
    full, rest = divmod(samples, size)
    return max(full + (rest > 1 or (rest == 1 and full == 0)), 1)
