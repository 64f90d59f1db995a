"""Stochastic depth: means by seeded sampling, the work that is saved, what stays as it was."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap

from stepwell.errors import UserError
from stepwell.nn import registry
from stepwell.nn.configs import DepthSetting, ResNetModel, TransformerModel
from stepwell.nn.normalization.batch import BatchNorm
from stepwell.nn.stochastic_depth import StochasticDepth, build


class Counting(nn.Module):
    """A branch that counts its calls, with weights and statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.calls = nn.Linear(3, 3), BatchNorm(3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(self.linear(x))


@pytest.mark.parametrize("p", [0.2, 0.7])
@pytest.mark.parametrize("by", ["sample", "batch"])
def test_training_has_the_mean_of_evaluation(by, p):
    """E y = shortcut + branch, within five standard errors √(p/(1−p)/n) of a branch of 1."""
    torch.manual_seed(0)
    layer, n = StochasticDepth(p, by), 20_000
    x = torch.full((n, 1) if by == "sample" else (1, 1), 2.0, dtype=torch.float64)
    passes = 1 if by == "sample" else n
    y = torch.cat([layer(x, torch.ones_like, x) for _ in range(passes)])
    assert abs(y.mean().item() - 3.0) < 5 * math.sqrt(p / (1 - p) / n)
    torch.testing.assert_close(y.unique(), torch.tensor([2.0, 2.0 + 1 / (1 - p)], dtype=torch.float64))
    assert abs((y == 2).double().mean().item() - p) < 5 * math.sqrt(p * (1 - p) / n)
    assert (layer.eval()(x, torch.ones_like, x) == 3.0).all()


def test_by_batch_a_dropped_branch_does_no_work():
    """It is called as often as it is kept; else its statistics and gradients stay as they were."""
    torch.manual_seed(0)
    layer, branch, kept = StochasticDepth(0.6, "batch"), Counting(), 0
    for _ in range(400):
        calls, before = branch.calls, branch.norm.state_dict()
        branch.zero_grad()
        x = torch.randn(4, 3)
        y = layer(x, branch, x)
        y.sum().backward() if y.requires_grad else None
        kept += branch.calls - calls
        if branch.calls == calls:
            assert y is x and branch.linear.weight.grad is None
            after = branch.norm.state_dict()
            assert all(torch.equal(after[key], before[key]) for key in after)
    assert branch.calls == kept == int(branch.norm.state_dict()["num_batches_tracked"])
    assert abs(kept / 400 - 0.4) < 5 * math.sqrt(0.24 / 400)


def test_by_sample_each_is_dropped_by_itself():
    """Kept samples have the branch's output divided by 1 − p, of batch statistics over all samples."""
    torch.manual_seed(0)
    layer, branch, x = StochasticDepth(0.5, "sample"), Counting(), torch.randn(64, 3)
    expected = branch(x) / 0.5
    y = layer(x, branch, x) - x
    dropped = (y == 0).all(1)
    assert 16 < int(dropped.sum()) < 48
    torch.testing.assert_close(y[~dropped], expected[~dropped])


def test_members_of_a_stack_draw_by_themselves():
    """vmap with a draw for each member: some skip, others do not, with the values of either."""
    layer, x = StochasticDepth(0.5, "batch"), torch.ones(64, 2, 1)
    torch.manual_seed(0)
    y = vmap(lambda x: layer(x, torch.ones_like, x), randomness="different")(x)
    assert y.unique().tolist() == [1.0, 3.0] and 16 < int((y[:, 0, 0] == 1).sum()) < 48


def test_probabilities_over_depth():
    """linear: l/L · p_L, so survival is 1 − l/L (1 − p) as in the paper's eq. 4; uniform: all the same."""

    def shares(**setting) -> list[float]:
        return [layer.p for layer in build(DepthSetting(**setting), 4)]

    assert shares(p=0.4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert shares(p=0.4, kind="uniform") == [0.4] * 4
    assert [layer.p for layer in build(None, 3)] == [0, 0, 0]


def forward_count(body: nn.Module, kind: type[nn.Module]) -> list[int]:
    """How often each module of this kind has run, from now on."""
    counts: list[int] = []
    for number, module in enumerate(m for m in body.modules() if isinstance(m, kind)):
        counts.append(0)

        def count(*_, number: int = number) -> None:
            counts[number] += 1

        module.register_forward_hook(count)
    return counts


@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_models_skip_branches_more_often_with_depth(name):
    """Of 300 training passes the l-th branch runs 1 − p_l of the times; in evaluation all run."""
    depth = {"p": 0.6, "by": "batch"}
    if name == "resnet":
        config = ResNetModel.model_validate({"depth": 8, "width": 1, "stochastic_depth": depth})
        body, x, part = registry.build(config, (1, 4, 4), 2), torch.randn(2, 1, 4, 4), BatchNorm
        expected = [1.0, 0.8, 0.8, 0.6, 0.6, 0.4, 0.4]
    else:
        config = TransformerModel.model_validate({"layers": 2, "width": 4, "stochastic_depth": depth})
        body, x, part = registry.build(config, (3,), 4, "text"), torch.zeros(1, 3).long(), nn.LayerNorm
        expected = [0.7, 0.7, 0.4, 0.4, 1.0]
    counts = forward_count(body, part)
    torch.manual_seed(0)
    for _ in range(300):
        body(x)
    for count, share in zip(counts, expected, strict=True):
        assert abs(count / 300 - share) <= 5 * math.sqrt(share * (1 - share) / 300)
    counts[:] = [0] * len(counts)
    body.eval()(x)
    assert counts == [1] * len(counts)


def test_refusals():
    """p = 1 would leave nothing to divide by."""
    with pytest.raises(UserError, match=r"p=1\.0 cannot be"):
        StochasticDepth(1.0)
    with pytest.raises(UserError, match="use sample, batch"):
        StochasticDepth(0.5, "row")  # type: ignore[arg-type]
