"""Schedule-free SGD, AdamW and RAdam."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor

from stepwell.errors import UserError
from stepwell.optim.extras import Extras, Number
from stepwell.optim.hyperparameters import number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules.schedule_free import SCHEDULE_FREE_ADAMW, SCHEDULE_FREE_RADAM, SCHEDULE_FREE_SGD


class ScheduleFree(RuleOptimizer):
    """What the three share: the parameters hold y in train mode and x in eval mode.

    Gradients belong to y; x, their average, is the model to evaluate and to use. A new optimizer is in
    train mode. `eval()` puts x in the parameters, `train()` puts y back, exactly as it was. In eval mode
    a step would start from the wrong weights, and a checkpoint would hold them: both are refused.

    >>> optimizer.eval()  # doctest: +SKIP
    >>> accuracy = evaluate(model)  # doctest: +SKIP
    >>> optimizer.train()  # doctest: +SKIP
    """

    interpolation: ClassVar[str]  # β by its name in the formula

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], extras: Mapping[str, Any]) -> None:
        self._trained: list[Tensor] | None = None  # y, kept in eval mode
        super().__init__(params, defaults, extras)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_trained": self._trained}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._trained = None  # a state that was saved is one of train mode
        super().__setstate__(state)

    @torch.no_grad()
    def eval(self) -> None:
        """Puts x in the parameters; in eval mode already, nothing."""
        if self._trained is not None:
            return
        pairs = [(p, group) for group in self.param_groups for p in group["params"]]
        self._trained = [p.detach().clone() for p, _ in pairs]
        for p, group in pairs:
            z = self.state.get(p, {}).get("z")
            if z is not None:  # else there was no step yet, and x is y
                beta = number(self._named(group)[self.interpolation])
                y = p.to(torch.promote_types(p.dtype, torch.float32))
                p.copy_(y + (1 - 1 / beta) * (z.to(y.dtype) - y))

    @torch.no_grad()
    def train(self) -> None:
        """Puts y back in the parameters; in train mode already, nothing."""
        if self._trained is not None:
            for p, y in zip((p for g in self.param_groups for p in g["params"]), self._trained, strict=True):
                p.copy_(y)
            self._trained = None

    def update(self) -> None:
        if self._trained is not None:
            raise UserError(
                "the weights are the averages x, where no gradient belongs: call optimizer.train() before "
                "the forward pass, and optimizer.eval() before evaluating"
            )
        super().update()

    def state_dict(self) -> dict[str, Any]:
        """As torch's, in train mode."""
        if self._trained is not None:
            raise UserError(
                "the weights are the averages x, from which training cannot go on: call optimizer.train() "
                "before saving model and optimizer to resume; to save the model for use, save it alone"
            )
        return super().state_dict()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if self._trained is not None:
            raise UserError("parameters can be added in train mode alone: call optimizer.train() before")
        super().add_param_group(param_group)

    def check_together(self, group: dict[str, Any]) -> None:
        values = {**group, **dict(zip(("beta1", "beta2"), group.get("betas", ()), strict=False))}
        if number(values[self.interpolation]) == 0:
            raise UserError(
                f"{self.interpolation}=0 cannot be used: with it y is z and the average x is lost; give a "
                "number above 0"
            )
        if group["max_norm"] is not None:
            raise UserError(
                f"max_norm={group['max_norm']!r} cannot be used with {type(self).__name__}, whose weights "
                "are not the point that it steps from: use weight_decay"
            )
        if group["l1"] is not None and number(group["l1"]) != 0:
            raise UserError(
                f"l1={group['l1']!r} cannot be used with {type(self).__name__}, whose average would have no "
                "zeros: use weight_decay"
            )

    def _named(self, values: dict[str, Any]) -> dict[str, Any]:
        decay = number(values["weight_decay"]) + number(values["decay"])
        return super()._named({**values, "weight_decay": decay})

    def _around(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return super()._around({**group, "weight_decay": 0.0, "decay": 0.0})


class ScheduleFreeSGD(ScheduleFree):
    """Schedule-free SGD: needs no falling rate; call `eval()` before evaluating and `train()` after.

    lr: η ≥ 0, larger than SGD's. momentum: β in (0, 1), how near y is to x; it must stay. weight_decay: adds
    weight_decay · y to the gradient, and so does `decay`. warmup_steps: in which η rises from 0. r and
    weight_lr_power: exponents of the average's weights, of the step and of the largest rate so far. maximize:
    climbs. See `Extras`; `l1` and `max_norm` are refused. torch.optim does not have it. Source: Defazio et
    al. 2024; arguments and defaults are those of the authors' `schedulefree`.
    """

    rules = (SCHEDULE_FREE_SGD,)
    interpolation = "momentum"

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1.0,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        warmup_steps: Number = 0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)


class ScheduleFreeAdamW(ScheduleFree):
    """Schedule-free AdamW: needs no falling rate; call `eval()` before evaluating and `train()` after.

    lr: η ≥ 0. betas: β1 in (0, 1), how near y is to x, and β2 in [0, 1); β1 must stay. eps: ε ≥ 0.
    weight_decay: decoupled, taken at y, and so is `decay`. warmup_steps: in which η rises from 0. r and
    weight_lr_power: exponents of the average's weights, of the step and of the largest rate so far. maximize:
    climbs. See `Extras`; `l1` and `max_norm` are refused. torch.optim does not have it. Source: Defazio et
    al. 2024, Algorithm 1; arguments and defaults are those of the authors' `schedulefree`.
    """

    rules = (SCHEDULE_FREE_ADAMW,)
    interpolation = "beta1"

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 2.5e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        warmup_steps: Number = 0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)


class ScheduleFreeRAdam(ScheduleFree):
    """Schedule-free RAdam, without warm-up or falling rate: call `eval()` before evaluating, `train()` after.

    lr: η ≥ 0. betas: β1 in (0, 1), how near y is to x, and β2 in [0, 1); β1 must stay. eps: ε ≥ 0.
    weight_decay: decoupled, taken at y, and so is `decay`. r and weight_lr_power: exponents of the average's
    weights, of the step and of the largest rate so far. silent_sgd_phase: in the first steps, while v's mean
    is too short, the weights stay; False makes them steps of SGD. maximize: climbs. See `Extras`; `l1` and
    `max_norm` are refused. torch.optim does not have it. Source: Defazio et al. 2024 and Liu et al. 2020;
    arguments and defaults are those of the authors' `schedulefree`.
    """

    rules = (SCHEDULE_FREE_RADAM,)
    interpolation = "beta1"

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 2.5e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        *,
        silent_sgd_phase: bool = True,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "silent_sgd_phase": silent_sgd_phase,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)
