"""What each technique does to the test accuracy: switched on and off, over seeds, on real data.

    python benchmarks/techniques.py [--mnist mnist.npz] [--cifar cifar10/] [--seeds 5] [--jobs 2]
        [--only mixup,dropout] [--results techniques.jsonl]

Each row is one change of a recipe; off and on are trained with the same seeds, where a seed also draws the
training samples, so that their difference is paired. Sets: 300 of scikit-learn's digits (an MLP), 1,000 of
MNIST (a CNN), 1,000 of CIFAR-10 (a ResNet of depth 8); few samples, since that is where regularization is
meant to help. The test part is all other digits, and 5,000 and 2,000 of the test parts of MNIST and
CIFAR-10. No key was tuned: they are what a first try would be, so a row says what to expect of the
technique, not its best.

Runs are kept in --results and not repeated; delete the file to begin anew. Prints the tables of
docs/techniques.md: mean ± sd of the accuracy off and on, the mean difference with its 95 % interval
(Student's t over the seeds), and "helps" or "hurts" where that interval leaves out zero. One row in twenty
does so by chance.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

Keys = dict[str, Any]

# The last weights count, and evaluating them once is enough.
AT_THE_END: Keys = {"training.weights": "last", "training.evaluate_every": 10**6}

BASES: dict[str, Keys] = {
    "digits": {"training.updates": 1500, "training.batch_size": 32},
    "deep": {  # ten layers, where signals and gradients have far to go
        "model.hidden": [64] * 10,
        "optimizer": "momentum",
        "training.updates": 1500,
        "training.batch_size": 32,
    },
    "mnist": {"model": "cnn", "model.channels": [16, 32, 64], "training.epochs": 30, **AT_THE_END},
    "cifar": {"model": "resnet", "model.depth": 8, "training.epochs": 25, **AT_THE_END},
}
SET_OF = {"deep": "digits"}
SETS = {
    "digits": "300 digits, MLP 128-128",
    "deep": "300 digits, MLP of ten layers of 64, momentum",
    "mnist": "1,000 of MNIST, CNN 16-32-64",
    "cifar": "1,000 of CIFAR-10, ResNet-8",
}


@dataclass(frozen=True)
class Row:
    """A technique on one set: `on` over the base, against `off` over the base."""

    technique: str
    base: str
    on: Keys
    off: Keys


def row(technique: str, base: str, on: Keys, off: Keys | None = None) -> Row:
    return Row(technique, base, on, off or {})


ROWS = [
    *(
        row(f"initialization: {name}", "deep", {"model.init": name})
        for name in ("xavier-uniform", "orthogonal", "lsuv", "small-normal", "large-normal", "zeros")
    ),
    *(
        row(f"normalization: {name}", "deep", {"model.norm": name})
        for name in ("batch", "layer", "rms", "weight", "spectral")
    ),
    *(
        row(f"normalization: {name} for batch", "cifar", {"model.norm": name})
        for name in ("layer", "group", "instance", "none")
    ),
    row("stochastic depth", "cifar", {"model.stochastic_depth": 0.2}),
    row("zero-initialized branches", "cifar", {"model.zero_init_residual": True}),
    row("dropout", "digits", {"model.dropout": 0.3}),
    row("dropout, scaled at test time", "digits", {"model.dropout": {"p": 0.3, "kind": "scaled"}}),
    row("dropout, spatial", "mnist", {"model.dropout": {"p": 0.2, "kind": "spatial"}}),
    row("L1", "digits", {"regularize.l1": 1e-3}),
    row("L2", "digits", {"regularize.l2": 1e-3}),
    row("decoupled decay", "digits", {"regularize.decay": 0.1}),
    row("decoupled decay", "cifar", {"regularize.decay": 0.1}),
    row("max-norm", "digits", {"regularize.max_norm": 1}),
    row("label smoothing", "digits", {"regularize.label_smoothing": 0.1}),
    row("label smoothing", "cifar", {"regularize.label_smoothing": 0.1}),
    row("early stopping", "digits", {"training.early_stopping": 10}),
    row("average: ema", "cifar", {"training.average": "ema"}),
    row("average: polyak", "digits", {"training.average": "polyak"}, {"schedule": "constant"}),
    row("average: swa", "cifar", {"training.average": "swa", "schedule": "swa"}),
    row("noise", "digits", {"augment.noise": 0.3}),
    row("mixup", "digits", {"augment.mixup": 0.2}),
    row("crop", "mnist", {"augment.crop": 2}),
    row("translation", "mnist", {"augment.translation": 0.1}),
    row("rotation", "mnist", {"augment.rotation": 15}),
    row("scale", "mnist", {"augment.scale": 0.85}),
    row("random erasing", "mnist", {"augment.erasing": 0.5}),
    row("flip (changes digits)", "mnist", {"augment.flip": 0.5}),
    row("vertical flip (changes digits)", "mnist", {"augment.vertical_flip": 0.5}),
    row("flip", "cifar", {"augment.flip": 0.5}),
    row("flip and crop", "cifar", {"augment.flip": 0.5, "augment.crop": 4}),
    row("resized crop", "cifar", {"augment.resized_crop": 0.5}),
    row("color jitter", "cifar", {"augment.jitter": 0.3}),
    row("random erasing", "cifar", {"augment.erasing": 0.5}),
    row("mixup", "cifar", {"augment.mixup": 0.2}),
    row("cutmix", "cifar", {"augment.cutmix": 1.0}),
    row(
        "ten-crop at test time",
        "cifar",
        {"augment.flip": 0.5, "augment.crop": 4, "augment.test_time": "ten-crop"},
        {"augment.flip": 0.5, "augment.crop": 4},
    ),
    row(
        "flips at test time",
        "cifar",
        {"augment.flip": 0.5, "augment.crop": 4, "augment.test_time": "flip"},
        {"augment.flip": 0.5, "augment.crop": 4},
    ),
]


def main() -> int:
    parser = argparse.ArgumentParser(description="Techniques on and off.")
    parser.add_argument("--mnist", type=Path, help="an .npz file of MNIST; without it its rows are left out")
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as a folder of images; likewise")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--only", default="", help="rows whose name contains one of these words")
    parser.add_argument("--results", type=Path, default=Path("techniques.jsonl"))
    options = parser.parse_args()
    given = {"mnist": options.mnist, "cifar": options.cifar}
    words = options.only.split(",")
    rows = [
        r
        for r in ROWS
        if any(word in r.technique for word in words) and given.get(r.base, Path()) is not None
    ]
    known = kept(options.results)
    wanted = {
        (r.base, json.dumps(keys, sort_keys=True), seed): keys
        for base in BASES  # one set after the other, so that an interrupted call has whole tables
        for seed in range(options.seeds)
        for r in rows
        if r.base == base
        for keys in (r.off, r.on)
    }
    left = [(run[0], keys, run[2]) for run, keys in wanted.items() if run not in known]
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool,
    ):
        files = write_sets(Path(folder), {r.base for r in rows}, options.seeds, given)
        futures = {
            pool.submit(accuracy, files[SET_OF.get(base, base), seed], base, keys, seed): (base, keys, seed)
            for base, keys, seed in left
        }
        for done, future in enumerate(as_completed(futures), 1):
            base, keys, seed = futures[future]
            entry = {"base": base, "keys": keys, "seed": seed, "accuracy": future.result()}
            known[base, json.dumps(keys, sort_keys=True), seed] = entry["accuracy"]
            with options.results.open("a") as out:
                out.write(json.dumps(entry) + "\n")
            print(f"\r{done} of {len(futures)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(table(rows, known, options.seeds))
    return 0


def kept(path: Path) -> dict[tuple[str, str, int], float]:
    """What earlier calls have found: (base, keys, seed) → accuracy."""
    entries = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {(e["base"], json.dumps(e["keys"], sort_keys=True), e["seed"]): e["accuracy"] for e in entries}


def write_sets(folder: Path, bases: set[str], seeds: int, given: dict[str, Path | None]) -> dict:
    """An .npz file a set and seed, whose training samples the seed draws."""
    files = {}
    for name in sorted({SET_OF.get(base, base) for base in bases}):
        x, y, x_test, y_test, count = read_set(name, given)
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(x))
            path = files[name, seed] = folder / f"{name}-{seed}.npz"
            train, rest = order[:count], order[count:]
            test = (x[rest], y[rest]) if x_test is None else (x_test, y_test)
            np.savez(path, x_train=x[train], y_train=y[train], x_test=test[0], y_test=test[1])
    return files


def read_set(name: str, given: dict[str, Path | None]) -> tuple[Any, Any, Any, Any, int]:
    """Training pool, test part (None: what the seed leaves of the pool), and how many samples to train on."""
    if name == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return x.reshape(-1, 8, 8).astype(np.uint8), y, None, None, 300
    path = given[name]
    assert path is not None
    if name == "mnist":
        with np.load(path, allow_pickle=False) as arrays:
            test = arrays["x_test"][:5000], arrays["y_test"][:5000]
            return arrays["x_train"], arrays["y_train"], *test, 1000
    return *read_images(path / "train", 600), *read_images(path / "test", 200), 1000


def read_images(folder: Path, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `most` images of each class, and the classes' numbers."""
    from PIL import Image

    found = [
        (np.asarray(Image.open(path).convert("RGB")), number)
        for number, kind in enumerate(sorted(folder.iterdir()))
        for path in sorted(kind.iterdir())[:most]
    ]
    return np.stack([x for x, _ in found]), np.array([y for _, y in found])


def accuracy(file: Path, base: str, keys: Keys, seed: int) -> float:
    """Trains one recipe, and returns its test accuracy; a run that diverged has that of chance, 0.1."""
    import torch

    import stepwell as sw

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            recipe = {"data": str(file), **BASES[base], **keys, "seed": seed}
            result = sw.train(recipe, out=str(Path(folder) / "run"), quiet=True)
        except sw.Diverged:
            return 0.1
    return result["test"]["accuracy"]["value"]


def table(rows: list[Row], known: dict[tuple[str, str, int], float], seeds: int) -> str:
    """The table in Markdown, a section a set."""
    lines = []
    for base in dict.fromkeys(r.base for r in rows):
        lines += [f"### {SETS[base]}", "", f"Test accuracy in percent, {seeds} seeds.", ""]
        lines += [
            "| technique | keys | off | on | difference, 95 % interval | |",
            "|---|---|---|---|---|---|",
        ]
        for r in (r for r in rows if r.base == base):
            off, on = (
                [100 * known[base, json.dumps(keys, sort_keys=True), seed] for seed in range(seeds)]
                for keys in (r.off, r.on)
            )
            differences = [b - a for a, b in zip(off, on, strict=True)]
            mean, half = interval(differences)
            verdict = "" if abs(mean) <= half else "**helps**" if mean > 0 else "**hurts**"
            keys = "<br>".join(f"`{word}`" for word in words_of(r.on))
            lines.append(
                f"| {r.technique} | {keys} | {spread(off)} | {spread(on)} | "
                f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}] | {verdict} |"
            )
        lines.append("")
    return "\n".join(lines)


def words_of(keys: Keys) -> list[str]:
    """Keys as on the command line."""
    flat = [
        (f"{key}.{inner}" if inner else key, v)
        for key, value in keys.items()
        for inner, v in (value.items() if isinstance(value, dict) else [("", value)])
    ]
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in flat]


def spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def interval(differences: list[float]) -> tuple[float, float]:
    """Mean and half the width of Student's 95 % interval."""
    n = len(differences)
    half = float(student.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return statistics.mean(differences), half


if __name__ == "__main__":
    sys.exit(main())
