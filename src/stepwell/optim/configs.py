"""The recipe's `optimizer` section: one row a name, its keys taken from the class's own arguments."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WrapValidator, create_model

from stepwell import optim
from stepwell.errors import UserError
from stepwell.optim.hyperparameters import ABOVE_0, ABOVE_1, RANGES
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.optim.schedule_free import ScheduleFree


@dataclass(frozen=True)
class Choice:
    """What a name in a recipe means.

    kind: the optimizer class. fixed: arguments that the name stands for. defaults: where the recipe's
    default is not the class's. own_decay: weight decay is part of the formula or decoupled, so that it is
    a key of the section and the coupled `regularize.l2` has no place.
    """

    kind: type
    title: str
    fixed: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, float] = field(default_factory=dict)
    own_decay: bool = False


CHOICES: dict[str, Choice] = {
    "sgd": Choice(
        optim.SGD, "Stochastic gradient descent.", {"momentum": 0.0, "dampening": 0.0}, {"lr": 0.1}
    ),
    "momentum": Choice(optim.SGD, "Momentum, velocity form.", {}, {"lr": 0.01, "momentum": 0.9}),
    "momentum-displacement": Choice(
        optim.MomentumDisplacement, "Momentum, displacement form.", {}, {"lr": 0.01}
    ),
    "nesterov": Choice(
        optim.SGD, "Nesterov's momentum.", {"nesterov": True, "dampening": 0.0}, {"lr": 0.01, "momentum": 0.9}
    ),
    "nesterov-classic": Choice(
        optim.NesterovClassic, "Nesterov's momentum in the lectures' form.", {}, {"lr": 0.01}
    ),
    "adagrad": Choice(optim.Adagrad, "Adagrad, ε outside the root."),
    "adagrad-inside": Choice(optim.Adagrad, "Adagrad, ε inside the root.", {"eps_inside": True}),
    "rms": Choice(optim.RMS, "Root mean square of all gradients."),
    "rmsprop": Choice(optim.RMSprop, "RMSprop."),
    "adadelta": Choice(optim.Adadelta, "Adadelta."),
    "adam": Choice(optim.Adam, "Adam."),
    "adam-uncorrected": Choice(optim.Adam, "Adam without bias correction.", {"bias_correction": False}),
    "adam-inside": Choice(optim.Adam, "Adam with ε inside the root.", {"eps_inside": True}),
    "amsgrad": Choice(optim.Adam, "AMSGrad.", {"amsgrad": True}),
    "adamw": Choice(optim.AdamW, "AdamW.", own_decay=True),
    "radam": Choice(optim.RAdam, "RAdam."),
    "nadam": Choice(optim.NAdam, "NAdam."),
    "adamax": Choice(optim.Adamax, "Adamax."),
    "adam-then-sgd": Choice(optim.AdamThenSGD, "Adam that becomes SGD (SWATS)."),
    "asgd": Choice(optim.ASGD, "Averaged SGD."),
    "rprop": Choice(optim.Rprop, "Rprop.", own_decay=True),
    "lion": Choice(optim.Lion, "Lion.", own_decay=True),
    "ademamix": Choice(optim.AdEMAMix, "AdEMAMix.", own_decay=True),
    "adan": Choice(optim.Adan, "Adan.", own_decay=True),
    "prodigy": Choice(optim.Prodigy, "Prodigy.", own_decay=True),
    "schedule-free-sgd": Choice(optim.ScheduleFreeSGD, "Schedule-free SGD.", {}, {"lr": 0.1}, True),
    "schedule-free-adamw": Choice(optim.ScheduleFreeAdamW, "Schedule-free AdamW.", own_decay=True),
    "schedule-free-radam": Choice(optim.ScheduleFreeRAdam, "Schedule-free RAdam.", own_decay=True),
    "lamb": Choice(optim.LAMB, "LAMB.", own_decay=True),
    "lars": Choice(optim.LARS, "LARS.", own_decay=True),
    "adafactor": Choice(optim.Adafactor, "Adafactor.", own_decay=True),
    "muon": Choice(optim.MuonWithAdamW, "Muon, and AdamW for vectors.", {}, {}, True),
    "shampoo": Choice(optim.Shampoo, "Shampoo."),
    "soap": Choice(optim.SOAP, "SOAP.", own_decay=True),
    "lbfgs": Choice(optim.LBFGS, "L-BFGS.", {"line_search_fn": "strong_wolfe"}),
    "newton": Choice(optim.Newton, "Newton's method."),
    "saddle-free-newton": Choice(optim.SaddleFreeNewton, "Saddle-free Newton."),
    "negative-curvature": Choice(optim.NegativeCurvature, "Gradient descent, and out of saddles."),
}

# Arguments that are no keys: they choose torch's kernels, climb, or are other names of a recipe.
NO_KEYS = {
    *("foreach", "fused", "capturable", "maximize", "differentiable", "decoupled_weight_decay", "seed"),
    *("amsgrad", "nesterov", "bias_correction", "eps_inside", "line_search_fn", "decouple", "no_prox"),
    *("precondition_1d", "adjust_lr_fn", "ns_coefficients", "growth_rate"),
}

AUTO = "auto"  # in the place of a learning rate: what a range test finds

# Optimizers whose steps do not follow a rising rate, so that no range test can say anything of it.
OWN_RATE = {
    "rprop": "whose rate is only the length of its first step",
    "prodigy": "which finds the rate itself, its lr=1 being a factor of that",
    "lbfgs": "which finds the length of each step by a line search",
    "newton": "whose whole step is lr=1",
    "saddle-free-newton": "whose whole step is lr=1",
}

EXTRAS = ("clip_norm", "clip_value", "clip_adaptive")  # keys of every optimizer that is made from a rule


HELP = {
    "lr": "learning rate η, reached after warm-up (auto: what a range test finds, see stepwell find-lr)",
    "momentum": "share of the last step that is kept, ρ",
    "dampening": "share of each gradient that is left out of the velocity, τ",
    "beta1": "decay of the mean of gradients, β1",
    "beta2": "decay of the mean of squared gradients, β2",
    "beta3": "decay of the third mean, β3 (default: what the rule says)",
    "eps": "added to the denominator, ε",
    "eps1": "added to squared gradients, ε1 (default: the type's precision)",
    "eps2": "least size of a weight tensor that its rate is relative to, ε2",
    "alpha": "weight of a slow mean, or decay of a moving mean, α",
    "centered": "divide by the standard deviation instead of the root mean square",
    "rho": "decay of the moving means, ρ",
    "lr_decay": "η is divided by 1 + lr_decay · (t − 1)",
    "initial_accumulator_value": "what the sum of squares starts at",
    "lambd": "decay of the weights in ASGD, λ",
    "t0": "update after which ASGD averages the weights",
    "momentum_decay": "how fast NAdam's momentum grows to β1",
    "eta_minus": "what a step shrinks by when its gradient turns, η⁻",
    "eta_plus": "what a step grows by while its gradient does not turn, η⁺",
    "size_min": "smallest step",
    "size_max": "largest step",
    "beta2_decay": "exponent of the share of the past, τ",
    "d": "largest root mean square of an update",
    "weight_decay": "weight decay as the rule has it, λ",
    "alpha_warmup": "updates over which α rises (default: none)",
    "beta3_warmup": "updates over which β3 rises (default: none)",
    "threshold": "how near two estimates of SGD's rate must be for the switch",
    "d0": "first estimate of the distance to the solution",
    "d_coef": "factor of the estimated rate",
    "use_bias_correction": "correct the means' bias",
    "safeguard_warmup": "leave the rate out of the estimate, for long warm-ups",
    "warmup_steps": "updates of a linear rise inside the rule",
    "r": "power of t in the weights of the average",
    "weight_lr_power": "power of the largest rate in the weights of the average",
    "silent_sgd_phase": "make no step before the variance of the squares is known",
    "trust_coefficient": "length of an update relative to its weights, κ",
    "ns_steps": "iterations of Newton–Schulz",
    "shampoo_beta": "decay of the products of gradients (default −1: β2)",
    "precondition_frequency": "updates between two decompositions",
    "max_precond_dim": "longest dimension that has a whole matrix",
    "max_iter": "iterations of L-BFGS on a batch",
    "max_eval": "most losses computed on a batch (default: 1.25 max_iter)",
    "tolerance_grad": "end of the iterations: largest gradient",
    "tolerance_change": "end of the iterations: change of loss or weights",
    "history_size": "past steps that L-BFGS keeps",
    "damping": "λ, added to the Hessian's diagonal",
    "solver": "how the system is solved: direct up to 2,000 weights, cg by products, or auto",
    "iterations": "most iterations of conjugate gradients",
    "tolerance": "end of conjugate gradients: residual (default: Nocedal & Wright's)",
    "search": "halve a step that does not lower the loss",
    "k": "Lanczos vectors (default: all up to 2,000 weights)",
    "small": "gradient norm below which a way out of a saddle is looked for",
    "length": "length of the step out of a saddle",
    "steps": "Lanczos steps for the smallest eigenvalue",
    "clip_norm": "largest norm of the gradients (default: none)",
    "clip_value": "largest size of a gradient's element (default: none)",
    "clip_adaptive": "largest norm of a unit's gradient relative to its weights' (default: none)",
}


def _keys(choice: Choice) -> dict[str, tuple[Any, Any]]:
    """The section's keys → (default, range), from the signature of the class."""
    keys: dict[str, tuple[Any, Any]] = {}
    spread = getattr(choice.kind, "spread", {})
    ranges = {**RANGES, **getattr(choice.kind, "ranges", {})}
    for name, parameter in inspect.signature(choice.kind).parameters.items():
        value = choice.defaults.get(name, parameter.default)
        skipped = name in NO_KEYS or name in choice.fixed or value is parameter.empty
        if skipped or (name == "weight_decay" and not choice.own_decay):
            continue
        if isinstance(value, tuple):
            bounds = ranges[name] if isinstance(ranges[name][0], tuple) else (ranges[name],) * len(value)
            keys |= {part: pair for part, *pair in zip(spread[name], value, bounds, strict=True)}  # type: ignore[misc]
        else:
            keys[name] = (value, ranges.get(name))
    if issubclass(choice.kind, RuleOptimizer):
        keys |= {name: (None, ranges[name]) for name in EXTRAS}
    return keys


def _field(name: str, default: Any, bounds: Any) -> tuple[Any, Any]:
    """A pydantic field of a key: type, bounds and one line of help."""
    limits: dict[str, Any] = {}
    if isinstance(default, str):
        return Literal["auto", "direct", "cg"], Field(default, description=HELP[name])
    if isinstance(default, bool):
        return bool, Field(default, description=HELP[name])
    if bounds is not None:
        low, high = bounds[:2]
        if low in (ABOVE_0, ABOVE_1):
            limits["gt"] = 0 if low == ABOVE_0 else 1
        elif low > -1e300:
            limits["ge"] = low
        if high == ABOVE_0:
            limits["le"] = 0
        elif high < math.inf:
            limits["lt"] = high
    whole = isinstance(default, int) or name in ("max_eval", "k")
    if not whole and not (isinstance(default, float) and math.isinf(default)):
        limits["allow_inf_nan"] = False
    kind: Any = int if whole else float
    if whole and not limits:
        limits["ge"] = 1
    return (kind | None if default is None else kind), Field(default, description=HELP[name], **limits)


def _auto_or_number(name: str) -> WrapValidator:
    """Lets `auto` pass where a range test can find the rate; all else must be what the field says."""

    def check(value: Any, number: Callable[[Any], Any]) -> Any:
        if value != AUTO:
            return number(value)
        if name in OWN_RATE:
            raise ValueError(f"auto is not for {name}, {OWN_RATE[name]}: leave it out")
        return value

    return WrapValidator(check)


def _config(name: str, choice: Choice) -> type[BaseModel]:
    fields: dict[str, Any] = {"name": (Literal[name], name)}  # type: ignore[valid-type]
    fields |= {key: _field(key, *about) for key, about in _keys(choice).items()}
    number, about = fields["lr"]
    fields["lr"] = (Annotated[number, _auto_or_number(name)], about)
    config = ConfigDict(extra="forbid")
    return create_model(f"{choice.kind.__name__}Config", __doc__=choice.title, __config__=config, **fields)


OPTIMIZERS: dict[str, type[BaseModel]] = {name: _config(name, choice) for name, choice in CHOICES.items()}


def momentum_of(config: BaseModel) -> float:
    """The momentum, or β1, that a recipe's optimizer has; 0 where it has none or it must stay."""
    choice, values = CHOICES[config.name], config.model_dump()  # type: ignore[attr-defined]
    if issubclass(choice.kind, ScheduleFree):
        return 0.0
    return values.get("momentum", values.get("beta1")) or 0.0


def build(config: BaseModel, params: Iterable[Any], regularize: Any, averaging: bool = False) -> Any:
    """Makes the optimizer that a recipe names.

    regularize: the recipe's section; l2 is coupled, decay decoupled weight decay, l1 the proximal step after
    the update, max_norm the bound after that. averaging: keep an average of the weights, which is the weights
    themselves as long as `ema` is 0. Raises UserError where the rule has no place for one of them.
    """
    values: dict[str, Any] = config.model_dump()
    name = values.pop("name")
    choice = CHOICES[name]
    for argument, parts in getattr(choice.kind, "spread", {}).items():
        if parts[0] in values:
            values[argument] = tuple(values.pop(part) for part in parts)
    l2, decay, l1 = regularize.l2, regularize.decay, regularize.l1
    given = {
        **{f"regularize.{key}": getattr(regularize, key) for key in ("l2", "decay", "l1", "max_norm")},
        "training.average": averaging,
    }
    if not issubclass(choice.kind, RuleOptimizer):
        for key, value in given.items():
            if value:
                raise UserError(
                    f"{key} has no effect with optimizer={name}, which minimizes the loss as it is"
                )
        return choice.kind(params, **choice.fixed, **values)
    if choice.own_decay and l2:
        raise UserError(
            f"regularize.l2 has no effect with optimizer={name}, whose weight decay is its own: "
            "use regularize.decay"
        )
    extras: dict[str, Any] = {"decay": decay, "l1": l1} | ({} if choice.own_decay else {"weight_decay": l2})
    # A class refuses what it cannot do, so what is off is not mentioned.
    extras = {key: value for key, value in extras.items() if value}
    if regularize.max_norm is not None:
        extras["max_norm"] = regularize.max_norm
    if averaging:
        if issubclass(choice.kind, ScheduleFree):
            raise UserError(
                f"training.average has no effect with optimizer={name}, which averages the weights itself"
            )
        extras["ema"] = 0.0
    kind: Any = choice.kind
    if not all(rule.elementwise for rule in kind.rules):
        extras["engine"] = "eager"  # there is no other for it, which need not be said
    return kind(params, **choice.fixed, **values, **extras)
