"""Which engine runs a rule on these parameters."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stepwell.engine.eager import Eager
from stepwell.engine.fused import Fused
from stepwell.engine.rows import Rows
from stepwell.engine.state import Unsupported
from stepwell.rules import Rule

ENGINES = ("auto", "fused", "eager")
_said: set[str] = set()


def engine_for(
    rule: Rule,
    parameters: Sequence[Tensor],
    h: Mapping[str, float],
    average: bool = False,
    kind: torch.dtype | None = None,
    stochastic: bool = False,
    name: str = "auto",
) -> Any:
    """The fused engine where it can run, else the eager one; on local shards where there are DTensors.

    Where the fused one cannot run, that is said once, with the reason. name: "eager" takes the eager one at
    once, "rows" that of sparse gradients.
    """

    def make(parameters: Sequence[Tensor]) -> Any:
        arguments = (rule, parameters, h, average, kind, stochastic)
        if name == "rows":
            return Rows(*arguments)
        if name != "eager":
            try:
                return Fused(*arguments)
            except Unsupported as reason:
                message = f"{rule.name} runs on the eager engine here: {reason}"
                if message not in _said:
                    _said.add(message)
                    warnings.warn(message, RuntimeWarning, stacklevel=6)
        return Eager(*arguments)

    if "torch.distributed.tensor" in sys.modules:  # else nobody can have made one
        from torch.distributed.tensor import DTensor

        if any(isinstance(p, DTensor) for p in parameters):
            from stepwell.engine.sharded import Sharded

            return Sharded(rule, parameters, make)
    return make(parameters)
