"""Run folders of every task, as the training loop leaves them, made up from real small data."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NASTY = "<script>alert(1)</script>"
LAYERS = [
    "body.0.weight",
    "body.0.bias",
    "body.stages.2.blocks.11.convolution_shortcut.weight",
    "body.9.weight",
]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """make_run(task, **options) → the path of a run folder."""

    def make(task: str, **options: Any) -> Path:
        return write_run(tmp_path / f"run-{task}", task, **options)

    return make


def write_run(path: Path, task: str, rows: int = 120, finished: bool = True) -> Path:
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    random = np.random.default_rng(0)
    lines = [line for k in range(1, rows + 1) for line in _metrics(task, k, rows, random)]
    _write_lines(path / "metrics.jsonl", lines)
    timing = [
        {"update": 50 * k, "seconds": 0.3 * k, "samples_per_second": 50_000 + 4000 * random.standard_normal()}
        for k in range(1, rows + 1)
    ]
    _write_lines(path / "timing.jsonl", timing)
    if finished:
        evaluation, test = TASKS[task](random)
        _write(path / "evaluation.json", {"task": task, **evaluation})
        _write(path / "result.json", _result(task, rows, test, evaluation.get("classes", [])))
    return path


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _metrics(task: str, k: int, rows: int, random: np.random.Generator) -> list[dict[str, Any]]:
    update, progress = 50 * k, k / rows
    loss = 2.2 * math.exp(-5 * progress) + 0.03 + 0.05 * random.random() * math.exp(-2 * progress)
    train = {
        "update": update,
        "epoch": update / 18,
        "split": "train",
        "loss": loss,
        "grad_norm": 2 * math.exp(-3 * progress) * (0.6 + 0.8 * random.random()),
        "hyperparameters": {
            "lr": 1e-3 * min(1.0, 10 * progress) * 0.5 * (1 + math.cos(math.pi * progress)) + 1e-6,
            "beta1": 0.9,
            "beta2": 0.999,
            "weight_decay": 0.01,
        },
        "layers": {
            name: {
                "grad": 0.0 if place == 1 else math.exp(-3 * progress - place) * (0.5 + random.random()),
                "update": 1e-3 * math.exp(-2 * progress + 0.4 * place) * (0.5 + random.random()),
                "weight": 5.0,
            }
            for place, name in enumerate(LAYERS)
        },
        "units": {
            "body.1": {"dead": None if k < rows / 8 else 0.6 * progress},
            "body.2:tanh": {"saturated": 0.4 * (1 - progress)},
            NASTY: {"dead": 0.0},
        },
    }
    lines = [train]
    if k % max(rows // 25, 1) == 0:
        for split, gap in (("validation", 0.12), ("test", 0.1)):
            at = {"update": update, "epoch": update / 18, "split": split}
            worse = loss + gap * (0.4 + progress) + 0.02 * random.random()
            lines.append({**at, "loss": worse, **_quick(task, worse)})
    if k == rows // 3:
        message = "The loss was not finite: back to update 1,900, rate halved to 0.0005."
        lines.append({"update": update, "event": "rolled back", "message": message})
    return lines


def _quick(task: str, loss: float) -> dict[str, float]:
    if task == "regression":
        return {"rmse": 50 + 10 * loss, "mae": 40 + 9 * loss, "r2": 0.5 - 0.1 * loss}
    if task == "multi-label":
        return {"subset_accuracy": 0.7 * math.exp(-0.5 * loss), "f1": math.exp(-0.5 * loss)}
    if task == "text":
        return {"accuracy": math.exp(-loss), "bits_per_character": loss / math.log(2)}
    return {"accuracy": math.exp(-0.3 * loss)}


def _result(task: str, rows: int, test: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    return {
        "status": "finished",
        "name": f"{task}-mlp",
        "task": task,
        "kind": "features",
        "updates": 50 * rows,
        "epochs": 50 * rows / 18,
        "seconds": 36.4,
        "parameters": 9034,
        "data": {
            "name": "digits",
            "train": 1149,
            "validation": 288,
            "test": 360,
            "notes": [
                "Column 'Größe' is left out: 891 different texts in 891 rows.",
                f"Class {NASTY} is rare.",
            ],
        },
        "validation": {"loss": 0.1},
        "test": test,
        "environment": {
            "python": "3.11.7",
            "torch": "2.13.0",
            "stepwell": "0.1.0",
            "platform": "Linux x86_64",
            "device": "cpu",
            "threads": 2,
        },
        "command": "stepwell train data=digits 'model.hidden=[64,64]' optimizer.name=adam optimizer.lr=1e-3",
        "classes": classes,
    }


def _entry(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _classification(names: list[str], random: np.random.Generator, wrong: float) -> dict[str, Any]:
    n = len(names)
    confusion = random.poisson(wrong, (n, n)) * (random.random((n, n)) < 0.4) + np.diag(
        random.integers(30, 40, n)
    )
    hits, chosen, support = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    given = np.linspace(0.35, 0.99, 10)
    observed = given - 0.08 * np.sin(given * 6)
    return {
        "classes": names,
        "confusion": confusion.tolist(),
        "per_class": {
            "precision": (hits / chosen).tolist(),
            "recall": (hits / support).tolist(),
            "f1": [*(2 * hits / (chosen + support)).tolist()[:-1], None],
            "support": support.tolist(),
        },
        "calibration": {
            "of": "the predicted class",
            "predicted": given.tolist(),
            "observed": observed.tolist(),
            "count": [36] * 10,
            "low": (observed - 0.1).tolist(),
            "high": np.minimum(observed + 0.08, 1).tolist(),
        },
    }


def _multi_class(random: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    from PIL import Image
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    names = ["0", "1", "2", NASTY, "4", "fünf", "<b>6</b>", "7", "八", "9 & more"]
    mistakes = []
    for row in range(24):
        file = io.BytesIO()
        Image.fromarray((digits.images[row * 7] * 15.9).astype(np.uint8)).save(file, "PNG")
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        true, predicted = names[digits.target[row * 7]], names[(digits.target[row * 7] + 5) % 10]
        probability = 0.99 - 0.02 * row
        mistakes.append(
            {
                "row": row * 7,
                "true": true,
                "predicted": predicted,
                "probability": probability,
                "loss": 4.0,
                "image": url,
            }
        )
    test = {
        "accuracy": _entry(0.9722, 0.0151),
        "balanced_accuracy": _entry(0.9719, 0.0157),
        "macro_f1": _entry(0.9716, 0.0161),
        "ece": _entry(0.0124, 0.008),
        "loss": _entry(0.101, 0.04),
    }
    return {**_classification(names, random, 1.0), "mistakes": mistakes}, test


def _binary(random: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    from sklearn.datasets import load_breast_cancer

    cancer: Any = load_breast_cancer()
    mistakes = [
        {
            "row": row,
            "true": "benign",
            "predicted": "malignant",
            "probability": 0.97 - 0.03 * row,
            "loss": 3.2 - 0.1 * row,
            "values": {str(n): float(v) for n, v in zip(cancer.feature_names, cancer.data[row], strict=True)},
        }
        for row in range(12)
    ]
    test = {
        name: _entry(0.95, 0.03) for name in ("accuracy", "macro_f1", "precision", "recall", "f1", "roc_auc")
    }
    evaluation = _classification(["malignant", "benign"], random, 6.0)
    test |= {"average_precision": {"value": None}, "loss": _entry(0.12, 0.05)}
    return {**evaluation, "mistakes": mistakes}, test


def _multi_label(random: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    labels = ["sky", "water", "people", NASTY, "Straße"]
    count = len(labels)
    evaluation = {
        "classes": labels,
        "per_class": {
            "precision": random.uniform(0.6, 1, count).tolist(),
            "recall": random.uniform(0.6, 1, count).tolist(),
            "f1": random.uniform(0.6, 1, count).tolist(),
            "support": random.integers(20, 90, count).tolist(),
        },
        "calibration": {
            "of": "any label",
            "predicted": [0.1, 0.5, 0.9],
            "observed": [0.05, 0.4, 0.95],
            "count": [9, 5, 9],
        },
        "mistakes": [
            {
                "row": 3,
                "true": "sky, water",
                "predicted": "none",
                "loss": 2.5,
                "values": {"age": 3, "name": NASTY},
            }
        ],
    }
    return evaluation, {
        "subset_accuracy": _entry(0.61, 0.05),
        "micro_f1": _entry(0.82, 0.03),
        "loss": _entry(0.3, 0.1),
    }


def _regression(random: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    from sklearn.datasets import load_diabetes

    diabetes: Any = load_diabetes(scaled=False)
    true = diabetes.target[:300]
    predicted = 152 + 0.55 * (true - 152) + 40 * random.standard_normal(300)
    worst = np.argsort(-np.abs(true - predicted))[:10].tolist()
    mistakes = [
        {
            "row": row,
            "target": "progression",
            "true": float(true[row]),
            "predicted": float(predicted[row]),
            "residual": float(true[row] - predicted[row]),
            "loss": 1.5,
            "values": dict(zip(diabetes.feature_names, diabetes.data[row].tolist(), strict=True)),
        }
        for row in worst
    ]
    evaluation = {
        "targets": ["progression"],
        "rows": list(range(300)),
        "true": [true.tolist()],
        "predicted": [[*predicted.tolist()[:-1], None]],
        "mistakes": mistakes,
    }
    test = {
        "rmse": _entry(53.9, 4.1),
        "r2": _entry(0.46, 0.09),
        "mae": _entry(44.1, 3.9),
        "loss": _entry(0.52, 0.1),
    }
    return evaluation, test


def _text(random: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    verse = "KING RICHARD:\nAnd then, my lord, the sun </script> shall rise & set\nupon thy hand.\n\n"
    evaluation = {
        "mistakes": [{"row": 64 * k, "loss": 4.2 - 0.1 * k, "text": verse} for k in range(6)],
        "samples": [{"prompt": "ROMEO:", "text": verse * 3}, verse],
    }
    test = {
        "bits_per_character": _entry(2.31, 0.05),
        "perplexity": _entry(4.96, 0.2),
        "accuracy": _entry(0.53, 0.01),
        "loss": _entry(1.6, 0.04),
    }
    return evaluation, test


TASKS: dict[str, Callable[[np.random.Generator], tuple[dict[str, Any], dict[str, Any]]]] = {
    "multi-class": _multi_class,
    "binary": _binary,
    "multi-label": _multi_label,
    "regression": _regression,
    "text": _text,
}

RECIPE = """\
seed: 0
data:
  name: digits
  validation: 0.15   # share of what is left after the test part
model:
  name: mlp
  hidden: [64, 64]
optimizer:
  name: adam
  lr: 0.001
training:
  epochs: 30
  batch_size: 64
note: "</pre><script>alert(2)</script> Größe 数字"
"""
