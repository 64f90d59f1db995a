"""The typed recipe: its sections, and the choice of a section's class by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepwell.data.sources import SOURCES, source_of
from stepwell.nn.beginning import SourcesModel
from stepwell.nn.configs import CONFIGS as MODELS
from stepwell.nn.configs import UserModel
from stepwell.nn.losses import LOSSES
from stepwell.optim.configs import OPTIMIZERS
from stepwell.schedules.configs import SCHEDULES


class RegularizeConfig(BaseModel):
    """Weight decay, coupled and decoupled."""

    model_config = ConfigDict(extra="forbid")
    l2: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="adds l2 · weight to the gradient (coupled decay)"
    )
    decay: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="takes lr · decay · weight off the weight (decoupled)"
    )
    l1: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="moves each weight lr · l1 towards 0, where it stays"
    )


class AugmentConfig(BaseModel):
    """Random changes of the training inputs."""

    model_config = ConfigDict(extra="forbid")
    flip: float = Field(0.0, ge=0, le=1, description="images: share mirrored left to right")
    crop: int = Field(0, ge=0, le=512, description="images: pixels of padding before a random crop")
    noise: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="sd of normal noise added, in input standard deviations"
    )


class TrainingConfig(BaseModel):
    """Length of the run, batches, evaluations, checkpoints, device."""

    model_config = ConfigDict(extra="forbid")
    epochs: int | None = Field(
        None,
        ge=1,
        description="passes over the training part (default: about 3,000 updates, 5 to 1,000 epochs)",
    )
    updates: int | None = Field(None, ge=1, description="length of the run in updates, instead of epochs")
    seconds: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="length of the run in seconds, instead of epochs"
    )
    batch_size: int = Field(64, ge=1, lt=2**31, description="samples in a batch")
    accumulate: int = Field(1, ge=1, lt=2**31, description="batches whose mean gradient makes one update")
    evaluate_every: int | None = Field(
        None, ge=1, description="updates between evaluations (default: an epoch, or a hundredth of the run)"
    )
    log_every: int = Field(
        50, ge=1, description="updates between lines of metrics.jsonl and checks for non-finite values"
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="updates between checkpoints (default: every 30 seconds)"
    )
    keep_checkpoints: int = Field(2, ge=1, description="how many of the last checkpoints to keep")
    weights: Literal["auto", "last", "best"] = Field(
        "auto",
        description="weights to deliver: of the last update, of the best validation loss, or auto: the best "
        "if its loss is lower by more than a standard error",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="arithmetic of forward and backward; weights stay fp32"
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda or cuda:N; auto is a GPU if any",
    )
    track: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        default_factory=list, description="also log to these, where installed"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingConfig:
        given = [key for key in ("epochs", "updates", "seconds") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say how long to train: keep one")
        return self


class Recipe(BaseModel):
    """Everything that decides a run. `data`, `model`, `loss`, `optimizer`, `schedule` are chosen by name."""

    model_config = ConfigDict(extra="forbid")
    data: Any
    model: Any
    loss: Any
    optimizer: Any
    schedule: Any
    regularize: RegularizeConfig
    augment: AugmentConfig
    training: TrainingConfig
    seed: int = Field(0, ge=0, lt=2**63, description="seed of weights, data order, dropout and augmentation")


# The sections that are one class: every key is always there.
PLAIN: dict[str, type[BaseModel]] = {
    "regularize": RegularizeConfig,
    "augment": AugmentConfig,
    "training": TrainingConfig,
}

# The sections chosen by name: each name's class.
CHOICES: dict[str, Mapping[str, type[BaseModel]]] = {
    "data": {name: config for name, (config, _) in SOURCES.items()},
    "model": MODELS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}

THE_SOURCES = "the source's"  # stands for the name of a model that model.from decides

DEFAULT_NAMES = {"data": "digits", "optimizer": "adam", "schedule": "cosine"}


# Optimizers that choose the length of their steps themselves, or stand for a schedule.
OWN_STEPS = ("schedule-free", "lbfgs", "newton", "saddle-free-newton", "negative-curvature", "rprop")


def default_schedule(optimizer: Any) -> str:
    """The schedule with an optimizer, where the recipe names none."""
    own = isinstance(optimizer, str) and optimizer.startswith(OWN_STEPS)
    return "constant" if own else DEFAULT_NAMES["schedule"]


def default_model(source: str) -> str:
    """The model for a kind of data, where the recipe names none."""
    return {"images": "cnn", "text": "transformer"}.get(source, "mlp")


def choose(section: str, name: str) -> type[BaseModel] | None:
    """The class of a section with this name; None where there is no such name.

    The data section's class follows from what the name points at (raises UserError if at nothing);
    a model's name with a colon is the user's own function.
    """
    if section == "data":
        return SOURCES[source_of(name)][0]
    if section == "model" and ":" in name:
        return UserModel
    if section == "model" and name == THE_SOURCES:
        return SourcesModel
    return CHOICES[section].get(name)
