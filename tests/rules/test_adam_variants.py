"""Adam without bias correction and with ε inside the root, against loops in NumPy."""

import math

import numpy as np
import pytest
import torch
from trajectories import ENGINES, assert_same, by_optimizer, by_paper

from stepwell.errors import UserError
from stepwell.optim import Adam, AdamW

BETAS, EPS = (0.8, 0.95), 1e-2  # an ε that matters


def adam(corrected, inside):
    def start():
        m = v = 0.0

        def step(w, g, t, lr):
            nonlocal m, v
            m = BETAS[0] * m + (1 - BETAS[0]) * g
            v = BETAS[1] * v + (1 - BETAS[1]) * g**2
            m_hat = m / (1 - BETAS[0] ** t) if corrected else m
            v_hat = v / (1 - BETAS[1] ** t) if corrected else v
            return w - lr * m_hat / (np.sqrt(v_hat + EPS) if inside else np.sqrt(v_hat) + EPS)

        return step

    return start


VARIANTS = {
    "plain": ({}, adam(True, False)),
    "uncorrected": ({"bias_correction": False}, adam(False, False)),
    "inside": ({"eps_inside": True}, adam(True, True)),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variants_of_adam(variant, engine):
    """40 steps with a changing rate and missing gradients; ε is large enough to tell its places apart."""
    options, by_hand = VARIANTS[variant]
    gap = {(2, 1), (7, 0), (8, 0)}
    ours = by_optimizer(lambda p: Adam(p, betas=BETAS, eps=EPS, engine=engine, **options), gap=gap)
    assert_same(ours, by_paper(by_hand, gap=gap))


@pytest.mark.parametrize(
    ("options", "length"),
    [({}, 1.0), ({"bias_correction": False}, (1 - 0.9) / math.sqrt(1 - 0.999)), ({"eps_inside": True}, 1.0)],
    ids=["adam", "uncorrected", "inside"],
)
def test_the_first_step(options, length):
    """Adam's first step has length η whatever the gradient; the uncorrected one's (1−β1)/√(1−β2) η."""
    for size in (1e-2, 1.0, 1e3):
        p = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        p.grad = size * torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        Adam([p], lr=0.1, eps=1e-16, **options).step()
        expected = -0.1 * length * p.grad.sign()
        torch.testing.assert_close(p.detach(), expected, rtol=1e-9, atol=0)


def test_adamw_has_them_too():
    """The decay acts before the step, on the weights alone."""
    p = torch.ones(2, dtype=torch.float64, requires_grad=True)
    p.grad = torch.ones(2, dtype=torch.float64)
    AdamW([p], lr=0.1, betas=(0.9, 0.99), eps=0.0, weight_decay=0.5, bias_correction=False).step()
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.95 - 0.1 * 0.1 / 0.1, dtype=torch.float64))


def test_what_does_not_go_together_is_refused():
    """amsgrad, bias_correction=False and eps_inside=True are one rule each, at the start and later."""
    p = [torch.zeros(1, requires_grad=True)]
    with pytest.raises(UserError, match="at most one"):
        Adam(p, amsgrad=True, bias_correction=False)
    with pytest.raises(UserError, match="at most one"):
        Adam(p, eps_inside=True, bias_correction=False)
    optimizer = Adam(p, amsgrad=True)
    optimizer.param_groups[0]["eps_inside"] = True
    with pytest.raises(UserError, match="at most one"):
        optimizer.step()


def test_state_goes_to_torch_and_back():
    """The uncorrected Adam's state has torch's names, so that either may go on from it."""
    p, q = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours, theirs = Adam([p], bias_correction=False), torch.optim.Adam([q])
    for x in (p, q):
        x.grad = torch.ones_like(x)
    ours.step()
    theirs.load_state_dict(ours.state_dict())
    theirs.step()
    ours.load_state_dict(theirs.state_dict())
    assert ours.state[p]["step"] == 2 and not ours.param_groups[0]["bias_correction"]
