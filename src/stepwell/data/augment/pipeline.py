"""All that `augment.*` asks for, applied to a batch."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from stepwell.data import counter
from stepwell.data.augment import affine
from stepwell.data.augment.beta import Quantiles
from stepwell.data.augment.checks import require_fitting
from stepwell.data.augment.configs import AugmentConfig
from stepwell.data.augment.draws import Draws, Stream, of_each
from stepwell.data.augment.partners import Mixed, partners
from stepwell.data.augment.registry import CHANGES, MAPS, METHODS, MIXES, MOVES
from stepwell.data.augment.units import Units, learnt
from stepwell.data.dataset import DataSet, Kind
from stepwell.errors import UserError

_KINDS: dict[int, Kind] = {2: "features", 3: "sequence", 4: "image"}


class Augment:
    """Random changes of whole batches, for a loop of your own.

        augment = sw.data.Augment(flip=0.5, crop=4, mixup=0.2, seed=1)
        x, y = augment(x, y, sample=index, epoch=epoch)

    keys: those of `augment.*` in a recipe, each a number or a dict. mean, sd: of the inputs, broadcastable
    to one sample; the defaults are those of standardized ones. values: the lowest and the highest value of
    images that are no uint8, which jitter needs. seed: another seed draws other changes.

    With mixup or cutmix y becomes a `Mixed`: give it to a loss that `sw.nn.mixed_loss` has wrapped.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        mean: float | Tensor = 0.0,
        sd: float | Tensor = 1.0,
        values: tuple[float, float] | None = None,
        **keys: Any,
    ) -> None:
        self.seed = seed
        low, high = values if values is not None else (None, None)
        self._take(_config(keys), Units(mean, sd, low, high), None)

    @classmethod
    def of(cls, config: AugmentConfig, data: DataSet, device: torch.device) -> Augment:
        """For a checked recipe; `apply` is what its batches call."""
        made = cls()
        made._take(config, learnt(data, device, config.jitter is not None), device)
        return made

    def _take(self, config: AugmentConfig, units: Units, device: torch.device | None) -> None:
        self.config, self.units, self._device = config, units, device
        on = {name: setting.model_dump() for name, setting in config.settings().items()}
        for name in on.keys() & MIXES.keys():
            on[name]["alpha"] = Quantiles.of(on[name]["alpha"], device)
        self._fill = config.fill or "mirror"
        self._moves, self._maps, self._changes, self._mixes = (
            [partial(method, **on[name]) for name, method in stage.items() if name in on]
            for stage in (MOVES, MAPS, CHANGES, MIXES)
        )

    @property
    def mixes(self) -> bool:
        """Whether targets become a `Mixed`."""
        return bool(self._mixes)

    def __call__(
        self, x: Tensor, y: Tensor | None = None, *, sample: Tensor, epoch: int
    ) -> tuple[Tensor, Any]:
        """Returns the changed batch x (B, …), images (B, C, H, W), with its targets y (B, …).

        sample: (B,) int64, each sample's number in the data set. A sample's changes depend on (seed,
        epoch, sample) alone; whom it is mixed with depends on the batch too (see `partners`).
        """
        if x.dim() not in _KINDS or len(x) != len(sample):
            raise UserError(
                f"a batch is (B, features), (B, time, features) or (B, C, H, W) with B sample numbers, not "
                f"{tuple(x.shape)} with {len(sample)}"
            )
        if self.mixes and y is None:
            raise UserError("mixup and cutmix mix the targets too: give y")
        require_fitting(self.config, _KINDS[x.dim()], tuple(x.shape[1:]), 2)
        if self._device != x.device:  # tables and statistics go where the batches are, once
            self._take(self.config, self.units.to(x.device), x.device)
        return self.apply(x, y, sample.to(x.device), counter.key(self.seed, epoch), len(x))

    def apply(self, x: Tensor, y: Any, sample: Tensor, key: counter.Key, update: int) -> tuple[Tensor, Any]:
        """The same for batches of several updates in a row, `update` samples each, drawn from `key`."""
        draws, units = Draws(key, sample), self.units.of(x)
        for move in self._moves:
            x = move(x, draws)
        if self._maps:
            size = x.shape[-2], x.shape[-1]
            x = affine.warp(
                x, reduce(affine.compose, [found(draws, size) for found in self._maps]), fill=self._fill
            )
        for change in self._changes:
            x = change(x, draws, units)
        if not self._mixes:
            return x, y
        partner = partners(len(x), update, x.device)
        x, lam = self._mixed(x, x.index_select(0, partner), draws)
        return x, Mixed(y, y.index_select(0, partner), lam)

    def _mixed(self, x: Tensor, other: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """By the one method that is on; by a fair coin for each sample where both are."""
        found = [mix(x, other, draws) for mix in self._mixes]
        if len(found) == 1:
            return found[0]
        first = draws.uniform(Stream.WHICH_MIX) < 0.5
        (x1, lam1), (x2, lam2) = found
        return torch.where(of_each(first, x), x1, x2), torch.where(first, lam1, lam2)


def _config(keys: dict[str, Any]) -> AugmentConfig:
    unknown = [key for key in keys if key not in METHODS and key != "fill"]
    if unknown:
        raise UserError(f"there is no augmentation {unknown[0]!r}; there are {', '.join(METHODS)} (and fill)")
    try:
        return AugmentConfig(**keys)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["augment", *map(str, first["loc"])])
        raise UserError(
            f"{where}={first.get('input')!r}: {first['msg'].removeprefix('Value error, ')}"
        ) from None
