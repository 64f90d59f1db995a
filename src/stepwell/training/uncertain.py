"""How sure a trained network is, as columns beside its predictions: by dropout's passes or by its members."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stepwell.errors import UserError
from stepwell.metrics import uncertainty
from stepwell.nn.ensemble import members_of
from stepwell.nn.uncertainty import dropouts, monte_carlo, passes
from stepwell.training.model_file import Trained


def names(model: Trained) -> list[str]:
    """The columns: for classes two; for numbers and labels a standard deviation of each."""
    if model.task == "regression":
        return ["sd"] if len(model.targets) == 1 else [f"sd_{target}" for target in model.targets]
    if model.task == "multi-label":
        return [f"sd_{label}" for label in model.classes]
    return ["entropy", "mutual_information"]


def of_members(model: Trained, x: Tensor) -> np.ndarray:
    """(B, outputs + columns): the mean of an ensemble's members, then the columns of `names`.

    Classes: H(p̄) and H(p̄) − mean of H(p_m); else the standard deviation over the members.
    """
    with torch.no_grad():
        each = np.stack([member.predict(x).double().numpy() for member in members_of(model.network)])
    if model.task in ("regression", "multi-label"):
        return np.hstack([each.mean(0), uncertainty.of_values(each)])
    split = uncertainty.of_classes(each)
    return np.column_stack([each.mean(0), split.total, split.mutual])


def require_dropout(model: Trained, run: object) -> None:
    """UserError where all passes would be the same, or the members tell already."""
    if len(members_of(model.network)) > 1:
        raise UserError(
            f"--monte-carlo is for a single model, and {run} is an ensemble, whose members tell how sure it "
            "is: leave it out"
        )
    if not dropouts(model.network):
        raise UserError(
            f"--monte-carlo needs a model with dropout, and {run} has none: train with model.dropout=0.1, say"
        )


def outputs(model: Trained, x: Tensor, samples: int, seed: int, first: int) -> np.ndarray:
    """(B, outputs + columns): the mean prediction of `samples` passes, then the columns of `names`.

    Classes, in nats: entropy H(p̄) = −Σ p̄ ln p̄ of the mean probabilities, all that is uncertain; and
    mutual information H(p̄) − mean of H(p_s), the part that comes from the weights (Houlsby et al.
    2011): high where the passes contradict each other. Else the standard deviation over the passes.
    """
    if model.task in ("regression", "multi-label"):
        predict = model.network.predict
        return torch.cat(
            monte_carlo(model.network, x, samples, seed, first=first, function=predict), 1
        ).numpy()
    p, entropies = torch.zeros(()), torch.zeros(())
    for y in passes(model.network, x, samples, seed, first=first, function=model.network.predict):
        p, entropies = p + y.double() / samples, entropies + _entropy(y.double()) / samples
    total = _entropy(p)
    return torch.cat([p, total, (total - entropies).clamp_min(0)], 1).numpy()


def _entropy(p: Tensor) -> Tensor:
    """(B, K) → (B, 1), with 0 ln 0 = 0."""
    return torch.special.entr(p).sum(1, keepdim=True)
