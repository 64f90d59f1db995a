"""The losses, each a value per sample or its mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from stepwell.data.dataset import Task
from stepwell.errors import UserError


class LossConfig(BaseModel):
    """A loss without settings of its own."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["cross-entropy", "mse", "mae"] = Field(
        "cross-entropy", description="what training minimizes (default for classes and text; numbers: mse)"
    )


class HuberConfig(BaseModel):
    """The square for small errors, a line for large ones."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["huber"] = "huber"
    delta: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="error at which the square becomes a line, in target SDs"
    )


LOSSES: dict[str, type[LossConfig] | type[HuberConfig]] = {
    "cross-entropy": LossConfig,
    "mse": LossConfig,
    "mae": LossConfig,
    "huber": HuberConfig,
}

Loss = Callable[[Tensor, Tensor], Tensor]


def default(task: Task) -> str:
    """mse for regression, else cross-entropy."""
    return "mse" if task == "regression" else "cross-entropy"


def build(config: LossConfig | HuberConfig, task: Task, label_smoothing: float = 0.0) -> Loss:
    """Returns (outputs, targets) → loss per sample, (B,); for text per character, (B, T).

    Regression: outputs and targets in standard deviations of the training targets, mean over targets.
    mse: (y − ŷ)²; mae: |y − ŷ|; huber: ½e² for |e| ≤ δ, else δ(|e| − ½δ) (Huber 1964).
    Classes: cross-entropy −log softmax(z)_y; multi-label: the mean over labels of the binary
    cross-entropy; mse: Σ_k (softmax(z)_k − 1[k = y])², the lectures' counter-example: its gradient
    vanishes where the answer is confident and wrong.

    label_smoothing: ε in [0, 1), for classes: the target is (1 − ε) one-hot + ε / K over K classes; a label
    of several is (1 − ε) y + ε / 2. As torch.nn.functional.cross_entropy. Source: Szegedy et al. 2016, §7.
    """
    if task == "regression":
        if label_smoothing:
            raise UserError("regularize.label_smoothing has no effect: the target is a number; remove it")
        if config.name == "cross-entropy":
            raise UserError("loss.name=cross-entropy needs classes, but the target is a number: use mse")
        if isinstance(config, HuberConfig):
            delta = config.delta
            return lambda z, y: F.huber_loss(z, y, reduction="none", delta=delta).mean(-1)
        error = F.mse_loss if config.name == "mse" else F.l1_loss
        return lambda z, y: error(z, y, reduction="none").mean(-1)
    if config.name in ("mae", "huber"):
        raise UserError(f"loss.name={config.name} needs a number as target: use cross-entropy, or mse")
    epsilon = label_smoothing
    if task == "multi-label":
        if config.name == "mse":
            return lambda z, y: (z.sigmoid() - _smoothed(y, epsilon, 2)).square().mean(-1)
        return lambda z, y: F.binary_cross_entropy_with_logits(
            z, _smoothed(y, epsilon, 2), reduction="none"
        ).mean(-1)
    if config.name == "mse":
        return lambda z, y: (z.softmax(-1) - _smoothed(_one_hot(y, z), epsilon, z.shape[-1])).square().sum(-1)
    return _cross_entropies(epsilon) if epsilon else _cross_entropy


def _one_hot(y: Tensor, z: Tensor) -> Tensor:
    """Classes (…) as zeros and ones like z (…, K); F.one_hot asks for the largest class, which waits."""
    return (torch.arange(z.shape[-1], device=y.device) == y[..., None]).to(z.dtype)


def _smoothed(y: Tensor, epsilon: float, classes: int) -> Tensor:
    """(1 − ε) y + ε / K for targets of zeros and ones."""
    return y * (1 - epsilon) + epsilon / classes if epsilon else y


def _cross_entropies(epsilon: float) -> Loss:
    """Cross-entropy with smoothed labels, for classes (B, K) and for text (B, T, K)."""

    def smooth(z: Tensor, y: Tensor) -> Tensor:
        flat = z.flatten(0, -2), y.flatten()
        return F.cross_entropy(*flat, reduction="none", label_smoothing=epsilon).view(y.shape)

    return smooth


def _cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """−log softmax(z)_y, for classes (B, K) and for text (B, T, K)."""
    if z.dim() == 2:
        return F.cross_entropy(z, y, reduction="none")
    return F.cross_entropy(z.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)


def mean(loss: Loss) -> Loss:
    """The mean over the batch. torch's own reduction is used where there is one: it is one launch less."""
    if loss is _cross_entropy:
        return lambda z, y: (
            F.cross_entropy(z.flatten(0, -2), y.flatten()) if z.dim() > 2 else F.cross_entropy(z, y)
        )
    return lambda z, y: torch.mean(loss(z, y))
