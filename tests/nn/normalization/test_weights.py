"""Weight and spectral norm: torch's parametrizations over many steps, and what singular values say."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations as theirs

import stepwell as sw

LAYERS = {
    "linear": lambda: nn.Linear(5, 4),
    "convolution": lambda: nn.Conv2d(2, 4, 3),
    "transposed": lambda: nn.ConvTranspose2d(2, 4, 3),
}
SHAPES = {"linear": (6, 5), "convolution": (6, 2, 5, 5), "transposed": (6, 2, 5, 5)}
NORMS = {
    "weight": (sw.nn.weight_norm, theirs.weight_norm),
    "spectral": (sw.nn.spectral_norm, theirs.spectral_norm),
}
every = pytest.mark.parametrize("norm", NORMS)


def build(norm, kind, whose):
    torch.manual_seed(0)
    return NORMS[norm][whose](LAYERS[kind]().double())


@every
@pytest.mark.parametrize("kind", LAYERS)
def test_is_torchs_over_fifteen_steps(norm, kind):
    """float64: outputs, gradients, weights, u and v, after updates that change them; the same names."""
    layers = [build(norm, kind, whose) for whose in (0, 1)]
    found = []
    for layer in layers:
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
        generator = torch.Generator().manual_seed(1)
        outputs = []
        for _ in range(15):
            x = torch.randn(SHAPES[kind], generator=generator, dtype=torch.float64)
            y = layer(x)
            optimizer.zero_grad()
            (y * y.detach().cos()).sum().backward()
            outputs += [y.detach(), *(p.grad.clone() for p in layer.parameters())]
            optimizer.step()
        layer.eval()
        found.append([*outputs, layer(x), layer(x)])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-11)
    state, expected = (layer.state_dict() for layer in layers)
    assert list(state) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=1e-10, atol=1e-12)


@every
def test_is_copied_saved_and_loaded(norm, tmp_path):
    """deepcopy and safetensors keep the output's bits; the copy has weights of its own."""
    layer = build(norm, "linear", 0).eval()
    twin, x = copy.deepcopy(layer), torch.randn(6, 5, dtype=torch.float64)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    other = NORMS[norm][0](nn.Linear(5, 4).double()).eval()
    other.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    assert torch.equal(twin(x), layer(x)) and torch.equal(other(x), layer(x))
    with torch.no_grad():
        for weight in twin.parameters():
            weight += 1
    assert torch.equal(other(x), layer(x))


def test_weight_norm_starts_at_the_weight_and_takes_another():
    """The value is that of before; what is assigned is kept, zeros too, with finite gradients."""
    plain = nn.Linear(5, 4).double()
    before = plain.weight.detach().clone()
    layer = sw.nn.weight_norm(plain)
    torch.testing.assert_close(layer.weight, before)
    other = torch.randn(4, 5, dtype=torch.float64)
    other[1] = 0
    layer.weight = other
    torch.testing.assert_close(layer.weight, other)
    layer(torch.randn(6, 5, dtype=torch.float64)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())
    assert not layer.weight[1].any()


def test_the_length_is_g_and_the_gradient_of_v_is_orthogonal():
    """‖w‖ = |g| for each unit, and ∂L/∂v · v = 0 (Salimans & Kingma 2016, section 2.1)."""
    layer = build("weight", "convolution", 0)
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    torch.testing.assert_close(layer.weight.flatten(1).norm(dim=1), g.abs().flatten())
    layer(torch.randn(SHAPES["convolution"], dtype=torch.float64)).square().sum().backward()
    assert (v.grad * v).flatten(1).sum(1).abs().max() < 1e-10


def test_spectral_norm_reaches_one():
    """The largest singular value is 1 after enough forwards, and no forward in evaluation changes u and v."""
    layer = build("spectral", "convolution", 0)
    x = torch.randn(SHAPES["convolution"], dtype=torch.float64)
    for _ in range(300):
        layer(x)
    layer.eval()
    held = {name: value.clone() for name, value in layer.named_buffers()}
    largest = torch.linalg.svdvals(layer.weight.flatten(1))[0]
    torch.testing.assert_close(largest, torch.ones_like(largest))
    assert all(torch.equal(value, held[name]) for name, value in layer.named_buffers())


def test_spectral_norm_rebinds_and_stays_float32_under_autocast():
    """The u and v that anyone held stay as they were, and bfloat16 arithmetic does not reach them."""
    layer = sw.nn.spectral_norm(nn.Linear(5, 4))
    held = [value for _, value in layer.named_buffers()]
    before = [value.clone() for value in held]
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(6, 5)).dtype == torch.bfloat16
    assert all(torch.equal(*both) for both in zip(held, before, strict=True))
    for _, value in layer.named_buffers():
        assert value.dtype == torch.float32 and value is not held[0]
