"""What it costs to look at dead and saturated units while a run trains.

    python benchmarks/gradient_flow.py [--rounds 9] [--threads N]

Each contestant is a recipe that is trained by `sw.train`, with its lines of metrics as they are by default
(one in 50 updates) and evaluations left out; the clock runs around the loop. Three ways take turns, so
that a disturbance of the machine hits all alike:

 - with: as a run does it.
 - without: the same lines, but units are never looked at.
 - bare: no line says anything of single layers, neither norms nor units.

The table shows the median of the step's time without, and medians of the rounds' own ratios with their
range. "own" is a module that Stepwell does not know: it is not watched as it runs, but runs once more.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from stepwell.training import train as training
from stepwell.training.gradient_flow import GradientFlow
from stepwell.training.loop import fit

OWN = """
from torch import nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, inputs, width, outputs):
        super().__init__()
        self.one, self.two = nn.Linear(inputs, width), nn.Linear(width, width)
        self.out = nn.Linear(width, outputs)

    def forward(self, x):
        return self.out(F.relu(self.two(F.relu(self.one(x.flatten(1))))))


def net(input_shape, outputs, width=128):
    return Net(64, width, outputs)
"""

# Name, keys, updates a measurement.
RECIPES: list[tuple[str, dict[str, Any], int]] = [
    ("default (digits, mlp)", {}, 3000),
    ("mlp 3 × 512, about 5 ms", {"model.hidden": [512, 512, 512], "training.batch_size": 128}, 300),
    ("resnet 8, width 16", {"model": "resnet", "model.depth": 8}, 300),
    ("own, width 128", {"model": "flow_net:net"}, 3000),
    ("own, width 1024", {"model": "flow_net:net", "model.arguments": {"width": 1024}}, 300),
]
WAYS = ("with", "without", "bare")


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of looking at units in training.")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.threads} threads"
    )
    print(f"{options.rounds} rounds in turn; median ratio and range\n")
    print(f"{'recipe':<26}{'step, ms':>10}{'with / without':>26}{'without / bare':>26}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "flow_net.py").write_text(OWN)
        sys.path.insert(0, folder)
        for number, (name, keys, updates) in enumerate(RECIPES):
            times = measure(keys, updates, options.rounds, Path(folder, str(number)))
            step = statistics.median(times["without"]) / updates * 1e3
            shown = [ratio(times[a], times[b]) for a, b in (("with", "without"), ("without", "bare"))]
            print(f"{name:<26}{step:>10.3f}{shown[0]:>26}{shown[1]:>26}", flush=True)


def measure(keys: dict[str, Any], updates: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of the loop, of each way in each round; one round before them warms up."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        for k in range(len(WAYS)):
            way = WAYS[(k + number) % len(WAYS)]
            seconds = trained(way, {**keys, "training.updates": updates}, folder / f"{way}{number}")
            if number:
                times[way].append(seconds)
    return times


def trained(way: str, keys: dict[str, Any], out: Path) -> float:
    """Trains the recipe one of the three ways; returns the loop's seconds."""
    clock: list[float] = []

    def timed(*arguments: Any) -> None:
        start = time.perf_counter()
        fit(*arguments)
        clock.append(time.perf_counter() - start)

    recipe = {**keys, "training.evaluate_every": keys["training.updates"], "training.weights": "last"}
    with patch.object(training, "fit", timed), as_way(way):
        training.train(None, recipe, str(out), quiet=True)
    return clock[0]


@contextmanager
def as_way(way: str) -> Iterator[None]:
    """Takes away what a way does without."""
    blind = (
        nullcontext() if way == "with" else patch.object(GradientFlow, "_is_due", lambda self, update: False)
    )
    bare = patch.object(GradientFlow, "keep", lambda self: None) if way == "bare" else nullcontext()
    with blind, bare:
        yield


def ratio(times: list[float], others: list[float]) -> str:
    """Median and range of the rounds' own ratios."""
    ratios = sorted(a / b for a, b in zip(times, others, strict=True))
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f})"


if __name__ == "__main__":
    main()
