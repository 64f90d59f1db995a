"""Which rule reads the best learning rate out of a range test: each one's pick against real trainings.

    python benchmarks/find_lr.py [--only digits,iris] [--optimizers sgd,adam] [--seeds 3] [--updates 200]
        [--each] [--results find-lr.jsonl]

A case is a problem and an optimizer. The truth is a grid of rates, three a decade, from a hundredth to a
hundred times the optimizer's own, each trained to the end by its recipe (cosine schedule) over seeds. The
measure is the mean validation loss of the delivered weights: a pick's *excess* is what its loss, interpolated
along log η, has above the grid's lowest, as a share of that; a grid's rate that diverges counts as ten times
the worst. The range tests are those of `stepwell find-lr` with other seeds than the truth's. Rules:

 - nine tenths: the one in `populations/range_test.py`.
 - steepest: the steepest fall of the smoothed loss before its lowest (Smith 2017; fastai's "steep").
 - lowest / 10, / 3: the rate of the lowest smoothed loss, divided (fastai's "minimum").
 - end / 10, / 30: the rate at which the loss blew up, divided.
 - own: no test at all, the optimizer's default rate.

All but the last take the median of five seeds. Cases are kept in --results and not repeated; delete the file
to begin anew. Prints the table of docs/find-lr.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stepwell.data import sources
from stepwell.populations.find_lr import find_lr
from stepwell.populations.member import Member
from stepwell.populations.range_test import RangeTest
from stepwell.populations.train import train
from stepwell.progress import quietly
from stepwell.recipe import Recipe, read_recipe, resolve, with_rate

Keys = dict[str, Any]
SEEN: Keys = {"training.evaluate_every": 50}

PROBLEMS: dict[str, Keys] = {
    "digits": {"training.updates": 600},
    "deep": {"model.hidden": [64] * 6, "training.updates": 500, "training.batch_size": 32},
    "iris": {"data": "iris", "training.updates": 300},
    "diabetes": {"data": "diabetes", "training.updates": 300},
    "cnn": {"model": "cnn", "model.channels": [8, 16], "training.updates": 250},
    "text": {
        "data": "text.txt",
        "model": "rnn",
        "model.width": 32,
        "training.updates": 200,
        "training.batch_size": 8,
    },
}
OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop", "adagrad", "lion", "adadelta", "lamb")
GRID = 10.0 ** np.arange(-2, 2.01, 1 / 3)  # times the optimizer's own rate
FAR = 1000  # between the seeds of the test and those of the truth


def main() -> None:
    parser = argparse.ArgumentParser(description="Rules that read a rate out of a range test.")
    parser.add_argument("--only", default=",".join(PROBLEMS), help="problems")
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    parser.add_argument("--seeds", type=int, default=3, help="trainings at each rate of the grid")
    parser.add_argument("--updates", type=int, default=200, help="updates of the range test")
    parser.add_argument("--each", action="store_true", help="a line a case, too")
    parser.add_argument("--results", type=Path, default=Path("find-lr.jsonl"))
    options = parser.parse_args()
    kept = {}
    if options.results.exists():
        rows = (json.loads(line) for line in options.results.read_text().splitlines())
        kept = {tuple(row["case"]): row for row in rows}
    cases = [(p, o) for p in options.only.split(",") for o in options.optimizers.split(",")]
    for problem, optimizer in cases:
        case = (problem, optimizer, options.seeds, options.updates)
        if case not in kept:
            kept[case] = {"case": case, **measure(*case)}
            with options.results.open("a") as file:
                file.write(json.dumps(kept[case]) + "\n")
        if options.each:
            print(line(kept[case]), flush=True)
    table([kept[(*case, options.seeds, options.updates)] for case in cases])


def measure(problem: str, optimizer: str, seeds: int, updates: int) -> dict[str, Any]:
    """The picks of every rule, in each seed of the test, and the truth's grid."""
    with tempfile.TemporaryDirectory() as folder, quietly(True):
        text = Path(folder, "text.txt")
        pages = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
        text.write_text("".join(page.read_text(encoding="utf-8") for page in pages)[:200_000])
        keys = {**SEEN, **PROBLEMS[problem], "optimizer": optimizer}
        keys |= {"data": str(text)} if keys.get("data") == text.name else {}
        asked = read_recipe(None, keys)
        data = sources.load(asked.data)
        whole = resolve(asked, data)
        found = find_lr(whole, data, updates=updates)
        own = whole.optimizer.lr
        members = [Member(_with(whole, own * by, FAR + s), data) for by in GRID for s in range(seeds)]
        losses = [end.validation.get("loss") for end in train(members)]
    picks = {name: [rule(row, found) for row in range(5)] for name, rule in RULES.items()}
    return {"own": own, "losses": losses, "picks": picks, "low": found.low, "high": found.high}


def _with(recipe: Recipe, rate: float, seed: int) -> Recipe:
    return with_rate(recipe, float(rate)).model_copy(update={"seed": seed})


# -- the rules: seed, test → log10 of a rate, None where there is none -------------------------------------


def _smooth(row: int, found: RangeTest) -> tuple[np.ndarray, np.ndarray]:
    there = np.isfinite(found.smoothed[row])
    return np.log10(found.rates[there]), found.smoothed[row][there]


def nine_tenths(row: int, found: RangeTest) -> float | None:
    return float(np.log10(found.picks[row])) if np.isfinite(found.picks[row]) else None


def steepest(row: int, found: RangeTest) -> float:
    x, s = _smooth(row, found)
    return float(x[np.gradient(s, x)[: s.argmin() + 1].argmin()])


def lowest(factor: float) -> Callable[[int, RangeTest], float]:
    def rule(row: int, found: RangeTest) -> float:
        x, s = _smooth(row, found)
        return float(x[s.argmin()] - np.log10(factor))

    return rule


def end(factor: float) -> Callable[[int, RangeTest], float]:
    def rule(row: int, found: RangeTest) -> float:
        return float(_smooth(row, found)[0][-1] - np.log10(factor))

    return rule


RULES: dict[str, Callable[[int, RangeTest], float | None]] = {
    "nine tenths": nine_tenths,
    "lowest / 3": lowest(3),
    "lowest / 10": lowest(10),
    "steepest": steepest,
    "end / 30": end(30),
    "end / 10": end(10),
}


# -- what they are worth -----------------------------------------------------------------------------------


def truth(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """log10 of the grid's rates, and the mean loss of each as a share of the lowest."""
    losses = np.array([np.nan if loss is None else loss for loss in row["losses"]]).reshape(len(GRID), -1)
    mean = losses.mean(1)
    mean = np.where(np.isfinite(mean), mean, 10 * np.nanmax(mean))
    return np.log10(row["own"] * GRID), mean / mean.min()


def worth(row: dict[str, Any], name: str) -> tuple[float, float, float]:
    """Excess of a rule's pick, its distance from the best rate and the seeds' deviation, in decades."""
    x, loss = truth(row)
    picks = [np.log10(row["own"])] if name == "own" else [p for p in row["picks"][name] if p is not None]
    if len(picks) < 3 and name != "own":
        return 1.0, float("nan"), float("nan")
    pick = float(np.median(picks))
    beyond = max(x[0] - pick, pick - x[-1], 0)
    excess = float(np.interp(pick, x, loss)) - 1 if beyond < 0.1 else 9.0
    return excess, pick - float(x[loss.argmin()]), float(np.std(picks))


def table(rows: list[dict[str, Any]]) -> None:
    print(f"\n{len(rows)} cases")
    print("| rule | excess, median | ≤ 10 % | ≤ 30 % | > 100 % | from the best, decades | between seeds |")
    print("|---|---|---|---|---|---|---|")
    for name in [*RULES, "own"]:
        found = np.array([worth(row, name) for row in rows])
        excess, away, spread = found.T
        shares = [
            f"{(excess <= 0.1).mean():.0%}",
            f"{(excess <= 0.3).mean():.0%}",
            f"{(excess > 1).mean():.0%}",
        ]
        cells = [name, f"{np.median(excess):.0%}", *shares, f"{np.nanmean(abs(away)):.2f}"]
        print(f"| {' | '.join([*cells, f'{np.nanmean(spread):.2f}' if name != 'own' else ''])} |")


def line(row: dict[str, Any]) -> str:
    x, loss = truth(row)
    picks = [p for p in row["picks"]["nine tenths"] if p is not None]
    shown = f"{10 ** statistics.median(picks):.2g}" if picks else "none"
    near = x[loss <= 1.1]
    excess = worth(row, "nine tenths")[0]
    return (
        f"{row['case'][0]:<9} {row['case'][1]:<9} best {10 ** x[loss.argmin()]:<8.2g} within 10 %: "
        f"{10 ** near[0]:.2g} to {10 ** near[-1]:<8.2g} found {shown:<8} excess {excess:<6.0%} "
        f"own {worth(row, 'own')[0]:.0%}"
    )


if __name__ == "__main__":
    main()
