"""Snapshots of one run whose rate falls in cycles; the mean of their predictions.

p̄(x) = 1/M Σ p(x; θ(t_m)), t_m the update at which the m-th cycle of the rate is complete

Where the rate is lowest the weights lie in a minimum; the rise that follows leads to another one. So M
members cost one training. With a schedule of more cycles than members, the last M are taken.
Source: Huang et al. 2017 (Snapshot Ensembles), §3, cosine annealing with restarts of equal length.
The trap: later snapshots begin where the earlier ones ended, so they differ less than independent members,
and the first cycles are short trainings.
"""

from __future__ import annotations

import math

from stepwell.errors import UserError
from stepwell.populations.ensemble.course import course
from stepwell.populations.ensemble.independent import last_update
from stepwell.populations.ensemble.independent import serve as serve
from stepwell.populations.ensemble.job import Job, Made
from stepwell.schedules.configs import SCHEDULES, ScheduleConfig, cycle_ends

CYCLIC = tuple(
    name for name, kind in SCHEDULES.items() if kind.cycle_ends is not ScheduleConfig.cycle_ends
)  # ("restarts", "cyclical", "swa")


def train(job: Job) -> Made:
    """Trains once and keeps the weights at the ends of the last `count` cycles."""
    last = ends(job)[-job.count :]
    taken = course(job, job.recipe, last, job.folder, "the run")
    made = Made(taken.states, [], [{"name": "the run", "rows": taken.curve}], taken.updates, taken.epochs)
    made.each = [{"name": f"update {end:,}", "update": end, "updates": end} for end in last]
    return made


def ends(job: Job) -> list[int]:
    """The updates after which a cycle is complete. An end between two updates belongs to the one after it."""
    last = last_update(job)
    found = [math.ceil(end - 1e-9) for end in cycle_ends(job.recipe.schedule, last)]
    return sorted({min(end, last) for end in found if end > 0})


def require_cycles(job: Job, asked: int | None) -> None:
    """UserError where the schedule has no two cycles, or fewer than members are asked for."""
    name, found = job.recipe.schedule.name, len(ends(job))
    if name not in CYCLIC:
        raise UserError(
            f"schedule={name} has no cycles to take snapshots of: use {' or '.join(CYCLIC)}, or leave it out"
        )
    if found < max(asked or 2, 2):
        raise UserError(
            f"schedule={name} ends {found} cycle{'' if found == 1 else 's'} in this run, too few for "
            f"{max(asked or 2, 2)} members: raise schedule.cycles, train longer, or lower --members"
        )
