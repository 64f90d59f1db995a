"""Fine-tuning: layers that stay as they are, learn more slowly, or join later."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

from stepwell.errors import UserError
from stepwell.nn.beginning import Beginning
from stepwell.nn.layers import Layer, head_of, layers_of
from stepwell.nn.network import Network
from stepwell.optim.adam_then_sgd import AdamThenSGD
from stepwell.optim.configs import CHOICES
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.optim.prodigy import Prodigy

# Prodigy finds one rate for all weights; Adam that becomes SGD does so for SGD, and drops the groups' own.
ONE_RATE = (Prodigy, AdamThenSGD)


def fine_tuning(model: Beginning, network: Network, outputs: int) -> FineTuning | None:
    """What `model.freeze`, `layer_rates` and `unfreeze` ask for; None where they ask for nothing."""
    if model.freeze is None and model.layer_rates is None and model.unfreeze is None:
        return None
    return FineTuning(model, network, layers_of(network.body, head_of(network.body, outputs)))


class FineTuning:
    """Layers 1 … L from the input, L the head; see `nn.layers` for what counts as a layer.

    freeze=n: layers 1 … n stay as they are; "body" is L − 1. layer_rates=q: layer l learns at η · q^(L − l),
    η the schedule's rate (Howard & Ruder 2018, section 3.2, where q = 1/2.6). unfreeze=s: at the share u of
    the run the layers l ≥ L − ⌊(L − n − 1) · u / s⌋ learn, so that at first the head learns alone and from
    u = s on all that are not frozen for good (section 3.3, where one layer joins an epoch).

    A frozen layer is a fixed function: no gradient is computed for it, its normalizations keep their
    statistics and its dropout is off. An optimizer leaves it alone, decay too, and counts its updates from
    when it joins.
    """

    def __init__(self, model: Beginning, network: Network, layers: list[Layer]) -> None:
        for layer in layers:  # what a model of one's own holds fixed stays so
            layer.parameters = [p for p in layer.parameters if p.requires_grad]
        layers = [layer for layer in layers[:-1] if layer.parameters] + layers[-1:]
        self.network, self.layers, self.model = network, layers, model
        count, name = len(layers), model.name.rpartition(":")[2]
        self.kept = count - 1 if model.freeze == "body" else model.freeze or 0
        if self.kept >= count:
            most = f"freeze at most {count - 1}" if count > 1 else "leave it out"
            whole = f"all {count} layers" if count > 1 else "the only layer"
            raise UserError(
                f"model.freeze={model.freeze} keeps {whole} of this {name}, so nothing is left to "
                f"train: {most}"
            )
        if model.freeze == "body" and count == 1:
            raise UserError(f"model.freeze=body has no effect: this {name} is nothing but its head")
        for key in ("layer_rates", "unfreeze"):
            if getattr(model, key) is not None and self.kept >= count - 1:
                raise UserError(
                    f"model.{key} has no effect where only one layer of this {name} learns: leave it out"
                )
        self.first = 0  # the lowest layer that learns now
        self._set(self.kept)

    def follow(self, share: float) -> None:
        """Lets those layers learn that do at this share of the run."""
        if self.model.unfreeze is None:
            return
        below = len(self.layers) - 1 - self.kept  # layers below the head that are to join
        joined = min(math.floor(below * share / self.model.unfreeze + 1e-9), below)
        if self.first != len(self.layers) - 1 - joined:
            self._set(len(self.layers) - 1 - joined)

    def groups(self, parameters: Iterable[nn.Parameter], optimizer: Any) -> list[Any]:
        """What to give to the recipe's optimizer: groups, the head's first, or the parameters if one rate is
        for all."""
        share = self.model.layer_rates
        kind = CHOICES[optimizer.name].kind
        for key, wanted in (("layer_rates", share), ("unfreeze", self.model.unfreeze)):
            together = not issubclass(kind, RuleOptimizer) or (kind in ONE_RATE and key == "layer_rates")
            if wanted is not None and together:
                raise UserError(
                    f"model.{key} does not go with optimizer={optimizer.name}, which finds one step for all "
                    "weights together: choose another optimizer, or leave it out"
                )
        if share is None:
            return list(parameters)
        learning = self.layers[self.kept :][::-1]
        return [
            {"params": layer.parameters, "lr": optimizer.lr * share**place, "layer_rate": share**place}
            for place, layer in enumerate(learning)
        ]

    def _set(self, first: int) -> None:
        """Freezes the layers below `first` and lets the others learn."""
        self.first = first
        for number, layer in enumerate(self.layers):
            for p in layer.parameters:
                p.requires_grad_(number >= first)
        self.network.frozen = [module for layer in self.layers[:first] for module in layer.modules]
        self.network.train(self.network.training)
