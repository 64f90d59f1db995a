"""A fixed set of views of each image, over which a finished network's predictions are averaged."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

SHARE = 0.875  # of the side, 224 of 256 pixels (Krizhevsky et al. 2012, §4.1)


@dataclass(frozen=True)
class Views:
    """flip: the image and its mirror. five-crop: windows at the four corners and in the center, each
    resized to the full size; their sides are `share` of the image's. ten-crop: those and their mirrors.
    """

    kind: Literal["flip", "five-crop", "ten-crop"]
    share: float = SHARE

    def of(self, x: Tensor) -> Iterator[Tensor]:
        """Yields each view of the images x (B, C, H, W) in their size, one at a time to spare memory."""
        if self.kind == "flip":
            yield x
            yield x.flip(-1)
            return
        for window in self._windows(x):
            yield window
            if self.kind == "ten-crop":
                yield window.flip(-1)

    def _windows(self, x: Tensor) -> Iterator[Tensor]:
        height, width = x.shape[-2:]
        h, w = max(round(self.share * height), 1), max(round(self.share * width), 1)
        down, right = height - h, width - w
        values = x if x.is_floating_point() else x.to(torch.float32)
        for top, left in ((0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)):
            window = values[..., top : top + h, left : left + w]
            yield F.interpolate(window, size=(height, width), mode="bilinear", align_corners=False)


def mean_outputs(outputs: list[Tensor], task: str) -> Tensor:
    """The outputs whose prediction is the mean of the views' predictions; outputs: (B, K) a view.

    Classes: log p̄, p̄ the mean of the softmax; labels: log p̄ − log(1 − p̄), p̄ the mean of the sigmoid;
    numbers: the mean. So a loss of these outputs is that of the averaged prediction.
    """
    z = torch.stack(outputs)
    if task == "regression":
        return z.mean(0)
    if task == "multi-label":
        yes, no = F.logsigmoid(z), F.logsigmoid(-z)
        return yes.logsumexp(0) - no.logsumexp(0)
    return z.log_softmax(-1).logsumexp(0) - math.log(len(outputs))
