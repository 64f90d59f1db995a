"""The eager engine: a rule's own text on tensors, the oracle for every faster engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

from stepwell.errors import UserError
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
    `model.to(…)`): the state then follows them to their dtype and device.
    """

    def __init__(self, rule: Rule, parameters: Sequence[Tensor]) -> None:
        self.rule = rule
        self.parameters = list(parameters)
        self._steps = [0] * len(self.parameters)  # updates begun
        self._skipped: Tensor | None = None  # how many of them were skipped, by every parameter alike
        self._build()
        self._look()

    def _build(self) -> None:
        self.state: list[dict[str, Tensor]] = [{} for _ in self.parameters]
        self._blocks = [_Block(self, members) for members in _group(self.rule, self.parameters)]

    @property
    def steps(self) -> list[int]:
        if self._skipped is not None and (skipped := int(self._skipped)):
            self._steps = [step - skipped for step in self._steps]
            self._skipped.zero_()
        return self._steps

    def _look(self) -> None:
        """Notes where the parameters lie; held, so that no other storage can come by these addresses."""
        self._seen = [p.detach() for p in self.parameters]
        self._places = [p.data_ptr() for p in self.parameters]

    def _follow(self) -> None:
        """Takes the parameters where they lie now, and the state to their dtype and device."""
        for i, (p, seen) in enumerate(zip(self.parameters, self._seen, strict=True)):
            if self.rule.state and p.shape != seen.shape:
                raise UserError(
                    f"parameter {i} of its group had shape {tuple(seen.shape)} and now has {tuple(p.shape)}, "
                    "which its optimizer's state does not fit: make a new optimizer"
                )
        if self._skipped is not None:
            self._steps, self._skipped = self.steps, None  # it lies on the old device
        if all(map(_alike, self.parameters, self._seen)):
            for block in self._blocks:
                block.place()  # the state's tensors stay, since others may hold them
        else:
            before = self.state
            self._build()
            for new, old in zip(self.state, before, strict=True):
                for name, value in old.items():
                    new[name].copy_(value)
        self._look()

    @torch.no_grad()
    def step(
        self,
        hyperparameters: dict[str, float],
        l2: float = 0.0,
        decay: float = 0.0,
        skip: Tensor | None = None,
    ) -> Tensor | None:
        """Makes one update of every parameter that has a gradient.

        l2: g ← g + l2 · w before the rule (coupled). decay: w ← w − η · decay · w before the rule
        (decoupled, Loshchilov & Hutter 2019). skip: a truth value on the device; where it is true
        nothing changes and no step is counted, without waiting to know it. Returns the norm of the
        gradients as they came (0 where skipped), a tensor on their device, or None without a gradient.
        """
        if [p.data_ptr() for p in self.parameters] != self._places:
            self._follow()
        if skip is not None:
            if any(p.grad is None for p in self.parameters):
                # These would not have skipped what the others do: here the device is waited for.
                if skip:
                    return skip.new_zeros((), dtype=torch.float32)
                skip = None
            elif self._skipped is None:
                self._skipped = skip.new_zeros((), dtype=torch.float64)
        norm = total_norm([block.step(hyperparameters, l2, decay, skip) for block in self._blocks])
        if skip is not None and norm is not None and self._skipped is not None:
            self._skipped += skip
            norm = norm.masked_fill(skip, 0.0)
        return norm


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
        first = self.parameters[0]
        self.place()
        self.state = []
        for name in engine.rule.state:
            if self.alone:
                block = torch.zeros_like(first, memory_format=torch.preserve_format)
                parts: Sequence[Tensor] = (block,)
            else:
                block = first.new_zeros(sum(self.sizes))
                parts = [part.view(s) for part, s in zip(block.split(self.sizes), self.shapes, strict=True)]
            self.state.append(block)
            for i, part in zip(members, parts, strict=True):
                engine.state[i][name] = part

    def place(self) -> None:
        """Views the members as one tensor where they lie, if they lie behind one another."""
        self.weights = self.parameters[0].detach() if self.alone else _packed(self.parameters)

    def step(
        self, hyperparameters: dict[str, float], l2: float, decay: float, skip: Tensor | None
    ) -> Tensor | None:
        engine = self.engine
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        times = {engine._steps[i] for i in self.members}
        if len(times) > 1 or len(gradients) < len(self.members):
            return self._one_by_one(hyperparameters, l2, decay, skip)
        for i in self.members:
            engine._steps[i] += 1
        t = self._time(times.pop() + 1)
        g = gradients[0] if self.alone else _flatten_dense_tensors(gradients)
        if self.weights is not None:
            self.weights.copy_(self._rule(self.weights, g, self.state, t, hyperparameters, l2, decay, skip))
        else:
            w = torch.cat([p.reshape(-1) for p in self.parameters])
            w = self._rule(w, g, self.state, t, hyperparameters, l2, decay, skip)
            parts = [part.view(s) for part, s in zip(w.split(self.sizes), self.shapes, strict=True)]
            torch._foreach_copy_(self.parameters, parts)  # pyright: ignore[reportPrivateImportUsage]
        return torch.linalg.vector_norm(g)

    def _time(self, begun: int) -> int | Tensor:
        """The number of an update: without those that were skipped, a number that only the device knows."""
        return begun if self.engine._skipped is None else begun - self.engine._skipped

    def _one_by_one(
        self, hyperparameters: dict[str, float], l2: float, decay: float, skip: Tensor | None
    ) -> Tensor | None:
        """The same without packing, since the members differ in their step or some have no gradient."""
        engine, norms = self.engine, []
        for i in self.members:
            p = engine.parameters[i]
            if p.grad is not None:
                engine._steps[i] += 1
                t, state = self._time(engine._steps[i]), list(engine.state[i].values())
                p.copy_(self._rule(p, p.grad, state, t, hyperparameters, l2, decay, skip))
                norms.append(torch.linalg.vector_norm(p.grad))
        return total_norm(norms)

    def _rule(
        self,
        w: Tensor,
        g: Tensor,
        state: Sequence[Tensor],
        t: int | Tensor,
        hyperparameters: dict[str, float],
        l2: float,
        decay: float,
        skip: Tensor | None,
    ) -> Tensor:
        """Returns the new weights and stores the new state."""
        before = w
        if l2:
            g = g + l2 * w
        if decay:
            w = w - hyperparameters["lr"] * decay * w
        w, *new = self.engine.rule.update(w, g, *state, t=t, **hyperparameters)
        for old, value in zip(state, new, strict=True):
            old.copy_(value if skip is None else torch.where(skip, old, value))
        return w if skip is None else torch.where(skip, before, w)


def _group(rule: Rule, parameters: Sequence[Tensor]) -> list[list[int]]:
    """Numbers of the parameters that can be updated together, block by block."""
    groups: dict[object, list[int]] = {}
    for i, p in enumerate(parameters):
        together = rule.elementwise and p.is_contiguous()
        if together and _packed(parameters[max(i - 1, 0) : i + 1]) is None and p.numel() > SMALL:
            together = False
        groups.setdefault((p.dtype, p.device) if together else i, []).append(i)
    return list(groups.values())


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and a.shape == b.shape


def _packed(parameters: Sequence[Tensor]) -> Tensor | None:
    """The parameters as one tensor, if they lie behind one another in memory; else None."""
    first, end = parameters[0], parameters[0].storage_offset()
    storage = first.untyped_storage().data_ptr()
    for p in parameters:
        if p.untyped_storage().data_ptr() != storage or p.storage_offset() != end or not p.is_contiguous():
            return None
        end += p.numel()
    return first.detach().as_strided((end - first.storage_offset(),), (1,), first.storage_offset())
