"""What a recipe says of the weights a model starts with: `model.init`, `model.zero_init_residual`."""

from __future__ import annotations

import torch

from stepwell.data import counter
from stepwell.data.dataset import DataSet
from stepwell.errors import UserError
from stepwell.nn.initialization.layers import initialize
from stepwell.nn.initialization.residual import zero_init_residual
from stepwell.nn.network import Network
from stepwell.recipe import Recipe


def start(network: Network, recipe: Recipe, data: DataSet) -> list[str]:
    """Starts the network as `recipe.model` says, `auto` as it was built; returns notes for the user.

    The recipe's seed gives the same weights on every device, and for lsuv the same samples. Only training
    calls this: what loads trained weights has no use for it.
    """
    model, left = recipe.model, []
    if model.init != "auto":
        batch = _samples(network, recipe, data) if model.init == "lsuv" else None
        generator = torch.Generator().manual_seed(counter.key(recipe.seed, 0))
        left = initialize(network, model.init, batch=batch, generator=generator)
        if len(left) == sum(1 for _ in network.parameters()):
            raise UserError(
                f"model.init={model.init} has no effect: model {model.name} has no layer of a kind that it "
                "knows and that is not frozen; remove it"
            )
    if getattr(model, "zero_init_residual", False):
        zero_init_residual(network)
    if not left:
        return []
    shown = ", ".join(name.removeprefix("body.") for name in left[:3]) + ", …" * (len(left) > 3)
    return [f"model.init={model.init} left alone what is frozen or of kinds that it does not know: {shown}"]


def _samples(network: Network, recipe: Recipe, data: DataSet) -> torch.Tensor:
    """A batch of the training part by chance, since a file may be sorted by class."""
    order = torch.Generator().manual_seed(counter.key(recipe.seed, 0))
    count = max(recipe.training.batch_size, 2)  # batch norm has no variance in one
    x, _ = data.train.gather(torch.randperm(len(data.train), generator=order)[:count])
    return x.to(next(network.parameters()).device)
