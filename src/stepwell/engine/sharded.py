"""The sharded engine: each process updates its own shards; only norms and sums cross the mesh."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

from stepwell.engine.text import Folded
from stepwell.errors import UserError
from stepwell.rules import Rule


class Sharded:
    """Runs an engine on the local shards of DTensors (FSDP2, tensor parallelism), and on plain tensors.

    make: (local parameters) → the engine. Parameters may lie on several meshes, in any placements, beside
    plain tensors, which every process is taken to hold alike. The state is told as DTensors in the
    parameters' placements, so that torch.distributed.checkpoint saves and reshards it.
    Raises UserError for a rule that needs whole tensors where a parameter is cut in pieces.
    """

    def __init__(self, rule: Rule, parameters: Sequence[Tensor], make: Callable[[list[Tensor]], Any]) -> None:
        self.rule, self.parameters = rule, list(parameters)
        for i, p in enumerate(self.parameters):
            if not rule.elementwise and isinstance(p, DTensor) and any(map(_cut, p.placements)):
                raise UserError(
                    f"{rule.name} needs whole tensors, and parameter {i} of its group is cut in pieces "
                    f"({p.placements}): keep it whole, or take an elementwise rule such as adamw for it"
                )
        # Numbers of the parameters that lie in the same way on the same mesh.
        self._kinds: dict[Any, list[int]] = {}
        for i, p in enumerate(self.parameters):
            where = (p.device_mesh, p.placements) if isinstance(p, DTensor) else None
            self._kinds.setdefault(where, []).append(i)
        self.inner = make([_local(p) for p in self.parameters])
        self.state: list[dict[str, Tensor]] = []
        self._tell()

    @property
    def steps(self) -> list[int]:
        return self.inner.steps

    def _tell(self) -> None:
        self.state = [
            {name: _as(p, value) for name, value in own.items()}
            for p, own in zip(self.parameters, self.inner.state, strict=True)
        ]

    def follow(self) -> None:
        """Takes the shards where they lie now."""
        self.inner.parameters[:] = [_local(p) for p in self.parameters]
        before = [list(own.values()) for own in self.inner.state]
        self.inner.follow()
        if any(
            a is not b
            for old, own in zip(before, self.inner.state, strict=True)
            for a, b in zip(old, own.values(), strict=True)
        ):
            self._tell()

    def norm(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """The Euclidean norm of the whole gradients, the same on every process."""
        squares = self._over_meshes(self._local_gradients(gradients), self._squares)
        return squares[0].sqrt() if squares else None

    def step(
        self,
        gradients: Sequence[Tensor | None],
        h: Mapping[str, Any],
        folded: Folded = Folded(),  # noqa: B008  (it is immutable)
        skip: Tensor | None = None,
    ) -> Tensor | None:
        """Makes one update of every shard; returns the norm of the whole gradients."""
        local = self._local_gradients(gradients)
        norm = self.inner.step(local, h, folded, skip)
        if len(self._kinds) == 1 and norm is not None:  # of which the update gave the local part
            squares = self._over_meshes(local, lambda _: [norm.double() ** 2])
        else:
            squares = self._over_meshes(local, self._squares)
        return squares[0].sqrt() if squares else None

    def sums(self, gradients: Sequence[Tensor | None], h: Mapping[str, Any], folded: Folded) -> list[Tensor]:
        """What the rule adds up over all parameters before the update, over all processes."""
        return self._over_meshes(
            self._local_gradients(gradients), lambda some: self.inner.sums(some, h, folded)
        )

    def _local_gradients(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        return [
            None if g is None else _local(_like(g, p))
            for p, g in zip(self.parameters, gradients, strict=True)
        ]

    def _squares(self, some: Sequence[Tensor | None]) -> list[Tensor]:
        norm = self.inner.norm(some)
        return [] if norm is None else [norm.double() ** 2]

    def _over_meshes(
        self, gradients: list[Tensor | None], local: Callable[[list[Tensor | None]], list[Tensor]]
    ) -> list[Tensor]:
        """Adds up local numbers, mesh by mesh: over processes that hold different pieces, once where they
        hold the same."""
        totals: list[Tensor] = []
        for where, members in self._kinds.items():
            if all(gradients[i] is None for i in members):
                continue  # on every process alike
            of_these = set(members)
            parts = local([g if i in of_these else None for i, g in enumerate(gradients)])
            if where is not None:
                mesh, placements = where
                parts = [x.to(mesh.device_type) for x in parts]
                for dimension, placement in enumerate(placements):
                    if _cut(placement):
                        for x in parts:
                            dist.all_reduce(x, group=mesh.get_group(dimension))
            totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
        return totals


def _cut(placement: Any) -> bool:
    return not isinstance(placement, Replicate)


@torch.no_grad()
def _local(p: Tensor) -> Tensor:
    return p.to_local() if isinstance(p, DTensor) else p


def _like(g: Tensor, p: Tensor) -> Tensor:
    """The gradient in its parameter's placements: a partial sum is summed."""
    if isinstance(p, DTensor) and isinstance(g, DTensor) and g.placements != p.placements:
        return g.redistribute(placements=p.placements)
    return g


def _as(p: Tensor, value: Tensor) -> Tensor:
    """A local tensor of the state as a part of the whole; scalars are the same everywhere."""
    if not isinstance(p, DTensor) or value.shape != _local(p).shape or value.dim() == 0:
        return value
    return DTensor.from_local(
        value, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
    )
