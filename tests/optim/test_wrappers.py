"""SAM, Lookahead and gradient centralization: their formulas, and one table of wrappers × bases × laws."""

import copy
import io
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stepwell.optim as ours
from stepwell.errors import UserError
from stepwell.optim.wrapper import Wrapper

BASES: dict[str, Any] = {
    "torch.SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "torch.Adam": lambda p: torch.optim.Adam(p, lr=0.02, weight_decay=0.1),
    "SGD": lambda p: ours.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "AdamW": lambda p: ours.AdamW(p, lr=0.02, clip_norm=1.0, ema=0.9),
    "MomentumDisplacement": lambda p: ours.MomentumDisplacement(p, lr=lambda t: 0.1 / (1 + t)),
    "LAMB": lambda p: ours.LAMB(p, lr=0.05),
    "SOAP": lambda p: ours.SOAP(p, lr=0.05, precondition_frequency=2),
}
WRAPPERS: dict[str, Any] = {
    "SAM": lambda base: ours.SAM(base, rho=0.3),
    "ASAM": lambda base: ours.SAM(base, rho=0.5, adaptive=True),
    "Lookahead": lambda base: ours.Lookahead(base, k=3, alpha=0.6),
    "GradientCentralization": lambda base: ours.GradientCentralization(base),
    "Lookahead of SAM": lambda base: ours.Lookahead(ours.SAM(base, rho=0.3), k=3),
    "SAM of centralized": lambda base: ours.SAM(ours.GradientCentralization(base), rho=0.3),
}
WRAPPERS_AND_BASES = pytest.mark.parametrize(
    ("wrap", "make"),
    [pytest.param(w, b, id=f"{name} of {base}") for name, w in WRAPPERS.items() for base, b in BASES.items()],
)


def problem() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2), nn.Conv1d(1, 2, 2)).double()


def groups(net):
    return [{"params": list(net[0].parameters())}, {"params": [*net[2].parameters(), *net[3].parameters()]}]


def loss(net, step):
    x = torch.from_numpy(np.random.default_rng(step).standard_normal((6, 4)))
    return (net(x.float().double()[:, None, :]) - 0.3).square().mean()


def backward(net, step, without=None):
    loss(net, step).backward()
    if without is not None and step % 3 == 1:
        list(net.parameters())[without].grad = None


def layers(optimizer):
    """The wrappers from the outermost to the innermost, then the base."""
    while isinstance(optimizer, Wrapper):
        yield optimizer
        optimizer = optimizer.base
    yield optimizer


def halves(net, optimizer, step, without=None):
    """A step without closure, as the parts between which a run may be cut."""
    sam = [layer for layer in layers(optimizer) if isinstance(layer, ours.SAM)]

    def ascend():
        optimizer.zero_grad()
        backward(net, step, without)
        sam[0].ascend()

    def descend():
        optimizer.zero_grad()
        backward(net, step, without)
        optimizer.step()

    return [ascend, descend] if sam else [descend]


def run(net, optimizer, start, end, without=None):
    """Goes from one part to another, of those that steps 0, 1, … have."""
    parts = [part for step in range(12) for part in halves(net, optimizer, step, without)]
    for part in parts[start:end]:
        part()
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def same(one, two):
    """Whether two states are the same, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def test_the_table_has_every_wrapper():
    """A new wrapper is tested once it is there."""
    made = {layer for w in WRAPPERS.values() for layer in layers(w(torch.optim.SGD([torch.ones(1)])))}
    assert {type(layer) for layer in made if isinstance(layer, Wrapper)} == set(Wrapper.__subclasses__())


@WRAPPERS_AND_BASES
def test_state_dict_round_trips_in_mid_cycle(wrap, make):
    """Cut after any number of half-steps, saved to a file and loaded: the same state and the same end."""
    whole = problem()
    end = run(whole, wrap(make(groups(whole))), 0, 11)
    for cut in range(9):
        net = problem()
        optimizer = wrap(make(groups(net)))
        run(net, optimizer, 0, cut)
        file = io.BytesIO()
        torch.save([net.state_dict(), optimizer.state_dict()], file)
        file.seek(0)
        weights, state = torch.load(file, weights_only=True)
        other = problem()
        loaded = wrap(make(groups(other)))
        other.load_state_dict(weights)
        loaded.load_state_dict(state)
        state, kept = loaded.state_dict(), optimizer.state_dict()
        for group in state["param_groups"]:  # torch's own load_state_dict adds it
            group.pop("differentiable", None)
        for group in kept["param_groups"]:
            group.pop("differentiable", None)
        assert same(state, kept)
        assert torch.equal(run(other, loaded, cut, 11), end)
        assert torch.equal(run(net, optimizer, cut, 11), end)


@WRAPPERS_AND_BASES
@pytest.mark.parametrize("again", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on_identically_and_on_their_own(wrap, make, again):
    """(model, optimizer) copied in mid-cycle: both end at the uninterrupted run's weights."""
    if make is BASES["MomentumDisplacement"] and again is not copy.deepcopy:
        pytest.skip("a schedule written as a lambda cannot be pickled")
    whole, net = problem(), problem()
    end = run(whole, wrap(make(groups(whole))), 0, 11)
    optimizer = wrap(make(groups(net)))
    run(net, optimizer, 0, 4)
    net2, optimizer2 = again((net, optimizer))
    assert torch.equal(run(net2, optimizer2, 4, 11), end)
    assert torch.equal(run(net, optimizer, 4, 11), end)


@WRAPPERS_AND_BASES
def test_a_closure_makes_the_same_steps(wrap, make):
    """step(closure) is the loop without closure, and returns the loss at the weights before."""
    net, other = problem(), problem()
    by_hand, optimizer = wrap(make(groups(net))), wrap(make(groups(other)))
    for step in range(6):

        def closure(step=step):
            optimizer.zero_grad()
            value = loss(other, step)
            value.backward()
            return value

        expected = loss(other, step)
        assert torch.equal(optimizer.step(closure), expected)
    parts = 2 if any(isinstance(layer, ours.SAM) for layer in layers(by_hand)) else 1
    assert torch.equal(
        run(net, by_hand, 0, 6 * parts), torch.cat([p.detach().reshape(-1) for p in other.parameters()])
    )


@WRAPPERS_AND_BASES
def test_missing_gradients_and_frozen_parameters(wrap, make):
    """A parameter without a gradient stays for that step, one that never has one stays for good."""
    net = problem()
    net[2].bias.requires_grad_(False)
    frozen = net[2].bias.detach().clone()
    optimizer = wrap(make(groups(net)))
    first = net[0].weight.detach().clone()
    run(net, optimizer, 0, 10, without=1)
    assert torch.equal(net[2].bias, frozen) and not torch.equal(net[0].weight, first)
    assert all(torch.isfinite(p).all() for p in net.parameters())
    assert not same(run(problem(), wrap(make(groups(problem()))), 0, 0), first)


@WRAPPERS_AND_BASES
def test_groups_defaults_and_state_are_the_bases(wrap, make):
    """A rate set in the wrapper's group acts, a group added to it is trained, zero_grad clears."""
    net = problem()
    base = make(groups(net)[:1])
    optimizer = wrap(base)
    assert isinstance(optimizer, torch.optim.Optimizer)
    optimizer.add_param_group({**groups(net)[1], "lr": 0.0})
    kept = net[2].weight.detach().clone()
    run(net, optimizer, 0, 6)
    innermost = list(layers(optimizer))[-1]
    assert optimizer.param_groups is innermost.param_groups and len(optimizer.param_groups) == 2
    assert optimizer.defaults is innermost.defaults
    assert {*optimizer.state} == {*innermost.state}
    torch.testing.assert_close(net[2].weight.detach(), kept, rtol=1e-12, atol=1e-12)
    optimizer.zero_grad()
    assert all(p.grad is None for p in net.parameters())


@WRAPPERS_AND_BASES
def test_hooks_and_schedulers(wrap, make):
    """Hooks run once a step and once a state_dict; torch's schedulers change the base's rate, no warning."""
    net = problem()
    optimizer, seen = wrap(make(groups(net))), []
    if not callable(optimizer.defaults["lr"]):
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "note": 7})
    optimizer.register_load_state_dict_pre_hook(lambda _, state: seen.append(state["note"]))
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    rate = optimizer.param_groups[0]["lr"]
    run(net, optimizer, 0, 2 if len(halves(net, optimizer, 0)) == 2 else 1)
    assert seen == ["before", "after"]
    if not callable(optimizer.defaults["lr"]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            schedule.step()
        assert optimizer.param_groups[0]["lr"] == rate / 2
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen[2:] == [7, "loaded"]


# -- formulas, against slow NumPy ----------------------------------------------------------------------


def gradient(step, w):
    """Of a loss that is not quadratic, other at each step; the weights are one matrix and one vector."""
    rng = np.random.default_rng(step)
    return [np.cos(part + step) + 0.2 * rng.standard_normal(part.shape) * part for part in w]


def set_gradients(parameters, step):
    for p, g in zip(parameters, gradient(step, [p.detach().numpy() for p in parameters]), strict=True):
        p.grad = torch.from_numpy(g)


def weights():
    rng = np.random.default_rng(3)
    return [rng.standard_normal((3, 4)), rng.standard_normal(4)]


@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_is_the_papers(adaptive):
    """Thirty steps of w ← w − η ∇f(w + e), e = ρ g/‖g‖ or ρ w² g/‖w g‖ over all parameters at once."""
    rho, w = 0.4, weights()
    parameters = [torch.tensor(part, requires_grad=True) for part in w]
    optimizer = ours.SAM(torch.optim.SGD(parameters, lr=0.05), rho, adaptive)
    for step in range(30):
        g = gradient(step, w)
        scaled = [abs(a) * b for a, b in zip(w, g, strict=True)] if adaptive else g
        length = np.sqrt(sum((part**2).sum() for part in scaled))
        e = [rho * (a**2 * b if adaptive else b) / (length + 1e-12) for a, b in zip(w, g, strict=True)]
        second = gradient(step, [a + b for a, b in zip(w, e, strict=True)])
        w = [a - 0.05 * b for a, b in zip(w, second, strict=True)]
        set_gradients(parameters, step)
        optimizer.ascend()
        set_gradients(parameters, step)
        optimizer.descend()
        for p, part in zip(parameters, w, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), part, rtol=1e-12, atol=1e-12)


def test_sam_without_radius_is_the_base():
    """ρ = 0: bit for bit the base's own run."""
    net, other = problem(), problem()
    expected = run(net, BASES["torch.Adam"](groups(net)), 0, 6)
    assert torch.equal(run(other, ours.SAM(BASES["torch.Adam"](groups(other)), rho=0.0), 0, 12), expected)


def test_sam_refuses_halves_out_of_order():
    """ascend twice, descend first, and step without a closure are sentences, and weights stay."""
    net = problem()
    optimizer = ours.SAM(torch.optim.SGD(net.parameters(), lr=0.1))
    for wrong in (optimizer.descend, optimizer.step):
        with pytest.raises(UserError, match="give step a closure, or call ascend"):
            wrong()
    backward(net, 0)
    optimizer.ascend()
    with pytest.raises(UserError, match="call descend"):
        optimizer.ascend()


def test_sam_interrupted_inside_a_closure_puts_the_weights_back():
    """An exception in the second evaluation leaves w as it was, and the optimizer ready to go on."""
    net, calls = problem(), []
    optimizer = ours.SAM(torch.optim.SGD(net.parameters(), lr=0.1))
    before = [p.detach().clone() for p in net.parameters()]

    def closure():
        optimizer.zero_grad()
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        value = loss(net, 0)
        value.backward()
        return value

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    optimizer.step(closure)


def test_sam_clears_gradients_between_its_two_evaluations():
    """A closure that leaves clearing to the loop makes the same step as one that clears."""
    ends = []
    for clears in (True, False):
        net = problem()
        optimizer = ours.SAM(torch.optim.SGD(net.parameters(), lr=0.1), rho=0.3)

        def closure(net=net, optimizer=optimizer, clears=clears):
            if clears:
                optimizer.zero_grad()
            loss(net, 0).backward()

        optimizer.step(closure)
        ends.append([p.detach() for p in net.parameters()])
    assert same(*ends)


@WRAPPERS_AND_BASES
def test_a_loaded_state_is_not_written_to(wrap, make):
    """One state loaded twice makes the same run twice."""
    net = problem()
    optimizer = wrap(make(groups(net)))
    run(net, optimizer, 0, 5)
    weights, state = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    before = copy.deepcopy(state.get("lookahead"))
    for _ in range(2):
        other = problem()
        other.load_state_dict(weights)
        loaded = wrap(make(groups(other)))
        loaded.load_state_dict(state)
        run(other, loaded, 5, 9)
        assert same(state.get("lookahead"), before)


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (3, 0.8), (5, 0.5), (4, 0.0), (4, 1.0)])
def test_lookahead_is_the_papers(k, alpha):
    """Thirty steps: k steps of momentum, then φ ← φ + α (θ − φ), θ ← φ, the momentum going on."""
    fast = weights()
    parameters = [torch.tensor(part, requires_grad=True) for part in fast]
    optimizer = ours.Lookahead(torch.optim.SGD(parameters, lr=0.05, momentum=0.9), k, alpha)
    slow, velocity = [part.copy() for part in fast], [np.zeros_like(part) for part in fast]
    for step in range(30):
        velocity = [0.9 * v + g for v, g in zip(velocity, gradient(step, fast), strict=True)]
        fast = [a - 0.05 * v for a, v in zip(fast, velocity, strict=True)]
        if (step + 1) % k == 0:
            slow = [a + alpha * (b - a) for a, b in zip(slow, fast, strict=True)]
            fast = [part.copy() for part in slow]
        set_gradients(parameters, step)
        optimizer.step()
        for p, part in zip(parameters, fast, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), part, rtol=1e-12, atol=1e-12)


def test_centralized_units_have_mean_zero():
    """Rows of matrices and whole filters lose their mean; vectors and scalars stay; nothing is changed."""
    rng = np.random.default_rng(0)
    for shape in [(3, 4), (3, 2, 5, 5), (4,), ()]:
        g = torch.from_numpy(np.asarray(rng.standard_normal(shape)))
        before, found = g.clone(), ours.centralized(g)
        expected = before.numpy().copy()
        if len(shape) > 1:
            for unit in expected:
                unit -= unit.sum() / unit.size
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-14)
        assert torch.equal(g, before)


def test_gradient_centralization_keeps_each_units_sum_and_the_gradients():
    """With plain SGD the sum of a unit's weights stays; p.grad is the caller's own tensor afterwards."""
    net = problem()
    optimizer = ours.GradientCentralization(torch.optim.SGD(net.parameters(), lr=0.5))
    sums = net[0].weight.detach().sum(1), net[3].weight.detach().sum((1, 2))
    for step in range(5):
        optimizer.zero_grad()
        backward(net, step)
        before = [(p.grad, p.grad.clone()) for p in net.parameters() if p.grad is not None]
        optimizer.step()
        for p, (gradient_, values) in zip(net.parameters(), before, strict=True):
            assert p.grad is gradient_ and torch.equal(gradient_, values)
    torch.testing.assert_close(net[0].weight.detach().sum(1), sums[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net[3].weight.detach().sum((1, 2)), sums[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["Lookahead", "GradientCentralization"])
def test_a_base_that_evaluates_many_times(kind):
    """LBFGS calls its closure often: α = 1 is plain LBFGS, and centralizing is so inside the closure."""
    ends = []
    for wrapped in (True, False):
        p = torch.tensor([[3.0, -1.0], [0.5, 2.0]], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([p], max_iter=4, line_search_fn="strong_wolfe")
        if wrapped and kind == "Lookahead":
            optimizer = ours.Lookahead(optimizer, k=2, alpha=1.0)
        elif wrapped:
            optimizer = ours.GradientCentralization(optimizer)

        def closure(p=p, optimizer=optimizer, by_hand=not wrapped):
            optimizer.zero_grad()
            value = (p - 1).pow(4).sum() + (p - p.new_tensor([2.0, 5.0])).square().sum()
            value.backward()
            if by_hand and kind == "GradientCentralization":
                assert p.grad is not None
                p.grad -= p.grad.mean(1, keepdim=True)
            return value

        for _ in range(6):
            optimizer.step(closure)
        ends.append(p.detach())
    assert torch.equal(*ends)


def test_lookahead_follows_a_model_that_moved():
    """Weights that went to float32 in mid-cycle keep their slow ones."""
    net = problem()
    optimizer = ours.Lookahead(torch.optim.SGD(net.parameters(), lr=0.1), k=2, alpha=0.5)
    start = net[0].weight.detach().clone()
    optimizer.step()
    net.float()
    with torch.no_grad():
        net[0].weight.add_(1.0)
    optimizer.step()
    torch.testing.assert_close(net[0].weight.detach(), (start + 0.5).float())


@pytest.mark.parametrize("wrap", [ours.SAM, ours.Lookahead])
def test_the_state_of_the_base_alone_is_refused(wrap):
    """What the wrapper keeps would be lost, so it is said; the base takes that state."""
    net = problem()
    base = torch.optim.Adam(net.parameters())
    optimizer = wrap(base)
    with pytest.raises(UserError, match="this state has no"):
        optimizer.load_state_dict(base.state_dict())
    optimizer.base.load_state_dict(base.state_dict())


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("SAM", {"base_optimizer": [torch.ones(2)]}, "^SAM wraps an optimizer, not list: give SAM"),
        ("SAM", {"rho": -0.1}, "^rho=-0.1 cannot be used"),
        ("SAM", {"rho": float("nan")}, "^rho=nan"),
        ("SAM", {"rho": torch.optim.SGD}, "^rho="),
        ("Lookahead", {"k": 0}, "^k=0"),
        ("Lookahead", {"k": 2.5}, "^k=2.5"),
        ("Lookahead", {"alpha": 1.5}, "^alpha=1.5"),
        ("GradientCentralization", {"base": torch.optim.SGD}, "^GradientCentralization wraps an optimizer"),
    ],
)
def test_what_is_wrong_is_refused(kind, wrong, said):
    """Each in a sentence that says what to give."""
    base = torch.optim.SGD([torch.ones(2, requires_grad=True)])
    with pytest.raises(UserError, match=said):
        getattr(ours, kind)(**{"base_optimizer" if kind == "SAM" else "base": base, **wrong})


@pytest.mark.parametrize("wrap", [ours.Lookahead, ours.SAM, ours.GradientCentralization])
def test_what_only_the_base_has_is_reached(wrap):
    """Averages and today's hyperparameters are the base's; what neither has is an AttributeError."""
    w = torch.ones(3, requires_grad=True)
    optimizer = wrap(ours.SGD([w], lr=0.25, ema=0.5))
    optimizer.step(lambda: w.square().sum().backward())
    assert optimizer.hyperparameters() == {"lr": 0.25}
    now = w.detach().clone()
    with optimizer.averaged():
        assert not torch.equal(w, now)
    assert torch.equal(w, now) and not hasattr(optimizer, "nonsense")
