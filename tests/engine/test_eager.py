"""The engine updates the parameters wherever they lie, also after they were moved."""

import pytest
import torch

from stepwell.engine.eager import Eager, pack
from stepwell.engine.sums import add_up
from stepwell.engine.text import Folded
from stepwell.errors import UserError
from stepwell.rules import RULES

RATES = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


def parameters(sizes, packed=False):
    torch.manual_seed(0)
    made = [torch.randn(size, requires_grad=True) for size in sizes]
    if packed:
        pack(made)
    return made


def steps(engine, count):
    rates = {name: RATES.get(name, 0.5) for name in engine.rule.defaults}
    for _ in range(count):
        for p in engine.parameters:
            p.grad = p.detach().sin()
        engine.follow()
        gradients = [p.grad for p in engine.parameters]
        sums = ()
        if engine.rule.sums is not None:
            lists = (engine.parameters, gradients, engine.state, engine.steps)
            sums = tuple(add_up(engine.rule, *lists, rates, Folded()))
        engine.step(gradients, {**rates, "sums": sums} if sums else rates)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sizes", [[(4,)], [(2, 3), (3,), (5, 1)]], ids=["one", "three"])
def test_moved_parameters_are_still_updated(rule, packed, sizes):
    """A copy of the weights put in by `p.data = …` in mid-run changes nothing in the trajectory."""
    stayed, moved = (Eager(rule, parameters(sizes, packed)) for _ in range(2))
    state = [value for values in moved.state for value in values.values()]
    for _ in range(3):
        steps(stayed, 2)
        steps(moved, 2)
        for p in moved.parameters:
            p.data = p.data.clone()
    for a, b in zip(stayed.parameters, moved.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    now = [value for values in moved.state for value in values.values()]
    assert all(a is b for a, b in zip(state, now, strict=True))


@pytest.mark.parametrize("members", [[0], [0, 1, 2]], ids=["one of three", "all"])
def test_state_follows_to_another_dtype(members):
    """After a move to float64 the state is float64 too, and the trajectory goes on."""
    stayed, moved = (Eager(RULES["adam"], parameters([(2, 3), (3,), (5, 1)], True)) for _ in range(2))
    steps(stayed, 6)
    steps(moved, 3)
    for i in members:
        moved.parameters[i].grad = None
        moved.parameters[i].data = moved.parameters[i].data.double()
    steps(moved, 3)
    for i, (a, b) in enumerate(zip(stayed.parameters, moved.parameters, strict=True)):
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-6)
        assert moved.state[i]["exp_avg"].dtype == b.dtype


def test_another_shape_is_refused():
    """State that does not fit the new shape is an error that names the parameter, at every step."""
    engine = Eager(RULES["adam"], parameters([(2, 3), (3,)]))
    steps(engine, 1)
    engine.parameters[1].data = torch.zeros(4)
    for _ in range(2):
        with pytest.raises(UserError, match="parameter 1"):
            steps(engine, 1)
