"""What the raw numbers of the inputs mean; standardization comes later, inside the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stepwell.data.dataset import DataSet, Inputs
from stepwell.errors import UserError

LOOKED_AT = 4096  # images that the range of values is taken from, where there are more


@dataclass(frozen=True)
class Units:
    """Mean and standard deviation of the training part, broadcastable to one sample; its range of values.

    The defaults are those of inputs that are standardized already. low, high: None where not known.
    """

    mean: float | Tensor = 0.0
    sd: float | Tensor = 1.0
    low: float | None = None
    high: float | None = None

    def of(self, x: Tensor) -> Units:
        """These units for the batch x: pixels in uint8 go from 0 to 255, whatever the training part has."""
        return replace(self, low=0.0, high=255.0) if x.dtype == torch.uint8 else self

    def to(self, device: torch.device) -> Units:
        """The same on another device."""
        mean, sd = (v.to(device) if isinstance(v, Tensor) else v for v in (self.mean, self.sd))
        return replace(self, mean=mean, sd=sd)

    def range(self) -> tuple[float, float]:
        """(low, high); UserError where nobody said them."""
        if self.low is None or self.high is None:
            raise UserError(
                "augment.jitter needs to know where black and white are, since these images are no uint8: "
                "give Augment(values=(lowest, highest))"
            )
        return self.low, self.high


def learnt(data: DataSet, device: torch.device, with_range: bool) -> Units:
    """The units of a training part; its range of values is looked for only where it is needed."""
    low, high = extremes(data.train.inputs) if with_range else (None, None)
    if data.input_shift is None or data.input_scale is None:
        return Units(low=low, high=high)
    return Units(data.input_shift.to(device), (1 / data.input_scale).to(device), low, high)


def extremes(inputs: Inputs) -> tuple[float, float]:
    """The least and the largest value of the images, of LOOKED_AT of them where there are more."""
    if inputs.gather(torch.zeros(1, dtype=torch.int64)).dtype == torch.uint8:
        return 0.0, 255.0
    count = min(len(inputs), LOOKED_AT)
    every = torch.linspace(0, len(inputs) - 1, count).round().long()
    found = [torch.stack(inputs.gather(index).aminmax()) for index in every.split(128)]
    low, high = torch.stack(found).to(torch.float64).unbind(1)
    return float(low.min()), float(high.max())
