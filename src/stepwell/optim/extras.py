"""What every optimizer with a rule takes besides torch's arguments."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import torch

from stepwell.optim.checked import Number


class Extras(TypedDict, total=False):
    """What every optimizer takes besides torch's arguments, in the constructor or in a group of its own.

    clip_norm: scales the gradients so that the norm of all of them is at most this, as
        torch.nn.utils.clip_grad_norm_ does. clip_value: limits each element. clip_adaptive: limits the
        norm of each unit's gradient to this share of the norm of its weights (Brock et al. 2021).
    decay: w ← w − η · decay · w before the rule (decoupled). decoupled: `weight_decay` acts as `decay`.
    l1: after the rule each weight moves towards 0 by η · l1 and stops there, so zeros are exact.
    max_norm: last of all, no unit's weights (a row, a filter) are longer than this; see `max_norm`.
    ema: keeps an average of the weights that retains this share at each update; see `averaged`.
    engine: "fused" is one pass over memory, "eager" the rule's own text on tensors; "auto" takes the
        first where it can. state_dtype: the type of the state, default that of the weights.
    stochastic_rounding: bfloat16 weights and state are rounded up or down by chance.
    """

    clip_norm: Number | None
    clip_value: Number | None
    clip_adaptive: Number | None
    decay: Number
    decoupled: bool
    l1: Number
    max_norm: Number | None
    ema: Number | None
    engine: Literal["auto", "fused", "eager"]
    state_dtype: torch.dtype | None
    stochastic_rounding: bool


GROUP_EXTRAS: dict[str, Any] = {
    "clip_norm": None,
    "clip_value": None,
    "clip_adaptive": None,
    "decay": 0.0,
    "decoupled": False,
    "l1": 0.0,
    "max_norm": None,
    "ema": None,
}
WHOLE_EXTRAS: dict[str, Any] = {"engine": "auto", "state_dtype": None, "stochastic_rounding": False}
