"""Kills a training run again and again with SIGKILL, and compares its end with an uninterrupted run's.

    python benchmarks/kills.py [--kills 100] [--seed 0]

A short run (an MLP on digits with dropout, noise and a checkpoint every 50 updates) is started as
`stepwell train`, killed at a random moment, and gone on with by `stepwell train --resume` in a new
process, killed again, and so on until a process reaches its end; then the next run begins, until the
number of kills is spent. Two kills of three fall anywhere between the start of the process and the end
of an uninterrupted one; the third is aimed at the short time after the last update, in which the model
is tested and written. Every run must end with the uninterrupted run's bits: weights, optimizer state,
random state, metrics, evaluation. Exit code 1 if one does not, or if a process ends with an error.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from stepwell.training import checkpoint

UPDATES = 1200
RECIPE = [
    f"training.updates={UPDATES}",
    "training.checkpoint_every=50",
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


def kill_and_compare(folder: Path, wanted: int, moments: random.Random) -> int:
    began = time.monotonic()
    whole, testing = uninterrupted(folder / "whole")
    expected = digest(folder / "whole")
    print(
        f"uninterrupted: {whole:.1f} s as a process, of which {testing:.2f} s after the last update",
        flush=True,
    )
    where: collections.Counter[str] = collections.Counter()
    runs = different = 0
    while sum(where.values()) < wanted:
        run, runs = folder / f"run-{runs + 1}", runs + 1
        finished = False
        while not finished:
            # The last run's remainder is not killed any more.
            aim = None
            if sum(where.values()) < wanted:
                at_the_end = moments.random() < 1 / 3
                aim = (at_the_end, moments.uniform(0, testing if at_the_end else whole))
            finished = process(run, aim)
            if not finished:
                where[place(run)] += 1
            progress(
                f"{sum(where.values())} of {wanted} kills, {runs} runs, {time.monotonic() - began:.0f} s"
            )
        found = digest(run)
        unequal = [name for name in expected if found.get(name) != expected[name]]
        if unequal:
            different += 1
            print(f"\nrun {runs} differs in: {', '.join(unequal)}", flush=True)
        shutil.rmtree(run)
    print(f"\n{sum(where.values())} kills in {runs} runs, {time.monotonic() - began:.0f} s")
    for name in PLACES:
        print(f"  {where[name]:4d}  {name}")
    print(f"{runs - different} of {runs} runs ended with the uninterrupted run's bits")
    return 1 if different else 0


def uninterrupted(run: Path) -> tuple[float, float]:
    """Trains without a kill; returns the seconds of the process, and those after the last checkpoint."""
    began = time.monotonic()
    started = start(run)
    saved = wait_for(run / "checkpoints" / LAST, started)
    if started.wait():
        raise SystemExit("the uninterrupted run failed")
    return time.monotonic() - began, time.monotonic() - saved


def process(run: Path, aim: tuple[bool, float] | None) -> bool:
    """Starts or resumes the run and kills it as aimed; returns whether it ended by itself before.

    aim: (whether to count from the last checkpoint, not from the start; seconds), or None for no kill.
    """
    started = start(run)
    if aim is not None:
        at_the_end, seconds = aim
        if at_the_end:
            wait_for(run / "checkpoints" / LAST, started)
        try:
            started.wait(seconds)
        except subprocess.TimeoutExpired:
            started.kill()
    code = started.wait()
    if code not in (0, -signal.SIGKILL):
        errors = started.stderr.read().decode() if started.stderr else ""
        raise SystemExit(f"\na process ended with exit code {code} in {place(run)}: {errors}")
    return code == 0


def start(run: Path) -> subprocess.Popen[bytes]:
    """The run's next process: a resume, if there is something to go on with."""
    words = ["--resume", str(run)] if (run / "recipe.yaml").exists() else [*RECIPE, "--out", str(run)]
    return subprocess.Popen(
        [sys.executable, "-m", "stepwell", "train", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
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
    if (run / "checkpoints" / LAST).exists():
        return PLACES[3]
    if list((run / "checkpoints").glob("update-*.safetensors")):
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
    clock = {"seconds", "sizes", "progress"}  # timing.jsonl and what it makes the checkpoint say
    found["checkpoint's values"] = json.dumps({k: v for k, v in state.items() if k not in clock})
    return found


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
