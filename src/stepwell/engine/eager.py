"""The eager engine: a rule's own text on tensors, the oracle for every faster engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

from stepwell.engine import rounding
from stepwell.engine.records import layout
from stepwell.engine.state import AVERAGE, check_shapes, new_state
from stepwell.engine.sums import add_up
from stepwell.engine.text import Folded, whole_update
from stepwell.rules import Rule

# Tensors up to this size are laid behind one another: below it a kernel's launch costs more than
# its work, above it a second copy of the weights costs more than the launches saved.
SMALL = 1 << 16


def pack(parameters: Iterable[Tensor]) -> None:
    """Moves parameters into one block of memory per dtype and device, each staying a view of it.

    Values and shapes stay; the engine then updates all of them as one tensor without gathering
    them first. Parameters that are not contiguous stay where they are. Any other tensor that shared
    memory with a parameter no longer does, so call it only for a model that is yours alone.
    """
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for p in parameters:
        if p.is_contiguous() and p.numel():
            kinds.setdefault((p.dtype, p.device), []).append(p)
    for members in kinds.values():
        block = torch.cat([p.detach().reshape(-1) for p in members])
        for p, part in zip(members, block.split([p.numel() for p in members]), strict=True):
            p.data = part.view(p.shape)


class Eager:
    """Runs `rule` on a fixed list of parameters, all with the same hyperparameters.

    `state[i]` holds the state tensors of parameter i by name, and `steps[i]` the number of updates
    it has had (asking waits for the device, where updates were skipped). A parameter whose gradient is
    None is left alone, as in torch. Parameters may be moved between steps (`p.data = …`,
    `model.to(…)`): `follow` then takes the state to their dtype and device.

    bfloat16 and float16 are computed in float32 and rounded once. average: keeps the average of the
    weights as state "ema". kind: the type of the state, default the weights' own. stochastic: bfloat16
    results are rounded up or down by chance, seeded by the step.
    """

    def __init__(
        self,
        rule: Rule,
        parameters: Sequence[Tensor],
        h: Mapping[str, float] | None = None,
        average: bool = False,
        kind: torch.dtype | None = None,
        stochastic: bool = False,
    ) -> None:
        self.rule, self.parameters = rule, list(parameters)
        self.average, self.kind, self.stochastic = average, kind, stochastic
        self._start = dict(rule.defaults if h is None else h)
        self._steps = [0] * len(self.parameters)  # updates begun
        self._skipped: Tensor | None = None  # how many of them were skipped, by every parameter alike
        self._build()
        self._look()

    def _build(self) -> None:
        self.state = [new_state(self.rule, p, self._start, self.average, self.kind) for p in self.parameters]
        self._blocks = [
            _Block(self, members) for members in _group(self.rule, self.parameters, self.stochastic)
        ]

    @property
    def steps(self) -> list[int]:
        if self._skipped is not None and (skipped := int(self._skipped)):
            self._steps = [step - skipped for step in self._steps]
            self._skipped.zero_()
        return self._steps

    def _look(self) -> None:
        """Notes where the parameters lie; held, so that no other storage can come by these addresses."""
        self._seen = [p.detach() for p in self.parameters]
        self._layout = self._layouts()

    def _layouts(self) -> tuple[Any, Any]:
        """Where parameters and state lie, how large they are and in what order."""
        return layout(self.parameters), layout([x for state in self.state for x in state.values()])

    def follow(self) -> None:
        """Takes the parameters where they lie now, and the state to their dtype and device."""
        if self._layouts() == self._layout:
            return
        check_shapes(self.rule, self.parameters, self._seen)
        if self._skipped is not None:
            self._steps, self._skipped = self.steps, None  # it lies on the old device
        if all(map(_alike, self.parameters, self._seen)) and self._layouts()[1] == self._layout[1]:
            for block in self._blocks:
                block.place()  # the state's tensors stay, since others may hold them
        else:
            before = self.state
            self._build()
            for new, old in zip(self.state, before, strict=True):
                for name, value in old.items():
                    new[name].copy_(value)
        self._look()

    def norm(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """The Euclidean norm of the gradients, None without one."""
        there = [g for g in gradients if g is not None]
        return total_norm(map(_norm, there)) if there else None

    @torch.no_grad()
    def step(
        self,
        gradients: Sequence[Tensor | None],
        h: Mapping[str, Any],
        folded: Folded = Folded(),  # noqa: B008  (it is immutable)
        skip: Tensor | None = None,
    ) -> Tensor | None:
        """Makes one update of every parameter that has a gradient; returns the gradients' norm.

        The norm is of the gradients as they are, before anything is folded in, a tensor on their device;
        None without a gradient. skip: a truth value on the device; where it is true nothing changes, no
        step is counted and the norm is 0, without waiting to know it.
        """
        if skip is not None:
            if any(g is None for g in gradients):
                # These would not have skipped what the others do: here the device is waited for.
                if skip:
                    return skip.new_zeros((), dtype=torch.float32)
                skip = None
            elif self._skipped is None:
                self._skipped = skip.new_zeros((), dtype=torch.float64)
        norm = total_norm([block.step(gradients, h, folded, skip) for block in self._blocks])
        if skip is not None and norm is not None and self._skipped is not None:
            self._skipped += skip
            norm = norm.masked_fill(skip, 0.0)
        return norm

    def sums(self, gradients: Sequence[Tensor | None], h: Mapping[str, Any], folded: Folded) -> list[Tensor]:
        """What the rule adds up over all parameters before the update, for these."""
        return add_up(self.rule, self.parameters, gradients, self.state, self.steps, h, folded)


def total_norm(norms: Iterable[Tensor | None]) -> Tensor | None:
    """The norm of the whole from the norms of its parts; None where no part has one."""
    parts = [norm for norm in norms if norm is not None]
    if len(parts) < 2:
        return parts[0] if parts else None
    return torch.linalg.vector_norm(torch.stack(parts))


class _Block:
    """Parameters that are updated as one tensor, while all have a gradient and the same step."""

    def __init__(self, engine: Eager, members: list[int]) -> None:
        self.engine, self.members = engine, members
        self.parameters = [engine.parameters[i] for i in members]
        self.sizes = [p.numel() for p in self.parameters]
        self.shapes = [p.shape for p in self.parameters]
        self.alone = len(members) == 1
        self.place()
        # The state of all as one tensor, of which each one's is a view.
        self.state: dict[str, Tensor] = engine.state[members[0]] if self.alone else {}
        for name in [] if self.alone else engine.state[members[0]]:
            block = torch.cat([engine.state[i][name].reshape(-1) for i in members])
            self.state[name] = block
            for i, part in zip(members, self._split(block), strict=True):
                engine.state[i][name] = part

    def place(self) -> None:
        """Views the members as one tensor where they lie, if they lie behind one another."""
        self.weights = self.parameters[0].detach() if self.alone else _packed(self.parameters)

    def _split(self, block: Tensor) -> list[Tensor]:
        return [part.view(s) for part, s in zip(block.split(self.sizes), self.shapes, strict=True)]

    def step(
        self, gradients: Sequence[Tensor | None], h: Mapping[str, Any], folded: Folded, skip: Tensor | None
    ) -> Tensor | None:
        engine = self.engine
        own = [g for i in self.members if (g := gradients[i]) is not None]
        times = {engine._steps[i] for i in self.members}
        if len(times) > 1 or len(own) < len(self.members):
            return self._one_by_one(gradients, h, folded, skip)
        t = self._time(times.pop() + 1)
        g = own[0] if self.alone else _flatten_dense_tensors(own)
        if self.weights is not None:
            self.weights.copy_(self._update(self.weights, g, self.state, t, h, folded, skip))
        else:
            w = torch.cat([p.reshape(-1) for p in self.parameters])
            parts = self._split(self._update(w, g, self.state, t, h, folded, skip))
            torch._foreach_copy_(self.parameters, parts)  # pyright: ignore[reportPrivateImportUsage]
        for i in self.members:  # once it is made
            engine._steps[i] += 1
        return _norm(g)

    def _time(self, begun: int) -> int | Tensor:
        """The number of an update: without those that were skipped, a number that only the device knows."""
        return begun if self.engine._skipped is None else begun - self.engine._skipped

    def _one_by_one(
        self, gradients: Sequence[Tensor | None], h: Mapping[str, Any], folded: Folded, skip: Tensor | None
    ) -> Tensor | None:
        """The same without packing, since the members differ in their step or some have no gradient."""
        engine, norms = self.engine, []
        for i in self.members:
            p, g = engine.parameters[i], gradients[i]
            if g is None:
                continue
            t = self._time(engine._steps[i] + 1)
            p.copy_(self._update(p.detach(), g, engine.state[i], t, h, folded, skip))
            engine._steps[i] += 1
            norms.append(_norm(g))
        return total_norm(norms)

    def _update(
        self,
        w: Tensor,
        g: Tensor,
        state: dict[str, Tensor],
        t: int | Tensor,
        h: Mapping[str, Any],
        folded: Folded,
        skip: Tensor | None,
    ) -> Tensor:
        """Returns the new weights and stores the new state."""
        names = [s.name for s in self.engine.rule.state]
        kind = _widest(w, self.engine.kind)
        before = [
            state[s.name] if s.scalar else _at_least(state[s.name], kind) for s in self.engine.rule.state
        ]
        average = state[AVERAGE].to(kind) if self.engine.average else None
        new_w, new, average = whole_update(
            self.engine.rule, w.to(kind), g.to(kind), before, average, t, dict(h), folded
        )
        results = dict(zip(names, map(_tensor, new), strict=True))
        if average is not None:
            results[AVERAGE] = average
        for salt, (name, value) in enumerate(results.items(), 1):
            value = self._rounded(torch.as_tensor(value, device=w.device), state[name], t, salt)
            state[name].copy_(value if skip is None else torch.where(skip, state[name], value))
        new_w = self._rounded(new_w, w, t, 0)
        return new_w if skip is None else torch.where(skip, w, new_w)

    def _rounded(self, x: Tensor, like: Tensor, t: int | Tensor, salt: int) -> Tensor:
        if not self.engine.stochastic or like.dtype is not torch.bfloat16:
            return x
        return rounding.to_bfloat16(x, like, rounding.seed(int(t), self.members[0]), salt)


def _tensor(x: Tensor | float) -> Tensor:
    """A scalar of the state that a rule gives as a number, with all its digits."""
    return x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)


def _norm(g: Tensor) -> Tensor:
    """In float32 for half precision, whose largest number many gradients together go beyond."""
    half = g.dtype in (torch.bfloat16, torch.float16)
    return torch.linalg.vector_norm(g, dtype=torch.float32 if half else None)


def _at_least(x: Tensor, kind: torch.dtype) -> Tensor:
    return x.to(torch.promote_types(x.dtype, kind))


def _widest(w: Tensor, kind: torch.dtype | None) -> torch.dtype:
    """The type to compute in: float32 for half precision, which is rounded once, or the state's."""
    least = torch.float32 if w.dtype in (torch.bfloat16, torch.float16) else w.dtype
    return least if kind is None else torch.promote_types(least, kind)


def _group(rule: Rule, parameters: Sequence[Tensor], apart: bool) -> list[list[int]]:
    """Numbers of the parameters that can be updated together, block by block."""
    # Whole tensors, scalars of the state and random bits belong to one parameter.
    single = rule.elementwise and not apart and not any(s.scalar for s in rule.state)
    groups: dict[object, list[int]] = {}
    for i, p in enumerate(parameters):
        together = single and p.is_contiguous()
        if together and _packed(parameters[max(i - 1, 0) : i + 1]) is None and p.numel() > SMALL:
            together = False
        groups.setdefault((p.dtype, p.device) if together else i, []).append(i)
    return list(groups.values())


def _alike(a: Tensor, b: Tensor) -> bool:
    return (a.dtype, a.device, a.shape, a.stride()) == (b.dtype, b.device, b.shape, b.stride())


def _packed(parameters: Sequence[Tensor]) -> Tensor | None:
    """The parameters as one tensor, if they lie behind one another in memory; else None."""
    first, end = parameters[0], parameters[0].storage_offset()
    storage = first.untyped_storage().data_ptr()
    for p in parameters:
        if p.untyped_storage().data_ptr() != storage or p.storage_offset() != end or not p.is_contiguous():
            return None
        end += p.numel()
    return first.detach().as_strided((end - first.storage_offset(),), (1,), first.storage_offset())
