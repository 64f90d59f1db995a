"""The addresses, numbers and chunks that a Triton kernel reads, for parameters of equal types (GPU).

Nothing here waits for the device: an update sends what changed on the host (gradients are new tensors at
each step), launches the kernel and returns. What only the device knows stays there: norms, a GradScaler's
factor, and how many updates were skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from stepwell.engine import rounding, triton_kernel
from stepwell.engine.mirror import Mirror
from stepwell.engine.program import SQUARES, Program
from stepwell.engine.records import Records
from stepwell.engine.state import Unsupported, state_name

SMALLEST, LARGEST = 1 << 11, 1 << 14  # elements of a chunk
INSTANCES = 1 << 12  # a GPU is busy with so many chunks: only above them are chunks made larger
ON_DEVICE = -1  # stands in the host's numbers (as a NaN) for those that are written on the device


class DeviceTable:
    """One pass over the parameters of `Records`, all on one device, in one launch of a Triton kernel.

    types: of the program's element inputs, in their order. The other arguments are those of `Records`.
    Raises Unsupported where the kernel cannot be compiled.
    """

    def __init__(
        self,
        program: Program,
        parameters: Sequence[Tensor],
        state: Sequence[dict[str, Tensor]],
        numbers: Sequence[int],
        types: tuple[torch.dtype, ...],
        members: int | None = None,
        stochastic: bool = False,
    ) -> None:
        self.records = records = Records(parameters, numbers, members)
        self.numbers, self.device = records.numbers, records.parameters[0].device
        self.columns = triton_kernel.columns(program)
        kept = [[state[i][state_name(n)] for i in numbers] for n in triton_kernel.scalar_states(program)]
        tensors = [[state[i][state_name(n)] for i in numbers] for n in program.elements if n not in "wg"]
        self.places = self._places([records.weights, *tensors], kept)

        # On the device: the uniform inputs of each member, then each record's step, and its gradient.
        rows, width = records.each, len(self.columns)
        self.begun = _even(rows * width)
        self.gradients = self.begun + _even(records.count)
        self.mirror = Mirror(self.gradients + records.count, self.device)
        self.values = self.mirror.floats(rows, width)
        self.filled: dict[str, Any] = {}  # numbers that stand in `values` already

        size = 1 << (records.elements // INSTANCES).bit_length()
        lines = records.chunks(min(max(size, SMALLEST), LARGEST))
        lines = lines[np.argsort(lines[:, 0] % rows, kind="stable")]  # so that each member's are together
        self.chunks = torch.from_numpy(lines).to(self.device)
        self.partials = self._zeros(len(lines))
        self.new = self._zeros(records.count, len(kept))
        # Of each parameter, its scalars and where their new values come.
        self.kept = [
            [(own[k], x.view(own[k].shape)) for own, x in zip(kept, new.unbind(-1), strict=True)]
            for k, new in enumerate(self.new.view(len(numbers), rows, len(kept)))
        ]
        self.skipped = torch.zeros(records.count, dtype=torch.int64, device=self.device)
        self.never = torch.zeros((), dtype=torch.bool, device=self.device)
        self.may_skip = False

        stochastic = stochastic and torch.bfloat16 in types
        self.kernel = triton_kernel.kernel(
            program, dict(zip(program.elements, types, strict=True)), stochastic
        )
        self.squares_kernel = triton_kernel.kernel(SQUARES, {"g": records.type})
        try:
            for kernel in (self.kernel, self.squares_kernel):  # without a gradient they change nothing
                self._launch(kernel, self.never, chunks=1)
        except Exception as error:  # whatever a compiler raises: no C compiler, an old GPU
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise Unsupported(f"its kernel cannot be compiled ({reason})") from error

    def take(self, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """They themselves: they are looked over when they are sent to the device."""
        return gradients

    def squares(self, gradients: Sequence[Tensor | None]) -> Tensor | None:
        """Σ g², of each member where there are members; None without a gradient."""
        held = self._take(gradients)
        if not held:
            return None
        self.mirror.send()
        self._launch(self.squares_kernel, self.never)
        return self._total()

    def update(
        self,
        gradients: Sequence[Tensor | None],
        steps: list[int],
        values: Mapping[str, Any],
        skip: Tensor | None = None,
    ) -> Tensor | None:
        """Updates the parameters that have a gradient, counts their steps and returns `squares`.

        skip: a truth value on the device; where it is true nothing changes, and Σ g² is 0. `steps` counts
        such an update until `settle` takes it back.
        """
        held = self._take(gradients)
        if not held:
            return None
        self.may_skip = self.may_skip or skip is not None
        for i, g in zip(self.numbers, gradients, strict=True):
            if g is not None:
                steps[i] += 1
        begun = np.array([steps[i] for i in self.numbers])
        self.mirror.here[self.begun : self.begun + self.records.count] = np.repeat(begun, self.records.each)
        on_device = self._fill(values)
        self.mirror.send()
        for column, value in on_device:
            self.values[1][:, column].copy_(value.detach().reshape(-1))
        self.records.fetch()
        self._launch(self.kernel, self.never if skip is None else skip)
        self.records.put_back(gradients)
        self._keep(gradients)
        increment_version(self.records.parameters)
        return self._total()

    def settle(self, steps: list[int]) -> None:
        """Takes back the steps that were skipped. Waits for the device, if there can be any."""
        if self.may_skip:
            skipped = self.skipped[:: self.records.each].tolist()
            self.skipped.zero_()
            for i, count in zip(self.numbers, skipped, strict=True):
                steps[i] -= count

    def _places(self, elements: list[list[Tensor]], kept: list[list[Tensor]]) -> Tensor:
        """What the kernel reads of each record and what does not change: see `triton_kernel.kernel`."""
        each = self.records.each
        places = [self.records.addresses(tensors) for tensors in elements]
        for tensors in kept:
            first = np.array(list(map(Tensor.data_ptr, tensors)))
            places.append((first[:, None] + 8 * np.arange(each)).reshape(-1))
        own = np.array([rounding.seed(0, i) for i in self.numbers])
        places.append(((own[:, None] + rounding.MEMBER * np.arange(each)) & rounding.BITS).reshape(-1))
        return torch.from_numpy(np.stack(places, axis=1).astype(np.int64)).to(self.device)

    def _take(self, gradients: Sequence[Tensor | None]) -> list[Tensor]:
        """Notes the gradients' addresses; returns the tensors to hold until the kernel is launched."""
        held = self.records.laid_out(gradients)
        there = np.array([g is not None for g in gradients])
        addresses = np.zeros(self.records.count, dtype=np.int64)
        sizes = self.records.sizes
        addresses[np.repeat(there, self.records.each)] = self.records.addresses(held, sizes[there])
        # An empty gradient is there too, though it has no address.
        addresses |= np.repeat(there & (sizes == 0), self.records.each)
        self.mirror.here[self.gradients :] = addresses
        return held

    def _fill(self, values: Mapping[str, Any]) -> list[tuple[int, Tensor]]:
        """Notes the uniform inputs of each member; returns the columns whose numbers the device has."""
        here, on_device = self.values[0], []
        for column, name in enumerate(self.columns):
            value = values[name]
            if isinstance(value, (int, float)):
                if self.filled.get(name) != value:
                    here[:, column] = self.filled[name] = value
                continue
            self.filled.pop(name, None)
            if isinstance(value, Tensor) and value.device.type == self.device.type:
                here.view(np.int64)[:, column] = ON_DEVICE
                on_device.append((column, value))
            else:
                here[:, column] = np.asarray(value, dtype=float).reshape(-1)
        return on_device

    def _launch(self, kernel: triton_kernel.Kernel, skip: Tensor, chunks: int | None = None) -> None:
        """Starts the kernel on the first chunks, or all."""
        now = self.mirror.there
        on_it = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        with on_it:
            kernel.launch(
                chunks or len(self.chunks),
                self.chunks,
                self.places,
                now[self.gradients :],
                now[self.begun :],
                self.skipped,
                self.values[1],
                self.new,
                self.partials,
                skip.view(torch.uint8),
                self.records.each,
            )

    def _keep(self, gradients: Sequence[Tensor | None]) -> None:
        """Copies the new scalars of the state to their tensors, once no chunk reads the old ones."""
        if self.new.numel():
            pairs = zip(self.kept, gradients, strict=True)
            updated = [pair for own, g in pairs if g is not None for pair in own]
            torch._foreach_copy_(  # pyright: ignore[reportPrivateImportUsage]
                [own for own, _ in updated], [x for _, x in updated]
            )

    def _total(self) -> Tensor:
        """The chunks' sums, added up by torch, in the same order at each step."""
        if self.records.members is None:
            return self.partials.sum()
        return self.partials.view(self.records.each, -1).sum(1)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)


def _even(count: int) -> int:
    """So many words or one more: what comes after them begins at 16 bytes, as Triton is told."""
    return count + count % 2
