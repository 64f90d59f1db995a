"""Re-estimated statistics are torch's, and nothing else of the model changes."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

import stepwell as sw
from stepwell.errors import UserError


def net(norm, *between):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), norm(4), nn.ReLU(), *between, nn.Conv2d(4, 3, 3), norm(3)
    ).double()


def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 2, 7, 7, generator=generator, dtype=torch.float64) + k for k in range(5)]


def test_is_update_bn():
    """float64: our norms and torch's, from inputs and from pairs, after other statistics and modes."""
    ours, torchs, expected = net(sw.nn.BatchNorm), net(nn.BatchNorm2d), net(nn.BatchNorm2d)
    update_bn(batches(), expected)
    for model in (ours, torchs):
        model(batches()[0])
        model.eval()
        model[1].train()
        sw.nn.reestimate(model, [(x, "a target") for x in batches()])
        for key, value in expected.state_dict().items():
            torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-12, atol=1e-12)
        assert [m.training for m in model.modules()] == [False, False, True, False, False, False]
        assert model[1].momentum == model[4].momentum == 0.1


def test_dropout_is_off():
    """The statistics are those of the signals that evaluation has; torch's are of noisy ones."""
    noisy = net(sw.nn.BatchNorm, nn.Dropout(0.9), sw.nn.Dropout(0.9))
    sw.nn.reestimate(noisy, batches())
    plain = net(sw.nn.BatchNorm)
    sw.nn.reestimate(plain, batches())
    assert torch.equal(noisy.state_dict()["6.running_var"], plain.state_dict()["4.running_var"])
    assert noisy.training


def test_without_batch_norm_nothing_is_asked_for():
    """No batch is read, and an endless iterator is no matter."""
    sw.nn.reestimate(nn.Linear(3, 2), (pytest.fail("a batch") for _ in range(1)))
    sw.nn.reestimate(sw.nn.BatchNorm(3, track_running_stats=False), iter([]))


def test_a_failure_leaves_the_old_statistics():
    """No batches, or one that does not fit: an error, and the model as it was."""
    model = net(sw.nn.BatchNorm)
    model(batches()[0])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError, match="no batches"):
        sw.nn.reestimate(model, [])
    with pytest.raises(RuntimeError):
        sw.nn.reestimate(model, [*batches(), torch.zeros(1, 5, 7, 7, dtype=torch.float64)])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model[1].momentum == 0.1 and model.training


def test_a_frozen_batch_norm_keeps_its_statistics():
    """In evaluation mode inside a model in training mode; the others are measured, and modes stay."""
    model = nn.Sequential(sw.nn.BatchNorm(3), nn.Linear(3, 3), sw.nn.BatchNorm(3)).train()
    model[0].eval()
    sw.nn.reestimate(model, [torch.randn(8, 3) + 2])
    kept, measured = model[0], model[2]
    assert not kept.running_mean.any() and measured.running_mean.any()  # type: ignore[union-attr,operator]
    assert not kept.training and measured.training
