"""What can be chosen for each model; free of torch, so that help and checks of a recipe stay quick."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepwell.nn.beginning import Beginning

Width = Annotated[int, Field(ge=1, le=65536)]


class LinearModel(Beginning):
    """One linear layer: linear regression or, with cross-entropy, logistic regression."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["linear"] = "linear"


class MLPModel(Beginning):
    """Linear layers with an activation between them; any input is flattened."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["mlp"] = "mlp"
    hidden: list[Width] = Field(
        default=[128, 128], description="width of each hidden layer; [] is a linear model"
    )
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "leaky-relu"] = Field(
        default="relu", description="function after each hidden layer"
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the hidden features set to zero in training"
    )

    @model_validator(mode="after")
    def _hidden_for_what_acts_on_it(self) -> MLPModel:
        for key in ("activation", "dropout"):
            if not self.hidden and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key}={getattr(self, key)} has no effect without hidden layers: remove it")
        return self


class CNNModel(Beginning):
    """Convolution, batch norm, ReLU and max-pooling, once a stage; average over the image; linear."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["cnn"] = "cnn"
    channels: list[Width] = Field(
        default=[32, 64, 128, 256],
        min_length=1,
        description="channels of each stage; every stage halves the image",
    )
    kernel: int = Field(default=3, ge=1, le=31, description="side of the convolutions' window, odd")
    batch_norm: bool = Field(default=True, description="normalize each channel over the batch")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the hidden features set to zero in training"
    )

    @model_validator(mode="after")
    def _odd_kernel(self) -> CNNModel:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} must be odd, so that the image keeps its size")
        return self


class ResNetModel(Beginning):
    """Residual network for small images, depth 6n + 2 (He et al. 2016, section 4.2)."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["resnet"] = "resnet"
    depth: int = Field(
        default=20, ge=8, le=1202, description="layers with weights, 6n + 2: 20, 32, 44, 56, 110"
    )
    width: Width = Field(default=16, description="channels of the first third; doubled twice")

    @model_validator(mode="after")
    def _six_n_plus_two(self) -> ResNetModel:
        if self.depth % 6 != 2:
            lower = (self.depth - 2) // 6 * 6 + 2
            raise ValueError(f"depth={self.depth} must be 6n + 2: use {lower} or {lower + 6}")
        return self


class RNNModel(Beginning):
    """LSTM or GRU over a sequence, the rows of an image, or text."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["rnn"] = "rnn"
    cell: Literal["lstm", "gru"] = Field(default="lstm", description="kind of recurrent cell")
    width: Width = Field(default=128, description="size of the state")
    layers: int = Field(default=1, ge=1, le=64, description="recurrent layers on top of each other")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the hidden features set to zero in training"
    )


class TransformerModel(Beginning):
    """Causal transformer for text, with normalization before each part (GPT-2)."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["transformer"] = "transformer"
    layers: int = Field(default=3, ge=1, le=256, description="blocks of attention and MLP")
    heads: int = Field(default=4, ge=1, le=256, description="attention heads; must divide the width")
    width: Width = Field(default=96, description="size of each position's vector")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the hidden features set to zero in training"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerModel:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")
        return self


class UserModel(Beginning):
    """Your own: `FUNCTION(input_shape, outputs, **arguments)` of a Python file returns a torch module."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(
        pattern=r"^\w+(\.\w+)*:\w+$", description="MODULE:FUNCTION, looked up from the current directory"
    )
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for the function")


CONFIGS: dict[str, type[BaseModel]] = {
    "linear": LinearModel,
    "mlp": MLPModel,
    "cnn": CNNModel,
    "resnet": ResNetModel,
    "rnn": RNNModel,
    "transformer": TransformerModel,
}
