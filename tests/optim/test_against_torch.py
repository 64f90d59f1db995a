"""Every optimizer follows torch's trajectory, and the rules that torch lacks follow slow obvious code."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import stepwell.optim as ours
from stepwell.engine.eager import pack
from stepwell.errors import UserError

pytestmark = pytest.mark.usefixtures("float64_scalars")

# By name: the class in both libraries and its arguments, mild enough that no run magnifies rounding.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6}),
    "amsgrad": ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "amsgrad": True}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adagrad": ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.01, "eps": 1e-3}),
    "rmsprop": ("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 1e-3}),
    "rmsprop-centered": ("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 1e-3, "centered": True}),
    "rmsprop-momentum": ("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 1e-3, "momentum": 0.5}),
    "rmsprop-both": (
        "RMSprop",
        {"lr": 0.003, "alpha": 0.9, "eps": 1e-3, "centered": True, "momentum": 0.5},
    ),
    "adadelta": ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4}),
    # β2 so that the rectified form begins in mid-run.
    "radam": ("RAdam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3}),
    "nadam": ("NAdam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3, "momentum_decay": 0.1}),
    "adamax": ("Adamax", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3}),
    "asgd": ("ASGD", {"lr": 0.1, "lambd": 0.1, "t0": 5}),
    "rprop": ("Rprop", {"lr": 0.01, "etas": (0.4, 1.3), "step_sizes": (1e-3, 0.03)}),
}
PAIRS = {
    name: (partial(getattr(ours, kind), **given), partial(getattr(torch.optim, kind), **given))
    for name, (kind, given) in SETTINGS.items()
}
WITHOUT_DECAY = {"rprop"}  # torch's has no weight_decay
ENGINES = ["fused", "eager"]


def problem(seed=0, dtype=torch.float64):
    """A small net whose parameters have one, two and four dimensions, and a batch for each step."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 5)).to(dtype)
    return net, torch.randn(40, 7, 1, 6, 6, dtype=dtype), torch.randn(40, 7, 5, dtype=dtype)


def train(net, optimizer, xs, ys, start=0, skip=None, sign=1.0):
    for step, (x, y) in enumerate(zip(xs, ys, strict=True), start):
        optimizer.zero_grad()
        (sign * nn.functional.mse_loss(net(x), y)).backward()
        if skip is not None and step % 3 == 1:
            list(net.parameters())[skip].grad = None
        for group in optimizer.param_groups:
            group["lr"] *= 0.97
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("more", [{}, {"weight_decay": 0.03, "maximize": True}], ids=["plain", "decay"])
@pytest.mark.parametrize("name", PAIRS)
def test_trajectory_is_torchs(name, more, packed, engine):
    """Forty float64 steps with a changing rate end at torch's weights: packed or not, decayed, maximizing."""
    make, torchs = PAIRS[name]
    more = {
        key: value for key, value in more.items() if not (key == "weight_decay" and name in WITHOUT_DECAY)
    }
    (a, xs, ys), (b, _, _) = problem(), problem()
    if packed:
        pack(a.parameters())
    sign = -1.0 if more.get("maximize") else 1.0  # climbs what else it descends, so that runs stay finite
    one = train(a, make(a.parameters(), engine=engine, **more), xs, ys, sign=sign)
    two = train(b, torchs(b.parameters(), **more), xs, ys, sign=sign)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("first", [0, 1], ids=["from the start", "later"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_missing_gradient_leaves_the_parameter_alone_as_in_torch(name, first, engine):
    """A parameter without a gradient keeps its weight, its state and its own step count.

    Where the gradient is missing at the first step, what starts at the rate starts at a later one.
    """
    make, torchs = PAIRS[name]
    (a, xs, ys), (b, _, _) = problem(), problem()
    one = train(a, make(a.parameters(), engine=engine), xs, ys, start=1 - first, skip=1)
    two = train(b, torchs(b.parameters()), xs, ys, start=1 - first, skip=1)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


def test_decoupled_decay_is_adamw():
    """`decay` on Adam is torch's AdamW."""
    (a, xs, ys), (b, _, _) = problem(), problem()
    one = train(a, ours.Adam(a.parameters(), decay=0.1), xs, ys)
    two = train(b, torch.optim.AdamW(b.parameters(), weight_decay=0.1), xs, ys)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("direction", ["torch to ours", "ours to torch"])
def test_state_dict_moves_between_torch_and_us_in_mid_run(name, direction):
    """Twenty steps with one, the state loaded into the other, twenty more: torch's forty."""
    makes = PAIRS[name] if direction == "ours to torch" else PAIRS[name][::-1]
    (a, xs, ys), (b, _, _) = problem(), problem()
    first = makes[0](a.parameters())
    train(a, first, xs[:20], ys[:20])
    second = makes[1](a.parameters())
    second.load_state_dict(first.state_dict())
    moved = train(a, second, xs[20:], ys[20:])
    torch.testing.assert_close(
        moved, train(b, PAIRS[name][1](b.parameters()), xs, ys), rtol=1e-12, atol=1e-13
    )


def test_displacement_momentum_keeps_the_rate_of_each_step():
    """The displacement form follows its formula, and parts from the velocity form once the rate changes."""
    (a, xs, ys), (b, _, _), (c, _, _) = problem(), problem(), problem()
    one = train(a, ours.MomentumDisplacement(a.parameters(), lr=0.1, momentum=0.9), xs, ys)
    m, lr = [torch.zeros_like(p) for p in b.parameters()], 0.1
    for x, y in zip(xs, ys, strict=True):
        b.zero_grad()
        nn.functional.mse_loss(b(x), y).backward()
        lr *= 0.97
        with torch.no_grad():
            for i, p in enumerate(b.parameters()):
                assert p.grad is not None
                m[i] = 0.9 * m[i] - lr * p.grad
                p += m[i]
    slow = torch.cat([p.detach().reshape(-1) for p in b.parameters()])
    torch.testing.assert_close(one, slow, rtol=1e-12, atol=1e-13)
    velocity = train(c, ours.SGD(c.parameters(), lr=0.1, momentum=0.9), xs, ys)
    assert (one - velocity).abs().max() > 1e-3


def test_gradient_norm_is_torchs_and_gradients_stay():
    """The norm is that of all gradients, and the caller's gradients are never written to."""
    net, xs, ys = problem()
    optimizer = ours.Adam(
        [{"params": net[0].parameters()}, {"params": net[3].parameters(), "lr": 1e-4}], weight_decay=0.1
    )
    nn.functional.mse_loss(net(xs[0]), ys[0]).backward()
    before = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    optimizer.step()
    assert optimizer.gradient_norm is not None
    assert math.isclose(
        optimizer.gradient_norm.item(), torch.nn.utils.get_total_norm(before).item(), rel_tol=1e-12
    )
    after = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("adam", "bfloat16")]  # which torch's kernels round after each operation: others drift apart
    + [(n, s) for n in ("adam", "asgd", "nadam", "rprop") for s in ("strided", "tied", "scalar", "large")],
)
def test_odd_parameters(name, shape):
    """Strided, tied, 0-d, bfloat16 and large parameters are updated as torch does."""
    torch.manual_seed(0)
    kind = torch.bfloat16 if shape == "bfloat16" else torch.float64
    size = (300, 300) if shape == "large" else () if shape == "scalar" else (6, 4)
    start = torch.randn(size, dtype=kind)
    results = []
    for make in PAIRS[name]:
        p = start.clone().t() if shape == "strided" else start.clone()
        q = torch.ones(5, dtype=kind, requires_grad=True)
        p.requires_grad_()
        optimizer = make([p, q])
        for _ in range(10):
            optimizer.zero_grad()
            total = (p * p).sum() + (q**3).sum() / 10 + (p.sum() if shape == "tied" else 0)
            total.backward()
            optimizer.step()
        results.append(p.detach().double())
    tolerance = 2e-2 if shape == "bfloat16" else 1e-12
    torch.testing.assert_close(*results, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"lr": "0.1"},
        {"betas": (0.9,)},
        {"betas": (0.9, 1.0)},
        {"eps": -1e-8},
        {"weight_decay": -0.1},
        {"decay": math.nan},
        {"lr": True},
    ],
)
def test_a_hyperparameter_out_of_range_is_refused(wrong):
    """Each wrong value is named in the error, and no optimizer is made."""
    with pytest.raises(UserError, match=next(iter(wrong))):
        ours.Adam([torch.zeros(2, requires_grad=True)], **wrong)


def test_pack_keeps_values_and_lies_behind_one_another():
    """Packing moves parameters into one block, changes no value, and the model still trains in place."""
    net, xs, _ = problem()
    before = net(xs[0])
    pack(net.parameters())
    assert torch.equal(before, net(xs[0]))
    starts = [p.data_ptr() for p in net.parameters()]
    ends = [p.data_ptr() + p.numel() * p.element_size() for p in net.parameters()]
    assert starts[1:] == ends[:-1]


OVERFLOWS = {0, 1, 7, 20, 21, 22}


def train_scaled(
    net: nn.Module, optimizer: Any, xs, ys, unscale: bool, no_gradient: bool = False
) -> torch.Tensor:
    """Forty steps with a scaler; where step ∈ OVERFLOWS, one gradient is infinite."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5)  # type: ignore[attr-defined]
    for step, (x, y) in enumerate(zip(xs, ys, strict=True)):
        optimizer.zero_grad()
        scaler.scale(nn.functional.mse_loss(net(x), y)).backward()
        weights = list(net.parameters())
        if no_gradient and step % 3 == 1:
            weights[1].grad = None
        if step in OVERFLOWS:
            gradient = weights[0].grad
            assert gradient is not None
            gradient.view(-1)[5] = torch.inf
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("unscale", [True, False], ids=["unscaled before", "unscaled in the step"])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "apart"])
@pytest.mark.parametrize("name", PAIRS)
def test_skipped_updates_are_torchs(name, packed, unscale, engine):
    """Weights, state and step counts after six overflows are those of torch's optimizer, which waits."""
    make, torchs = PAIRS[name]
    decay = {} if name in WITHOUT_DECAY else {"weight_decay": 0.01}
    (a, xs, ys), (b, _, _) = problem(), problem()
    if packed:
        pack(a.parameters())
    one, two = make(a.parameters(), engine=engine, **decay), torchs(b.parameters(), **decay)
    found, expected = train_scaled(a, one, xs, ys, unscale), train_scaled(b, two, xs, ys, unscale)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        mine, torch_state = one.state[p], two.state[q]
        torch.testing.assert_close(
            {key: mine[key] for key in torch_state}, dict(torch_state), rtol=1e-9, atol=1e-10
        )
    assert one.engines()[0].steps == [40 - len(OVERFLOWS)] * 4


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PAIRS)
def test_a_missing_gradient_beside_an_overflow(name, engine):
    """A parameter without a gradient at some steps counts its own updates, skipped ones left out."""
    make, torchs = PAIRS[name]
    (a, xs, ys), (b, _, _) = problem(), problem()
    one, two = make(a.parameters(), engine=engine), torchs(b.parameters())
    found = train_scaled(a, one, xs, ys, unscale=True, no_gradient=True)
    expected = train_scaled(b, two, xs, ys, unscale=True, no_gradient=True)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_what_an_overflow_leaves():
    """`skipped` says so, the norm is 0 and not infinite, and state moved in mid-run keeps its count."""
    net, xs, ys = problem()
    optimizer = ours.Adam(net.parameters())
    train_scaled(net, optimizer, xs[:8], ys[:8], unscale=True)  # the last of these steps overflows
    assert optimizer.skipped is not None and bool(optimizer.skipped)
    assert optimizer.gradient_norm is not None and float(optimizer.gradient_norm) == 0.0
    net.float()
    train_scaled(net, optimizer, xs[2:3].float(), ys[2:3].float(), unscale=True)  # step 0 overflows again
    assert optimizer.engines()[0].steps == [8 - 3] * 4
