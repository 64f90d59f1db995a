"""Trained models of every kind of data, made once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stepwell.training import train

QUICK = {"training.updates": 4}


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """A folder with a run of each kind of data, and beside it a file of each kind to predict."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    rows = [f"{i % 7},{i % 5 + 0.5},{'ab'[i % 2]}" for i in range(40)]
    (folder / "table.csv").write_text("\n".join(["x,y2,label", *rows, ""]))
    (folder / "numbers.csv").write_text(
        "\n".join(["x,z,cost", *(f"{i * i},{i % 3},{i * 2.5}" for i in range(40)), ""])
    )
    (folder / "text.txt").write_text("so it goes, and on it goes. " * 90)
    np.savez(folder / "arrays.npz", x=rng.normal(size=(60, 6, 2)).astype("f4"), y=np.arange(60) % 3)
    for i in range(24):
        path = folder / "images" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
    text = {"data.length": 8, "model.width": 8, "model.heads": 1, "model.layers": 1}
    for name, keys in {
        "table": {"data": "table.csv", "model.hidden": [5]},
        "numbers": {"data": "numbers.csv", "data.target": "cost", "model.hidden": [5]},
        "text": {"data": "text.txt", **text},
        "arrays": {"data": "arrays.npz", "model": "rnn", "model.width": 5},
        "images": {"data": "images", "model.channels": [4]},
    }.items():
        train.train(
            None, {**QUICK, **keys, "data": str(folder / keys["data"])}, str(folder / "runs" / name), True
        )
    return folder
