"""The second-order optimizers behave as torch's do between their steps, and refuse what is not theirs."""

import copy
import math

import pytest
import torch
from small_nets import problem
from test_newton import parameter

import stepwell.optim as ours
from stepwell.errors import UserError

MAKES = {
    "newton": lambda p, **h: ours.Newton(p, **{"lr": 0.5, "damping": 0.1, "search": False, **h}),
    "newton-cg": lambda p, **h: ours.Newton(p, **{"lr": 0.5, "damping": 0.1, "solver": "cg", **h}),
    "saddle-free": lambda p, **h: ours.SaddleFreeNewton(p, **{"lr": 0.5, "damping": 0.1, **h}),
    "krylov": lambda p, **h: ours.SaddleFreeNewton(p, **{"lr": 0.5, "damping": 0.1, "k": 5, **h}),
    "negative": lambda p, **h: ours.NegativeCurvature(p, **{"lr": 0.1, "small": 9.0, "steps": 4, **h}),
}
every = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


def weights(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


@every
def test_state_dict_round_trip_is_bitwise(make):
    """Saved, loaded into a new one and into a deep copy after 2 of 4 updates: the same bits at the end."""
    whole, closure, *_ = problem("rnn")
    optimizer = make(whole.parameters())
    for _ in range(4):
        optimizer.step(closure)
    net, closure, *_ = problem("rnn")
    first = make(net.parameters())
    for _ in range(2):
        first.step(closure)
    copied, copied_optimizer = copy.deepcopy((net, first))
    second = make(net.parameters(), lr=0.0)
    second.load_state_dict(first.state_dict())
    x, y = problem("rnn")[2:]
    for model, opt in ((net, second), (copied, copied_optimizer)):
        for _ in range(2):
            opt.step(lambda model=model: torch.nn.functional.cross_entropy(model(x), y))
        assert torch.equal(weights(model), weights(whole))
        assert opt.products == optimizer.products > 0 and opt.updates == 4


@every
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(make, wrong):
    """Weights, state and counts are bit for bit what they were, and the next update goes on as if not."""
    net, closure, *_ = problem("rnn")
    optimizer = make(net.parameters())
    optimizer.step(closure)
    before, state = weights(net), copy.deepcopy(optimizer.state_dict())
    for bad in (lambda: closure() * wrong, lambda: closure() + wrong):
        with pytest.raises(UserError, match="the loss is"):
            optimizer.step(bad)
    assert torch.equal(weights(net), before) and optimizer.state_dict() == state
    optimizer.step(closure)
    assert optimizer.updates == 2


@every
def test_gradient_and_step_that_are_not_finite_change_nothing(make):
    """√|w| at 0 has a loss but no gradient; a rate of 1e308 has no finite step."""
    w = parameter(0.0, 1.0)
    with pytest.raises(UserError, match="not finite"):
        make([w]).step(lambda: w.abs().sqrt().sum())
    w = parameter(30.0, 20.0)
    with pytest.raises(UserError, match="step is not finite, so nothing was changed"):
        make([w], lr=1e308).step(lambda: (w**2).sum())
    assert w.tolist() == [30.0, 20.0]


@every
def test_a_frozen_parameter_and_p_grad_are_left_alone(make):
    """What does not require a gradient stays, and p.grad is neither read nor written."""
    w, frozen = parameter(1.0, 2.0), torch.ones(2, dtype=torch.float64)
    w.grad = torch.full_like(w, 7.0)
    optimizer = make([frozen, w])
    optimizer.step(lambda: ((w * frozen) ** 2).sum() + w[0] * w[1])
    assert torch.equal(frozen, torch.ones(2)) and torch.equal(w.grad, torch.full_like(w, 7.0))
    assert not torch.equal(w.detach(), parameter(1.0, 2.0).detach())


@every
def test_groups_have_their_own_rates(make):
    """A group with lr=0 stays while the other moves as it does with both; all share the damping."""
    net, closure, *_ = problem("rnn")
    both, closure2, *_ = problem("rnn")
    make(net.parameters(), lr=0.25, **({"small": 0.0} if make is MAKES["negative"] else {})).step(closure)
    one, two = list(both.parameters())[:4], list(both.parameters())[4:]
    groups = [{"params": one, "lr": 0.0}, {"params": two}]
    make(groups, lr=0.25, **({"small": 0.0} if make is MAKES["negative"] else {})).step(closure2)
    start = problem("rnn")[0]
    for i, (p, q, s) in enumerate(zip(net.parameters(), both.parameters(), start.parameters(), strict=True)):
        assert torch.equal(q, s if i < 4 else p)
    name = "small" if make is MAKES["negative"] else "damping"
    wrong = make([{"params": one, name: 0.5}, {"params": two}])
    with pytest.raises(UserError, match=f"groups differ in {name}"):
        wrong.step(closure2)


@every
def test_a_rate_can_be_a_schedule_or_torchs_scheduler(make):
    """lr = t ↦ 0.2/(1+t) equals the values set by hand and by torch's LambdaLR, bit for bit."""

    def rate(t):
        return 0.2 / (1 + t)

    ends = []
    for way in ("schedule", "hand", "torch"):
        net, closure, *_ = problem("softmax")
        optimizer = make(net.parameters(), lr=rate if way == "schedule" else 0.2)
        follow = (
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t)) if way == "torch" else None
        )
        for t in range(4):
            if way == "hand":
                optimizer.param_groups[0]["lr"] = rate(t)
            optimizer.step(closure)
            if follow:
                follow.step()
        ends.append(weights(net))
    assert torch.equal(ends[0], ends[1])
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-12, atol=0)


@every
def test_what_is_refused(make):
    """No closure, complex parameters, a sharded or sparse gradient, wrong values: a sentence each."""
    w = parameter(1.0, 2.0)
    with pytest.raises(UserError, match="needs a closure"):
        make([w]).step()
    with pytest.raises(UserError, match="complex"):
        make([torch.ones(2, dtype=torch.complex64, requires_grad=True)])
    with pytest.raises(UserError, match="no parameters"):
        make([torch.ones(2)]).step(lambda: (w**2).sum())
    embedding = torch.nn.Embedding(3, 2, sparse=True)
    with pytest.raises(UserError, match="sparse"):
        make(embedding.parameters()).step(lambda: embedding(torch.tensor([1])).square().sum())
    for lr in (math.nan, math.inf, -1.0, "0.1", True):
        with pytest.raises(UserError, match="lr="):
            make([w], lr=lr)
    optimizer = make([w])
    optimizer.param_groups[0]["lr"] = -1.0
    with pytest.raises(UserError, match="lr="):
        optimizer.step(lambda: (w**2).sum())
    assert w.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (ours.Newton, {"solver": "lu"}),
        (ours.Newton, {"iterations": 0}),
        (ours.Newton, {"search": 1}),
        (ours.Newton, {"tolerance": 1.0}),
        (ours.Newton, {"damping": -0.1}),
        (ours.SaddleFreeNewton, {"k": 0}),
        (ours.SaddleFreeNewton, {"k": 2.0}),
        (ours.SaddleFreeNewton, {"damping": math.inf}),
    ],
)
def test_values_out_of_range(kind, wrong):
    """The sentence names the argument, in the constructor and from a state_dict."""
    w = parameter(1.0)
    with pytest.raises(UserError, match=next(iter(wrong))):
        kind([w], **wrong)
    state = kind([w]).state_dict()
    state["param_groups"][0].update(wrong)
    with pytest.raises(UserError, match=next(iter(wrong))):
        kind([w]).load_state_dict(state)


@every
def test_float32_and_bfloat16(make):
    """Float32 follows float64 to its own precision over five updates; bfloat16 goes the same way."""
    ends = []
    for kind in (torch.float64, torch.float32, torch.bfloat16):
        w = torch.tensor([0.5, -0.75, 1.25], dtype=kind, requires_grad=True)
        optimizer = make([w])
        for _ in range(5):
            optimizer.step(lambda w=w: (w.double().cosh() * torch.tensor([1.0, 2.0, 3.0])).sum())
        assert w.dtype == kind
        ends.append(w.detach().double())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ends[2], ends[0], rtol=0.1, atol=0.05)


def test_the_rate_is_not_rounded_to_the_weights_type():
    """A bfloat16 weight of 0 moves to −η g rounded once; with η rounded first it would be another number."""
    w, eta, g = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True), 0.3, 7.0
    assert (torch.tensor(eta).bfloat16().float() * g).bfloat16() != torch.tensor(eta * g).bfloat16()
    ours.NegativeCurvature([w], lr=eta).step(lambda: (w.float() * g).sum())
    assert torch.equal(w.detach(), torch.tensor([-eta * g]).bfloat16())


@every
def test_hooks_and_hyperparameters(make):
    """torch's step hooks run, the closure runs with gradients on, and today's values are told."""
    w, seen = parameter(1.0, 2.0), []
    optimizer = make([w])
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    with torch.no_grad():
        loss = optimizer.step(lambda: (w**2).sum())
    assert seen == ["before", "after"] and float(loss) == 5.0 and not loss.requires_grad
    assert optimizer.gradient_norm is not None
    assert float(optimizer.gradient_norm) == pytest.approx(math.sqrt(20))
    assert optimizer.hyperparameters()["lr"] == optimizer.param_groups[0]["lr"]
