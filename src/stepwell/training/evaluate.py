"""Runs a network over a whole part: loss, metrics, predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stepwell.data.dataset import Part
from stepwell.metrics import by_task as metrics
from stepwell.nn.losses import Loss
from stepwell.nn.network import Network
from stepwell.progress import counted

# Samples at a time, so that evaluating takes less memory than training: fewer of long texts and sequences
# (positions) and of large images (numbers).
BATCH, POSITIONS, NUMBERS = 512, 1 << 16, 1 << 22
QUICK_TEXT = 1 << 19  # characters of a part that an evaluation during training looks at


@dataclass
class Predictions:
    """What a network says of a part, in the part's order.

    outputs: (N, C) probabilities or values in own units; text: (N, T) the likeliest characters.
    loss: (N,) per sample; text: (N, T) in nats. None where there are no targets.
    """

    outputs: np.ndarray
    targets: np.ndarray
    loss: np.ndarray


@torch.no_grad()
def predictions(
    network: Network, loss: Loss, part: Part, device: torch.device, limit: int = 0
) -> Predictions:
    """Predicts every sample of the part (the first `limit`, if given) in evaluation mode."""
    outputs, targets, losses = [], [], []
    count = min(limit, len(part)) if limit else len(part)
    was_training = network.training
    network.eval()
    try:
        with counted(f"evaluating {count:,} samples", count) as advance:
            for index in slices(count, part.inputs.shape, network.kind):
                x, y = part.gather(index)
                z = network.outputs(x.to(device))
                losses.append(loss(z, network.encode(y.to(device))).float().cpu())
                outputs.append(decoded(network, z).cpu())
                targets.append(y)
                advance(len(index))
    finally:
        network.train(was_training)
    return Predictions(*(torch.cat(values).numpy() for values in (outputs, targets, losses)))


def decoded(network: Network, z: Tensor) -> Tensor:
    """Probabilities or values; of text only the likeliest character, which takes V times less memory."""
    return z.argmax(-1) if network.kind == "text" else network.decode(z.float())


def slices(count: int, shape: tuple[int, ...], kind: str) -> Iterator[Tensor]:
    """Numbers 0 … count−1 in batches of a size that fits memory."""
    length = shape[0] if kind in ("text", "sequence") else 1
    size = max(1, min(BATCH, POSITIONS // length, NUMBERS // math.prod(shape)))
    return iter(torch.arange(count).split(size)) if count else iter(())


def quick(network: Network, loss: Loss, part: Part, device: torch.device) -> dict[str, float]:
    """Mean loss and the task's first metrics, for the curves; {} of an empty part."""
    if not len(part):
        return {}
    limit = QUICK_TEXT // part.inputs.shape[0] if network.kind == "text" else 0
    found = predictions(network, loss, part, device, max(limit, 1) if network.kind == "text" else 0)
    mean = float(found.loss.astype(np.float64).mean())
    if not np.isfinite(mean):
        return {}
    return {"loss": mean, **metrics.quick(network.task, found.outputs, found.targets, found.loss)}


def full(found: Predictions, task: str, classes: list[str], seed: int) -> dict[str, Any]:
    """Every metric with its 95 % interval."""
    if not len(found.targets):
        return {}
    return metrics.full(task, found.outputs, found.targets, found.loss, classes, seed)
