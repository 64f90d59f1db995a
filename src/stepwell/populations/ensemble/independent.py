"""Members that differ by their seed alone; the mean of their predictions.

p̄(x) = 1/M Σ p(x; θ_m), θ_m trained from seed s + m: other initial weights, order of data, dropout,
augmentation. Numbers: ȳ = 1/M Σ y_m.

For a loss that is convex in the prediction (cross-entropy, squares) Jensen's inequality bounds the
ensemble's loss by the members' mean on every sample: L(p̄) ≤ 1/M Σ L(p_m). Accuracy has no such bound.
Source: Lakshminarayanan, Pritzel & Blundell 2017; Hansen & Salamon 1990.
The trap: M times the cost of one training, and of one prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepwell.data.dataset import DataSet
from stepwell.errors import Diverged
from stepwell.populations.ensemble.course import course
from stepwell.populations.ensemble.job import Bench, Job, Made, Served
from stepwell.populations.member import Member
from stepwell.populations.train import train as train_population
from stepwell.recipe import Recipe, updates_per_epoch


def train(job: Job) -> Made:
    """Trains `count` members with the seeds s, s + 1, …; where they begin with a source, one by one."""
    recipes = [job.recipe.model_copy(update={"seed": job.recipe.seed + k}) for k in range(job.count)]
    names = [f"seed {recipe.seed}" for recipe in recipes]
    if job.source is not None:
        return fine_tuned(job, recipes, names)
    return trained(job, recipes, [job.data] * job.count, names)


def trained(job: Job, recipes: Sequence[Recipe], data: Sequence[DataSet], names: Sequence[str]) -> Made:
    """Trains a population; members that diverged are left out, and it is said."""
    members = [Member(recipe, own) for recipe, own in zip(recipes, data, strict=True)]
    outcomes = train_population(members, folder=job.folder, weights=True, interrupted=job.interrupted)
    made = Made([], [], [], 0, 0.0)
    lost = []
    for name, recipe, outcome in zip(names, recipes, outcomes, strict=True):
        made.updates, made.epochs = made.updates + outcome.updates, made.epochs + outcome.epochs
        made.curves.append({"name": name, "rows": outcome.curve})
        if outcome.weights is None:
            lost.append(f"{name} at update {outcome.diverged}")
            continue
        made.states.append({key: value.cpu() for key, value in outcome.weights.items()})
        made.each.append(
            {
                "name": name,
                "seed": recipe.seed,
                "updates": outcome.updates,
                "delivered": outcome.delivered,
                "alone": outcome.validation,
            }
        )
    if len(made.states) < 2:
        raise Diverged(
            f"{len(lost)} of {job.count} members have diverged ({'; '.join(lost[:3])}): start with a lower "
            "optimizer.lr",
            job.folder,
        )
    if lost:
        made.notes = [
            f"{len(lost)} of {job.count} members have diverged and are left out ({'; '.join(lost)})"
        ]
    return made


def fine_tuned(job: Job, recipes: Sequence[Recipe], names: Sequence[str]) -> Made:
    """Trains members that begin with the source's weights; delivered are those of the last update."""
    made = Made([], [], [], 0, 0.0)
    for place, (name, recipe) in enumerate(zip(names, recipes, strict=True)):
        taken = course(job, recipe, [last_update(job)], job.folder / f"member-{place}", name)
        made.updates, made.epochs = made.updates + taken.updates, made.epochs + taken.epochs
        made.states += taken.states
        made.each.append({"name": name, "seed": recipe.seed, "updates": taken.updates})
        made.curves.append({"name": name, "rows": taken.curve})
    return made


def last_update(job: Job) -> int:
    """The length of a run of this recipe, which is not one of seconds."""
    training = job.recipe.training
    epoch = updates_per_epoch(len(job.data.train), training.batch_size, training.accumulate)
    return training.updates or (training.epochs or 0) * epoch


def serve(job: Job, made: Made, bench: Bench) -> Served:
    """All members."""
    return Served(made.states, list(range(len(made.states))))
