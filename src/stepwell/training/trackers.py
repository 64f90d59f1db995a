"""Experiment trackers, each optional: the lines of metrics.jsonl are sent there too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from stepwell.errors import UserError


class Tracker(Protocol):
    """What every tracker does."""

    def log(self, values: dict[str, float], update: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run folder, below tensorboard/."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("recipe", "\n".join(f"    {k}: {v}" for k, v in _flat(recipe).items()))

    def log(self, values: dict[str, float], update: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, update)

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Weights & Biases, project stepwell."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        import wandb  # type: ignore[import-not-found]

        self._run = wandb.init(project="stepwell", name=folder.name, dir=str(folder), config=_flat(recipe))

    def log(self, values: dict[str, float], update: int) -> None:
        self._run.log(values, step=update)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow, a run of the active experiment."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        import mlflow  # type: ignore[import-not-found]

        self._mlflow = mlflow
        if "MLFLOW_TRACKING_URI" not in os.environ:  # a folder needs no server and no database
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
        mlflow.start_run(run_name=folder.name)
        mlflow.log_params(_flat(recipe))

    def log(self, values: dict[str, float], update: int) -> None:
        self._mlflow.log_metrics(values, step=update)

    def close(self) -> None:
        self._mlflow.end_run()


class Trackio:
    """Trackio, project stepwell."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        import trackio  # type: ignore[import-not-found]

        self._trackio = trackio
        trackio.init(project="stepwell", name=folder.name, config=_flat(recipe))

    def log(self, values: dict[str, float], update: int) -> None:
        self._trackio.log(values, step=update)

    def close(self) -> None:
        self._trackio.finish()


TRACKERS = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow, "trackio": Trackio}


def require_installed(names: Sequence[str]) -> None:
    """Refuses a tracker whose package is missing, before anything is trained."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"training.track={name}: the package is missing; pip install {name}")


def start(names: Sequence[str], folder: Path, recipe: dict[str, Any]) -> list[Tracker]:
    """Opens the trackers of these names; UserError where one does not start (no login, no network)."""
    opened: list[Tracker] = []
    for name in names:
        try:
            opened.append(TRACKERS[name](folder, recipe))
        except Exception as error:
            for tracker in opened:
                tracker.close()
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"training.track={name} does not start ({first}): mend it or leave it out"
            ) from error
    return opened


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl, as "split/name"."""
    split = row.get("split", "event")
    values = {f"{split}/{k}": v for k, v in row.items() if isinstance(v, float) and k != "epoch"}
    values |= {f"hyperparameters/{k}": v for k, v in row.get("hyperparameters", {}).items()}
    return values


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
