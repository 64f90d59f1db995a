"""The numbers that a compiled worker reads once a tensor: the step, hyperparameters, scalars of the state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import c_double
from itertools import compress
from typing import Any

import numpy as np
from torch import Tensor
from torch.autograd.graph import increment_version

from stepwell.engine.program import Program
from stepwell.engine.state import state_name


class Uniforms:
    """A line a record of the program's uniform inputs, `now`, and of the state's new scalars, `new`.

    state: of each parameter that the records are of. each: records a parameter.
    """

    def __init__(self, program: Program, state: Sequence[dict[str, Tensor]], each: int) -> None:
        names = [name for name in program.scalars if name.startswith("state.")]
        self.now = np.zeros((len(state) * each, len(program.scalars)))
        self.new = np.zeros((len(state) * each, len(names)))
        self.by_member = self.now.reshape(len(state), each, -1)
        columns = {name: column for column, name in enumerate(program.scalars)}
        self.step = columns.pop("t")
        self.filled: dict[str, Any] = {}  # numbers that stand in `now` already
        # The scalars of each parameter's state, those of one state behind one another, as the numbers that
        # they are: they are few, and far sooner read and written so than as tensors.
        self.kept = [[own[state_name(name)] for name in names] for own in state]
        self.cells = [
            [c_double.from_address(x.data_ptr() + 8 * k) for x in own for k in range(each)]
            for own in self.kept
        ]
        self.known: list[list[float]] = []  # those that stand in `now`
        self.scalar_columns = [columns[name] for name in names]
        self.given = {name: column for name, column in columns.items() if name not in names}

    def fill(self, steps: list[int], values: Mapping[str, Any]) -> None:
        """Writes the inputs of an update; steps: of each parameter."""
        if steps.count(steps[0]) == len(steps):
            self.now[:, self.step] = steps[0]
        else:
            self.by_member[:, :, self.step] = np.array(steps)[:, None]
        if self.scalar_columns:
            values_now = [[cell.value for cell in own] for own in self.cells]
            if values_now != self.known:  # loaded, or changed by somebody
                lines = np.array(values_now).reshape(len(steps), -1, self.by_member.shape[1])
                self.by_member[:, :, self.scalar_columns] = lines.transpose(0, 2, 1)
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
        lines = self.new.reshape(*self.by_member.shape[:2], -1).transpose(0, 2, 1).reshape(len(there), -1)
        self.known = lines.tolist()
        for own, line in compress(zip(self.cells, self.known, strict=True), there):
            for cell, value in zip(own, line, strict=True):
                cell.value = value
        increment_version([x for own in compress(self.kept, there) for x in own])
        if all(there):
            self.now[:, self.scalar_columns] = self.new
        else:
            self.known = []
