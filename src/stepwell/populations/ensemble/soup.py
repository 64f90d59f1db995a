"""One network with the mean of the weights of those members that lower its validation loss.

S ← {best}; for each other member in order of its own loss: S ← S + {m} where L_val(θ̄(S + {m})) ≤ L_val(θ̄(S))

The members are fine-tuned from one beginning (model.from) with a seed each, or, without one, are snapshots of
one run. The first is the best single member, so on the validation part the soup is never worse.
Source: Wortsman et al. 2022 (Model soups), recipe 1; there by accuracy, here by the loss: it has fewer ties.
The trap: members from independent initial weights lie in different basins, and the rule then takes one alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from stepwell.populations.ensemble import independent, snapshots
from stepwell.populations.ensemble.average import averaged
from stepwell.populations.ensemble.job import Bench, Job, Made, Served
from stepwell.training import evaluate


def train(job: Job) -> Made:
    """Fine-tunes from the source, or takes snapshots."""
    return snapshots.train(job) if job.source is None else independent.train(job)


def serve(job: Job, made: Made, bench: Bench) -> Served:
    """The greedy soup."""

    def loss(chosen: Sequence[int]) -> float:
        averaged(job, [made.states[k] for k in chosen], bench)
        device = next(bench.network.parameters()).device
        found = evaluate.predictions(bench.network, bench.loss, job.data.validation, device).loss
        return float(found.astype(np.float64).mean())

    chosen = greedy(len(made.states), loss)
    notes = []
    if len(chosen) == 1:
        notes = ["no other member lowers the validation loss of the best one, so the soup is that one alone"]
    return Served([averaged(job, [made.states[k] for k in chosen], bench)], chosen, notes)


def greedy(count: int, loss: Callable[[Sequence[int]], float]) -> list[int]:
    """Which of `count` members are taken, in their order, by the rule above; a loss of NaN is infinite.

    loss: of the mean of some members, asked 2 · count − 1 times. Ties of single members go to the first.
    """

    def finite(chosen: list[int]) -> float:
        value = loss(chosen)
        return value if value == value else np.inf

    alone = [finite([k]) for k in range(count)]
    first, *others = sorted(range(count), key=lambda k: alone[k])
    chosen, best = [first], alone[first]
    for k in others:
        value = finite([*chosen, k])
        if value <= best:
            chosen, best = [*chosen, k], value
    return chosen
