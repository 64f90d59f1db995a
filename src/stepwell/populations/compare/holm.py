"""Holm's correction: several tests at once, with one bound on any false alarm among them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Returns the corrected p of each test: below α for some true null hypothesis with probability ≤ α.

    With p₍₁₎ ≤ … ≤ p₍ₘ₎:  p̃₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎)

    It needs no independence, and is never weaker than Bonferroni's m·p. None stays None and does not count.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65.
    """
    tests = sorted((value, place) for place, value in enumerate(p) if value is not None)
    scaled = (min(1.0, (len(tests) - j) * value) for j, (value, _) in enumerate(tests))
    corrected: list[float | None] = [None] * len(p)
    for (_, place), value in zip(tests, itertools.accumulate(scaled, max), strict=True):
        corrected[place] = value
    return corrected
