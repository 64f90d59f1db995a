"""Stochastic depth: residual branches that are left out at random in training (Huang et al. 2016)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from stepwell.errors import UserError
from stepwell.nn import draws
from stepwell.nn.configs import DepthSetting

By = Literal["sample", "batch"]


class StochasticDepth(nn.Module):
    """y = shortcut + b / (1 − p) · branch(x) in training, b = 1[u ≥ p]; shortcut + branch(x) in evaluation.

    p: probability that the branch is dropped. by="sample": each sample has its own b, and batch norm in
    the branch sees all of them. by="batch": one b for all; where it is 0 the branch does not run: it
    costs nothing, its weights get no gradient and its batch norms stay as they were. Where Python cannot
    branch on a number (vmap with a draw for each member, torch.compile) the branch runs, is multiplied by b,
    and rebound buffers below it are put back where b = 0.

    branch: a method of the module that holds the branch's layers, or a module. Its output has the
    shortcut's shape. Random numbers come from `draws.uniform`: one of shape () on the CPU by batch, so
    that a GPU need not be waited for, and one a sample by sample.

    Where we differ: Huang et al. multiply by 1 − p in evaluation instead (eq. 5), which is the same in
    expectation and leaves another network behind; with the division, as in torchvision and timm, a trained
    network is a plain residual network.
    """

    def __init__(self, p: float = 0.5, by: By = "sample") -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise UserError(f"stochastic depth of p={p} cannot be: give a probability of at least 0, below 1")
        if by not in get_args(By):
            raise UserError(f"stochastic depth by={by!r} does not exist: use {', '.join(get_args(By))}")
        self.p, self.by = p, by

    def forward(self, shortcut: Tensor, branch: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return shortcut + branch(x)
        scale = 1 / (1 - self.p)
        if self.by == "sample":
            shape = (len(shortcut), *[1] * (shortcut.dim() - 1))
            keep = draws.uniform(shape, shortcut.device) >= self.p
            return shortcut + branch(x) * keep * scale
        keep = draws.uniform((), torch.device("cpu")) >= self.p
        if _is_symbolic(keep):
            return shortcut + _gated(branch, x, keep.to(shortcut.device)) * scale
        return shortcut + branch(x) * scale if keep else shortcut

    def extra_repr(self) -> str:
        """What printing the model shows of it."""
        return f"p={self.p:.4g}, by={self.by}"


def build(setting: DepthSetting | None, blocks: int) -> list[StochasticDepth]:
    """The layers of a model's blocks, from the first to the last; without a setting nothing is dropped.

    linear: p_l = l / L · p_L, l = 1 … L (Huang et al. 2016, eq. 4, whose numbers are of survival, 1 − p);
    uniform: p_L for all.
    """
    if setting is None:
        return [StochasticDepth(0.0) for _ in range(blocks)]
    shares = [1.0 if setting.kind == "uniform" else (number + 1) / blocks for number in range(blocks)]
    return [StochasticDepth(setting.p * share, setting.by) for share in shares]


def _is_symbolic(keep: Tensor) -> bool:
    """Whether its value is not one number that Python may look at."""
    if torch.compiler.is_compiling():
        return True
    functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    while functorch.is_functorch_wrapped_tensor(keep):  # one layer for each vmap and grad around this
        if functorch.is_batchedtensor(keep):
            return True
        keep = functorch.get_unwrapped(keep)
    return False


def _gated(branch: Callable[[Tensor], Tensor], x: Tensor, keep: Tensor) -> Tensor:
    """keep · branch(x), and buffers of the branch's owner as they were where keep is 0."""
    # Not getattr with a default, which torch.compile takes for "a method has no owner".
    owner = branch.__self__ if inspect.ismethod(branch) else branch
    modules = list(owner.modules()) if isinstance(owner, nn.Module) else []
    before = [(m, name, value) for m in modules for name, value in m.named_buffers(recurse=False)]
    y = branch(x) * keep
    for module, name, old in before:
        setattr(module, name, torch.where(keep, getattr(module, name), old))
    return y
