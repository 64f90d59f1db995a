"""Dropout (Srivastava et al. 2014): inverted, plain with test-time scaling, of whole channels."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from stepwell.errors import UserError
from stepwell.nn import draws
from stepwell.nn.configs import DropoutSetting

Kind = Literal["inverted", "scaled", "spatial"]


class Dropout(_DropoutNd):
    """In training each number is set to 0 with probability p: m = 1[u ≥ p], u ~ U[0, 1).

    inverted: y = m x / (1 − p), in evaluation y = x; as torch.nn.Dropout.
    scaled:   y = m x,           in evaluation y = (1 − p) x: the lectures' and the paper's form.
    spatial:  y = m x / (1 − p) with one m for a sample's whole channel, in evaluation y = x; as
              torch.nn.Dropout1d and 2d (Tompson et al. 2015), since neighbouring pixels tell the same.

    p: in [0, 1]. channel_dim: of spatial, 1 for images (B, C, H, W), −1 for sequences (B, T, C); features
    (B, C) are refused, since their numbers are no channels. All have the mean of y in training equal to
    y in evaluation. Random numbers come from `draws.uniform`, one for each m. Trap: torch.nn.Dropout1d takes
    (B, C) for one sample.
    """

    def __init__(self, p: float = 0.5, kind: Kind = "inverted", *, channel_dim: int = 1) -> None:
        if not 0 <= p <= 1:
            raise UserError(f"dropout of p={p} cannot be: give a probability from 0 to 1")
        if kind not in get_args(Kind):
            raise UserError(f"dropout of kind={kind!r} does not exist: use {', '.join(get_args(Kind))}")
        super().__init__(p)
        self.kind, self.channel_dim = kind, channel_dim

    def forward(self, input: Tensor) -> Tensor:
        p = self.p
        if p == 0:
            return input
        if not self.training:
            return input * (1 - p) if self.kind == "scaled" else input
        keep = draws.uniform(self._mask_shape(input), input.device) >= p
        y = input * keep
        # Not in the mask, whose 1 / (1 − p) would be rounded to bfloat16, with the same error everywhere.
        return y if self.kind == "scaled" or p == 1 else y * (1 / (1 - p))

    def _mask_shape(self, x: Tensor) -> tuple[int, ...]:
        if self.kind != "spatial":
            return tuple(x.shape)
        if x.dim() < 3:
            raise UserError(
                f"spatial dropout sets whole channels to 0, and {tuple(x.shape)} has features: use inverted"
            )
        channel = self.channel_dim % x.dim()
        return tuple(size if d in (0, channel) else 1 for d, size in enumerate(x.shape))

    def extra_repr(self) -> str:
        """What printing the model shows of it."""
        return f"p={self.p}, kind={self.kind}"


def build(setting: DropoutSetting | None, channel_dim: int = 1) -> nn.Module:
    """The layer that a recipe's `model.dropout` means; Identity where there is none."""
    return nn.Identity() if setting is None else Dropout(setting.p, setting.kind, channel_dim=channel_dim)
