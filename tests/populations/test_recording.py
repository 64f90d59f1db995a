"""Recorded programs: the same numbers as what was recorded, on other inputs too."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stepwell.populations.recording import NotRecordable, Program
from stepwell.populations.tidy import SHORT


def gradients(w, b, x, y):
    w, b = w.detach().requires_grad_(), b.detach().requires_grad_()

    def one(w, b, x, y):
        return F.cross_entropy(F.linear(x, w, b).relu(), y)

    loss = torch.vmap(one)(w, b, x, y)
    return [*torch.autograd.grad(loss.sum(), (w, b)), loss.detach()]


def inputs(seed, classes=5, members=3, batch=7):
    g = torch.Generator().manual_seed(seed)
    w, b = torch.randn(members, classes, 4, generator=g), torch.randn(members, classes, generator=g)
    x = torch.randn(members, batch, 4, generator=g)
    return [t.double() for t in (w, b, x)] + [torch.randint(classes, (members, batch), generator=g)]


@pytest.mark.parametrize("classes", [2, 5, SHORT, SHORT + 1])
def test_a_program_does_on_other_inputs_what_it_recorded(classes):
    """A linear layer with a loss under vmap and autograd: bits may differ in the last place alone."""
    program = Program(gradients, inputs(0, classes))
    for seed in range(1, 4):
        for found, wanted in zip(
            program(*inputs(seed, classes)), gradients(*inputs(seed, classes)), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-15)


def test_recording_changes_nothing():
    """Neither inputs that the function changes in place, nor torch's generator."""
    x = torch.ones(3)
    torch.manual_seed(1)
    program = Program(lambda x: [F.dropout(x.add_(1), 0.5)], [x])
    assert torch.equal(x, torch.ones(3))
    drawn = torch.rand(4)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(4), drawn)
    program(x)
    assert torch.equal(x, 2 * torch.ones(3))


def test_a_linear_layers_gradient_lies_as_its_weight_does():
    """What the update reads is contiguous, and no bias is added in a pass of its own."""
    program = Program(gradients, inputs(0))
    found = program(*inputs(1))[0]
    assert found is not None and found.is_contiguous()
    launched = [node.target for node in program._run.graph.nodes]
    assert torch.ops.aten.baddbmm.default in launched
    assert not {torch.ops.aten.detach.default, torch.ops.aten.add.Tensor} & set(launched)


def test_random_operations_draw_anew():
    """A user's own dropout is another one each time."""
    x = torch.ones(1000)
    program = Program(lambda x: [F.dropout(x, 0.5)], [x])
    first, second = program(x)[0], program(x)[0]
    assert first is not None and second is not None
    assert not torch.equal(first, second)
    assert {float(v) for v in first.unique()} == {0.0, 2.0}


def test_buffers_changed_in_place_change_again():
    """torch's own batch norm under vmap counts and averages in each run of the program."""
    norm = nn.BatchNorm1d(3, dtype=torch.float64)
    state = {name: value.expand(2, *value.shape).clone() for name, value in norm.state_dict().items()}

    def forward(x, *own):
        def one(own, x):
            return torch.func.functional_call(norm, dict(zip(state, own, strict=True)), (x,))

        return [torch.vmap(one)(list(own), x)]

    xs = [torch.randn(2, 6, 3, dtype=torch.float64) for _ in range(3)]
    program = Program(forward, [xs[0], *state.values()])
    for x in xs:
        program(x, *state.values())
    for member in range(2):
        alone = nn.BatchNorm1d(3, dtype=torch.float64)
        for x in xs:
            alone(x[member])
        assert int(state["num_batches_tracked"][member]) == 3
        torch.testing.assert_close(state["running_var"][member], alone.running_var)


def test_what_looks_at_values_is_refused():
    """A program that goes another way for other numbers cannot be recorded."""
    with pytest.raises(NotRecordable, match="value"):
        Program(lambda x: [x * 2 if x.sum() > 0 else x], [torch.ones(3)])


def test_the_peak_is_what_lives_at_once():
    """A chain of ten tensors holds two at a time, a sum of ten all of them."""
    x = torch.zeros(1000)

    def chain(x):
        for _ in range(10):
            x = x + 1
        return [x]

    assert Program(chain, [x]).peak == 2 * x.nbytes
    assert Program(lambda x: [torch.stack([x + k for k in range(10)])], [x]).peak == 20 * x.nbytes


def test_small_probabilities_keep_their_digits():
    """log_softmax and its gradient in float32, of classes as unlikely as 10⁻³⁵: torch's, to its precision."""
    z = torch.tensor([[0.0, -1.0, -27.0, -60.0, -80.0]])

    def both(z):
        z = z.detach().requires_grad_()
        logs = z.log_softmax(-1)
        return [*torch.autograd.grad(logs[:, 0].sum(), z), logs.detach()]

    for found, wanted in zip(Program(both, [z])(z), both(z), strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-5, atol=0)
    far = torch.tensor([[0.0, -120.0]])
    gradient = Program(both, [far])(far)[0]
    assert gradient is not None and gradient.tolist() == [[0.0, 0.0]]
