"""What an ensemble gains: its members and itself on the test part, with calibration and uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stepwell.data.dataset import DataSet
from stepwell.metrics import paired, uncertainty
from stepwell.metrics.calibration import reliability
from stepwell.metrics.ranking import mid_ranks, roc_auc
from stepwell.nn.network import Network
from stepwell.populations.ensemble.job import Bench, State
from stepwell.training import evaluate
from stepwell.training.evaluate import Predictions

Array = NDArray[np.float64]

SUBSETS = 256  # of one size, at most; more are drawn by a seed
SPREAD_BINS = 10
TINY = float(np.finfo(np.float32).tiny)  # below it a float32 probability is 0
HALF_STEP = float(np.finfo(np.float32).eps) / 2  # between 1 and the probability before it


class Measured:
    """The members on validation and test part, one after the other, and what they have in common.

    Of text the outputs are not kept, since a probability a character would take too much memory.
    """

    def __init__(self, bench: Bench, data: DataSet, states: Sequence[State], seed: int) -> None:
        self.bench, self.data, self.seed = bench, data, seed
        self.task, self.device = data.task, next(bench.network.parameters()).device
        self.names = data.targets if data.task == "regression" else data.classes
        self.validation: list[dict[str, float]] = []
        self.test: list[dict[str, Any]] = []
        self.terms: list[Array] = []
        self.outputs: list[np.ndarray] = []
        self.targets = np.empty(0)
        for state in states:
            bench.network.load_state_dict(state)
            self.validation.append(self.quick(bench.network))
            found = self.predictions(bench.network)
            self.targets = found.targets
            if len(data.test):
                self.test.append(evaluate.full(found, self.task, self.names, seed))
                self.terms.append(self.terms_of(found))
            if data.kind != "text":
                self.outputs.append(found.outputs)

    def quick(self, network: Network) -> dict[str, float]:
        """Loss and first metrics on the validation part."""
        return evaluate.quick(network, self.bench.loss, self.data.validation, self.device)

    def predictions(self, network: Network) -> Predictions:
        """What a network says of the test part."""
        if not len(self.data.test):
            return Predictions(np.empty(0), np.empty(0), np.empty(0))
        return evaluate.predictions(network, self.bench.loss, self.data.test, self.device)

    def terms_of(self, found: Predictions) -> Array:
        """Each sample's terms, see `metrics.paired`."""
        return paired.terms(self.task, found.outputs, found.targets, found.loss)

    def best(self) -> int | None:
        """The member of the lowest validation loss; None without a validation part."""
        losses = [found.get("loss", np.inf) for found in self.validation]
        return int(np.argmin(losses)) if losses and np.isfinite(min(losses)) else None

    def gains(self, served: Predictions) -> dict[str, Any]:
        """Of what is served over the mean of the members, and over the best of them by validation loss."""
        ours = self.terms_of(served)
        found: dict[str, Any] = {"over_mean": paired.gain(self.task, ours, self.terms, self.seed)}
        best = self.best()
        if best is not None:
            over = paired.gain(self.task, ours, [self.terms[best]], self.seed)
            found["over_best"] = {"member": best, **over}
        return found

    # -- by number of members -----------------------------------------------------------------------

    def by_subsets(self) -> list[dict[str, Any]]:
        """The metrics of the mean prediction of m members, m = 1 … M: mean, least and greatest over subsets.

        All subsets of a size where they are no more than SUBSETS, else as many drawn by the seed.
        """
        stacked = np.stack(self.outputs)  # (M, N, C)
        rows, random = [], np.random.default_rng(self.seed)
        for size in range(1, len(stacked) + 1):
            chosen = subsets(len(stacked), size, random)
            rows.append(_row(size, self.task, [self._of_mean(stacked[list(s)].mean(0)) for s in chosen]))
        return rows

    def by_prefixes(self, network_of: Callable[[int], Network], count: int) -> list[dict[str, Any]]:
        """The metrics of `network_of(m)`, m = 1 … count: the first m members together, in their order."""
        rows = []
        for size in range(1, count + 1):
            found = self.terms_of(self.predictions(network_of(size)))
            rows.append(_row(size, self.task, [paired.values(self.task, found.sum(0, keepdims=True))[0]]))
        return rows

    def _of_mean(self, mean: np.ndarray) -> Array:
        """The metrics of a mean prediction (N, C)."""
        z = self._encoded(torch.from_numpy(mean))
        y = torch.from_numpy(self.targets)
        loss = self.bench.loss(z, self.bench.network.encode(y.to(self.device)).cpu()).numpy()
        found = paired.terms(self.task, mean, self.targets, loss)
        return paired.values(self.task, found.sum(0, keepdims=True))[0]

    def _encoded(self, mean: Tensor) -> Tensor:
        """The outputs that a network would decode to this prediction."""
        if self.task == "regression":
            return self.bench.network.encode(mean.to(self.device)).cpu()
        p = mean.double()
        return torch.logit(p, HALF_STEP) if self.task == "multi-label" else p.clamp_min(TINY).log()

    # -- how sure -----------------------------------------------------------------------------------

    def calibration(self, served: Predictions) -> dict[str, Any] | None:
        """Reliability of what is served and of one member: the best by validation, else the first."""
        if self.task not in ("binary", "multi-class"):
            return None
        one = self.best() or 0
        found = {"ensemble": served.outputs, "member": self.outputs[one]}
        return {"of": one} | {
            name: reliability(p.max(1).astype(np.float64), p.argmax(1) == self.targets)
            for name, p in found.items()
        }

    def uncertainty(self) -> dict[str, Any] | None:
        """What the members' disagreement says of the mean prediction's mistakes."""
        stacked = np.stack(self.outputs).astype(np.float64)
        if self.task in ("binary", "multi-class"):
            return _of_classes(stacked, self.targets)
        return _of_values(stacked, self.targets) if self.task == "regression" else None


def subsets(count: int, size: int, random: np.random.Generator) -> list[tuple[int, ...]]:
    """All subsets of `size` of `count`, or SUBSETS of them drawn with replacement where they are more."""
    if comb(count, size) <= SUBSETS:
        return list(combinations(range(count), size))
    return [tuple(random.choice(count, size, replace=False).tolist()) for _ in range(SUBSETS)]


def _row(size: int, task: str, found: Sequence[Array]) -> dict[str, Any]:
    """{"members", "subsets", metric: {"mean", "low", "high"}}."""
    table = np.stack(found)
    return {"members": size, "subsets": len(found)} | {
        name: {"mean": float(v.mean()), "low": float(v.min()), "high": float(v.max())}
        for name, v in zip(paired.COMPARED[task], table.T, strict=True)
    }


def _of_classes(p: Array, targets: np.ndarray) -> dict[str, Any]:
    """Means of the split entropy, over all, right and wrong answers; how well it tells these apart (AUC)."""
    split, wrong = uncertainty.of_classes(p), p.mean(0).argmax(1) != targets
    found: dict[str, Any] = {"samples": len(wrong), "wrong": int(wrong.sum())}
    for name, values in zip(("entropy", "expected_entropy", "mutual_information"), split, strict=True):
        found[name] = {
            "mean": float(values.mean()),
            "right": _mean(values[~wrong]),
            "wrong": _mean(values[wrong]),
            "auc": float(roc_auc(values, wrong)[0]) if 0 < wrong.sum() < len(wrong) else None,
        }
    return found


def _of_values(values: Array, targets: np.ndarray) -> dict[str, Any]:
    """The spread over members beside the size of the error: in bins of equal count, and Spearman's ρ.

    In the unit of each target's standard deviation of the error, so that targets can be put together.
    """
    error, sd = np.abs(values.mean(0) - targets), uncertainty.of_values(values)  # (N, O) both
    scale = np.sqrt(np.square(error).mean(0))
    error, sd = (error / np.where(scale > 0, scale, 1)).ravel(), (sd / np.where(scale > 0, scale, 1)).ravel()
    order = np.argsort(sd, kind="stable")
    groups = np.array_split(order, min(SPREAD_BINS, len(order)))
    rank = (
        float(np.corrcoef(mid_ranks(sd), mid_ranks(error))[0, 1])
        if min(np.ptp(sd), np.ptp(error)) > 0
        else None
    )
    return {
        "samples": len(targets),
        "sd": [float(sd[g].mean()) for g in groups],
        "rmse": [float(np.sqrt(np.square(error[g]).mean())) for g in groups],
        "count": [len(g) for g in groups],
        "rank_correlation": rank,
        "mean_sd": float(sd.mean()),
    }


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None
