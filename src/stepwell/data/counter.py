"""Random numbers by counting: a value depends on its key alone, not on what was drawn before.

So a sample's augmentation is the same whatever batch, worker or resumed process draws it.
"""

from __future__ import annotations

import torch
from torch import Tensor

Key = int | Tensor  # a tensor: int64 in [0, 2⁶³), one key a member of a population

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def key(*parts: int) -> int:
    """Mixes whole numbers into one key in [0, 2⁶³): a seed for a generator or for `uniform`."""
    z = 0
    for part in parts:
        z = _finish((z + _GAMMA + (part & _MASK)) & _MASK)
    return z >> 1


def stream(parent: Key, part: int) -> Key:
    """`key(parent, part)`; of a tensor of keys, one a member of a population, a tensor of them."""
    if isinstance(parent, int):
        return key(parent, part)
    z = _finish_each(parent + _signed(_GAMMA))
    return _shift(_finish_each(z + _signed(_GAMMA + part)), 1)


def uniform(seed: Key, index: Tensor) -> Tensor:
    """Returns a float64 in [0, 1) for each entry of `index` (int64, any shape).

    The finalizer of SplitMix64 (Steele, Lea & Flood 2014) over seed + index · γ.
    """
    z = index * _signed(_GAMMA) + (_signed(seed) if isinstance(seed, int) else seed)
    return _shift(_finish_each(z), 11).double() * 2.0**-53


def normal(seed: Key, index: Tensor) -> Tensor:
    """Returns a standard normal float64 for each entry of `index`, by the inverse distribution."""
    return torch.special.ndtri(uniform(seed, index).clamp_min(2.0**-54))


def _finish(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def _finish_each(z: Tensor) -> Tensor:
    """`_finish` for each entry of an int64 tensor, whose products wrap around as they should."""
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift(z, 31)


def _signed(value: int) -> int:
    """The same 64 bits as a signed number, which is what torch has."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(z: Tensor, bits: int) -> Tensor:
    """Shift to the right with zeros; torch's own shift of a signed number repeats the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
