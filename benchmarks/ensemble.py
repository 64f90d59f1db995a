"""What each kind of ensemble gains on digits: five members, against one network of the same recipe.

    python benchmarks/ensemble.py [--json] [--repetitions 10] [--members 5] [--epochs 30]

Each repetition has a split and seeds of its own. "single" is the mean of the independent members: the default
recipe, one network. Snapshots, average and soup have the budget of one network, independent members and folds
that of five. "mean of independent weights" is the average of the independent members' weights. A difference
to "single" is paired by repetition; its interval is Student's, 95 %, over the repetitions, so it contains
the chance of splits and seeds.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from stepwell.data import sources
from stepwell.metrics import by_task
from stepwell.nn import losses, registry
from stepwell.nn.ensemble import members_of
from stepwell.nn.network import Network
from stepwell.populations.ensemble import average, make
from stepwell.populations.ensemble.job import Bench, Job
from stepwell.training import evaluate
from stepwell.training.predict import trained
from stepwell.training.run_folder import existing

DATA = {"1,222 training samples": {}, "244 training samples": {"data.test": 0.84}}
KINDS = ("independent", "folds", "snapshots", "average", "soup")
METRICS = ("accuracy", "loss", "ece")


def of_mean_weights(folder: Path) -> dict[str, float]:
    """The test metrics of one network with the mean of the members' weights."""
    recipe = existing(folder).recipe()
    data = sources.load(recipe.data)
    body = registry.build(recipe.model, data.input_shape, data.outputs, data.kind)
    bench = Bench(Network.of(body, data).eval(), losses.build(recipe.loss, data.task), data.task)
    states = [member.state_dict() for member in members_of(trained(folder).network)]
    average.averaged(Job(recipe, data, None, len(states), folder), states, bench)
    found = evaluate.predictions(bench.network, bench.loss, data.test, torch.device("cpu"))
    full = by_task.full(data.task, found.outputs, found.targets, found.loss, data.classes)
    return {name: float(full[name]["value"] or 0) for name in METRICS}


def measure(
    repetition: int, changes: dict[str, Any], members: int, epochs: int
) -> dict[str, dict[str, float]]:
    """The test metrics of every kind with this split and these seeds."""
    seeds = {"data.split_seed": repetition, "seed": 1000 * repetition, "training.epochs": epochs}
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS:
            out = Path(name) / kind
            result, _ = make.ensemble(None, {**changes, **seeds}, kind, members, str(out), quiet=True)
            found[kind] = {metric: result["test"][metric]["value"] for metric in METRICS}
            if kind == "independent":
                each = result["ensemble"]["each"]
                found["single"] = {m: float(np.mean([e["test"][m]["value"] for e in each])) for m in METRICS}
                found["mean of independent weights"] = of_mean_weights(out)
    return found


def table(found: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Means over repetitions, and the differences to "single" with their intervals."""
    rows: dict[str, dict[str, Any]] = {}
    for kind in ("single", *KINDS, "mean of independent weights"):
        row: dict[str, Any] = {}
        for metric in METRICS:
            values = np.array([each[kind][metric] for each in found])
            gains = values - [each["single"][metric] for each in found]
            half = stats.sem(gains) * stats.t.ppf(0.975, len(gains) - 1)
            row[metric] = {"mean": values.mean(), "gain": gains.mean(), "half": float(half)}
        rows[kind] = row
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    asked = parser.parse_args()
    tables = {
        name: table([measure(k, changes, asked.members, asked.epochs) for k in range(asked.repetitions)])
        for name, changes in DATA.items()
    }
    if asked.json:
        print(json.dumps(tables))
        return
    for name, rows in tables.items():
        print(f"\n{name}, {asked.repetitions} repetitions")
        print(f"{'':<28} {'accuracy':>8}  {'gain, points':>15}  {'loss':>6}  {'difference':>18}  {'ECE':>6}")
        for kind, row in rows.items():
            accuracy, loss, ece = (row[metric] for metric in METRICS)
            gain = f"{100 * accuracy['gain']:+.2f} ± {100 * accuracy['half']:.2f}"
            less = f"{loss['gain']:+.4f} ± {loss['half']:.4f}"
            print(
                f"{kind:<28} {accuracy['mean']:>8.2%}  {gain:>15}  {loss['mean']:>6.4f}  {less:>18}  "
                f"{ece['mean']:>6.2%}"
            )


if __name__ == "__main__":
    main()
