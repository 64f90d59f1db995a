"""One network with the mean of the weights of several snapshots of one run.

θ̄ = 1/M Σ θ(t_m), t_m the ends of the cycles of the rate

The mean is a single network: it costs nothing at prediction. It works where the snapshots lie in one basin
of the loss, as they do after cycles of a low rate (schedule=swa); the statistics of batch norm are measured
anew for it. Source: Izmailov et al. 2018 (SWA), algorithm 1. `training.average=swa` keeps the same mean in a
single `stepwell train`; here the snapshots are compared with it.
The trap: networks that were trained independently have their units in another order, and a mean of their
weights is far worse than any of them (docs/ensemble.md has it measured).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from stepwell.data import counter
from stepwell.nn.network import Network
from stepwell.nn.running_statistics import reestimate
from stepwell.populations.ensemble.job import Bench, Job, Made, Served, State
from stepwell.populations.ensemble.snapshots import train as train
from stepwell.training.evaluated_weights import SAMPLES


def serve(job: Job, made: Made, bench: Bench) -> Served:
    """The mean of all of them."""
    state = averaged(job, made.states, bench)
    return Served([state], list(range(len(made.states))))


def averaged(job: Job, states: Sequence[State], bench: Bench) -> State:
    """The mean weights with batch norm's statistics of their own; leaves them in the bench's network."""
    bench.network.load_state_dict(mean(states, _weights(bench.network)))
    bench.network.eval()
    reestimate(bench.network, _batches(job, next(bench.network.parameters()).device))
    return {name: value.detach().to("cpu", copy=True) for name, value in bench.network.state_dict().items()}


def _weights(network: Network) -> set[str]:
    """Names of all parameters, tied ones under each of their names."""
    return {name for name, _ in network.named_parameters(remove_duplicate=False)}


def mean(states: Sequence[State], weights: set[str]) -> State:
    """The mean of the entries named in `weights`, added up in float64; the others are those of the last."""
    found = dict(states[-1])
    for name in weights:
        total = sum((state[name].double() for state in states[1:]), states[0][name].double())
        found[name] = (total / len(states)).to(states[0][name].dtype)
    return found


def _batches(job: Job, device: torch.device) -> Iterator[Tensor]:
    """Training samples by chance, the same ones each time."""
    part, size = job.data.train, job.recipe.training.batch_size
    generator = torch.Generator().manual_seed(counter.key(job.recipe.seed, 4))
    order = torch.randperm(len(part), generator=generator)[:SAMPLES]
    for index in order[: max(len(order) // size, 1) * size].split(size):  # all batches weigh alike
        yield part.gather(index)[0].to(device)
