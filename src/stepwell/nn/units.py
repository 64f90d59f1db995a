"""Which units of a network in training have stopped to learn: dead ones and saturated ones, by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stepwell.nn.activations import Activation, Activations
from stepwell.nn.measuring import measuring

ENOUGH = 1000  # samples for which a unit must have been zero to be called dead


class Units:
    """Follows the units of every activation function over the batches that are looked at.

    dead, of ReLU-like functions: the share of units that were zero, at every place, for the last 1,000
    samples or more; a unit that is zero for most samples is healthy, and nothing is said before 1,000 have
    been looked at. saturated, of tanh and sigmoid: the share of the batch's outputs in the flat region
    (see `activations`).

    Look with `watching`; then `commit` what was seen, or `discard` it. `counts` is all that is kept from
    batch to batch: by layer for how many samples each unit has been zero, and last how many were looked at.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Tensor] = {}  # (units + 1,) int64
        self._new: dict[str, Tensor] = {}
        self._flat: dict[str, list[Tensor]] = {}
        self._places: dict[str, None] = {}  # in order of execution

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model's next forward passes are looked at. Neither its numbers nor chance change.

        A model made of torch's modules and ours alone is watched as it runs. Code that we do not know may be
        compiled, and is not to notice: it runs once more afterwards, on the same inputs, without gradients,
        as `measuring` has it; if that fails, nothing has been seen.
        """
        self.discard()
        if _is_known(model):
            with Activations(model, self._see) as activations:
                yield
            failed = activations.failure is not None
        else:
            calls: list[tuple[Any, Any]] = []
            handle = model.register_forward_pre_hook(
                lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
            )
            try:
                yield
            finally:
                handle.remove()
            failed = self._look_again(model, calls)
        if failed:
            self.discard()

    def commit(self) -> dict[str, dict[str, float | None]]:
        """Keeps what was seen; returns the shares by layer in order of execution, None where not known."""
        self.counts.update(self._new)
        shares = [(counts[:-1] >= ENOUGH).double().mean() for counts in self._new.values()]
        looked = [counts[-1].double() for counts in self._new.values()]
        flat = [torch.stack(found).double().mean() for found in self._flat.values()]
        values = torch.stack([*shares, *looked, *flat]).tolist() if shares or flat else []
        found: dict[str, dict[str, float | None]] = {place: {} for place in self._places}
        for k, place in enumerate(self._new):
            found[place]["dead"] = values[k] if values[k + len(shares)] >= ENOUGH else None
        for place, value in zip(self._flat, values[2 * len(shares) :], strict=True):
            found[place]["saturated"] = value
        self.discard()
        return found

    def discard(self) -> None:
        """Forgets what was seen since the last commit."""
        self._new, self._flat, self._places = {}, {}, {}

    def _see(self, activation: Activation) -> None:
        place = activation.place
        if activation.limit is not None:
            self._places[place] = None
        if activation.limit == "saturated":
            self._flat.setdefault(place, []).append(activation.flat())
        elif activation.limit == "dead":
            alive = activation.alive()
            alive = torch.cat([alive, alive.new_zeros(1)])  # the last counts all samples
            before = self._new.get(place, self.counts.get(place))
            if before is None or before.shape != alive.shape:
                before = torch.zeros_like(alive, dtype=torch.int64)
            self._new[place] = torch.where(alive, 0, before + len(activation.output))

    def _look_again(self, model: nn.Module, calls: list[tuple[Any, Any]]) -> bool:
        """Whether a second pass failed, of which only the numbers are wanted."""
        try:
            with measuring(model), torch.no_grad(), Activations(model, self._see) as activations:
                for args, kwargs in calls:
                    model(*args, **kwargs)
        except Exception:  # whatever a user's model raises: the training is worth more
            return True
        return activations.failure is not None


def _is_known(model: nn.Module) -> bool:
    """Whether all modules are torch's or ours, and none compiled."""
    return all(
        type(module).__module__.startswith(("torch.nn.", "stepwell."))
        and getattr(module, "_compiled_call_impl", None) is None
        for module in model.modules()
    )
