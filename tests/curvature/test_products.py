"""Hessian-vector products are those of the whole Hessian, for any loss that has one."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_nets import NETS, plain_attention, problem
from torch import nn
from torch.func import functional_call, hessian

from stepwell.curvature import Curvature, GaussNewton
from stepwell.errors import UserError


def dense(net, x, y):
    """The Hessian by torch.func: forward over reverse mode, another way than ours."""
    names = [name for name, _ in net.named_parameters()]
    shapes = [p.shape for p in net.parameters()]

    def loss(w):
        pieces = w.split([math.prod(shape) for shape in shapes])
        weights = {n: u.reshape(s) for n, u, s in zip(names, pieces, shapes, strict=True)}
        return F.cross_entropy(functional_call(net, weights, (x,)), y)

    return hessian(loss)(torch.cat([p.detach().reshape(-1) for p in net.parameters()]))


@pytest.mark.parametrize("name", NETS)
def test_the_hessian_is_that_of_torch_func(name):
    """The whole matrix, one product and several equal torch.func.hessian, rtol 1e-8, in float64."""
    net, closure, x, y = problem(name)
    at = Curvature(closure, net.parameters())
    if name == "transformer":
        net.attention = plain_attention  # of the fused one torch.func has no second derivative
    expected = dense(net, x, y)
    scale = float(expected.abs().max())
    torch.testing.assert_close(at.matrix(), expected, rtol=1e-8, atol=1e-13 * scale)
    assert at.products == len(expected)
    v = torch.randn(3, len(expected), dtype=torch.float64)
    torch.testing.assert_close(at.product(v), v @ expected, rtol=1e-8, atol=1e-12 * scale)
    torch.testing.assert_close(at.product(v[0]), expected @ v[0], rtol=1e-8, atol=1e-12 * scale)
    assert at.products == len(expected) + 4


def test_the_hessian_of_batch_norm_is_that_of_differences():
    """Each column is (g(w + h e) − g(w − h e)) / 2h; torch 2.13's func.hessian is wrong here by 0.4."""
    net, closure, *_ = problem("cnn")
    net[2] = nn.BatchNorm2d(3).double()
    at = Curvature(closure, net.parameters())
    matrix = at.matrix()

    def gradient(change):
        with torch.no_grad():
            for p, part in zip(net.parameters(), at.parts(change), strict=True):
                p.add_(part)
            found = Curvature(closure, net.parameters()).gradient
            for p, part in zip(net.parameters(), at.parts(change), strict=True):
                p.sub_(part)
        return found

    steps = 1e-5 * torch.eye(len(at.gradient), dtype=torch.float64)
    columns = torch.stack([(gradient(e) - gradient(-e)) / 2e-5 for e in steps])
    torch.testing.assert_close(matrix, columns, rtol=1e-6, atol=1e-8)
    with pytest.raises(UserError, match="changed in place after the closure"):
        at.matrix()


def test_loss_and_gradient_are_autograds():
    """loss and gradient are those of one backward pass, without a graph; p.grad is left alone."""
    net, closure, *_ = problem("mlp")
    at = Curvature(closure, net.parameters())
    assert all(p.grad is None for p in net.parameters()) and not at.loss.requires_grad
    closure().backward()
    assert torch.equal(at.gradient, torch.cat([p.grad.reshape(-1) for p in net.parameters()]))
    assert torch.equal(at.loss, closure().detach())
    for part, p in zip(at.parts(at.gradient), net.parameters(), strict=True):
        assert torch.equal(part, p.grad)


def test_parameters_without_influence_get_zeros():
    """A parameter that the loss does not use, or uses linearly alone, has rows and columns of 0."""
    a, b, c = (torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True) for _ in range(3))
    at = Curvature(lambda: (a**3).sum() + b.sum(), [b, a, c])
    assert torch.equal(at.gradient, torch.tensor([1.0, 1, 12, 27, 0, 0], dtype=torch.float64))
    assert torch.equal(at.matrix(), torch.diag(torch.tensor([0.0, 0, 12, 18, 0, 0], dtype=torch.float64)))
    linear = Curvature(lambda: b.sum(), [b])
    assert torch.equal(linear.matrix(), torch.zeros(2, 2, dtype=torch.float64))


def test_mixed_types_and_no_dimension():
    """bfloat16, float32 and float64 parameters, one of them 0-d, share a vector of the widest type."""
    a = torch.tensor(2.0, dtype=torch.bfloat16, requires_grad=True)
    b = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    at = Curvature(lambda: a.double() ** 2 * b.sum() ** 2, [a, b])
    expected = torch.tensor([[18.0, 24.0], [24.0, 8.0]], dtype=torch.float64)
    assert torch.equal(at.matrix(), expected)
    at = Curvature(lambda: (a**2).sum(), [a])
    assert at.product(torch.ones(1)).dtype == torch.float32


def test_all_products_belong_to_one_dropout_mask():
    """The closure runs once, so that the matrix of a net with dropout is symmetric and does not change."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 1)).double()
    x, calls = torch.randn(5, 4, dtype=torch.float64), []
    at = Curvature(lambda: calls.append(1) or net(x).square().mean(), net.parameters())
    v = torch.randn(49, dtype=torch.float64)
    torch.testing.assert_close(at.product(v), at.matrix() @ v, rtol=1e-12, atol=1e-14)
    assert len(calls) == 1


class Unbatched(torch.autograd.Function):
    """x³ with a backward that torch cannot batch."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, *grads):
        (x,) = ctx.saved_tensors
        return grads[0] * 3 * x**2 * (grads[0].sum().item() ** 0)  # reads the numbers


class Once(Unbatched):
    """x³ whose backward cannot be differentiated."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads):
        return grads[0] * 3 * ctx.saved_tensors[0] ** 2


def test_what_cannot_be_batched_is_done_one_by_one():
    """An operation whose backward reads its numbers gives the same matrix."""
    w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    at = Curvature(lambda: Unbatched.apply(w).sum(), [w])
    assert torch.equal(at.matrix(), torch.diag(6 * w.detach())) and at.products == 2


def test_the_limit_of_the_whole_matrix():
    """Above 2,000 parameters the matrix is refused with the number; products are not."""
    w = torch.randn(2001, requires_grad=True)
    at = Curvature(lambda: (w**2).sum(), [w])
    with pytest.raises(UserError, match=r"2,001 parameters.*2,000"):
        at.matrix()
    assert torch.equal(at.product(torch.ones(2001)), torch.full((2001,), 2.0))


W = torch.tensor([1.0, -2.0], requires_grad=True)
OTHER = torch.ones(2, requires_grad=True)


def backward_inside():
    loss = (W**3).sum()
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("closure", "parameters", "words"),
    [
        (lambda: Once.apply(W).sum(), [W], "once_differentiable"),
        (lambda: (W * Once.apply(W)).sum(), [W], "once_differentiable"),
        (
            lambda: torch.segment_reduce(W, "prod", lengths=torch.tensor([2])).sum(),
            [W],
            "twice",
        ),
        (lambda: (W.detach() ** 2).sum(), [W], "does not depend on the parameters"),
        (lambda: (OTHER**2).sum(), [W], "does not depend on these parameters"),
        (lambda: W**2, [W], r"returned a tensor of shape \(2,\)"),
        (lambda: 1.5, [W], "returned 1.5"),
        (backward_inside, [W], "called backward"),
        (lambda: W.log().sum(), [W], "the loss is nan"),
        (lambda: (W - W.detach()).norm() + (W - W.detach()).abs().sqrt().sum(), [W], "not finite"),
        (lambda: F.embedding(torch.tensor([0]), OTHER[:, None], sparse=True).sum(), [OTHER], "sparse"),
        (lambda: (W**2).sum(), [], "no parameters"),
        (lambda: (W**2).sum(), [W, torch.ones(2, dtype=torch.int64)], "is torch.int64"),
        (lambda: (W**2).sum(), [W, torch.ones(2, dtype=torch.complex64)], "is torch.complex64"),
        (lambda: (W**2).sum(), [W, torch.ones(2)], "does not require a gradient"),
        (lambda: (W**2).sum(), [W, torch.ones(2, device="meta", requires_grad=True)], "on cpu and meta"),
    ],
)
def test_what_has_no_curvature_gets_a_sentence(closure, parameters, words):
    """Each is one sentence that says what is wrong."""
    with pytest.raises(UserError, match=words) as caught:
        Curvature(closure, parameters).product(torch.ones(2))
    assert "\n" not in str(caught.value)


def test_a_compiled_module_gets_a_sentence():
    """torch.compile's functions have no second derivative."""
    net, _, x, _ = problem("mlp")
    compiled = torch.compile(net, backend="aot_eager")
    with pytest.raises(UserError, match="let the closure call the module itself"):
        Curvature(lambda: compiled(x).square().mean(), net.parameters())


def test_a_vector_of_another_length_is_refused():
    """The lengths that are right are named."""
    with pytest.raises(UserError, match=r"shape \(3,\): give \(2,\)"):
        Curvature(lambda: (W**2).sum(), [W]).product(torch.ones(3))


@pytest.mark.parametrize("name", ["mlp", "cnn", "rnn", "transformer"])
def test_gauss_newton_is_the_jacobians_sandwich(name):
    """G = Jᵀ (diag p − p pᵀ)/B J with J row by row, for softmax with cross-entropy."""
    net, _, x, y = problem(name)
    at = GaussNewton(lambda: net(x), lambda z: F.cross_entropy(z, y), net.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        z = net(x)
    parameters, p = list(net.parameters()), z.detach().softmax(-1)
    expected = torch.zeros(len(at.gradient), len(at.gradient), dtype=torch.float64)
    for b in range(len(z)):
        rows = [torch.autograd.grad(z[b, k], parameters, retain_graph=True) for k in range(3)]
        J = torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows])
        expected += J.T @ (p[b].diag() - p[b].outer(p[b])) @ J / len(z)
    torch.testing.assert_close(at.matrix(), expected, rtol=1e-8, atol=1e-13)
    v = torch.randn(len(expected), dtype=torch.float64)
    torch.testing.assert_close(at.product(v), expected @ v, rtol=1e-8, atol=1e-12)


def test_gauss_newton_of_a_linear_model_is_the_hessian():
    """Where the outputs are linear in the weights, G = H."""
    net, closure, x, y = problem("softmax")
    G = GaussNewton(lambda: net(x), lambda z: F.cross_entropy(z, y), net.parameters())
    H = Curvature(closure, net.parameters())
    torch.testing.assert_close(G.matrix(), H.matrix(), rtol=1e-8, atol=1e-13)
    assert torch.equal(G.gradient, H.gradient)
