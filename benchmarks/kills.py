"""Kills a training run again and again with SIGKILL, and compares its end with an uninterrupted run's.

    python benchmarks/kills.py [--kills 100] [--seed 0]

A short run (an MLP on digits with dropout, noise and a checkpoint every 25 updates) is started as
`stepwell train`, killed at a random moment, and gone on with by `stepwell train --resume` in a new
process, killed again, and so on until it has a report; then the next run begins, until the number of
kills is spent. The moments are spread over the whole life of a process: one in five falls into its
start, half into training, the others into the time after the last update, in which the model is
tested and written. Every run must end with the uninterrupted run's bits: weights, optimizer state,
random state, metrics, evaluation. Exit code 1 if one does not, or if a process ends with an error.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import stepwell
from stepwell.training import checkpoint

UPDATES = 1000
RECIPE = [
    f"training.updates={UPDATES}",
    "training.checkpoint_every=25",
    "training.log_every=20",
    "model.dropout=0.2",
    "augment.noise=0.3",
]
LAST = f"update-{UPDATES:09d}.safetensors"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills and resumes runs, and compares how they end.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return kill_and_compare(Path(folder), options.kills, random.Random(options.seed))


@dataclass(frozen=True)
class Life:
    """How long the parts of an uninterrupted process take, in seconds."""

    starting: float
    training: float
    finishing: float


def kill_and_compare(folder: Path, wanted: int, moments: random.Random) -> int:
    began = time.monotonic()
    # A copy of the code, so that an edit in the meantime does not look like a difference.
    shutil.copytree(Path(stepwell.__file__).parent, folder / "code" / "stepwell")
    life = uninterrupted(folder / "whole")
    expected = digest(folder / "whole")
    print(
        f"uninterrupted: {life.starting:.1f} s until its folder is there, {life.training:.1f} s of training, "
        f"{life.finishing:.2f} s from there to the report",
        flush=True,
    )
    where: collections.Counter[str] = collections.Counter()
    runs = different = partial = 0
    while where.total() < wanted:
        runs += 1
        run = folder / f"run-{runs}"
        finished = False
        while not finished:
            killing = where.total() < wanted and not (run / "report.html").exists()
            finished = process(run, life, moments if killing else None)
            if (
                not finished and (moment := place(run)) != PLACES[-1]
            ):  # after the report there is nothing to lose
                where[moment] += 1
            progress(f"{where.total()} of {wanted} kills, run {runs}, {time.monotonic() - began:.0f} s")
        found = digest(run)
        unequal = sorted(name for name in expected | found if found.get(name) != expected.get(name))
        if unequal:
            different += 1
            print(f"\nrun {runs} differs in: {', '.join(unequal)}", flush=True)
        partial += len(list(run.rglob(".*.partial")))
        shutil.rmtree(run)
    progress("")
    print(f"{where.total()} kills in {runs} runs, {time.monotonic() - began:.0f} s")
    for name in PLACES:
        print(f"  {where[name]:4d}  {name}")
    print(f"{runs - different} of {runs} runs ended with the uninterrupted run's bits", end="; ")
    print(f"{partial} half-written temporary files were left behind")
    return 1 if different else 0


def uninterrupted(run: Path) -> Life:
    """Trains without a kill."""
    began = time.monotonic()
    started = start(run)
    folder = wait_for(run / "recipe.yaml", started)
    last = wait_for(run / "checkpoints" / LAST, started)
    report = wait_for(run / "report.html", started)
    _, errors = started.communicate()
    if started.returncode:
        raise SystemExit(f"the uninterrupted run failed: {errors.decode()}")
    return Life(folder - began, last - folder, report - last)


def process(run: Path, life: Life, moments: random.Random | None) -> bool:
    """Starts or resumes the run and kills it at a random moment; returns whether it ended by itself before.

    Without `moments` it is left to its end.
    """
    left = 1 - update_of(run) / UPDATES
    written = changed(run / "metrics.jsonl")
    started = start(run)
    if moments is not None:
        kind, share = moments.random(), moments.random()
        if kind < 0.2:
            wait = share * life.starting
        else:
            # How long a start takes varies by more than the rest lasts: count from its end.
            while changed(run / "metrics.jsonl") == written and started.poll() is None:
                time.sleep(0.002)
            wait = share * left * life.training
            if kind > 0.7 or not left:
                wait_for(run / "checkpoints" / LAST, started)
                wait = share * life.finishing
        try:
            started.wait(wait)
        except subprocess.TimeoutExpired:
            started.kill()
    _, errors = started.communicate()
    if started.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"\na process ended with exit code {started.returncode}: {errors.decode()}")
    return started.returncode == 0


def changed(path: Path) -> int:
    """When the file was last written, in ns; 0 where there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def update_of(run: Path) -> int:
    """The update of the newest checkpoint; 0 where there is none."""
    names = sorted(path.stem for path in (run / "checkpoints").glob("update-*.safetensors"))
    return int(names[-1].removeprefix("update-")) if names else 0


def start(run: Path) -> subprocess.Popen[bytes]:
    """The run's next process: a resume, if there is something to go on with."""
    words = ["--resume", str(run)] if (run / "recipe.yaml").exists() else [*RECIPE, "--out", str(run)]
    # One thread each: beside other work on the machine two threads of so small a net wait for each other.
    return subprocess.Popen(
        [sys.executable, "-m", "stepwell", "train", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(run.parent / "code")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def wait_for(path: Path, started: subprocess.Popen[bytes]) -> float:
    """Returns when the file is there or the process has ended, and what the clock then showed."""
    while not path.exists() and started.poll() is None:
        time.sleep(0.002)
    return time.monotonic()


PLACES = (
    "before there was a recipe in the folder",
    "before the first checkpoint",
    "between the first checkpoint and the last update",
    "after the last update, before the result",
    "after the result, before the report",
    "after the report",
)


def place(run: Path) -> str:
    """How far a killed run has come, by what lies in its folder."""
    if (run / "report.html").exists():
        return PLACES[5]
    if (run / "result.json").exists():
        return PLACES[4]
    if update_of(run) == UPDATES:
        return PLACES[3]
    if update_of(run):
        return PLACES[2]
    return PLACES[1] if (run / "recipe.yaml").exists() else PLACES[0]


def digest(run: Path) -> dict[str, str]:
    """A hash of each thing that must be the same, or what is missing."""
    found = {
        name: hashlib.sha256((run / name).read_bytes()).hexdigest() if (run / name).exists() else "missing"
        for name in ("model.safetensors", "metrics.jsonl", "evaluation.json")
    }
    found |= {
        name: "there" if (run / name).exists() else "missing" for name in ("result.json", "report.html")
    }
    tensors, state = checkpoint.read(run / "checkpoints" / LAST)
    content = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        content.update(name.encode() + value.reshape(-1).view(torch.uint8).numpy().tobytes())
    found["checkpoint's tensors"] = content.hexdigest()
    clock = {"seconds", "lines", "progress"}  # timing.jsonl and what it makes the checkpoint say
    found |= {f"checkpoint's {key}": json.dumps(value) for key, value in state.items() if key not in clock}
    return found


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
