"""Batch norm: torch's numbers bit for bit, buffers that are rebound, two processes as one."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call

import stepwell as sw
from stepwell.errors import UserError

SHAPES = {1: (6, 4), 2: (6, 4, 3, 5), 3: (6, 4, 2, 3, 2)}
TORCHS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def pair(places: int, **options) -> tuple[sw.nn.BatchNorm, nn.Module]:
    ours, theirs = sw.nn.BatchNorm(4, **options), TORCHS[places](4, **options)
    return ours.double(), theirs.double()


def step(norm: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and gradients of one forward and backward pass; weights move, as in training."""
    x = x.clone().requires_grad_()
    y = norm(x)
    (y * torch.arange(y.numel(), dtype=y.dtype).cos().view(y.shape)).sum().backward()
    found = [y.detach(), x.grad, *(w.grad for w in norm.parameters())]
    with torch.no_grad():
        for weight in norm.parameters():
            assert weight.grad is not None
            weight -= 0.1 * weight.grad
            weight.grad = None
    return found


@pytest.mark.parametrize("places", TORCHS)
@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.3, "eps": 0.1}, {"affine": False}, {"track_running_stats": False}], ids=str
)
def test_bits_are_torchs_over_twenty_steps(places, options):
    """float64: outputs, gradients, weights and buffers, in training and then in evaluation; names too."""
    ours, theirs = pair(places, **options)
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        x = torch.randn(SHAPES[places], generator=generator, dtype=torch.float64) * (number + 1) + number
        for own, other in zip(step(ours, x), step(theirs, x), strict=True):
            assert torch.equal(own, other)
    state, expected = ours.state_dict(), theirs.state_dict()
    assert list(state) == list(expected) and all(torch.equal(state[key], expected[key]) for key in state)
    x = torch.randn(SHAPES[places], generator=generator, dtype=torch.float64)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_the_cumulative_mean_is_torchs_and_the_mean():
    """momentum=None: after 20 batches the statistics are the means of the batches' own."""
    ours, theirs = pair(2, momentum=None)
    x = torch.randn(20, 6, 4, 3, 5, dtype=torch.float64)
    for batch in x:
        ours(batch)
        theirs(batch)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(ours.running_mean, x.mean((0, 1, 3, 4)))
    torch.testing.assert_close(ours.running_var, x.var((1, 3, 4)).mean(0))


def test_channels_that_come_last():
    """(B, T, C) is torch's of (B·T, C)."""
    ours, theirs = sw.nn.BatchNorm(4, channel_dim=-1).double(), nn.BatchNorm1d(4).double()
    x = torch.randn(6, 5, 4, dtype=torch.float64)
    assert torch.equal(ours(x), theirs(x.flatten(0, 1)).view(x.shape))
    assert torch.equal(ours.state_dict()["running_var"], theirs.state_dict()["running_var"])


def test_buffers_are_rebound_and_come_back_from_functional_call():
    """Nothing that anyone held is changed: not the module's own buffers, not the tensors of the state."""
    norm = sw.nn.BatchNorm(4)
    held = [value for _, value in norm.named_buffers()]
    copies = [value.clone() for value in held]
    state = norm.state_dict()
    given = dict(state)
    functional_call(norm, state, torch.randn(8, 4))
    assert int(state["num_batches_tracked"]) == 1 and int(norm.state_dict()["num_batches_tracked"]) == 0
    assert all(state[key] is not given[key] for key in ("running_mean", "running_var"))
    norm(torch.randn(8, 4))
    assert all(torch.equal(value, before) for value, before in zip(held, copies, strict=True))
    weights, buffers = dict(norm.named_parameters()), {k: v.clone() for k, v in norm.named_buffers()}
    functional_call(norm, (weights, buffers), torch.randn(8, 4))  # pyright: ignore[reportArgumentType]
    assert int(buffers["num_batches_tracked"]) == 1  # the trap of the docstring: torch wrote into a copy


def test_is_copied_and_loaded_like_torchs():
    """deepcopy, state_dict from torch's layer and back, and an older file of in-place buffers."""
    ours, theirs = pair(1)
    theirs(torch.randn(8, 4, dtype=torch.float64))
    ours.load_state_dict(theirs.state_dict())
    twin = copy.deepcopy(ours)
    x = torch.randn(8, 4, dtype=torch.float64)
    assert torch.equal(twin(x), theirs(x))
    nn.BatchNorm1d(4).double().load_state_dict(twin.state_dict())
    seen = [int(norm.state_dict()["num_batches_tracked"]) for norm in (ours, twin)]
    assert seen == [1, 2]


def test_refuses_what_has_no_variance_or_no_batch():
    """One value a channel in training (torch's own error), and a tensor without a batch."""
    with pytest.raises(ValueError, match="no variance over a batch of one value"):
        sw.nn.BatchNorm(4)(torch.randn(1, 4))
    with pytest.raises(UserError, match="needs a batch of samples"):
        sw.nn.BatchNorm(4)(torch.randn(4))


# -- two processes ----------------------------------------------------------------------------------

SHARES = [(4, 4), (7, 1), (1, 2), (5, 0)]  # samples of each process
FORMS = [
    ({}, (4, 3, 5)),
    ({"momentum": None, "affine": False}, (4,)),
    ({"channel_dim": -1}, (5, 4)),
    ({"track_running_stats": False}, (4, 2)),
]


def of_each_process() -> None:
    """What one process of two asserts: its part of what one process would do with the whole batch."""
    rank = dist.get_rank()
    for options, shape in FORMS:
        torch.manual_seed(0)
        shared, alone = (sw.nn.BatchNorm(4, **options, synchronized=s).double() for s in (True, False))
        for share in SHARES:
            x = (1e3 + torch.randn(sum(share), *shape, dtype=torch.float64)).requires_grad_()
            weights = torch.randn(x.shape, dtype=torch.float64)
            own = slice(0, share[0]) if rank == 0 else slice(share[0], None)
            part = x.detach()[own].requires_grad_()
            (shared(part) * weights[own]).sum().backward()
            (alone(x) * weights).sum().backward()
            assert x.grad is not None
            torch.testing.assert_close(part.grad, x.grad[own], rtol=1e-7, atol=1e-9)
            torch.testing.assert_close(shared(part), alone(x)[own], rtol=1e-9, atol=1e-9)
            for own_weight, weight in zip(shared.parameters(), alone.parameters(), strict=True):
                assert own_weight.grad is not None
                total = own_weight.grad.clone()
                dist.all_reduce(total)
                torch.testing.assert_close(total, weight.grad, rtol=1e-7, atol=1e-9)
                own_weight.grad = weight.grad = None
            for name, value in alone.state_dict().items():
                torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(shared.eval()(x), alone.eval()(x), rtol=1e-9, atol=1e-9)
    half = sw.nn.BatchNorm(4)
    assert half(torch.randn(6, 4).bfloat16()).dtype == torch.bfloat16
    assert half.running_mean is not None and half.running_mean.dtype == torch.float32


@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_two_processes_are_one(tmp_path):
    """gloo on CPUs, equal, unequal and empty shares: outputs, gradients and buffers of the joined batch."""
    root = Path(__file__).parents[3]
    code = (
        f"import os, sys; sys.path.insert(0, {str(root)!r})\n"
        "import torch.distributed as dist, tests.nn.normalization.test_batch as t\n"
        "rank = int(sys.argv[1])\n"
        f"dist.init_process_group('gloo', init_method='file://{tmp_path}/store', rank=rank, world_size=2)\n"
        "t.of_each_process(); dist.barrier(); print('right', flush=True); os._exit(0)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        out, error = process.communicate(timeout=120)
        assert out == "right\n", error[-3000:]
