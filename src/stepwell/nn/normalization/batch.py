"""Batch normalization (Ioffe & Szegedy 2015)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from stepwell.errors import UserError
from stepwell.nn import ranks


class BatchNorm(_BatchNorm):
    """y = (x − μ) / √(σ² + ε) · γ + β, μ and σ² of each channel over the batch and all places.

    x: (B, C) or (B, C, …); with channel_dim=-1 (…, C), of which all but the last dimension are places.
    In training also m ← (1 − momentum) m + momentum μ, and v likewise with n/(n−1) σ²; in evaluation
    these stand for μ and σ². momentum: in [0, 1], or None for the mean over all batches so far.
    affine: whether there are γ (`weight`) and β (`bias`). track_running_stats: whether there are m and v
    (`running_mean`, `running_var`, `num_batches_tracked`). All as torch.nn.BatchNorm1d, 2d and 3d, bit
    for bit, but for three things:

    1. The buffers are never changed in place: a training forward *rebinds* them. So
       `torch.func.functional_call(net, state, x)` leaves the new ones in the dictionary `state` (if it is
       one dictionary: of a tuple of several torch writes into a copy), and the layer works under
       vmap(grad(…)). Whoever keeps a tensor of the state keeps the old values.
    2. Where torch.distributed runs more than one process, μ and σ² are those of all processes' samples,
       with gradients, whatever each one's share; gloo will do. synchronized=False: each for itself, as
       processes must that do not train one model together.
    3. Input of any number of dimensions.

    Traps: a batch of one value a channel has no variance, and is refused. Who keeps a list of the buffers
    keeps old ones: DistributedDataParallel, whose broadcast_buffers is of no use here and not needed, and
    a CUDA graph captured by hand. Source: Ioffe & Szegedy 2015, algorithms 1 and 2; ε inside the root, as
    here.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        channel_dim: int = 1,
        synchronized: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.channel_dim, self.synchronized = channel_dim, synchronized

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() < 2:
            raise UserError(f"batch norm needs a batch of samples, not a tensor of {input.dim()} dimension")
        if self.channel_dim == 1:
            return self._normalized(input)
        return self._normalized(input.flatten(0, -2)).view(input.shape)

    def _normalized(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if not self.training and mean is not None:
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        if not self.track_running_stats:
            mean = var = None
        if self.training and self.synchronized and ranks.count() > 1:
            y, mean, var = self._over_all_ranks(x, mean, var)
        else:
            if x.numel() == x.shape[1]:
                raise UserError(
                    "batch norm has no variance over a batch of one value a channel: give larger batches "
                    "(training.batch_size), or another normalization (model.norm=layer)"
                )
            if mean is not None and var is not None:
                mean, var = mean.clone(), var.clone()  # C numbers, which torch now changes in place
            share = 1.0 if self.momentum is None else self.momentum
            y = F.batch_norm(x, mean, var, self.weight, self.bias, True, share, self.eps)
        if mean is not None and var is not None:
            self._keep(mean, var)
        return y

    def _keep(self, mean: Tensor, var: Tensor) -> None:
        """Rebinds the buffers: to these; where momentum is None these are one batch's, of the mean of all."""
        assert self.num_batches_tracked is not None
        seen = self.num_batches_tracked + 1
        if self.momentum is None and self.running_mean is not None and self.running_var is not None:
            share = 1.0 / seen.to(mean.dtype)
            mean, var = self.running_mean.lerp(mean, share), self.running_var.lerp(var, share)
        self.running_mean, self.running_var, self.num_batches_tracked = mean, var, seen

    def _over_all_ranks(
        self, x: Tensor, mean: Tensor | None, var: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """y, and the running statistics after this batch; two sums of C numbers over the processes.

        The second one is of squares about the common mean: Σx² − (Σx)²/n would lose all digits where
        the mean is large.
        """
        places = [d for d in range(x.dim()) if d != 1]
        kind = torch.promote_types(x.dtype, torch.float32)
        x, given = x.to(kind), x.dtype
        own = x.new_full((1,), x.numel() / x.shape[1])
        found = ranks.total(torch.cat([x.sum(places), own]))
        n = found[-1].detach()
        mu = found[:-1] / n
        shape = [1, -1] + [1] * (x.dim() - 2)
        centred = x - mu.view(shape)
        sigma2 = ranks.total(centred.square().sum(places)) / n
        scale = (sigma2 + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        y = centred * scale.view(shape)
        y = y if self.bias is None else y + self.bias.view(shape)
        if mean is not None and var is not None:
            share = 1.0 if self.momentum is None else self.momentum
            unbiased = sigma2.detach() * (n / (n - 1))
            mean = share * mu.detach().to(mean.dtype) + (1 - share) * mean
            var = share * unbiased.to(var.dtype) + (1 - share) * var
        return y.to(given), mean, var
