"""The weights to evaluate and deliver, where they are not those that training goes on with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from stepwell.data import counter
from stepwell.data.dataset import DataSet
from stepwell.nn.running_statistics import reestimate
from stepwell.optim.schedule_free import ScheduleFree
from stepwell.recipe import Recipe
from stepwell.training.run import Run

SAMPLES = 8192  # of the training part, at most, for the statistics of batch norm


@contextmanager
def evaluated_weights(run: Run) -> Iterator[None]:
    """Inside, the network has the weights to evaluate: the average of those it went through, if it keeps one.

    The statistics of batch norm belong to the weights that they were measured with, so they are measured
    anew, on training samples without augmentation; afterwards all is as it was.
    """
    if not _has_others(run):
        yield
        return
    before = {name: value.clone() for name, value in run.network.named_buffers()}
    with ExitStack() as stack:
        if isinstance(run.optimizer, ScheduleFree):
            run.optimizer.eval()
            stack.callback(run.optimizer.train)
        else:
            stack.enter_context(run.optimizer.averaged())
        try:
            run.network.train()  # but for what is frozen, whose statistics stay
            with run.autocast():
                reestimate(
                    run.network, samples_of(run.recipe, run.data, run.device)
                )  # where there is no batch norm, nothing
            yield
        finally:
            with torch.no_grad():
                for name, value in run.network.named_buffers():
                    value.copy_(before[name])


def deliver(run: Run) -> None:
    """Leaves the weights that are to be evaluated in the network, at the end of the run."""
    if not _has_others(run):
        return
    with evaluated_weights(run):
        weights = {name: value.clone() for name, value in run.weights().items()}
    run.network.load_state_dict(weights)


def _has_others(run: Run) -> bool:
    return isinstance(run.optimizer, ScheduleFree) or run.pace.averaging is not None


def samples_of(recipe: Recipe, data: DataSet, device: torch.device) -> Iterator[Tensor]:
    """Batches of training samples by chance, the same ones each time, to measure statistics on."""
    part, size = data.train, recipe.training.batch_size
    generator = torch.Generator().manual_seed(counter.key(recipe.seed, 4))
    order = torch.randperm(len(part), generator=generator)[:SAMPLES]
    # All batches weigh alike, so a last one that is smaller is left out.
    for index in order[: max(len(order) // size, 1) * size].split(size):
        yield part.gather(index)[0].to(device)
