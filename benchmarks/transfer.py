"""What a trained body is worth: digits 0–4, then 5–9 with 10, 50, 200 samples, against training from nothing.

    python benchmarks/transfer.py [--json] [--seeds 10] [--data mnist.npz]

Every way has the same network, the same samples, the same number of updates, and the best of the same four
learning rates, which is chosen for each way and size on seeds that are not reported. A seed decides the
samples, the source, which is trained anew for each, and the initial weights; so a row's difference to "from
nothing" is paired. Accuracy is on samples of 5–9 that no run has seen. The interval is Student's, 95 %, over
the seeds.

--data: a .npz with x_train and y_train of digits 0–9 in the place of scikit-learn's, cut to 4,000 samples.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_digits

from stepwell.training import train

SIZES, RATES, CHOOSING = (10, 50, 200), (3e-3, 1e-2, 3e-2, 1e-1), range(1000, 1003)
SOURCE_UPDATES, UPDATES, TEST = 500, 200, 400
MODEL = {"model": "cnn", "model.channels": [16, 32]}
COMMON = {
    "training.batch_size": 32,
    "training.weights": "last",
    "training.log_every": 10**6,
    "data.task": "classification",
}
WAYS: dict[str, dict[str, Any] | None] = {
    "from nothing": None,
    "all layers": {},
    "frozen body": {"model.freeze": "body"},
    "layer-wise rates": {"model.layer_rates": 1 / 2.6},
    "gradual unfreezing": {"model.unfreeze": 0.5},
}


def digits(path: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W) and labels (N,)."""
    if path is None:
        bunch: Any = load_digits()
        return bunch.images.astype(np.float32), bunch.target
    with np.load(path, allow_pickle=False) as file:
        return file["x_train"][:4000], file["y_train"][:4000].astype(np.int64)


def files_of(seed: int, x: np.ndarray, y: np.ndarray, folder: Path) -> tuple[str, dict[int, str]]:
    """The source's file with 0–4, and one for each size with 5–9; the smaller samples are in the larger."""
    order = np.random.default_rng(seed).permutation(len(y))
    x, y = x[order], y[order]
    low, high = np.flatnonzero(y < 5), np.flatnonzero(y >= 5)
    source, test, rest = str(folder / "low.npz"), high[:TEST], high[TEST:]
    np.savez(source, x_train=x[low], y_train=y[low])
    found = {}
    for size in SIZES:
        # As many of each class, since of ten samples drawn at random a class may have none.
        own = np.concatenate([rest[y[rest] == c][: size // 5] for c in range(5, 10)])
        found[size] = str(folder / f"high-{size}.npz")
        np.savez(found[size], x_train=x[own], y_train=y[own], x_test=x[test], y_test=y[test])
    return source, found


def accuracy(keys: dict[str, Any], out: Path) -> float:
    result, _ = train.train(None, {**COMMON, **keys}, str(out), True)
    return result["test"]["accuracy"]["value"]


def measure(
    seed: int, rates: dict[tuple[str, int], tuple[float, ...]], x: np.ndarray, y: np.ndarray
) -> dict[tuple[str, int, float], float]:
    """The accuracy of every way, size and rate with this seed."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, files = files_of(seed, x, y, folder)
        keys = {
            "data": source,
            "data.test": 0.1,
            "data.validation": 0,
            "training.updates": SOURCE_UPDATES,
            "seed": seed,
        }
        accuracy({**keys, **MODEL}, folder / "source")
        for (way, size), own in rates.items():
            begin = WAYS[way]
            model = MODEL if begin is None else {"model.from": str(folder / "source"), **begin}
            for rate in own:
                keys = {"data": files[size], "data.validation": 0, "optimizer.lr": rate, "seed": seed}
                keys["training.updates"] = UPDATES
                found[way, size, rate] = accuracy({**keys, **model}, folder / f"{way}-{size}-{rate}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data")
    given = parser.parse_args()
    torch.set_num_threads(1)
    x, y = digits(given.data)
    every = [(way, size) for size in SIZES for way in WAYS]
    tried = [measure(seed, dict.fromkeys(every, RATES), x, y) for seed in CHOOSING]
    best = {
        key: max(RATES, key=lambda rate, key=key: float(np.mean([t[*key, rate] for t in tried])))
        for key in every
    }
    runs = [measure(seed, {key: (best[key],) for key in every}, x, y) for seed in range(given.seeds)]
    rows = []
    for way, size in every:
        own = np.array([run[way, size, best[way, size]] for run in runs])
        lead = own - [run["from nothing", size, best["from nothing", size]] for run in runs]
        half = stats.t.ppf(0.975, len(lead) - 1) * lead.std(ddof=1) / len(lead) ** 0.5
        rows.append(
            {
                **{"samples": size, "way": way, "lr": best[way, size], "seeds": len(own)},
                **{"mean": own.mean(), "sd": own.std(ddof=1), "lead": lead.mean()},
                **{"low": lead.mean() - half, "high": lead.mean() + half},
            }
        )
    if given.json:
        print(json.dumps(rows))
        return
    print(f"{UPDATES} updates, {TEST} test samples, {given.seeds} seeds; torch {torch.__version__}\n")
    print("| samples | way | rate | accuracy, mean ± sd (%) | minus “from nothing” (points, 95 % interval) |")
    print("|---:|---|---:|---:|---:|")
    for r in rows:
        lead = (
            ""
            if r["way"] == "from nothing"
            else f"{100 * r['lead']:+.1f} [{100 * r['low']:+.1f}, {100 * r['high']:+.1f}]"
        )
        figures = f"{100 * r['mean']:.1f} ± {100 * r['sd']:.1f} | {lead.replace('-', '−')}"
        print(f"| {r['samples']} | {r['way']} | {r['lr']:g} | {figures} |")


if __name__ == "__main__":
    main()
