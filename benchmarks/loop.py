"""Time of a training step on a small network: Stepwell against bare PyTorch loops and other trainers.

    python benchmarks/loop.py [--updates 5000] [--rounds 7] [--threads N] [--json FILE]

The network is 32-64-64-10 with ReLU, the data 6,400 samples of 32 features in 10 classes, the batch
64, the optimizer Adam at one fixed rate. At this size a step is overhead, which is what is measured.

Every contestant starts from the same weights and makes the same number of updates over shuffled
epochs. They take turns, so that a disturbance of the machine hits all alike; the table shows the
median over the rounds and the range. What is timed:

 - Stepwell: `sw.train` on a .npz file, with a live bar on a (pretended) terminal, checks, metrics and
   a checkpoint in every run (by default one in 30 seconds, so there are more here). The clock runs
   around the loop; the row "… evaluating" adds the default evaluation of 2,000 samples after each epoch,
   and "whole command" is the time of the whole call, from reading the file to report.html, over the updates.
 - Bare loops: zero_grad, forward, loss, backward, step, and nothing else: no metric is kept.
 - Lightning, Fabric, Accelerate, skorch: their own loop, from after their set-up; bar, logger and
   checkpoints off, which is in their favour ("defaults" has them on).
 - Forward and backward alone, on one fixed batch: what no loop can be faster than without compiling.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import logging
import os
import platform
import pty
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import stepwell as sw
from stepwell.nn import mlp
from stepwell.nn.configs import MLPModel
from stepwell.training import train as training

SAMPLES, FEATURES, CLASSES, BATCH, RATE = 6400, 32, 10, 64, 1e-3
EPOCH = SAMPLES // BATCH  # updates
Contestant = Callable[[int], float]  # epochs → seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Time per training step of several loops, side by side.")
    parser.add_argument(
        "--updates", type=int, default=5000, help="updates a measurement, in whole epochs of 100"
    )
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each contestant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for all alike")
    parser.add_argument("--only", nargs="*", default=[], help="contestants whose name contains one of these")
    parser.add_argument("--json", type=Path, help="also write the table there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    epochs = max(1, options.updates // EPOCH)
    with tempfile.TemporaryDirectory() as folder:
        contestants, missing = line_up(Path(folder))
        if options.only:
            contestants = {n: c for n, c in contestants.items() if any(word in n for word in options.only)}
        times = measure(contestants, epochs, options.rounds)
    figures = table(times)
    about = machine(options.threads)
    print(f"{about}\n{epochs * EPOCH:,} updates a measurement, {options.rounds} rounds in turn\n")
    show(figures)
    if missing:
        print(f"\nNot installed, so not measured: {', '.join(missing)}")
    if options.json:
        record = {"machine": about, "updates": epochs * EPOCH, "rounds": options.rounds, "steps": figures}
        options.json.write_text(json.dumps(record, indent=1))


def line_up(folder: Path) -> tuple[dict[str, Contestant], list[str]]:
    """The contestants by name, and the packages that are missing."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(CLASSES, FEATURES))

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        y = generator.integers(0, CLASSES, count)
        return (centres[y] + 2 * generator.normal(size=(count, FEATURES))).astype(np.float32), y

    (x, y), (x_validation, y_validation), (x_test, y_test) = draw(SAMPLES), draw(1000), draw(1000)
    np.savez(
        folder / "data.npz",
        x_train=x,
        y_train=y,
        x_validation=x_validation,
        y_validation=y_validation,
        x_test=x_test,
        y_test=y_test,
    )
    torch.manual_seed(0)
    start = mlp.build(MLPModel(hidden=[64, 64]), (FEATURES,), CLASSES, "features")
    bench = Bench(folder, start, torch.from_numpy((x - x.mean(0)) / x.std(0)), torch.from_numpy(y))
    contestants: dict[str, Contestant] = {
        "bare loop, DataLoader": lambda epochs: bench.bare(epochs, sliced=False, fused=None),
        "bare loop, DataLoader, fused Adam": lambda epochs: bench.bare(epochs, sliced=False, fused=True),
        "bare loop, index slicing": lambda epochs: bench.bare(epochs, sliced=True, fused=None),
        "bare loop, index slicing, fused Adam": lambda epochs: bench.bare(epochs, sliced=True, fused=True),
        "forward and backward alone": bench.arithmetic,
        "Stepwell": bench.stepwell,
        "Stepwell, evaluating each epoch": lambda epochs: bench.stepwell(epochs, evaluating=True),
        "Stepwell, whole command": lambda epochs: bench.stepwell(epochs, evaluating=True, whole=True),
    }
    others: dict[str, tuple[str, Contestant]] = {
        "Lightning Fabric": ("lightning", bench.fabric),
        "Lightning": ("lightning", bench.lightning),
        "Lightning, defaults": ("lightning", lambda epochs: bench.lightning(epochs, defaults=True)),
        "Accelerate": ("accelerate", bench.accelerate),
        "skorch": ("skorch", bench.skorch),
    }
    found = {name: run for name, (package, run) in others.items() if find_spec(package)}
    return contestants | found, sorted({p for p, _ in others.values() if not find_spec(p)})


class Bench:
    """The contestants: each method trains a copy of `start` for some epochs and returns its seconds."""

    def __init__(self, folder: Path, start: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
        self.folder, self.start, self.x, self.y = folder, start, x, y
        self.runs = 0

    def loader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.x, self.y), batch_size=BATCH, shuffle=True)

    def batches(self, epochs: int, sliced: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        loader = self.loader()
        for _ in range(epochs):
            if sliced:
                for index in torch.randperm(SAMPLES).split(BATCH):
                    yield self.x[index], self.y[index]
            else:
                yield from loader

    def bare(self, epochs: int, sliced: bool, fused: bool | None) -> float:
        model = copy.deepcopy(self.start)
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=fused)
        began = time.perf_counter()
        for x, y in self.batches(epochs, sliced):
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
        return time.perf_counter() - began

    def arithmetic(self, epochs: int) -> float:
        model = copy.deepcopy(self.start)
        x, y = self.x[:BATCH], self.y[:BATCH]
        began = time.perf_counter()
        for _ in range(epochs * EPOCH):
            model.zero_grad()
            cross_entropy(model(x), y).backward()
        return time.perf_counter() - began

    def stepwell(self, epochs: int, evaluating: bool = False, whole: bool = False) -> float:
        self.runs += 1
        recipe = {
            "data": str(self.folder / "data.npz"),
            "model": "mlp",
            "model.hidden": [64, 64],
            "optimizer.lr": RATE,
            "schedule": "constant",
            "training.updates": epochs * EPOCH,
            "training.evaluate_every": EPOCH if evaluating else epochs * EPOCH + 1,
        }
        with terminal(), clock_around(training, "fit") as seconds:
            began = time.perf_counter()
            result = sw.train(out=str(self.folder / f"run-{self.runs}"), **recipe)
            total = time.perf_counter() - began
        assert result["updates"] == epochs * EPOCH
        return total if whole else seconds[0]

    def fabric(self, epochs: int) -> float:
        from lightning.fabric import Fabric  # type: ignore[import-not-found]

        fabric = Fabric(accelerator="cpu", devices=1)
        model = copy.deepcopy(self.start)
        model, optimizer = fabric.setup(model, torch.optim.Adam(model.parameters(), lr=RATE))
        loader = fabric.setup_dataloaders(self.loader())
        began = time.perf_counter()
        for _ in range(epochs):
            for x, y in loader:
                optimizer.zero_grad()
                fabric.backward(cross_entropy(model(x), y))
                optimizer.step()
        return time.perf_counter() - began

    def lightning(self, epochs: int, defaults: bool = False) -> float:
        import lightning  # type: ignore[import-not-found]

        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)

        class Module(lightning.LightningModule):
            def __init__(self, model: nn.Module) -> None:
                super().__init__()
                self.model, self.began, self.seconds = model, 0.0, 0.0

            def training_step(self, batch: Any, number: int) -> torch.Tensor:
                loss = cross_entropy(self.model(batch[0]), batch[1])
                if defaults:
                    self.log("loss", loss, prog_bar=True)
                return loss

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.Adam(self.parameters(), lr=RATE)

            def on_train_start(self) -> None:
                self.began = time.perf_counter()

            def on_train_end(self) -> None:
                self.seconds = time.perf_counter() - self.began

        self.runs += 1
        on = None if defaults else False
        module = Module(copy.deepcopy(self.start))
        with terminal():
            trainer = lightning.Trainer(
                accelerator="cpu",
                devices=1,
                max_epochs=epochs,
                default_root_dir=self.folder / f"lightning-{self.runs}",
                logger=on,
                enable_checkpointing=on,
                enable_progress_bar=on,
                enable_model_summary=False,
            )
            trainer.fit(module, self.loader())
        return module.seconds

    def accelerate(self, epochs: int) -> float:
        from accelerate import Accelerator  # type: ignore[import-not-found]

        accelerator = Accelerator(cpu=True)
        model = copy.deepcopy(self.start)
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        model, optimizer, loader = accelerator.prepare(model, optimizer, self.loader())
        began = time.perf_counter()
        for _ in range(epochs):
            for x, y in loader:
                optimizer.zero_grad()
                accelerator.backward(cross_entropy(model(x), y))
                optimizer.step()
        return time.perf_counter() - began

    def skorch(self, epochs: int) -> float:
        from skorch import NeuralNetClassifier  # type: ignore[import-not-found]

        net = NeuralNetClassifier(
            copy.deepcopy(self.start),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=RATE,
            batch_size=BATCH,
            max_epochs=epochs,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
        )
        net.initialize()
        began = time.perf_counter()
        net.partial_fit(self.x, self.y)
        return time.perf_counter() - began


def measure(contestants: dict[str, Contestant], epochs: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds per step of each contestant in each round, after one short warm-up."""
    for contestant in contestants.values():
        contestant(2)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for place, (name, contestant) in enumerate(contestants.items()):
            progress(f"round {number + 1} of {rounds}, {place + 1} of {len(contestants)}: {name}")
            times[name].append(contestant(epochs) / (epochs * EPOCH) * 1e6)
    progress("")
    return times


def table(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Median and range of each contestant, and its ratio to the bare loop; the quickest first.

    The ratio is the median of the rounds' ratios: two contestants of one round met the same machine.
    """
    base = times.get("bare loop, DataLoader")
    rows = []
    for name, values in times.items():
        ratios = [v / b for v, b in zip(values, base, strict=True)] if base else []
        rows.append(
            {
                "name": name,
                "microseconds": statistics.median(values),
                "low": min(values),
                "high": max(values),
                "ratio": statistics.median(ratios) if ratios else None,
            }
        )
    return sorted(rows, key=lambda row: row["microseconds"])


def show(rows: list[dict[str, Any]]) -> None:
    width = max(len(row["name"]) for row in rows)
    print(f"{'':{width}}  µs per step   (least – most)   to the bare loop with DataLoader")
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        spread = f"({row['low']:.0f} – {row['high']:.0f})"
        print(f"{row['name']:{width}}  {row['microseconds']:11.0f}   {spread:>14}   {ratio:>8}")


@contextmanager
def terminal() -> Iterator[None]:
    """Makes standard output and error a terminal that nobody sees, so that a bar is really drawn."""
    master, slave = pty.openpty()

    def drain() -> None:
        try:
            while os.read(master, 65536):
                pass
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    with os.fdopen(slave, "w") as screen, redirect_stderr(screen), redirect_stdout(screen):
        yield
    reader.join()
    os.close(master)


@contextmanager
def clock_around(module: Any, name: str) -> Iterator[list[float]]:
    """While active, notes the seconds of each call of `module.name`."""
    original, seconds = getattr(module, name), []

    def timed(*values: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(*values)
        finally:
            seconds.append(time.perf_counter() - began)

    setattr(module, name, timed)
    try:
        yield seconds
    finally:
        setattr(module, name, original)


def machine(threads: int) -> str:
    """One line: processor, threads, versions."""
    versions = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    for package in ("stepwell", "lightning", "accelerate", "skorch"):
        if find_spec(package):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return f"{processor()}, {os.cpu_count()} cores, {threads} threads · " + " · ".join(versions)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
