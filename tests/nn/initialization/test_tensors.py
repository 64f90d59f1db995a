"""Schemes of initialization: torch's bits where torch has them, variances of the closed forms."""

import math

import pytest
import torch

import stepwell as sw
from stepwell.errors import UserError

init = sw.nn.init
SHAPES = [(7, 5), (5, 7), (6, 6), (8, 3, 3, 3), (2, 9, 5), (1, 1), (0, 3), (4, 0)]
TORCHS = {
    "xavier_uniform_": (torch.nn.init.xavier_uniform_, {}),
    "xavier_normal_": (torch.nn.init.xavier_normal_, {}),
    "he_uniform_": (torch.nn.init.kaiming_uniform_, {"nonlinearity": "relu"}),
    "he_normal_": (torch.nn.init.kaiming_normal_, {"nonlinearity": "relu"}),
    "orthogonal_": (torch.nn.init.orthogonal_, {}),
}


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", TORCHS)
def test_bits_are_torchs(name, shape, dtype):
    """With a generator of the same seed; the tensor that was given is filled and returned."""
    theirs, given = TORCHS[name]
    tensor = torch.full(shape, 9.0, dtype=dtype, requires_grad=True)
    found = getattr(init, name)(tensor, generator=seeded())
    assert found is tensor and tensor.is_leaf
    assert torch.equal(found, theirs(torch.empty(shape, dtype=dtype), generator=seeded(), **given))


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize("gain", [1.0, 5 / 3])
def test_gain_and_mode_are_torchs(gain, mode):
    """gain scales, mode chooses the fan; torch takes He's gain by the name of the activation."""
    activation = "linear" if gain == 1.0 else "tanh"
    for name in ("he_uniform_", "he_normal_"):
        found = getattr(init, name)(torch.empty(6, 4, 3), gain, mode, seeded())
        theirs = TORCHS[name][0](torch.empty(6, 4, 3), 0, mode, activation, generator=seeded())
        assert torch.equal(found, theirs)
    for name in ("xavier_uniform_", "xavier_normal_", "orthogonal_"):
        found = getattr(init, name)(torch.empty(6, 4, 3), gain, seeded())
        assert torch.equal(found, TORCHS[name][0](torch.empty(6, 4, 3), gain, generator=seeded()))


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("xavier_uniform_", 2 / (300 * 9 + 200 * 9)),
        ("xavier_normal_", 2 / (300 * 9 + 200 * 9)),
        ("he_uniform_", 2 / (300 * 9)),
        ("he_normal_", 2 / (300 * 9)),
        ("small_normal_", 1e-4),
        ("large_normal_", 1.0),
        ("zeros_", 0.0),
    ],
)
def test_variance_is_the_closed_form(name, variance):
    """Of 540,000 weights of 200 filters with 300 channels of 3 × 3: within five standard errors."""
    given = {} if name == "zeros_" else {"generator": seeded()}
    w = getattr(init, name)(torch.empty(200, 300, 3, 3, dtype=torch.float64), **given)
    kurtosis = 1.8 if "uniform" in name else 3.0
    error = variance * math.sqrt((kurtosis - 1) / w.numel())
    assert abs(w.var().item() - variance) <= 5 * error
    assert abs(w.mean().item()) <= 5 * math.sqrt(variance / w.numel())
    if "uniform" in name:
        assert w.abs().max().item() <= math.sqrt(3 * variance)


@pytest.mark.parametrize(
    ("shape", "gain"), [((6, 4), 1.0), ((4, 6), 2.0), ((5, 2, 3), 0.5), ((3, 4, 2), 1.0)]
)
def test_orthogonal_has_orthonormal_rows_or_columns(shape, gain):
    """All singular values of the matrix of units are the gain."""
    w = init.orthogonal_(torch.empty(shape, dtype=torch.float64), gain, seeded())
    values = torch.linalg.svdvals(w.reshape(shape[0], -1))
    torch.testing.assert_close(values, torch.full_like(values, gain), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "activation", "low", "high"),
    [
        ("he_normal_", torch.relu, 1 / 3, 3.0),
        ("xavier_normal_", lambda x: x, 1 / 2, 2.0),
        ("orthogonal_", lambda x: x, 0.999, 1.001),
        ("small_normal_", torch.relu, 0.0, 1e-6),
        ("large_normal_", torch.relu, 1e6, math.inf),
        ("zeros_", torch.tanh, 0.0, 0.0),
    ],
)
def test_what_ten_layers_do_to_a_signal(name, activation, low, high):
    """The mean square of a signal after ten layers of 256, as a share of that before."""
    generator = seeded()
    x = start = torch.randn(64, 256, dtype=torch.float64, generator=generator)
    for _ in range(10):
        w = torch.empty(256, 256, dtype=torch.float64)
        x = activation(
            x @ (init.zeros_(w) if name == "zeros_" else getattr(init, name)(w, generator=generator)).T
        )
    grown = x.square().mean() / start.square().mean()
    assert low <= grown <= high


@pytest.mark.parametrize("name", TORCHS)
def test_a_bias_is_refused(name):
    """What has no fans gets a sentence, not a number."""
    with pytest.raises(UserError, match=r"shape \(3,\) has no units with inputs"):
        getattr(init, name)(torch.empty(3))


def test_an_unknown_mode_is_refused():
    """There are two."""
    with pytest.raises(UserError, match="give fan_in or fan_out"):
        init.he_normal_(torch.empty(2, 3), mode="fan_avg")  # type: ignore[arg-type]
