"""Label smoothing: torch's cross-entropy, and targets written out."""

import pytest
import torch
from torch.nn import functional as F

from stepwell.errors import UserError
from stepwell.nn.losses import LossConfig, build, mean


def config(name):
    return LossConfig(name=name)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
def test_cross_entropy_is_torchs(shape, smoothing):
    """For classes and for text, per sample and as a mean, with its gradient, in float64."""
    torch.manual_seed(0)
    z = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = torch.randint(5, shape[:-1])
    loss = build(config("cross-entropy"), "multi-class", smoothing)
    expected = F.cross_entropy(
        z.movedim(-1, 1) if z.dim() > 2 else z, y, reduction="none", label_smoothing=smoothing
    )
    torch.testing.assert_close(loss(z, y), expected, rtol=1e-12, atol=0)
    (mine,) = torch.autograd.grad(mean(loss)(z, y), z)
    (theirs,) = torch.autograd.grad(expected.mean(), z)
    torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", ["cross-entropy", "mse"])
def test_several_labels_and_squares(name, smoothing):
    """A label is (1 − ε) y + ε / 2, a class (1 − ε) one-hot + ε / K: the losses of these targets."""
    torch.manual_seed(0)
    z = torch.randn(6, 4, dtype=torch.float64)
    labels = torch.randint(2, (6, 4)).double()
    soft = labels * (1 - smoothing) + smoothing / 2
    found = build(config(name), "multi-label", smoothing)(z, labels)
    p = z.sigmoid()
    each = (p - soft) ** 2 if name == "mse" else -(soft * p.log() + (1 - soft) * (1 - p).log())
    torch.testing.assert_close(found, each.mean(1))
    y = torch.randint(4, (6,))
    soft = torch.eye(4, dtype=torch.float64)[y] * (1 - smoothing) + smoothing / 4
    p = z.softmax(1)
    expected = ((p - soft) ** 2).sum(1) if name == "mse" else -(soft * p.log()).sum(1)
    torch.testing.assert_close(build(config(name), "multi-class", smoothing)(z, y), expected)


def test_numbers_have_no_labels():
    """Smoothing the labels of a regression is refused."""
    with pytest.raises(UserError, match=r"regularize\.label_smoothing has no effect"):
        build(config("mse"), "regression", 0.1)
