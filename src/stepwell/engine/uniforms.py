"""The numbers that a compiled worker reads once a tensor: the step, hyperparameters, scalars of the state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import c_double
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from stepwell.engine.program import Program
from stepwell.engine.state import state_name


class Uniforms:
    """A line a record of the program's uniform inputs, `now`, and of the state's new scalars, `new`.

    state: of each parameter that the records are of. each: records a parameter.
    """

    def __init__(self, program: Program, state: Sequence[dict[str, Tensor]], each: int) -> None:
        names = [name for name in program.results if name in program.scalars]
        self.now = np.zeros((len(state) * each, len(program.scalars)))
        self.new = np.zeros((len(state) * each, len(names)))
        self.by_member = self.now.reshape(len(state), each, -1)
        columns = {name: column for column, name in enumerate(program.scalars)}
        self.step = columns.pop("t")
        self.filled: dict[str, Any] = {}  # numbers that stand in `now` already
        # Of each parameter, the scalars of its state, and where the worker reads them.
        self.kept = [[own[state_name(name)] for name in names] for own in state]
        now = torch.from_numpy(self.by_member)
        self.read = [
            [line[:, columns[name]].view(x.shape) for name, x in zip(names, own, strict=True)]
            for line, own in zip(now, self.kept, strict=True)
        ]
        # The numbers of each: they are few, and far sooner written one by one than as tensors.
        self.cells = [
            [c_double.from_address(x.data_ptr() + 8 * k) for x in own for k in range(each)]
            for own in self.kept
        ]
        self.scalar_columns = [columns[name] for name in names]
        self.known: list[int] | None = None  # versions of the scalars whose values stand in `now`
        self.given = {name: column for name, column in columns.items() if name not in names}

    def fill(self, steps: list[int], values: Mapping[str, Any]) -> None:
        """Writes the inputs of an update; steps: of each parameter."""
        if steps.count(steps[0]) == len(steps):
            self.now[:, self.step] = steps[0]
        else:
            self.by_member[:, :, self.step] = np.array(steps)[:, None]
        if self.scalar_columns and self._versions() != self.known:  # loaded, or somebody changed them
            torch._foreach_copy_(  # pyright: ignore[reportPrivateImportUsage]
                [x for own in self.read for x in own], [x for own in self.kept for x in own]
            )
        for name, column in self.given.items():
            value = values[name]
            if not isinstance(value, (int, float)):  # of each member, or a 0-d tensor
                self.by_member[:, :, column] = np.asarray(value, dtype=float).reshape(-1)
                self.filled.pop(name, None)
            elif self.filled.get(name) != value:
                self.now[:, column] = self.filled[name] = value

    def keep(self, there: Sequence[bool]) -> None:
        """Writes the new scalars to the state of the parameters that were updated."""
        if not self.scalar_columns:
            return
        values = self.new.reshape(*self.by_member.shape[:2], -1).transpose(0, 2, 1).reshape(len(there), -1)
        for own, line in compress(zip(self.cells, values.tolist(), strict=True), there):
            for cell, value in zip(own, line, strict=True):
                cell.value = value
        increment_version([x for own in compress(self.kept, there) for x in own])
        if all(there):
            self.now[:, self.scalar_columns] = self.new
        self.known = self._versions() if all(there) else None

    def _versions(self) -> list[int]:
        return [x._version for own in self.kept for x in own]
