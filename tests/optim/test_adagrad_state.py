"""Adagrad's state before its first update."""

import torch

import stepwell.optim as ours


def test_torch_can_load_a_state_without_updates():
    """torch's Adagrad needs its sum from the start: saved before any step, ours goes on as torch's own."""
    ends = []
    for fresh in (False, True):
        w, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
        optimizer = torch.optim.Adagrad([w, unused], lr=0.1, initial_accumulator_value=0.5)
        if not fresh:
            mine = ours.Adagrad([w, unused], lr=0.1, initial_accumulator_value=0.5)
            optimizer = torch.optim.Adagrad([w, unused])
            optimizer.load_state_dict(mine.state_dict())
        for _ in range(3):
            w.grad = w.detach() * 2
            optimizer.step()
        ends.append(w.detach())
        assert torch.equal(optimizer.state[unused]["sum"], torch.full((2,), 0.5))
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-7)


def test_a_state_of_torch_without_updates_is_taken():
    """Loaded from torch before any step, the sum starts where torch started it."""
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adagrad([w], lr=0.1, initial_accumulator_value=0.5)
    mine = ours.Adagrad([w])
    mine.load_state_dict(theirs.state_dict())
    w.grad = torch.full_like(w, 2.0)
    mine.step()
    torch.testing.assert_close(mine.state[w]["sum"], torch.full_like(w, 4.5, requires_grad=False))
