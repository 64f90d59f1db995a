"""Several bodies that predict as one: a body like any other, so that one network serves them all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stepwell.data.dataset import Task
from stepwell.nn.network import Network
from stepwell.nn.views import mean_outputs


class Ensemble(nn.Module):
    """forward(x) = the outputs whose prediction is the mean of the members' predictions.

    p̄ = 1/M Σ p_m, p_m the softmax (labels: the sigmoid) of member m; numbers: ȳ = 1/M Σ y_m
    As outputs: log p̄; labels log p̄ − log(1 − p̄); numbers ȳ in standard deviations (see `mean_outputs`).

    members: bodies (B, *input_shape) → (B, outputs), M ≥ 1, which share what the network puts around them:
    standardization before, decoding behind. So loss, views, `predict` and export need to know nothing of it.
    Source: Lakshminarayanan, Pritzel & Blundell 2017 (deep ensembles), §2.4.
    The trap: the mean of probabilities is not that of logits, and a mean of weights is neither.
    """

    def __init__(self, members: Sequence[nn.Module], task: Task) -> None:
        super().__init__()
        self.members, self.task = nn.ModuleList(members), task

    def forward(self, x: Tensor) -> Tensor:
        return mean_outputs([member(x) for member in self.members], self.task)


def members_of(network: Network) -> list[Network]:
    """Each member of the network's ensemble as a network that shares its tensors; else itself alone."""
    if not isinstance(network.body, Ensemble):
        return [network]
    return [network.around(body) for body in network.body.members]


def together(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The state dict of an ensemble's network from those of its members' networks.

    body.NAME of member k becomes body.members.k.NAME; what stands around the body must be the same in all.
    """
    whole = {name: value for name, value in states[0].items() if not name.startswith("body.")}
    for state in states[1:]:
        if any(not torch.equal(state[name], value) for name, value in whole.items()):
            raise ValueError("the members have different statistics around their bodies")
    for number, state in enumerate(states):
        for name, value in state.items():
            if name.startswith("body."):
                whole[f"body.members.{number}.{name.removeprefix('body.')}"] = value
    return whole
