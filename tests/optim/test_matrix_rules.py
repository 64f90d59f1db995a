"""LAMB, LARS, Shampoo and SOAP follow their papers' algorithms, written slowly in NumPy float64."""

import copy
import math

import numpy as np
import pytest
import torch

import stepwell.optim as ours
from stepwell.errors import UserError

STEPS = 40


def gradient(step, w):
    """A gradient that depends on the weight, with noise of the step's own."""
    return np.sin(w) + 0.3 * np.random.default_rng(step).standard_normal(w.shape)


def starts(shape, count=1):
    rng = np.random.default_rng(7)
    return [rng.standard_normal(shape) for _ in range(count)]


def train(optimizer, parameters, start=0, end=STEPS, missing=False):
    for step in range(start, end):
        for p in parameters:
            p.grad = torch.from_numpy(np.asarray(gradient(step, p.detach().double().numpy()))).to(p.dtype)
            if missing and step % 3 == 1:
                p.grad = None
        for group in optimizer.param_groups:
            group["lr"] *= 0.98
        optimizer.step()


def ours_from(start, make, missing=False, dtype=torch.float64):
    p = torch.tensor(start, dtype=dtype, requires_grad=True)
    train(make([p]), [p], missing=missing)
    return p.detach().double().numpy()


def slowly(start, lr, rule, missing=False):
    """Runs `rule(w, g, state, lr)`, which changes `state` and returns the new weight."""
    w, state = start.copy(), {}
    for step in range(STEPS):
        lr *= 0.98
        if not (missing and step % 3 == 1):
            w = rule(w, gradient(step, w), state, lr)
    return w


def slow_lamb(beta1=0.9, beta2=0.999, eps=1e-6, decay=0.0):
    def rule(w, g, state, lr):
        state["t"] = state.get("t", 0) + 1
        state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g**2
        r = (state["m"] / (1 - beta1 ** state["t"])) / (np.sqrt(state["v"] / (1 - beta2 ** state["t"])) + eps)
        size, length = np.sqrt((w**2).sum()), np.sqrt(((r + decay * w) ** 2).sum())
        return w - lr * (size / length if size > 0 and length > 0 else 1.0) * (r + decay * w)

    return rule


def slow_lars(momentum=0.9, decay=0.0, trust=1e-3):
    def rule(w, g, state, lr):
        size, length = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
        local = trust * size / (length + decay * size) if size > 0 and length > 0 else 1.0
        state["v"] = momentum * state.get("v", 0) + lr * local * (g + decay * w)
        return w - state["v"]

    return rule


def unfolded(x, i):
    """The matrix whose rows are the slices of x along dimension i."""
    return np.moveaxis(x, i, 0).reshape(x.shape[i], -1)


def folded(rows, i, shape):
    moved = [shape[i], *(n for k, n in enumerate(shape) if k != i)]
    return np.moveaxis(rows.reshape(moved), 0, i)


def slow_shampoo(eps=1e-4, every=1, decay=0.0, largest=10**9):
    """The paper's H starts at ε I and adds up; its root is taken from it by eigenvalues."""

    def rule(w, g, state, lr):
        g = g + decay * w
        x = g.reshape(g.shape or (1,))
        k = x.ndim
        if not state:
            state["H"] = [eps * np.eye(n) for n in x.shape]
            state["t"] = 0
        for i in range(k):
            rows = unfolded(x, i)
            product = rows @ rows.T
            state["H"][i] = state["H"][i] + (product if x.shape[i] <= largest else np.diag(np.diag(product)))
        if state["t"] % every == 0:
            state["root"] = []
            for h in state["H"]:
                values, vectors = np.linalg.eigh(h)
                state["root"].append(vectors @ np.diag(values ** (-1 / (2 * k))) @ vectors.T)
        state["t"] += 1
        step = x
        for i in range(k):
            step = folded(state["root"][i] @ unfolded(step, i), i, x.shape)
        return w - lr * step.reshape(w.shape)

    return rule


def turned(x, bases):
    for i, q in enumerate(bases):
        if q is not None:
            x = folded(q @ unfolded(x, i), i, x.shape)
    return x


def slow_soap(betas=(0.95, 0.95), beta=None, eps=1e-8, decay=0.01, every=10, largest=10**9, vectors=False):
    """Algorithm 3 with the authors' first step (bases alone), bias correction and order of eigenvalues."""
    beta = betas[1] if beta is None else beta

    def rule(w, g, state, lr):
        x = g.reshape(g.shape or (1,))
        chosen = [(x.ndim > 1 or vectors) and n <= largest for n in x.shape]
        first = not state
        if first:
            state.update(t=0, m=np.zeros(x.shape), v=np.zeros(x.shape), L=[np.zeros((n, n)) for n in x.shape])
        new = w
        if not first:
            state["t"] += 1
            t = state["t"]
            to = [None if q is None else q.T for q in state["Q"]]
            state["m"] = betas[0] * state["m"] + (1 - betas[0]) * x
            state["v"] = betas[1] * state["v"] + (1 - betas[1]) * turned(x, to) ** 2
            step = turned(turned(state["m"], to) / (np.sqrt(state["v"]) + eps), state["Q"])
            new = w - lr * math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) * step.reshape(w.shape)
            new = new - lr * decay * new
        for i in range(x.ndim):
            state["L"][i] = beta * state["L"][i] + (1 - beta) * unfolded(x, i) @ unfolded(x, i).T
        if first:
            state["Q"] = [
                np.linalg.eigh(a)[1][:, ::-1] if c else None for a, c in zip(state["L"], chosen, strict=True)
            ]
        elif state["t"] % every == 0:
            for i in range(x.ndim):
                if chosen[i]:
                    a, q = state["L"][i], state["Q"][i]
                    order = np.argsort(-np.diag(q.T @ a @ q))
                    state["v"] = np.take(state["v"], order, axis=i)
                    state["Q"][i] = np.linalg.qr(a @ q[:, order])[0]
        return new

    return rule


CASES = [
    ("LAMB", {}, slow_lamb()),
    ("LAMB", {"lr": 0.1, "betas": (0.5, 0.8), "eps": 0.1}, slow_lamb(0.5, 0.8, 0.1)),
    ("LAMB", {"lr": 0.1, "weight_decay": 0.7}, slow_lamb(decay=0.7)),
    ("LARS", {}, slow_lars()),
    ("LARS", {"lr": 2.0, "momentum": 0.5, "trust_coefficient": 0.1}, slow_lars(0.5, trust=0.1)),
    ("LARS", {"lr": 2.0, "weight_decay": 0.7, "trust_coefficient": 0.1}, slow_lars(decay=0.7, trust=0.1)),
    ("Shampoo", {}, slow_shampoo()),
    ("Shampoo", {"lr": 0.5, "eps": 0.3}, slow_shampoo(0.3)),
    ("Shampoo", {"weight_decay": 0.5}, slow_shampoo(decay=0.5)),
    ("Shampoo", {"precondition_frequency": 7}, slow_shampoo(every=7)),
    ("Shampoo", {"max_precond_dim": 3}, slow_shampoo(largest=3)),
    ("SOAP", {}, slow_soap()),
    ("SOAP", {"lr": 0.05, "betas": (0.7, 0.9), "eps": 0.1}, slow_soap((0.7, 0.9), eps=0.1)),
    ("SOAP", {"lr": 0.05, "shampoo_beta": 0.5, "precondition_frequency": 3}, slow_soap(beta=0.5, every=3)),
    ("SOAP", {"lr": 0.05, "weight_decay": 0.5}, slow_soap(decay=0.5)),
    ("SOAP", {"max_precond_dim": 3}, slow_soap(largest=3)),
]
# No dimension is longer than the others together: else L has no full rank after one step, and its
# eigenvectors of eigenvalue 0, which SOAP starts from, are whatever the library gives.
SHAPES = [(4, 4), (5,), (3, 4, 2), ()]


@pytest.mark.parametrize("missing", [False, True], ids=["all", "some missing"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "given", "slow"), CASES, ids=str)
def test_trajectory_is_the_papers(name, given, slow, shape, missing):
    """Forty float64 steps with a falling rate, also where a gradient is missing now and then."""
    (start,) = starts(shape)
    start = np.asarray(start)
    make = getattr(ours, name)
    expected = slowly(start, given.get("lr", make([torch.ones(1)]).defaults["lr"]), slow, missing)
    found = ours_from(start, lambda p: make(p, **given), missing)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_soap_with_bases_of_vectors():
    """After one step a vector's matrix has one eigenvalue but 0, so the bases are taken from ours."""
    (start,) = starts((4,))
    p = torch.tensor(start, requires_grad=True)
    optimizer = ours.SOAP([p], precondition_1d=True, precondition_frequency=4)
    train(optimizer, [p], 0, 1)
    q = optimizer.state[p]["Q"].view(4, 4).numpy().copy()
    rank_one = np.outer(gradient(0, start), gradient(0, start))
    np.testing.assert_allclose(q @ q.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(q.T @ rank_one @ q, np.diag([np.trace(rank_one), 0, 0, 0]), atol=1e-12)
    rule, state, w, lr = slow_soap(every=4, vectors=True), {}, start, 3e-3
    for step in range(STEPS):
        lr *= 0.98
        w = rule(w, gradient(step, w), state, lr)
        if step == 0:
            state["Q"] = [q]
    train(optimizer, [p], 1)
    np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_a_tensor_of_zeros_and_a_gradient_of_zeros(name):
    """Where a norm is 0 the ratio is 1: the first step is the plain rule's, and nothing becomes NaN."""
    p, q = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = getattr(ours, name)([p, q], lr=0.5)
    p.grad, q.grad = torch.tensor([1.0, -2.0, 4.0]), torch.zeros(3)
    optimizer.step()
    plain = p.grad if name == "LARS" else p.grad.sign()
    torch.testing.assert_close(p.detach(), -0.5 * plain)
    assert torch.equal(q.detach(), torch.ones(3))


@pytest.mark.parametrize("name", ["LAMB", "LARS", "SOAP"])
def test_decoupled_takes_the_decay_out_of_the_formula(name):
    """w ← (1 − η λ) w, then the rule without decay: the same as `decay`."""
    (start,) = starts((4, 4))
    make = getattr(ours, name)
    one = ours_from(start, lambda p: make(p, weight_decay=0.3, decoupled=True, lr=0.02))
    two = ours_from(start, lambda p: make(p, weight_decay=0.0, decay=0.3, lr=0.02))
    three = ours_from(start, lambda p: make(p, weight_decay=0.3, lr=0.02))
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - three).max() > 1e-6


NAMES = ["LAMB", "LARS", "Adafactor", "Muon", "Shampoo", "SOAP"]


@pytest.mark.parametrize("name", NAMES)
def test_resumed_runs_are_bitwise_the_same(name):
    """A state_dict into a new optimizer, and a deep copy, in mid-run: the same bits as without."""
    make = getattr(ours, name)
    a = [torch.tensor(w, requires_grad=True) for w in starts((4, 3), 2)]
    optimizer = make([{"params": a[:1]}, {"params": a[1:], "lr": 0.03}])
    train(optimizer, a, 0, 13)
    b = [p.detach().clone().requires_grad_() for p in a]
    other = make([{"params": b[:1]}, {"params": b[1:]}])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    c, third = copy.deepcopy((a, optimizer))
    for parameters, which in ((a, optimizer), (b, other), (c, third)):
        train(which, parameters, 13, 30)
    for p, q, r in zip(a, b, c, strict=True):
        assert torch.equal(p, q) and torch.equal(p, r)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_lower_precision_stays_near_float64(name, dtype):
    """Half precision is computed, and matrices kept, in float32."""
    (start,) = starts((4, 4))
    make = getattr(ours, name)
    lr = 1.0 if name == "LARS" else 0.02
    exact = ours_from(start, lambda p: make(p, lr=lr))
    near = ours_from(start, lambda p: make(p, lr=lr), dtype=dtype)
    assert np.abs(exact - near).max() < (1e-4 if dtype is torch.float32 and name != "Muon" else 0.15)


@pytest.mark.parametrize("name", NAMES)
def test_strided_weights_are_updated_as_contiguous_ones(name):
    """A transposed weight ends at the transpose of its contiguous copy's numbers."""
    (start,) = starts((4, 3))
    a = torch.tensor(start, requires_grad=True)
    b = torch.tensor(np.ascontiguousarray(start.T)).t().requires_grad_()
    for p in (a, b):
        assert p.shape == (4, 3)
        train(getattr(ours, name)([p]), [p])
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_an_overflow_is_skipped(name):
    """A GradScaler's infinite gradients, also at the first step, change no weight and no state."""
    (start,) = starts((4, 4))
    ends = []
    for overflows in ((), (0, 1, 9)):
        p = torch.tensor(start, dtype=torch.float32, requires_grad=True)
        optimizer, done = getattr(ours, name)([p]), 0
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)  # type: ignore[attr-defined]
        step = 0
        while done < 20:
            g = torch.from_numpy(gradient(done, np.zeros((4, 4)))).float()
            scaler.scale((p * g).sum()).backward()
            if step in overflows:
                assert p.grad is not None
                p.grad[1, 2] = torch.inf
            scaler.step(optimizer)
            scaler.update(4.0)
            optimizer.zero_grad()
            done += step not in overflows
            step += 1
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("LARS", {"trust_coefficient": -1.0}),
        ("Shampoo", {"eps": 0.0}),
        ("Shampoo", {"precondition_frequency": 0}),
        ("Shampoo", {"max_precond_dim": 0}),
        ("SOAP", {"shampoo_beta": 1.0}),
        ("SOAP", {"betas": (0.9, 0.9, 0.9)}),
        ("SOAP", {"precondition_frequency": math.nan}),
        ("LAMB", {"eps": -1.0}),
    ],
)
def test_what_is_out_of_range_is_refused(name, wrong):
    """Each wrong value is named."""
    with pytest.raises(UserError, match=f"^{next(iter(wrong))}="):
        getattr(ours, name)([torch.ones(2, 2, requires_grad=True)], **wrong)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_weight_is_no_trouble(name):
    """A weight without elements, as of a layer without outputs, is stepped over."""
    p = torch.ones(0, 4, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = getattr(ours, name)([p])
    for _ in range(3):
        optimizer.step()
    assert p.shape == (0, 4)
