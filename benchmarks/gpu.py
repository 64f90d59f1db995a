"""Checks of what only a GPU can show: a line each, "ok" or what is wrong; the exit code counts the faults.

    python benchmarks/gpu.py [--device cuda]

With --device cpu the same checks run where there is no GPU, but for those of streams and memory.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stepwell.data import sources
from stepwell.engine.eager import Eager
from stepwell.engine.fused import Fused
from stepwell.engine.text import Folded
from stepwell.errors import Interrupted, UserError
from stepwell.recipe import choose_device, read_recipe, resolve
from stepwell.rules import RULES, Rule
from stepwell.training import checkpoint, train
from stepwell.training.conductor import Conductor
from stepwell.training.loop import backward, update
from stepwell.training.run import Run


def made_images(folder: Path) -> Path:
    """Two classes of 300 small images, light and dark, in train/ and test/."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 240), ("test", 60)):
        for label, level in (("dark", 60), ("light", 190)):
            (folder / part / label).mkdir(parents=True)
            for i in range(count):
                pixels = generator.normal(level, 40, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / label / f"{i}.png")
    return folder


def run_of(changes: dict[str, Any]) -> Run:
    recipe = read_recipe(None, changes)
    data = sources.load(recipe.data)
    return Run(resolve(recipe, data), data)


def batches_are_the_cpus(images: Path, device: str) -> str:
    """Samples that came by the side stream, prefetched and augmented, are those that the CPU gathers."""
    changes = {"data": str(images), "augment.flip": 0.5, "augment.crop": 2, "training.epochs": 2}
    text = images.parent / "text.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 200)
    cases = {f"in_memory={kept}": {**changes, "data.in_memory": kept} for kept in (True, False)}
    cases["text"] = {"data": str(text), "training.epochs": 2}
    for name, case in cases.items():
        here, there = (run_of({**case, "training.device": d}) for d in ("cpu", device))
        for number in range(12):
            if (
                there.batches._stream is not None
            ):  # copies come late: who does not wait for them computes on rubbish
                with torch.cuda.stream(there.batches._stream):
                    torch.cuda._sleep(20_000_000)
            for (x, y), (u, v) in zip(here.batches.at(number), there.batches.at(number), strict=True):
                if not (torch.equal(x, u.cpu()) and torch.equal(y, v.cpu())):
                    return f"update {number}, {name}: another batch than on the CPU"
        here.batches.close()
        there.batches.close()
    return ""


def losses_are_the_cpus(images: Path, device: str) -> str:
    """Twenty updates without dropout have the CPU's losses to 1e-3."""
    losses = []
    for d in ("cpu", device):
        with tempfile.TemporaryDirectory() as out:
            changes = {"training.device": d, "training.updates": 20, "training.log_every": 1}
            _, folder = train.train(None, changes, f"{out}/run", quiet=True)
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            losses.append(
                [float(line.split('"loss": ')[1].split(",")[0]) for line in lines if "grad_norm" in line]
            )
    worst = float(np.abs(np.subtract(*losses)).max())
    return "" if worst < 1e-3 else f"losses differ by {worst:.3g}"


def every_precision_learns(images: Path, device: str) -> str:
    """fp32, bf16 and fp16 learn digits to 95 %, on the device and to the end."""
    for precision in ("fp32", "bf16", "fp16"):
        with tempfile.TemporaryDirectory() as out:
            changes = {"training.device": device, "training.precision": precision, "model": "cnn"}
            result, _ = train.train(None, {**changes, "training.epochs": 15}, f"{out}/run", quiet=True)
        if not result["test"]["accuracy"]["value"] > 0.95:
            return f"{precision}: accuracy {result['test']['accuracy']['value']:.3f}"
    return ""


def resumed_is_uninterrupted(images: Path, device: str) -> str:
    """Stopped in mid-epoch with dropout, crops and images from disk, a run ends with the same bits."""
    changes = {
        "data": str(images),
        "data.in_memory": False,
        "model.dropout": 0.3,
        "augment.crop": 2,
        "training.device": device,
        "training.epochs": 4,
    }
    original = Conductor.interrupted
    left = [5, 17]

    def interrupted(self: Conductor) -> bool:
        if left and self.run.update >= left[0]:
            left.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    with tempfile.TemporaryDirectory() as out:
        train.train(None, changes, f"{out}/whole", quiet=True)
        Conductor.interrupted = interrupted
        try:
            train.train(None, changes, f"{out}/parts", quiet=True)
        except Interrupted:
            for _ in range(3):
                try:
                    train.resume(f"{out}/parts", quiet=True)
                except Interrupted:
                    continue
        finally:
            Conductor.interrupted = original
        lines = [(Path(out) / k / "metrics.jsonl").read_bytes() for k in ("whole", "parts")]
        last = [max((Path(out) / k / "checkpoints").glob("update-*")) for k in ("whole", "parts")]
        one, two = (checkpoint.read(path)[0] for path in last)
    if lines[0] != lines[1]:
        return "metrics.jsonl differs"
    other = [name for name, value in one.items() if not torch.equal(value, two[name])]
    return f"{len(other)} of {len(one)} tensors differ, such as {other[0]}" if other else ""


def steps_do_not_wait(images: Path, device: str) -> str:
    """An ordinary update asks the GPU for nothing, at any precision: torch finds no synchronization."""
    if device == "cpu":
        return ""
    for precision in ("fp32", "bf16", "fp16"):
        run = run_of({"training.device": device, "training.epochs": 2, "training.precision": precision})
        for _ in range(3):
            backward(run)
            update(run)
            run.update += 1
        torch.cuda.set_sync_debug_mode("error")
        try:
            backward(run)
            update(run)
        except RuntimeError as error:
            return f"{precision}: {str(error).splitlines()[0]}"
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return ""


def fused_is_eager(images: Path, device: str) -> str:
    """Each elementwise rule in one launch has the eager engine's numbers, and nothing waits for the device.

    An update is skipped, a factor is a tensor on the device, a gradient is missing, the weights' average
    is kept. Now and then a sign or a comparison falls otherwise by a rounding: one element in 1,000 may.
    """
    for name, rule in RULES.items():
        if not rule.elementwise:
            continue
        for dtype, limit in ((torch.float32, 3e-5), (torch.bfloat16, 2e-2)):
            ends = []
            for kind in (Eager, Fused):
                found = _updated(kind, rule, dtype, device)
                if isinstance(found, str):
                    return f"{name}, {dtype}: {found}"
                ends.append(found)
            for (key, a), (_, b) in zip(*(end.items() for end in ends), strict=True):
                a, b = a.double(), b.double()
                off = ~((a - b).abs() <= limit * (1 + b.abs()))
                if off.double().mean() > 1e-3:
                    return f"{name}, {dtype}: {key} differs, by up to {float((a - b).abs().max()):.3g}"
    return ""


SHAPES = [(1000, 777), (513,), (3, 5), (40_000,), (64, 32, 3, 3)]


def _updated(kind: Any, rule: Rule, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor] | str:
    """Weights, state and norm after eight updates; or what went wrong."""
    generator = torch.Generator().manual_seed(0)

    def draw() -> list[torch.Tensor]:
        return [torch.randn(s, generator=generator).to(device, dtype) for s in SHAPES]

    weights = draw()
    weights.append(draw()[0].t())  # another layout, and one that begins at no multiple of 16 bytes
    weights.append(draw()[3][3:20_000])
    engine = kind(rule, weights, rule.defaults, average=True)
    factor = torch.tensor(0.7, device=device, dtype=torch.float64)
    norm = None
    for step in range(8):
        gradients: list[torch.Tensor | None] = [*draw(), draw()[0].t(), draw()[3][3:20_000]]
        skip = None
        if rule.sums is None:  # which would have to know the number of updates
            skip = torch.tensor(step == 3, device=device)
            gradients[1] = None if step == 5 else gradients[1]
        h = {**rule.defaults, "lr": rule.defaults["lr"] * 0.9**step}
        folded = Folded(scale=factor, l2=1e-3, ema=0.9)
        if rule.sums is not None:
            h["sums"] = tuple(engine.sums(gradients, h, folded))
        waits = "error" if device != "cpu" and kind is Fused and step > 1 else "default"
        if device != "cpu":
            torch.cuda.set_sync_debug_mode(waits)
        try:
            norm = engine.step(gradients, h, folded, skip)
        except RuntimeError as error:
            return str(error).splitlines()[0]
        finally:
            if device != "cpu":
                torch.cuda.set_sync_debug_mode("default")
    if kind is Fused and device != "cpu" and type(engine._tables[0]).__name__ != "DeviceTable":
        return "no kernel was launched"
    assert norm is not None
    found = {f"weight {i}": w for i, w in enumerate(weights)} | {"norm": norm}
    return found | {f"{key} {i}": x for i, own in enumerate(engine.state) for key, x in own.items()}


CHECKS: list[Callable[[Path, str], str]] = [
    batches_are_the_cpus,
    losses_are_the_cpus,
    every_precision_learns,
    resumed_is_uninterrupted,
    steps_do_not_wait,
    fused_is_eager,
]


def main() -> int:
    """Runs every check; returns how many failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    try:
        choose_device(device)
    except UserError as error:
        parser.error(str(error))
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        images = made_images(Path(folder) / "images")
        for check in CHECKS:
            found = check(images, device)
            faults += bool(found)
            print(f"{check.__name__.replace('_', ' '):<28} {found or 'ok'}", flush=True)
    return faults


if __name__ == "__main__":
    sys.exit(main())
