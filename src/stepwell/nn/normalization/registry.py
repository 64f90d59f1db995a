"""Every normalization by name, and where it stands in a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from stepwell.data.dataset import Kind
from stepwell.errors import UserError
from stepwell.nn.configs import NormSetting
from stepwell.nn.normalization.batch import BatchNorm
from stepwell.nn.normalization.group import GroupNorm
from stepwell.nn.normalization.instance import InstanceNorm
from stepwell.nn.normalization.layer import LayerNorm
from stepwell.nn.normalization.rms import RMSNorm
from stepwell.nn.normalization.spectral import spectral_norm
from stepwell.nn.normalization.weight import weight_norm

# Of signals: (setting, channels, dimension of the channels: 1 of images, −1 of all else) → layer.
SIGNALS: dict[str, Callable[[NormSetting, int, int], nn.Module]] = {
    "batch": lambda s, c, dim: BatchNorm(c, momentum=s.momentum, channel_dim=dim),
    "layer": lambda s, c, dim: LayerNorm(c, channel_dim=dim),
    "rms": lambda s, c, dim: RMSNorm(c, channel_dim=dim),
    "instance": lambda s, c, dim: InstanceNorm(c, channel_dim=dim),
    "group": lambda s, c, dim: _group(s.groups, c, dim),
}

# Of weights: layer → the same layer.
WEIGHTS: dict[str, Callable[[nn.Module], nn.Module]] = {"weight": weight_norm, "spectral": spectral_norm}


def after(setting: NormSetting, channels: int, kind: Kind, places: int | None = None) -> nn.Module:
    """The norm after a layer with `channels` outputs on data of this kind; Identity where there is none.

    kind: "image" (B, C, H, W); "features" (B, C); "sequence" and "text" (B, T, C). places: how many
    pixels or steps there are, if that is known. A convolution before it needs no bias if `has_bias` of it.
    """
    if setting.kind not in SIGNALS:
        return nn.Identity()
    if setting.kind == "instance":
        if kind == "features":
            raise UserError("model.norm=instance averages over places, and features have none: use layer")
        if kind == "text":
            raise UserError(
                "model.norm=instance would let a character's prediction see the ones after it: use layer"
            )
        if places == 1:
            raise UserError(
                "model.norm=instance averages over places, and one place is left in this model: use layer"
            )
    return SIGNALS[setting.kind](setting, channels, 1 if kind == "image" else -1)


def normalize_weights(setting: NormSetting, layers: Iterable[nn.Module]) -> None:
    """Puts weight or spectral norm, where it is chosen, on the weights of these initialized layers."""
    if setting.kind in WEIGHTS:
        for layer in layers:
            WEIGHTS[setting.kind](layer)


def has_bias(norm: nn.Module) -> bool:
    """Whether the norm adds a β of each channel, so that a bias just before it would be one too many."""
    return getattr(norm, "bias", None) is not None


def _group(groups: int, channels: int, dim: int) -> nn.Module:
    """A group of one feature alone would always be 0."""
    if channels % groups or (dim == -1 and channels == groups):
        least = " and leaves two in a group" if dim == -1 else ""
        raise UserError(
            f"model.norm.groups={groups} does not go with {channels} channels: give a number that divides "
            f"them{least}"
        )
    return GroupNorm(groups, channels, channel_dim=dim)
