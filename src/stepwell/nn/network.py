"""The trained thing as a whole: standardization, the model, and what its outputs mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stepwell.data.dataset import DataSet, Kind, Task
from stepwell.nn.views import Views, mean_outputs


class Network(nn.Module):
    """forward(x) = body((x − shift) · scale); decode turns that into probabilities or target values.

    body: (B, *input_shape) → (B, outputs), for text (B, T) → (B, T, outputs).
    shift, scale: broadcastable to one sample; ignored for text, identity where None.
    target_mean, target_std: (outputs,), regression only: the body predicts (y − mean) / std. In float64
        they give predictions in float64, so that a large mean does not swallow the differences.

    views: of each image, whose mean `predict` gives; `forward` looks at the image alone.

    The tensors are buffers: they are saved, moved and converted with the weights, so a model file
    needs nothing else to predict from raw inputs (uint8 images, features in the data's own units).
    """

    kind: Kind
    task: Task
    input_scale: Tensor
    input_offset: Tensor
    target_mean: Tensor | None
    target_std: Tensor | None

    def __init__(
        self,
        body: nn.Module,
        kind: Kind,
        task: Task,
        shift: Tensor | None = None,
        scale: Tensor | None = None,
        target_mean: Tensor | None = None,
        target_std: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.body, self.kind, self.task = body, kind, task
        self.views: Views | None = None  # set for the finished network, see `stepwell.nn.views`
        self.frozen: list[nn.Module] = []  # parts of the body that stay in evaluation mode
        if kind != "text":
            shift = torch.zeros(()) if shift is None else shift
            scale = torch.ones(()) if scale is None else scale
            # (x − shift)·scale = offset + x·scale is one operation. Its rounding error is ε·|shift|·scale,
            # the same as that of x itself near its mean, so nothing is lost that x still had.
            self.register_buffer("input_scale", scale.clone())
            self.register_buffer("input_offset", (-shift.double() * scale.double()).to(scale.dtype))
        regression = task == "regression"
        self.register_buffer(
            "target_mean", target_mean.clone() if regression and target_mean is not None else None
        )
        self.register_buffer(
            "target_std", target_std.clone() if regression and target_std is not None else None
        )

    @classmethod
    def of(cls, body: nn.Module, data: DataSet) -> Network:
        """Puts the statistics of the data's training part around the body."""
        return cls(
            body, data.kind, data.task, data.input_shift, data.input_scale, data.target_mean, data.target_std
        )

    def around(self, body: nn.Module) -> Network:
        """Another body inside of this network's own tensors and views."""
        other = Network(body, self.kind, self.task)
        for name, value in self.named_buffers(recurse=False):
            setattr(other, name, value)
        other.views = self.views
        return other.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """As torch's, but what is frozen is a fixed function: its statistics stay, and nothing drops out."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (B, outputs), (B, T, outputs) for text, or standardized targets (B, outputs)."""
        return self.body(self.standardize(x))

    def standardize(self, x: Tensor) -> Tensor:
        """Inputs (B, …) in standard deviations of the training part; text as it is."""
        if self.kind == "text":
            return x
        return torch.addcmul(self.input_offset, x.to(self.input_scale.dtype), self.input_scale)

    def encode(self, targets: Tensor) -> Tensor:
        """Targets as the loss wants them: for regression in standard deviations of the training part."""
        if self.target_mean is None or self.target_std is None:
            return targets
        return ((targets - self.target_mean) / self.target_std).to(self.input_scale.dtype)

    def decode(self, outputs: Tensor) -> Tensor:
        """Probabilities by softmax (multi-label: sigmoid), or targets in the data's own units."""
        if self.task == "multi-label":
            return outputs.sigmoid()
        if self.task != "regression":
            return outputs.softmax(-1)
        if self.target_mean is None or self.target_std is None:
            return outputs
        return torch.addcmul(self.target_mean, outputs.to(self.target_mean.dtype), self.target_std)

    def outputs(self, x: Tensor) -> Tensor:
        """forward(x); with views what stands for the mean of their predictions (see `views.mean_outputs`)."""
        if self.views is None:
            return self(x)
        return mean_outputs([self(view) for view in self.views.of(x)], self.task)

    def predict(self, x: Tensor) -> Tensor:
        """decode(outputs(x)): from raw inputs to probabilities or target values."""
        return self.decode(self.outputs(x))


class Predictor(nn.Module):
    """A network whose forward is `predict`: the module to export.

    classes, targets: names in the order of the outputs, where somebody has said them.
    """

    classes: list[str]
    targets: list[str]

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.classes, self.targets = [], []

    def forward(self, x: Tensor) -> Tensor:
        return self.network.predict(x)
