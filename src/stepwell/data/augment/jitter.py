"""Random brightness, contrast, saturation and hue."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment.draws import Draws, Stream, computed, of_each, returned
from stepwell.data.augment.units import Units

Strength = float | Tensor


def jitter(
    x: Tensor,
    draws: Draws,
    units: Units,
    *,
    strength: Strength = 0.0,
    brightness: Strength | None = None,
    contrast: Strength | None = None,
    saturation: Strength | None = None,
    hue: Strength = 0.0,
) -> Tensor:
    """torchvision's ColorJitter on (x − low) / (high − low), with a fixed order where that draws one.

    brightness: v ← f v; contrast: v ← f v + (1 − f) m, m the mean of the grey image; saturation:
    v ← f v + (1 − f) grey; hue: turned by h of the color circle. Each f is uniform in [1 − s, 1 + s],
    s the strength; h in [−hue, hue]. After each, v is clamped to [0, 1]. Grey is 0.299 R + 0.587 G +
    0.114 B (ITU-R BT.601; torchvision has 0.2989).

    x: (B, C, H, W); with 3 or 4 channels RGB and a fourth that stays, else grey: brightness and contrast.
    Returns float32 for uint8, else x's type. The trap: where color is the label (ripe, unripe), hue is not.
    """
    low, high = units.range()
    v = ((computed(x) - low) / (high - low)).clamp(0, 1)
    color = x.shape[1] in (3, 4)
    v, rest = (v[:, :3], v[:, 3:]) if color else (v, None)
    if _is_on(by := strength if brightness is None else brightness):
        v = (v * _factor(v, draws, Stream.BRIGHTNESS, by)).clamp(0, 1)
    if _is_on(by := strength if contrast is None else contrast):
        v = _blend(v, of_each(_mean(_grey(v)), v), _factor(v, draws, Stream.CONTRAST, by))
    if color and _is_on(by := strength if saturation is None else saturation):
        v = _blend(v, _grey(v)[:, None], _factor(v, draws, Stream.SATURATION, by))
    if color and _is_on(hue):
        v = _turned(v, of_each(draws.between(Stream.HUE, -hue, hue).to(v.dtype), v[:, 0]))
    v = v if rest is None else torch.cat([v, rest], 1)
    return returned(low + v * (high - low), x)


def _is_on(strength: Strength) -> bool:
    return isinstance(strength, Tensor) or strength > 0


def _factor(v: Tensor, draws: Draws, stream: Stream, by: Strength) -> Tensor:
    return of_each(draws.between(stream, 1 - by, 1 + by).to(v.dtype), v)


def _blend(v: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (v * factor + other * (1 - factor)).clamp(0, 1)


def _grey(v: Tensor) -> Tensor:
    """(B, H, W): the luma of colors, the mean of other channels, whose sum is written out."""
    if v.shape[1] == 3:
        return 0.299 * v[:, 0] + 0.587 * v[:, 1] + 0.114 * v[:, 2]
    return sum(v.unbind(1)) / v.shape[1]  # type: ignore[return-value]


def _mean(grey: Tensor) -> Tensor:
    """(B,): summed in steps of 2⁻³⁰ as whole numbers, so that it is the same in a batch of any size."""
    total = (grey.to(torch.float64) * 2.0**30).round().long().sum((1, 2))
    return (total.to(torch.float64) * (2.0**-30 / grey[0].numel())).to(grey.dtype)


def _turned(v: Tensor, turn: Tensor) -> Tensor:
    """RGB (B, 3, H, W) with its hue turned by (B, 1, 1) turns: to hue, saturation, value and back.

    Back: channel n = V − V S · clamp(min(k, 4 − k), 0, 1), k = (n + 6 h) mod 6, n = 5, 3, 1.
    """
    r, g, b = v.unbind(1)
    most, least = v.amax(1), v.amin(1)
    chroma = most - least
    over = torch.where(chroma > 0, chroma, 1)
    sector = torch.where(
        most == r, (g - b) / over, torch.where(most == g, 2 + (b - r) / over, 4 + (r - g) / over)
    )
    h = sector + 6 * turn  # in sixths of a turn
    places = [(n + h).remainder(6) for n in (5, 3, 1)]
    return torch.stack([most - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in places], 1)
