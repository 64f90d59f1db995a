"""torch's own table of optimizer configurations and errors, held against ours.

Classes are found: what is in `torch.testing._internal.common_optimizers.optim_db` and in `stepwell.optim`.
"""

import inspect
import warnings
from typing import Any

import pytest
import torch
from optimizer_classes import CHECKED
from torch import Tensor
from torch.testing._internal.common_optimizers import OptimizerErrorEnum, OptimizerInfo, optim_db

import stepwell.optim as ours
from stepwell.errors import UserError
from stepwell.optim.hyperparameters import RANGES
from stepwell.optim.optimizer import RuleOptimizer

TABLE: dict[str, OptimizerInfo] = {info.name: info for info in optim_db if info.name in ours.__all__}


def engines(name: str) -> list[str]:
    """Which engines a class has a choice of: sparse gradients have their own, L-BFGS has none."""
    is_rule = issubclass(getattr(ours, name), RuleOptimizer)
    return ["eager", "fused"] if is_rule and not TABLE[name].only_supports_sparse_grads else [""]


CONFIGS = [
    pytest.param(name, given.kwargs, engine, id=f"{name}: {given.desc} {engine}")
    for name, info in TABLE.items()
    for given in info.optim_inputs_func(device="cpu", dtype=torch.float64)
    for engine in engines(name)
]
ERRORS = [
    pytest.param(name, error, id=f"{name}: {error.optimizer_error_input.desc}")
    for name, info in TABLE.items()
    if info.optim_error_inputs_func
    for error in info.optim_error_inputs_func(device="cpu", dtype=torch.float64)
]
STEPS = 25


def parameters(name: str) -> list[Tensor]:
    """Matrices alone for the classes that take nothing else, else also a vector and a number."""
    torch.manual_seed(0)
    shapes = [(4, 6), (2, 4)] if name == "Muon" else [(4, 6), (4,), (2, 4), ()]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def loss_of(weights: list[Tensor], step: int) -> Tensor:
    """A sum of terms of each weight alone and of neighbours, whose gradients turn their signs at times."""
    flat = torch.cat([w.reshape(-1) for w in weights])
    phase = torch.arange(len(flat), dtype=torch.float64) + step
    return (
        (flat.square() * (2 + phase.cos())).sum() / 4
        + (flat[1:] * flat[:-1]).sin().sum()
        + phase.sin() @ flat
    )


def convex_loss_of(weights: list[Tensor], step: int) -> Tensor:
    """For L-BFGS, whose full steps would magnify rounding on the other."""
    flat = torch.cat([w.reshape(-1) for w in weights])
    phase = torch.arange(len(flat), dtype=torch.float64) + step
    return (flat.square() * (2 + phase.cos())).sum() / 4 + flat.cosh().log().sum() + phase.sin() @ flat


def train(optimizer: Any, weights: list[Tensor], steps: int = STEPS, sparse: bool = False) -> Tensor:
    """Steps with a falling rate and, where there are several weights, a gradient that is missing at times."""
    closed = isinstance(optimizer, (torch.optim.LBFGS, ours.LBFGS))
    for step in range(steps):

        def closure(step: int = step) -> Tensor:
            optimizer.zero_grad()
            loss = (convex_loss_of if closed else loss_of)(weights, step // 5)
            loss.backward()
            for w in weights:
                if sparse and w.dim() and w.grad is not None:
                    rows = torch.arange(step % 2, len(w), 2)
                    w.grad = torch.sparse_coo_tensor(
                        rows[None], w.grad[rows], w.shape, check_invariants=False
                    )
            return loss

        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 0.97
        if closed:
            optimizer.step(closure)
            continue
        closure()
        if step % 4 == 1:
            weights[-1].grad = None
        optimizer.step()
    return torch.cat([w.detach().reshape(-1) for w in weights])


def torchs(name: str, weights: list[Tensor], given: dict[str, Any]) -> torch.optim.Optimizer:
    make = getattr(torch.optim, name)
    forloop = {"foreach": False} if "foreach" in inspect.signature(make).parameters else {}
    return make(weights, **forloop, **given)


@pytest.mark.usefixtures("float64_scalars")
@pytest.mark.parametrize(("name", "given", "engine"), CONFIGS)
def test_every_configuration_gives_torchs_trajectory(name, given, engine):
    """25 float64 steps with a changing rate and missing gradients end where torch's for-loop ends."""
    sparse = TABLE[name].only_supports_sparse_grads
    # With a float32 rate torch computes some step lengths in float32.
    given = {key: v.double() if isinstance(v, Tensor) else v for key, v in given.items()}
    a, b, start = (parameters(name)[: 3 if sparse else None] for _ in range(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a rule of whole tensors runs eagerly
        mine = getattr(ours, name)(a, **given, **({"engine": engine} if engine else {}))
        found, expected = train(mine, a, sparse=sparse), train(torchs(name, b, given), b, sparse=sparse)
    if engine:
        used = {type(e).__name__ for e in mine.engines()}
        assert used == {"Fused" if engine == "fused" and mine.engines()[0].rule.elementwise else "Eager"}
    tolerance = 1e-9 if name == "LBFGS" else 1e-12
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert (expected - torch.cat([w.detach().reshape(-1) for w in start])).abs().max() > 1e-4


@pytest.mark.parametrize(("name", "error"), ERRORS)
def test_every_error_is_raised_and_named(name, error):
    """torch's exception type, and a sentence that names the argument with its value."""
    given = error.optimizer_error_input
    weights = given.params if given.params is not None else [torch.ones(1, 1, requires_grad=True)]

    def run() -> None:
        optimizer = getattr(ours, name)(weights, **given.kwargs)
        if error.error_on is OptimizerErrorEnum.STEP_ERROR:
            optimizer.step()

    if issubclass(error.error_type, Warning):
        with pytest.warns(error.error_type, match=error.error_regex):
            run()
        return
    with pytest.raises(error.error_type) as raised:
        run()
    message = str(raised.value)
    if given.kwargs:
        assert isinstance(raised.value, UserError)
        assert any(f"{argument}={value!r}" in message for argument, value in given.kwargs.items())
    elif isinstance(raised.value, UserError):  # else torch's own base class has raised it
        assert name in message


NUMBERS = [
    pytest.param(name, argument, id=f"{name} {argument}")
    for name in CHECKED
    for argument in inspect.signature(getattr(ours, name)).parameters
    if argument in RANGES
]
EXTRAS = ["decay", "l1", "ema", "max_norm", "clip_norm", "clip_value", "clip_adaptive"]


def makes(name: str, **given: Any) -> Any:
    return getattr(ours, name)(parameters("Muon"), **given)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), "0.1", True], ids=str)
@pytest.mark.parametrize(("name", "argument"), NUMBERS)
def test_no_class_takes_what_is_no_number(name, argument, wrong):
    """NaN, infinity, text and truth values are refused for every hyperparameter, also inside a tuple."""
    default = inspect.signature(getattr(ours, name)).parameters[argument].default
    values = [wrong]
    if isinstance(default, tuple):
        values = [wrong, (), default[:-1], (*default[:-1], wrong), (wrong, *default[1:]), (*default, 0.5)]
    for value in values:
        with pytest.raises(UserError, match=f"^{argument}="):
            makes(name, **{argument: value})


@pytest.mark.parametrize("name", CHECKED)
def test_every_class_refuses_unknown_arguments_and_wrong_extras(name):
    """A misspelt keyword is refused, and each extra takes only numbers in its range, or is refused whole."""
    with pytest.raises(UserError, match=f"^{name} has no argument learning_rate"):
        makes(name, learning_rate=0.1)
    for extra in EXTRAS:
        for wrong in (float("nan"), -0.5, "0.1", True):
            with pytest.raises(UserError, match=extra):
                makes(name, **{extra: wrong})
