"""The batches of all members of a stack, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stepwell.data import counter
from stepwell.data.augment.partners import Mixed
from stepwell.data.augment.pipeline import Augment
from stepwell.data.batches import Batches
from stepwell.data.dataset import Part, TensorInputs
from stepwell.nn.network import Network
from stepwell.populations.member import Member
from stepwell.recipe import updates_per_epoch

STANDARDIZED_BYTES = 256 << 20  # of pixels as float32, which take four times as much as they are

# Inputs (K, B, …), and targets (K, B, …): one tensor, or a Mixed's three.
Stacked = tuple[
    Tensor, tuple[Tensor, ...]
]  # inputs (K, B, …), and targets (K, B, …): one, or a Mixed's three


class Feed:
    """`at(u)`: the batches of update u, counted from 0, as each member's own `Batches` has them.

    All members have training parts of one size. Samples in memory that nothing changes are gathered for
    all members by one index operation, from each member's own part and in its own order, and standardized
    once and not in each batch. Others, augmented, of text or read from disk, come from `Batches` of each
    member as they are, and are stacked.
    """

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        self.members, self.device = list(members), device
        recipe, part = members[0].recipe, members[0].data.train
        training = recipe.training
        self.batch_size, self.size = training.batch_size, training.batch_size * training.accumulate
        self.updates_per_epoch = updates_per_epoch(len(part), training.batch_size, training.accumulate)
        self.mixes = recipe.augment.mixup is not None or recipe.augment.cutmix is not None
        self.part = part
        resident = part.inputs.resident and isinstance(part.inputs, TensorInputs)
        self.standardized = False  # whether inputs are already in standard deviations
        self.each: list[Batches] = []
        if resident and not recipe.augment.settings() and training.accumulate == 1:
            self._gather_from(members)
        else:
            self.each = [self._batches(member) for member in members]
        self._order: tuple[int, Tensor] | None = None

    def _gather_from(self, members: Sequence[Member]) -> None:
        """Puts the members' parts, each but once, one behind the other."""
        every = {id(member.data.train): member.data for member in members}
        first = {key: number * len(self.part) for number, key in enumerate(every)}
        self.first = torch.tensor([first[id(member.data.train)] for member in members])
        data = list(every.values())
        inputs = [own.train.inputs.gather(torch.arange(len(own.train))) for own in data]
        numbers = sum(x.numel() for x in inputs)
        self.standardized = inputs[0].is_floating_point() or 4 * numbers <= STANDARDIZED_BYTES
        if self.standardized:
            pairs = zip(data, inputs, strict=True)
            inputs = [Network.of(nn.Identity(), own).standardize(x) for own, x in pairs]
        targets = torch.cat([own.train.targets for own in data])
        rows = torch.cat([own.train.rows for own in data])
        self.part = Part(TensorInputs(torch.cat(inputs)), targets, rows).to(self.device)

    def _batches(self, member: Member) -> Batches:
        recipe, data = member.recipe, member.data
        augment = Augment.of(recipe.augment, data, self.device) if recipe.augment.settings() else None
        return Batches(
            data.train,
            recipe.training.batch_size,
            recipe.training.accumulate,
            self.updates_per_epoch,
            counter.key(recipe.seed, 2),
            self.device,
            None if augment is None else augment.apply,
        )

    def at(self, update: int) -> list[Stacked]:
        """The batches of an update, one for each accumulation."""
        if self.each:
            own = [batches.at(update) for batches in self.each]
            return [_stack(column) for column in zip(*own, strict=True)]
        epoch, position = divmod(update, self.updates_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._orders(epoch).to(self.part.targets.device)
        index = self._order[1][:, position * self.size : (position + 1) * self.size]
        x, y = self.part.gather(index.reshape(-1))
        return [(x.view(*index.shape, *x.shape[1:]), (y.view(*index.shape, *y.shape[1:]),))]

    def _orders(self, epoch: int) -> Tensor:
        """(K, samples of an epoch): each member's order, drawn from its seed as `Batches` does."""
        samples = len(self.members[0].data.train)
        used = min(self.updates_per_epoch * self.size, samples)
        orders = {}
        for seed in {member.recipe.seed for member in self.members}:
            generator = torch.Generator().manual_seed(counter.key(counter.key(seed, 2), epoch))
            orders[seed] = torch.randperm(samples, generator=generator)[:used]
        every = torch.stack([orders[member.recipe.seed] for member in self.members])
        return every + self.first[:, None]

    def keep(self, rows: list[int]) -> None:
        """Goes on with these members alone."""
        self.members = [self.members[row] for row in rows]
        if self.each:
            self.each = [self.each[row] for row in rows]
        else:
            self.first, self._order = self.first[rows], None

    def close(self) -> None:
        """Ends the threads that fetch ahead."""
        for batches in self.each:
            batches.close()


def _stack(batches: Sequence[tuple[Tensor, Any]]) -> Stacked:
    targets = [y for _, y in batches]
    x = torch.stack([x for x, _ in batches])
    if isinstance(targets[0], Mixed):
        return x, tuple(
            torch.stack([getattr(y, part) for y in targets]) for part in ("own", "partner", "lam")
        )
    return x, (torch.stack(targets),)
