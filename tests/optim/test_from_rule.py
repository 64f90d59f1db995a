"""A formula of one's own becomes an optimizer, and what is wrong with it is said in a sentence."""

import copy
import inspect
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import stepwell as sw
from stepwell.engine.program import trace
from stepwell.errors import UserError
from stepwell.optim import Adam, from_rule
from stepwell.rules import Rule, State
from stepwell.rules.adam import ADAM
from stepwell.rules.words import debias, mean_square, moment, norm, select


def sign_momentum(w, g, m, *, t, lr, beta):
    """m ← β m + (1−β) g; w ← w − η sign(m)"""
    m = beta * m + (1 - beta) * g
    return w - lr * m.sign(), m


def users_adam(w, g, m, v, *, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v = moment(m, g, beta1), mean_square(v, g, beta2)
    return w - lr * debias(m, beta1, t) / (debias(v, beta2, t).sqrt() + eps), m, v


def normalized(w, g, m, *, t, lr, beta):
    """A rule that looks at the whole tensor."""
    m = moment(m, g, beta)
    return w - lr * m / (norm(m) + 1e-8), m


def run(make, steps=30, dtype=torch.float64):
    """The weights after `steps` on three parameters, the rate changing, one gradient missing now and then."""
    torch.manual_seed(0)
    parameters = [torch.randn(shape, dtype=dtype).requires_grad_() for shape in ((3, 4), (5,), ())]
    optimizer = make(parameters)
    for k in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1.5 + math.cos(k))
        for i, p in enumerate(parameters):
            p.grad = None if (k + i) % 7 == 6 else torch.sin(2 * p.detach() + k)
        optimizer.step()
    return [p.detach() for p in parameters]


def by_hand(formula, steps=30):
    """The same in NumPy: formula(w, g, m, lr) → (w, m)."""
    torch.manual_seed(0)
    weights = [torch.randn(shape, dtype=torch.float64).numpy() for shape in ((3, 4), (5,), ())]
    states = [np.zeros_like(w) for w in weights]
    for k in range(steps):
        for i in range(3):
            if (k + i) % 7 != 6:
                g = np.sin(2 * weights[i] + k)
                weights[i], states[i] = formula(weights[i], g, states[i], 0.02 * (1.5 + math.cos(k)))
    return weights


@pytest.mark.parametrize("engine", ["eager", "fused", "auto"])
def test_a_users_sign_sgd_with_momentum(engine):
    """30 steps equal the formula in NumPy, on each engine."""

    def formula(w, g, m, lr):
        m = 0.8 * m + 0.2 * g
        return w - lr * np.sign(m), m

    kind = from_rule(sign_momentum, lr=1e-3, beta=0.8)
    assert kind.__name__ == "SignMomentum" and kind.rules[0].elementwise
    for ours, theirs in zip(run(lambda p: kind(p, engine=engine)), by_hand(formula), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_a_users_adam_is_ours_to_the_last_bit(engine, dtype):
    """Made from a function and from our own rule, with every extra, each engine gives Adam's bits."""
    extras = {"clip_norm": 0.5, "decay": 0.1, "l1": 1e-3, "ema": 0.9, "weight_decay": 0.01, "maximize": True}
    ours = run(lambda p: Adam(p, engine=engine, **extras), dtype=dtype)
    for rule in (users_adam, ADAM):
        kind = from_rule(rule)
        theirs = run(lambda p, kind=kind: kind(p, engine=engine, **extras), dtype=dtype)
        assert all(map(torch.equal, ours, theirs))


def test_a_rule_that_cannot_be_traced_runs_eagerly_and_right():
    """A norm of the whole tensor: said once, when the class is made, and every tensor has its own norm."""

    def formula(w, g, m, lr):
        m = 0.7 * m + 0.3 * g
        return w - lr * m / (np.linalg.norm(m) + 1e-8), m

    with pytest.warns(RuntimeWarning, match=r"normalized runs on the eager engine alone: .*norm"):
        kind = from_rule(normalized, lr=0.1, beta=0.7)
    assert not kind.rules[0].elementwise
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = run(kind)
    for a, b in zip(ours, by_hand(formula), strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-12)


def test_an_if_on_the_step_runs_eagerly_and_right():
    """Python's own `if` has no trace; the reason names the word that has one."""

    def late(w, g, m, *, t, lr):
        return (w - lr * g if t > 3 else w - 0.5 * lr * g), g + m

    with pytest.warns(RuntimeWarning, match="select"):
        kind = from_rule(late, lr=0.1)

    def with_word(w, g, m, *, t, lr):
        return w - select(t > 3, 1.0, 0.5) * lr * g, g + m

    other = from_rule(with_word, lr=0.1)
    assert other.rules[0].elementwise
    for a, b in zip(run(kind), run(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_a_rule_that_traces_to_other_numbers_runs_eagerly():
    """What the fused engine would compute is compared with the formula's own numbers before it is used."""

    def two_faced(w, g, *, t, lr):
        return (w - lr * (2.0 if isinstance(w, torch.Tensor) else 1.0) * g,)

    trace(Rule("two_faced", two_faced, defaults={"lr": 0.1}))
    with pytest.warns(RuntimeWarning, match="other numbers"):
        kind = from_rule(two_faced, lr=0.1)
    p = torch.zeros(1, requires_grad=True)
    p.grad = torch.ones(1)
    kind([p]).step()
    assert p.item() == pytest.approx(-0.2)


def test_hyperparameters_are_schedules_groups_and_checked():
    """Each is a keyword with its default, of a group of its own, a schedule, and refused if not finite."""
    kind = from_rule(sign_momentum, lr=1e-3, beta=0.9)
    assert list(inspect.signature(kind).parameters)[:3] == ["params", "lr", "beta"]
    a, b = (torch.zeros(2, requires_grad=True) for _ in range(2))
    optimizer = kind([{"params": [a]}, {"params": [b], "beta": -3.0}], beta=lambda step: 0.1 * step)
    for p in (a, b):
        p.grad = torch.ones(2)
    optimizer.step()
    optimizer.step()
    assert optimizer.hyperparameters() == {"lr": 1e-3, "beta": 0.1}
    assert optimizer.hyperparameters(1) == {"lr": 1e-3, "beta": -3.0}
    for wrong in (math.nan, math.inf, "0.1", True):
        with pytest.raises(UserError, match=r"^beta="):
            kind([a], beta=wrong)
    with pytest.raises(UserError, match=r"^lr="):
        kind([a], lr=-1.0)
    with pytest.raises(UserError, match=r"SignMomentum has no argument bet; did you mean beta"):
        kind([a], bet=0.5)


def test_copies_and_state_go_on():
    """A deep copy, and a new optimizer with the state_dict, make the next step as the first does."""
    kind = from_rule(sign_momentum, lr=1e-2, beta=0.9)
    p = torch.zeros(3, requires_grad=True)
    optimizer = kind([p])
    for k in range(3):
        p.grad = torch.tensor([1.0, -1.0, math.cos(k)])
        optimizer.step()
    q, copied = copy.deepcopy((p, optimizer))
    r = p.detach().clone().requires_grad_()
    loaded = kind([r])
    loaded.load_state_dict(optimizer.state_dict())
    for x, own in ((p, optimizer), (q, copied), (r, loaded)):
        x.grad = torch.tensor([-5.0, 0.1, 3.0])
        own.step()
    assert torch.equal(p, q) and torch.equal(p, r)
    assert set(optimizer.state[p]) == {"step", "m"}


def test_defaults_of_a_rule_can_be_replaced():
    """from_rule(RULE, name=value); sums and scalars of the state work as in our own rules."""
    kind = from_rule(ADAM, lr=0.5)
    assert kind([torch.zeros(1, requires_grad=True)]).hyperparameters()["lr"] == 0.5
    with pytest.raises(UserError, match=r"adam has no hyperparameter beta; did you mean beta"):
        from_rule(ADAM, beta=0.5)

    def one_length(w, g, n, *, t, lr, sums):
        return w - lr * g / (sums[0].sqrt() if hasattr(sums[0], "sqrt") else sums[0] ** 0.5), n + 1

    rule = Rule(
        "one-length",
        one_length,
        (State("n", scalar=True),),
        {"lr": 0.1},
        sums=lambda w, g, n, *, t, lr: (g * g,),
    )
    kind = from_rule(rule)
    assert kind.__name__ == "OneLength" and kind.rules[0].elementwise
    a, b = (torch.zeros(2, requires_grad=True) for _ in range(2))
    a.grad, b.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    kind([a, b]).step()
    torch.testing.assert_close(torch.stack([a, b]).detach(), torch.tensor([[-0.06, 0.0], [0.0, -0.08]]))


def stateful():
    calls = []

    def counting(w, g, *, t, lr):
        calls.append(1)
        return (w - lr * len(calls) * g,)

    return counting


def scaled(w, g, *, t, lr, gain):
    return (w - lr * gain * g,)


anything: Any = from_rule  # its type hints refuse some of these too

WRONG = {
    "no rule": (lambda: anything(3), r"3 is no rule: give a Rule, or a function such as def my_rule\(w"),
    "a name": (lambda: anything("adam"), "'adam' is no rule"),
    "no signature": (lambda: anything(dict, lr=1.0), "dict tells no arguments: wrap it"),
    "star arguments": (lambda: anything(lambda *a, t, lr: a, lr=1.0), r"takes \*a: name each argument"),
    "double star": (lambda: anything(lambda w, g, *, t, **h: (w,), lr=1.0), r"takes \*\*h: name each"),
    "only w": (lambda: anything(lambda w, *, t, lr: (w,), lr=1.0), "takes no weight and gradient"),
    "no t": (lambda: anything(lambda w, g, *, lr: (w,), lr=1.0), "takes no t, the number of the update"),
    "t too early": (lambda: anything(lambda w, g, t, *, lr: (w,), lr=1.0), "takes t before the star"),
    "lr too early": (lambda: anything(lambda w, g, lr, *, t: (w,), lr=1.0), "takes lr before the star"),
    "state with a default": (
        lambda: anything(lambda w, g, m=0, *, t, lr: (w, m), lr=1.0),
        "gives m=0 a default, but state starts at 0",
    ),
    "no lr": (lambda: anything(lambda w, g, *, t, rate: (w,), rate=1.0), "has no hyperparameter lr"),
    "no default": (
        lambda: anything(scaled, lr=1.0),
        r"no default for gain: write from_rule\(scaled, gain=…\)",
    ),
    "misspelt": (lambda: anything(scaled, lr=1.0, gian=1.0), "no hyperparameter gian; did you mean gain"),
    "an extra's name": (
        lambda: anything(lambda w, g, *, t, lr, l1: (w,), lr=1.0, l1=0.0),
        "l1 cannot be a name in own_rule",
    ),
    "a pair's name": (lambda: anything(lambda w, g, *, t, lr, betas: (w,), lr=1.0, betas=1), "betas cannot"),
    "sums": (lambda: anything(lambda w, g, *, t, lr, sums: (w,), lr=1.0, sums=1.0), "sums cannot be"),
    "the step's name": (lambda: anything(lambda w, g, step, *, t, lr: (w, step), lr=1.0), "step cannot be"),
    "text": (lambda: anything(scaled, lr="0.1", gain=1.0), "lr='0.1' cannot be a default of scaled"),
    "nan": (lambda: anything(scaled, lr=0.1, gain=math.nan), "gain=nan cannot be a default"),
    "no tuple": (
        lambda: anything(lambda w, g, *, t, lr: w, lr=1.0),
        r"a Tensor in place of a tuple: return \(w,\)",
    ),
    "too few": (
        lambda: anything(lambda w, g, m, *, t, lr: (w,), lr=1.0),
        r"returns 1 values in place of 2: return \(w, m\)",
    ),
    "a number": (lambda: anything(lambda w, g, m, *, t, lr: (w, 0.0), lr=1.0), "returns a float as m"),
    "another shape": (
        lambda: anything(lambda w, g, m, *, t, lr: (w, m.sum(0)), lr=1.0),
        r"returns m of shape \(4,\) for one of \(3, 4\)",
    ),
    "it fails": (lambda: anything(lambda w, g, *, t, lr: (w @ g,), lr=1.0), "fails on a weight of shape"),
    "in place": (
        lambda: anything(lambda w, g, m, *, t, lr: (w, m.add_(g)), lr=1.0),
        "changes its argument m in place: make a new tensor",
    ),
    "the gradient in place": (
        lambda: anything(lambda w, g, *, t, lr: (w - g.mul_(lr),), lr=1.0),
        "changes its argument g in place",
    ),
    "random": (
        lambda: anything(lambda w, g, *, t, lr: (w - lr * torch.randn_like(g),), lr=1.0),
        "gives two results for the same arguments",
    ),
    "memory of its own": (lambda: anything(stateful(), lr=1.0), "counting gives two results"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_a_sentence(case):
    """Nothing is made of a formula that would train wrongly."""
    make, sentence = WRONG[case]
    with pytest.raises(UserError, match=sentence) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_it_is_in_the_library():
    """`sw.optim.from_rule` is the function."""
    assert sw.optim.from_rule is from_rule


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_state_that_starts_in_another_layout(engine):
    """An expanded or transposed start is laid out as the weight is; one of another shape is refused."""
    w = torch.arange(6, dtype=torch.float64).view(2, 3).t().requires_grad_()
    starts = {
        "expanded": lambda p: torch.zeros(1, dtype=p.dtype).expand(p.shape),
        "contiguous": lambda p: p.clone(memory_format=torch.contiguous_format) * 0,
        "whole numbers": lambda p: torch.zeros(p.shape, dtype=torch.int64),
    }
    for start in starts.values():

        def averaging(w, g, m, *, t, lr):
            m = 0.5 * m + g
            return w - lr * m, m

        kind = from_rule(Rule("averaging", averaging, (State("m", start),), {"lr": 0.1}))
        v = w.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        optimizer = kind([v], engine=engine)
        for _ in range(3):
            v.grad = torch.ones(3, 2, dtype=torch.float64)
            optimizer.step()
        torch.testing.assert_close(v.detach(), w.detach() - 0.1 * (1 + 1.5 + 1.75))
    short = Rule("averaging", averaging, (State("m", lambda p: torch.zeros(1)),), {"lr": 0.1})
    with pytest.raises(UserError, match="m starts with shape"):
        from_rule(short)


@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_a_scalar_that_starts_from_the_weight(engine):
    """It is kept in float64, whatever the function gives."""

    def counting(w, g, n, *, t, lr):
        return w - lr * n * g, n + 1

    kind = from_rule(Rule("counting", counting, (State("n", lambda p: p.sum(), scalar=True),), {"lr": 0.1}))
    w = torch.ones(4, requires_grad=True)  # n starts at 4
    optimizer = kind([w], engine=engine)
    for _ in range(3):
        w.grad = torch.ones(4)
        optimizer.step()
    assert float(optimizer.state[w]["n"]) == 7 and optimizer.state[w]["n"].dtype == torch.float64
    torch.testing.assert_close(w.detach(), torch.full((4,), 1 - 0.1 * (4 + 5 + 6)))


def test_an_optimizer_of_a_rule_can_be_pickled():
    """Where its class stands under its own name in its module."""
    optimizer = PickledRule([torch.ones(2, requires_grad=True)], lr=0.3)
    again = pickle.loads(pickle.dumps(optimizer))
    assert type(again) is PickledRule and again.hyperparameters() == {"lr": 0.3}


def pickled_rule(w, g, *, t, lr):
    """w ← w − η g"""
    return (w - lr * g,)


PickledRule = from_rule(pickled_rule, lr=0.1)
