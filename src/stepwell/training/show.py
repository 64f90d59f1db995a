"""Shows samples to a person: as an image, as a row of the table, as text."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from stepwell.data import tablefile
from stepwell.data.dataset import DataSet, Part
from stepwell.training.mistakes import Show, image_data_url

LONGEST = 200  # characters of a cell that are shown


def shower(data: DataSet, part: Part, path: str) -> Show:
    """Returns what `mistakes.evaluation_record` asks for: position in the part → what to show of it.

    path: the data's file, from which a table's own row is read again.
    """

    @cache
    def table() -> tablefile.TableFile:
        return tablefile.open_table(path)

    def show(position: int) -> dict[str, Any]:
        if data.preparation["source"] == "table":
            row = int(part.rows[position])
            values = table().lazy.slice(row, 1).collect().row(0, named=True)
            names = _shown_columns(data.preparation, list(values))
            return {"values": {k: _cell(values[k]) for k in names}, "row": table().file_row(row)}
        x, y = part.gather(torch.tensor([position]))
        if data.kind == "image":
            files = getattr(part.inputs, "files", None)
            name = {"file": str(files[position])} if files is not None else {}
            return {"image": image_data_url(x[0].numpy()), **name}
        if data.kind == "text":
            return {"text": "".join(data.classes[token] for token in [*x[0].tolist(), int(y[0, -1])])}
        return {"values": _features(data, x[0].numpy())}

    return show


def _shown_columns(preparation: dict[str, Any], names: list[str]) -> list[str]:
    """A table's columns but the targets: first those learnt from, then those left out."""
    learnt = [column["name"] for column in preparation["columns"]]
    rest = [name for name in names if name not in {*learnt, *preparation["target"]["names"]}]
    return [*learnt, *rest]


def _features(data: DataSet, values: np.ndarray) -> dict[str, Any]:
    """A row of numbers by name; of a sequence (T, D) each feature's mean over time."""
    means = values.mean(0) if values.ndim > 1 else values
    names = data.preparation.get("features") or [f"feature {i}" for i in range(means.size)]
    return {str(n): _cell(float(v)) for n, v in zip(names, means, strict=True)}


def _cell(value: Any) -> Any:
    """A JSON value: numbers to six digits, long text cut."""
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else str(value)
    text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
