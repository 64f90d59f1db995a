"""Evaluates the weights of many members at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from stepwell.data.dataset import DataSet, Part
from stepwell.metrics import by_task
from stepwell.nn import draws
from stepwell.nn.losses import Loss
from stepwell.nn.network import Network
from stepwell.populations.recording import Program
from stepwell.training.evaluate import BATCH, QUICK_TEXT, Predictions, decoded

NUMBERS = 1 << 20  # of inputs, times members, that go through at once


class Judge:
    """What `training.evaluate` says of one network, of many: states are lists of tensors (K, …).

    names: of the network's parameters and buffers, in the order of a state.
    """

    def __init__(self, network: Network, names: Sequence[str], loss: Loss, device: torch.device) -> None:
        self.network, self.names, self.loss, self.device = network, list(names), loss, device
        self.judged = _Judged(network)
        self.programs: dict[Any, Program] = {}

    def show(self, views: Any) -> None:
        """Lets the network judge by the mean over these views of each image; None: by the image alone."""
        if views is not self.network.views:
            self.programs.clear()
        self.network.views = views

    def quick(self, state: list[Tensor], data: Sequence[DataSet], split: str) -> list[dict[str, float]]:
        """Mean loss and the task's first metrics of each member; {} where the loss is not finite."""
        ends: list[dict[str, float]] = []
        for found in self.predictions(state, data, split):
            mean = float(found.loss.astype(np.float64).mean()) if len(found.loss) else math.nan
            own: dict[str, float] = {}
            if np.isfinite(mean):
                own = by_task.quick(self.network.task, found.outputs, found.targets, found.loss)
                own = {"loss": mean, **own}
            ends.append(own)
        return ends

    def predictions(self, state: list[Tensor], data: Sequence[DataSet], split: str) -> list[Predictions]:
        """What each member says of a part of its data; members with the same part are judged together."""
        groups: dict[int, list[int]] = {}
        for place, own in enumerate(data):
            groups.setdefault(id(getattr(own, split)), []).append(place)
        found: dict[int, Predictions] = {}
        for places in groups.values():
            part = getattr(data[places[0]], split)
            chosen = state if len(groups) == 1 else [value[places] for value in state]
            found |= dict(zip(places, self._of_part(chosen, part), strict=True))
        return [found[place] for place in range(len(data))]

    def _of_part(self, state: list[Tensor], part: Part) -> list[Predictions]:
        members, count = len(state[0]), len(part)
        if not count:
            empty = np.zeros(0)
            return [Predictions(empty, empty, empty)] * members
        if self.network.kind == "text":
            count = min(count, max(QUICK_TEXT // part.inputs.shape[0], 1))
        self.network.eval()
        size = min(max(1, NUMBERS // (members * math.prod(part.inputs.shape))), BATCH)
        outputs, targets, losses = [], [], []
        for index in torch.arange(count).split(size):
            x, y = part.gather(index)
            z, loss = self._run(state, x.to(self.device), y.to(self.device))
            outputs.append(z.cpu())
            losses.append(loss.float().cpu())
            targets.append(y)
        y = torch.cat(targets).numpy()
        z, loss = torch.cat(outputs, 1).numpy(), torch.cat(losses, 1).numpy()
        return [Predictions(z[k], y, loss[k]) for k in range(members)]

    def _run(self, state: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and losses of one batch, (K, B, …)."""
        key, inputs = (len(state[0]), x.shape, x.dtype), [*state, x, y]
        if key not in self.programs:
            self.programs[key] = Program(self._judge, inputs)
        found = self.programs[key](*inputs)
        return found[0], found[1]  # type: ignore[return-value]

    @torch.no_grad()
    def _judge(self, *given: Tensor) -> list[Tensor]:
        *state, x, y = given

        def one(state: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
            own = {f"network.{name}": value for name, value in zip(self.names, state, strict=True)}
            return functional_call(self.judged, own, (x, y))

        # Nothing is drawn here; but what torch.vmap has no rule for is left to plain operations then.
        with draws.supplied(_nothing_is_drawn):
            z, outputs, targets = torch.vmap(one, randomness="different")(list(state))
        loss = self.loss(z.flatten(0, 1), targets.flatten(0, 1))
        return [outputs, loss.unflatten(0, z.shape[:2])]


def _nothing_is_drawn(shape: tuple[int, ...], device: torch.device) -> Tensor:
    raise AssertionError("a layer draws random numbers in evaluation")


class _Judged(nn.Module):
    """x, y → the network's outputs, what they mean, and y as the loss wants it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = self.network.outputs(x)
        return z, decoded(self.network, z), self.network.encode(y).clone()
