"""The typed recipe: its sections, and the choice of a section's class by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from stepwell.data.augment.configs import AugmentConfig
from stepwell.data.sources import SOURCES, source_of
from stepwell.nn.beginning import SourcesModel
from stepwell.nn.configs import CONFIGS as MODELS
from stepwell.nn.configs import UserModel
from stepwell.nn.losses import LOSSES
from stepwell.optim.configs import OPTIMIZERS
from stepwell.recipe.training import TrainingConfig
from stepwell.schedules.configs import SCHEDULES


class RegularizeConfig(BaseModel):
    """What keeps weights small and answers modest."""

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
    max_norm: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="longest vector of a unit's incoming weights"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="classes: share of each training label that is spread over all classes"
    )


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
