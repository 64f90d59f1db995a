"""Time of training many small models: a population against one bare PyTorch loop after the other.

    python benchmarks/population.py [--only mlp-digits …] [--members 64 256 675] [--rounds 5] [--json FILE]

Every contestant trains members of one architecture with Adam at a rate of each member's own, on the same
data, each in an order of its own. They take turns, so that a disturbance of the machine hits all alike; the
table shows microseconds for one update of one member, the median over the rounds, and its ratio to the bare
loop. What is timed:

 - bare loop: index slicing, zero_grad, forward, loss, backward, step of torch's fused Adam and nothing
   else; at its best number of threads of 1 and all, which is measured first.
 - bare loops in processes: the same, one process a core with one thread each, from when all are ready.
 - Lightning: its Trainer on one member, bar, logger and checkpoints off, from after its set-up.
 - JAX + optax: vmap of the same step, jit-compiled once before the clock starts, data on the device.
 - Stepwell, steady: `Stack.step` in stacks of the size that `population.train` chooses, after the first.
 - Stepwell, whole: `population.train`, with divisions, recording, checks, evaluations and the tests.
 - whole command (--command): a fresh process from its start to its end, 256 members × 30 epochs, against
   the bare loop's time a step (its own start not counted) times as many steps.

--memory: the peak of resident memory while a population trains, in a process of its own, less what that had
before, against K × (weights, gradients, state). Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stepwell.data.dataset import DataSet, Part, TensorInputs
from stepwell.nn import registry
from stepwell.populations.groups import divide
from stepwell.populations.member import Member
from stepwell.populations.train import train
from stepwell.recipe import read_recipe, resolve

Seconds = Callable[[int], float]  # updates of each member → seconds for all of them


@dataclass(frozen=True)
class Case:
    """One architecture with its data: samples of this shape in ten classes."""

    recipe: dict[str, Any]
    shape: tuple[int, ...]
    samples: int
    batch: int
    members: tuple[int, ...]
    asked: float  # the ratio that the plan asks for


CASES = {
    "mlp-digits": Case({"model": "mlp", "model.hidden": [32]}, (64,), 1437, 32, (64, 256, 675), 25.0),
    "mlp-mnist": Case({"model": "mlp", "model.hidden": [128]}, (784,), 6000, 64, (16, 64), 1.5),
    "cnn": Case({"model": "cnn", "model.channels": [8, 16]}, (1, 14, 14), 2000, 32, (8, 32), 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="A population against loops, side by side.")
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--members", nargs="*", type=int, help="in place of each case's own")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each contestant")
    parser.add_argument("--seconds", type=float, default=1.0, help="about so long a measurement")
    parser.add_argument("--device", default="cpu", help="of the population and the bare loop")
    parser.add_argument("--command", action="store_true", help="also the whole command")
    parser.add_argument("--memory", action="store_true", help="also the peak memory")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)  # a process of --memory
    parser.add_argument("--json", type=Path, help="also write the table there")
    options = parser.parse_args()
    if options.peak:
        return print(peak(CASES[options.peak[0]], int(options.peak[1])))
    record: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "cases": {}}
    print(record["machine"])
    for name in options.only:
        for members in options.members or CASES[name].members:
            rows = measure(CASES[name], members, options)
            record["cases"][f"{name} × {members}"] = rows
            show(f"{name} × {members} (asked: {CASES[name].asked:g} × the bare loop)", rows)
        if options.memory:
            record["cases"][f"{name}, memory"] = memory(name, max(CASES[name].members))
    if options.command:
        record["command"] = command(options.rounds)
    missing = [package for package in ("lightning", "jax", "optax") if not find_spec(package)]
    if missing:
        print(f"\nNot installed, so not measured: {', '.join(missing)}")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1))


def machine() -> str:
    return f"torch {torch.__version__}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def data_of(case: Case) -> DataSet:
    """Ten clouds of points; 64 samples more to validate, and none to test.

    A third of the labels is by chance: were the losses to reach zero, what is timed would be how slowly a
    processor multiplies numbers that are nearly zero, and that of whoever has trained longest.
    """
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(10, (case.samples + 64,), generator=generator)
    centres = torch.randn(10, *case.shape, generator=generator)
    x = centres[y] + 2 * torch.randn(len(y), *case.shape, generator=generator)
    wrong = torch.rand(len(y), generator=generator) < 1 / 3
    y = torch.where(wrong, torch.randint(10, (len(y),), generator=generator), y)
    rows = torch.arange(len(y))
    cuts = slice(0, case.samples), slice(case.samples, None), slice(0, 0)
    own, validation, test = (Part(TensorInputs(x[cut]), y[cut], rows[cut]) for cut in cuts)
    kind = "image" if len(case.shape) == 3 else "features"
    classes = [str(k) for k in range(10)]
    return DataSet("clouds", kind, "multi-class", own, validation, test, {}, case.shape, 10, classes)


def members_of(case: Case, data: DataSet, count: int, updates: int, device: str) -> list[Member]:
    keys = {"training.batch_size": case.batch, "training.updates": updates, "training.device": device}
    keys |= {"training.evaluate_every": 10**6, "schedule": "constant"}
    one = resolve(read_recipe(None, {**case.recipe, **keys}), data)
    rates = np.geomspace(1e-4, 1e-2, count)
    optimizers = [one.optimizer.model_copy(update={"lr": float(rate)}) for rate in rates]
    return [
        Member(one.model_copy(update={"seed": seed, "optimizer": optimizer}), data)
        for seed, optimizer in enumerate(optimizers)
    ]


class Bench:
    """The contestants of one case; each returns the seconds of so many updates of every member."""

    def __init__(self, case: Case, count: int, device: str) -> None:
        self.case, self.count, self.device = case, count, device
        self.data = data_of(case)
        self.x, self.y = self.data.train.inputs.gather(torch.arange(case.samples)), self.data.train.targets
        self.x, self.y = self.x.to(device), self.y.to(device)

    def model(self) -> nn.Module:
        recipe = read_recipe(None, self.case.recipe)
        return registry.build(recipe.model, self.case.shape, 10, self.data.kind).to(self.device)

    def bare(self, updates: int) -> float:
        """One member, whose time is that of all divided by their number."""
        model = self.model()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        return self.loop(model, optimizer, updates)

    def loop(self, model: nn.Module, optimizer: torch.optim.Optimizer, updates: int) -> float:
        made, size = 0, self.case.batch
        self.wait()
        began = time.perf_counter()
        while made < updates:
            order = torch.randperm(self.case.samples, device=self.device)
            for index in order.split(size)[: updates - made]:
                optimizer.zero_grad()
                cross_entropy(model(self.x[index]), self.y[index]).backward()
                optimizer.step()
                made += 1
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()

    def best_threads(self) -> int:
        """The bare loop's best number of threads."""
        every = sorted({1, torch.get_num_threads()})
        times = {}
        for count in every:
            torch.set_num_threads(count)
            self.bare(50)
            times[count] = min(self.bare(300) for _ in range(3))
        torch.set_num_threads(every[-1])
        return min(times, key=times.__getitem__)

    def lightning(self, updates: int) -> float:
        import lightning  # type: ignore[import-not-found]
        from torch.utils.data import DataLoader, TensorDataset

        class Module(lightning.LightningModule):
            def __init__(self, model: nn.Module) -> None:
                super().__init__()
                self.model, self.began = model, 0.0

            def on_train_start(self) -> None:
                self.began = time.perf_counter()

            def training_step(self, batch: Any, number: int) -> Tensor:
                x, y = batch
                return cross_entropy(self.model(x), y)

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)

        module = Module(self.model())
        loader = DataLoader(TensorDataset(self.x, self.y), batch_size=self.case.batch, shuffle=True)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(
            max_steps=updates, accelerator="cpu", enable_model_summary=False, barebones=False, **quiet
        )
        trainer.fit(module, loader)
        return time.perf_counter() - module.began

    def jax(self, updates: int) -> float:
        """The same step by JAX and optax: a dense network, vmap over members, one jit."""
        import jax  # type: ignore[import-not-found]
        import jax.numpy as jnp  # type: ignore[import-not-found]
        import optax  # type: ignore[import-not-found]

        if not hasattr(self, "_jax"):
            sizes = [math.prod(self.case.shape), *self.case.recipe["model.hidden"], 10]
            x, y = jnp.asarray(self.x.numpy().reshape(len(self.x), -1)), jnp.asarray(self.y.numpy())
            optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)

            def loss(weights: Any, x: Any, y: Any) -> Any:
                for place, (w, b) in enumerate(weights):
                    x = x @ w + b
                    x = jax.nn.relu(x) if place < len(weights) - 1 else x
                return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()

            def step(weights: Any, state: Any, index: Any) -> Any:
                gradients = jax.grad(loss)(weights, x[index], y[index])
                changes, state = optimizer.update(gradients, state)
                return optax.apply_updates(weights, changes), state

            def begin(key: Any) -> Any:
                keys = jax.random.split(key, len(sizes) - 1)
                pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
                weights = [(jax.random.normal(k, (m, n)) / m**0.5, jnp.zeros(n)) for k, m, n in pairs]
                return weights, optimizer.init(weights)

            states = jax.vmap(begin)(jax.random.split(jax.random.key(0), self.count))
            order = np.random.default_rng(0).integers(0, len(x), (updates, self.count, self.case.batch))
            self._jax = jax.jit(jax.vmap(step)), states, jnp.asarray(order)
            jax.block_until_ready(self._jax[0](*states, self._jax[2][0]))
        step, (weights, state), order = self._jax
        began = time.perf_counter()
        for update in range(updates):
            weights, state = step(weights, state, order[update % len(order)])
        jax.block_until_ready(weights)
        return time.perf_counter() - began

    def processes(self, updates: int) -> float:
        """One process a core, each with its share of the members one after the other."""
        cores = os.cpu_count() or 1
        context = multiprocessing.get_context("spawn")
        ready, queue = context.Barrier(cores + 1), context.Queue()
        arguments = (self.case, self.count, ready, queue, updates)
        workers = [context.Process(target=_worker, args=arguments) for _ in range(cores)]
        for worker in workers:
            worker.start()
        ready.wait()
        began = time.perf_counter()
        for _ in workers:
            queue.get()
        seconds = time.perf_counter() - began
        for worker in workers:
            worker.join()
        return seconds / cores  # each made the updates of one member

    def stacks(self, updates: int) -> list[Any]:
        """The stacks that a population is divided into, past their first updates."""
        members = members_of(self.case, self.data, self.count, 10**6, self.device)
        made = [group.make(members) for group in divide(members)]
        for stack in made:
            stack.run_to(self.case.samples // self.case.batch + 2, lambda: False)
        return made

    def steady(self, updates: int) -> float:
        if not hasattr(self, "_stacks"):
            self._stacks = self.stacks(updates)
        self.wait()
        began = time.perf_counter()
        for stack in self._stacks:
            for _ in range(updates):
                stack.step()
            stack.pending.clear()
        self.wait()
        return time.perf_counter() - began

    def whole(self, updates: int) -> float:
        members = members_of(self.case, self.data, self.count, updates, self.device)
        began = time.perf_counter()
        train(members)
        return time.perf_counter() - began


def _worker(case: Case, count: int, ready: Any, queue: Any, updates: int) -> None:
    torch.set_num_threads(1)
    bench = Bench(case, count, "cpu")
    bench.bare(50)
    ready.wait()
    queue.put(bench.bare(updates))


def measure(case: Case, count: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Microseconds for one update of one member, by contestant: the median and the range of the rounds."""
    bench = Bench(case, count, options.device)
    best = bench.best_threads()
    every = torch.get_num_threads()

    def alone(run: Seconds) -> Callable[[], float]:
        """Of one member; as many updates as fit the time."""
        torch.set_num_threads(best)
        updates = max(20, int(options.seconds / (run(50) / 50)))

        def timed() -> float:
            torch.set_num_threads(best)
            try:
                return run(updates) / updates
            finally:
                torch.set_num_threads(every)

        torch.set_num_threads(every)
        return timed

    def together(run: Seconds, least: int = 5) -> Callable[[], float]:
        run(3)
        updates = max(least, int(options.seconds / (run(least) / least)))
        return lambda: run(updates) / updates / count

    contestants = {f"bare loop, fused Adam, {best} thread{'s' * (best > 1)}": alone(bench.bare)}
    if options.device == "cpu":
        contestants["bare loops in processes"] = lambda: bench.processes(2000) / 2000
    if find_spec("lightning"):
        contestants["Lightning"] = alone(bench.lightning)
    if find_spec("jax") and find_spec("optax") and "model.hidden" in case.recipe:
        contestants["JAX + optax, vmap"] = together(bench.jax)
    contestants["Stepwell, steady"] = together(bench.steady)
    contestants["Stepwell, whole"] = together(bench.whole, 100)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, run in contestants.items():
            times[name].append(1e6 * run())
    medians = {name: statistics.median(own) for name, own in times.items()}
    bare = next(iter(medians.values()))
    return {
        name: {"us": medians[name], "low": min(own), "high": max(own), "ratio": bare / medians[name]}
        for name, own in times.items()
    }


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}\n{'':34}   µs   (range)          × bare loop")
    for name, row in rows.items():
        around = f"({row['low']:.4g} – {row['high']:.4g})"
        print(f"{name:34} {row['us']:6.4g} {around:18} {row['ratio']:6.2f}")


COMMAND = """
import sys
sys.path.insert(0, {folder!r})
from population import CASES, data_of, members_of, train
case = CASES["mlp-digits"]
data = data_of(case)
train(members_of(case, data, 256, 30 * {epoch}, "cpu"))
"""


def command(rounds: int) -> dict[str, float]:
    """A process that trains 256 members for 30 epochs, from its start to its end."""
    case = CASES["mlp-digits"]
    epoch = -(-case.samples // case.batch)
    bench = Bench(case, 256, "cpu")
    torch.set_num_threads(best := bench.best_threads())
    code = COMMAND.format(folder=str(Path(__file__).parent), epoch=epoch)
    bare, whole = [], []
    for _ in range(rounds):
        bare.append(bench.bare(3000) / 3000 * 30 * epoch * 256)
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        whole.append(time.perf_counter() - began)
    loop, ours = statistics.median(bare), statistics.median(whole)
    print(
        f"\nWhole command, 256 members × 30 epochs: {ours:.2f} s against {loop:.1f} s of the bare loop "
        f"({best} thread{'s' * (best > 1)}): {loop / ours:.1f} × (asked: 12 ×)"
    )
    return {"seconds": ours, "bare": loop, "ratio": loop / ours}


def peak(case: Case, count: int) -> int:
    """Bytes of resident memory that training so many members takes at the most, beyond what there was."""
    members = members_of(case, data_of(case), count, 100, "cpu")
    train(members[:1])  # what is loaded when first used
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    train(members)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) << 10


def memory(name: str, count: int) -> dict[str, float]:
    """What a population takes beyond one member, against weights, gradients and state of all."""
    case = CASES[name]
    line = [sys.executable, __file__, "--peak", name, str(count)]
    more = int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    weights = sum(p.nbytes for p in Bench(case, 1, "cpu").model().parameters())
    least = 4 * weights * count  # Adam: weights, gradients and two means
    print(
        f"\n{name} × {count}: {more / 2**20:.0f} MiB beyond what the process had, {more / least:.2f} × "
        "weights, gradients and state of all (asked: 1.3 × and the data)"
    )
    return {"bytes": more, "ratio": more / least}


if __name__ == "__main__":
    main()
