"""Shows a sample to a person: as an image, as a row, as text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from stepwell.data.dataset import DataSet, Part
from stepwell.training.mistakes import Show, image_data_url


def shower(data: DataSet, part: Part) -> Show:
    """Returns what `mistakes.evaluation_record` asks for: position in the part → what to show of it."""

    def show(position: int) -> dict[str, Any]:
        x, y = part.gather(torch.tensor([position]))
        if data.kind == "image":
            return {"image": image_data_url(x[0].numpy())}
        if data.kind == "text":
            return {"text": "".join(data.classes[token] for token in [*x[0].tolist(), int(y[0, -1])])}
        values = x[0].numpy()
        if values.ndim > 1:
            values = values.mean(0)
        names = data.preparation.get("features") or [f"feature {i}" for i in range(values.size)]
        return {"values": {str(n): _shown(v) for n, v in zip(names, values.reshape(-1), strict=False)}}

    return show


def _shown(value: Any) -> float | None:
    return float(np.format_float_positional(value, 6, fractional=False)) if np.isfinite(value) else None
