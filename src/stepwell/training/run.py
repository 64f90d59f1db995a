"""Everything that training works on: built from a recipe and its data, changed by the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from stepwell.data import counter
from stepwell.data.augment.partners import Mixed
from stepwell.data.augment.pipeline import Augment
from stepwell.data.batches import Batches
from stepwell.data.dataset import DataSet
from stepwell.engine.eager import pack
from stepwell.errors import UserError
from stepwell.nn import losses, registry
from stepwell.nn.configs import UserModel
from stepwell.nn.mixed import mixed_loss
from stepwell.nn.network import Network
from stepwell.nn.units import Units
from stepwell.optim import configs as optimizers
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.recipe import Recipe, choose_device, updates_per_epoch
from stepwell.training import first_weights
from stepwell.training.closure_optimizer import ClosureOptimizer, flattened, restored
from stepwell.training.fine_tuning import fine_tuning
from stepwell.training.pace import Pace
from stepwell.training.transfer import Source, begin, require_same_inputs
from stepwell.training.user_model import try_out


class Run:
    """The state of a training: weights, optimizer, position, and what has been seen since the last check.

    `live` holds every tensor that an update changes, by name; with `position` and the random
    state it is all that a run is made of, for a roll-back and for a checkpoint alike.
    """

    def __init__(self, recipe: Recipe, data: DataSet, source: Source | None = None) -> None:
        self.recipe, self.data, self.source = recipe, data, source
        self.device = choose_device(recipe.training.device)
        self.network, self.notes = network_of(recipe, data, self.device, source)  # notes are for the user
        self.tuning = fine_tuning(recipe.model, self.network, data.outputs)
        self.parameters = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise UserError(f"model.name={recipe.model.name} has no weights to train")
        pack(self.parameters.values())
        for module in self.network.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()  # on a GPU cuDNN wants an order of its own, or copies every time
        regularize = recipe.regularize
        groups = self.parameters.values()
        if self.tuning is not None:
            groups = self.tuning.groups(groups, recipe.optimizer)
        self.optimizer: Any = optimizers.build(
            recipe.optimizer, groups, regularize, recipe.training.average is not None
        )
        if not isinstance(self.optimizer, RuleOptimizer):
            if recipe.training.precision == "fp16":
                raise UserError(
                    f"training.precision=fp16 does not go with optimizer={recipe.optimizer.name}: use bf16"
                )
            self.optimizer = ClosureOptimizer(self.optimizer, self._gradients, self.optimizer_loss)
        self.sample_loss = losses.build(recipe.loss, data.task)
        learnt = losses.build(recipe.loss, data.task, regularize.label_smoothing)
        self.loss = losses.mean(learnt)
        self.encode: Callable[[Any], Any] = self.network.encode  # targets, as the loss wants them
        # None where nothing changes the batches: they are handed on as they are.
        augment = Augment.of(recipe.augment, data, self.device) if recipe.augment.settings() else None
        if augment is not None and augment.mixes:
            self.loss, self.encode = losses.mean(mixed_loss(learnt)), self._encode_mixed
        self._prepare_batches(augment)
        self._prepare_precision()
        self.update = 0  # updates made
        self.rate_factor = 1.0  # lowered by each roll-back
        self.roll_backs = 0
        self.skipped = torch.zeros((), device=self.device)  # updates in a row that fp16 had to skip
        self.time_is_up = False  # of a budget in seconds, as of the last update
        self.rolled_back_to = -1  # the update that the last roll-back went to
        self.seconds_before = 0.0  # in earlier processes of this run
        self.started = time.monotonic()
        self.progress = 0.0  # share of a budget in seconds that is spent, as of the last check
        self.pending: list[tuple[Tensor, Tensor]] = []  # loss and gradient norm of each update since then
        self.units = Units()  # dead and saturated ones, see `gradient_flow`
        self.best: dict[str, Any] = {}  # update and validation loss of the best weights
        self.best_weights: dict[str, Tensor] = {}
        torch.manual_seed(counter.key(recipe.seed, 1))

    @property
    def is_small(self) -> bool:
        """Whether a batch is so little arithmetic that a second thread only waits for the first.

        Up to some ten million multiplications a batch two threads are slower than one (measured by
        benchmarks/threads.py), and many times slower where another program uses a core too.
        """
        dense = self.recipe.model.name in ("linear", "mlp") and self.device.type == "cpu"
        weights = sum(p.numel() for p in self.parameters.values())
        return dense and weights * self.recipe.training.batch_size <= 10_000_000

    def _encode_mixed(self, y: Mixed) -> Mixed:
        return y.map(self.network.encode)

    def _prepare_batches(self, augment: Augment | None) -> None:
        training, data = self.recipe.training, self.data
        self.updates_per_epoch = updates_per_epoch(len(data.train), training.batch_size, training.accumulate)
        if training.epochs is not None:
            self.updates: int | None = training.epochs * self.updates_per_epoch
        else:
            self.updates = training.updates  # None: a budget in seconds
        self.pace = Pace(self.recipe, self.updates)
        self.batches = Batches(
            data.train,
            training.batch_size,
            training.accumulate,
            self.updates_per_epoch,
            counter.key(self.recipe.seed, 2),
            self.device,
            None if augment is None else augment.apply,
        )

    def _prepare_precision(self) -> None:
        precision = self.recipe.training.precision
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self._autocast_dtype = kind
        self.scaler = torch.amp.GradScaler(self.device.type) if precision == "fp16" else None  # type: ignore[attr-defined]

    def losses(self) -> Iterator[Tensor]:
        """The losses of the next update's batches, whose sum is the mean over all their samples."""
        if self.tuning is not None:
            self.tuning.follow(self.progress if self.updates is None else self.fraction)
        batches = self.batches.at(self.update)
        samples = sum(len(y) for _, y in batches) if len(batches) > 1 else 0
        for x, y in batches:
            with self.autocast():
                loss = self.loss(self.network(x), self.encode(y))
            # The share, also where the last batch is small.
            yield loss * (len(y) / samples) if len(batches) > 1 else loss

    def _gradients(self) -> Tensor:
        total = self.optimizer_loss()
        total.backward()
        return total.detach()

    def optimizer_loss(self) -> Tensor:
        """The loss of the next update with its graph, for an optimizer that asks for it again."""
        return torch.stack(list(self.losses())).sum()

    def autocast(self) -> AbstractContextManager[Any]:
        """The arithmetic of forward and loss."""
        if self._autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._autocast_dtype)

    @property
    def live(self) -> dict[str, Tensor]:
        """Every tensor that an update changes, by name; asked anew, since a module may rebind a buffer."""
        live = {f"model.{name}": value for name, value in self.network.state_dict(keep_vars=False).items()}
        names = {p: name for name, p in self.parameters.items()}
        for number, engine in enumerate(self.optimizer.engines()):
            for p, state in zip(engine.parameters, engine.state, strict=True):
                for key, value in state.items():
                    live[f"optimizer.{number}.{names[p]}.{key}"] = value
        return live

    def closure_state(self) -> tuple[dict[str, Tensor], Any]:
        """The state of an optimizer that is none of a rule, as tensors by name and JSON."""
        tensors: dict[str, Tensor] = {}
        if not isinstance(self.optimizer, ClosureOptimizer):
            return tensors, None
        return tensors, flattened(self.optimizer.state_dict(), tensors, "closure")

    def load_closure_state(self, tensors: dict[str, Tensor], about: Any) -> None:
        if isinstance(self.optimizer, ClosureOptimizer) and about is not None:
            self.optimizer.load_state_dict(restored(about, tensors))

    @property
    def epoch(self) -> float:
        return self.update / self.updates_per_epoch

    @property
    def samples(self) -> int:
        """How many samples the updates so far have seen."""
        epochs, place = divmod(self.update, self.updates_per_epoch)
        each = min(len(self.data.train), self.updates_per_epoch * self.batches.size)
        return epochs * each + min(place * self.batches.size, each)

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    @property
    def finished(self) -> bool:
        if self.pace.ended_early:
            return True
        return self.update >= self.updates if self.updates is not None else self.time_is_up

    def look_at_clock(self) -> None:
        """Decides once an update whether the seconds are spent, so that all who ask get one answer."""
        if self.updates is None:
            self.time_is_up = self.fraction >= 1.0

    @property
    def fraction(self) -> float:
        """How much of the budget is spent, in [0, 1]."""
        if self.updates is not None:
            return self.update / self.updates
        return min(self.seconds / (self.recipe.training.seconds or 1.0), 1.0)

    def rate(self) -> float:
        """The learning rate of the next update."""
        return self.pace.rate(self._place) * self.rate_factor

    def follow_schedule(self) -> None:
        """Puts today's rate into the optimizer, and what else has a course: momentum, average."""
        rate, momentum, averaging = self.rate(), self.pace.momentum, self.pace.averaging
        kept = None
        if averaging is not None:
            there = self.update + 1 if self.updates is not None else self._place
            kept = averaging.kept(there, (self.update + 1) // self.updates_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("layer_rate", 1.0)
            if kept is not None:
                group["ema"] = kept
            if momentum is not None:
                now = momentum(self._place)
                group.update(
                    {"momentum": now} if "momentum" in group else {"betas": (now, *group["betas"][1:])}
                )

    @property
    def _place(self) -> float:
        """Where the schedule stands: the update, or thousandths of a budget in seconds."""
        return self.update if self.updates is not None else 1000 * self.progress

    def next_stop(self) -> int:
        """The update after which something is due: a line of metrics, an evaluation, the end."""
        every = self.recipe.training.log_every
        # No evaluate_every: there is nothing to evaluate on, or the clock decides (see `Conductor`).
        evaluate_every = self.recipe.training.evaluate_every or every
        due = [self.update // n * n + n for n in (every, evaluate_every)]
        return min(due + ([self.updates] if self.updates is not None else []))

    def weights(self) -> dict[str, Tensor]:
        """The model's tensors alone, without the prefix."""
        return {n.removeprefix("model."): v for n, v in self.live.items() if n.startswith("model.")}


def network_of(
    recipe: Recipe, data: DataSet, device: torch.device, source: Source | None = None
) -> tuple[Network, list[str]]:
    """The network that a run of this recipe begins with, drawn from its seed, and notes for the user."""
    if source is not None:
        require_same_inputs(data, source)
    torch.manual_seed(counter.key(recipe.seed, 0))
    body = registry.build(recipe.model, data.input_shape, data.outputs, data.kind)
    network = Network.of(body, data).to(device)
    if isinstance(recipe.model, UserModel):
        try_out(network, data, recipe.model.name, device)
    notes = first_weights.start(network, recipe, data)
    if source is not None:
        notes += begin(network, data, source)
    return network, notes
