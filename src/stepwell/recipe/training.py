"""The recipe's `training` section: length, batches, evaluations, what is delivered, device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepwell.setting import OFF, Setting


class EarlyStopping(Setting):
    """The run ends once the validation loss has stopped falling, and delivers its best weights."""

    patience: int = Field(
        ge=1, description="end after this many evaluations in a row without a lower validation loss"
    )
    threshold: float = Field(
        0.0, ge=0, lt=1, description="least fall that counts, as a share of the lowest loss so far"
    )


class Average(Setting):
    """The weights that are evaluated and delivered are an average of those that training goes through."""

    kind: Literal["ema", "polyak", "swa"] = Field(
        description="average of the weights that is evaluated and delivered: exponential, of all updates "
        "after `start`, or of the ends of the rate's cycles (of epochs, if it has none)"
    )
    start: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the run before the average begins (default: ema 0, polyak 0.5, swa 0.75, or "
        "where schedule=swa begins its cycles)",
    )
    decay: float | None = Field(
        None, ge=0, lt=1, description="ema: share of the average that each update keeps (default: 0.999)"
    )

    @model_validator(mode="after")
    def _decay_has_an_effect(self) -> Average:
        if self.decay is not None and self.kind != "ema":
            raise ValueError(f"decay has no effect with kind={self.kind}: it is for ema; remove it")
        return self


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
    early_stopping: Annotated[EarlyStopping | None, OFF] = None
    average: Annotated[Average | None, OFF] = None
    track: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        default_factory=list, description="also log to these, where installed"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> TrainingConfig:
        given = [key for key in ("epochs", "updates", "seconds") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say how long to train: keep one")
        return self
