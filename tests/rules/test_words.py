"""The words that rules are written with."""

import torch

from stepwell.rules.words import select


def test_select_keeps_every_digit_of_two_numbers():
    """Two numbers under a tensor condition come back as they are, not rounded to float32."""
    chosen = select(torch.tensor([True, False]), 0.1, 1 / 3)
    assert chosen.tolist() == [0.1, 1 / 3]
