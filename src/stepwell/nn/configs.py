"""What can be chosen for each model; free of torch, so that help and checks of a recipe stay quick."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepwell.nn.beginning import Beginning
from stepwell.nn.init_key import Init, ZeroInitResidual
from stepwell.setting import OFF, Setting

Width = Annotated[int, Field(ge=1, le=65536)]

Norms = Annotated[
    Literal["batch", "layer", "rms", "instance", "group", "weight", "spectral", "none"],
    Field(description="what is normalized: signals, or the weights before them (see layers.md)"),
]


class NormSetting(Setting):
    """Normalization of hidden layers."""

    kind: Norms = "none"
    groups: int = Field(default=8, ge=1, le=65536, description="norm=group: groups of channels")
    momentum: float | None = Field(
        default=0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="norm=batch: weight of the newest batch in the running statistics; null: mean of all",
    )

    @model_validator(mode="after")
    def _no_idle_keys(self) -> NormSetting:
        for key, kind in (("groups", "group"), ("momentum", "batch")):
            value = getattr(self, key)
            if self.kind != kind and value != NormSetting.model_fields[key].default:
                shown = "null" if value is None else value
                raise ValueError(
                    f"{key}={shown} has no effect with norm={self.kind}: it is for {kind}; remove it"
                )
        return self


class BatchNormSetting(NormSetting):
    """Batch norm unless another one is named."""

    kind: Norms = "batch"


class LayerNormSetting(NormSetting):
    """Layer norm unless another one is named."""

    kind: Norms = "layer"


class DropoutSetting(Setting):
    """Dropout of hidden signals."""

    p: float = Field(gt=0, lt=1, description="share of the hidden features set to zero in training")
    kind: Literal["inverted", "scaled", "spatial"] = Field(
        default="inverted",
        description="inverted: kept ones are divided by 1 − p; scaled: all are multiplied by 1 − p in "
        "evaluation; spatial: inverted, of whole channels",
    )


class DepthSetting(Setting):
    """Stochastic depth of residual branches."""

    p: float = Field(gt=0, lt=1, description="share of batches or samples that skip the last block's branch")
    kind: Literal["linear", "uniform"] = Field(
        default="linear", description="p of the other blocks: rising to that of the last one, or the same"
    )
    by: Literal["sample", "batch"] = Field(
        default="sample", description="each sample skips by itself, or the whole batch, which saves the work"
    )


Dropout = Annotated[DropoutSetting | None, OFF, Field(description="share of hidden features set to zero")]
Depth = Annotated[DepthSetting | None, OFF, Field(description="share of residual branches left out")]
NORM = "normalization of hidden layers"


class LinearModel(Beginning):
    """One linear layer: linear regression or, with cross-entropy, logistic regression."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["linear"] = "linear"
    norm: NormSetting = Field(default=NormSetting(), description="normalization of the input or the weight")
    init: Init = "auto"


class MLPModel(Beginning):
    """Linear layers with an activation between them; any input is flattened."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["mlp"] = "mlp"
    init: Init = "auto"
    hidden: list[Width] = Field(
        default=[128, 128], description="width of each hidden layer; [] is a linear model"
    )
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "leaky-relu"] = Field(
        default="relu", description="function after each hidden layer"
    )
    norm: NormSetting = Field(default=NormSetting(), description=NORM)
    dropout: Dropout = None

    @model_validator(mode="after")
    def _hidden_for_what_acts_on_it(self) -> MLPModel:
        for key in ("activation", "norm", "dropout"):
            if not self.hidden and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} has no effect without hidden layers: remove it")
        if self.dropout is not None and self.dropout.kind == "spatial":
            raise ValueError(
                "dropout.kind=spatial is of whole channels, and an mlp has features: use inverted"
            )
        return self


class CNNModel(Beginning):
    """Convolution, norm, ReLU and max-pooling, once a stage; average over the image; linear."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["cnn"] = "cnn"
    init: Init = "auto"
    channels: list[Width] = Field(
        default=[32, 64, 128, 256],
        min_length=1,
        description="channels of each stage; every stage halves the image",
    )
    kernel: int = Field(default=3, ge=1, le=31, description="side of the convolutions' window, odd")
    norm: BatchNormSetting = Field(default=BatchNormSetting(), description=NORM)
    dropout: Dropout = None

    @model_validator(mode="after")
    def _odd_kernel(self) -> CNNModel:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} must be odd, so that the image keeps its size")
        return self


class ResNetModel(Beginning):
    """Residual network for small images, depth 6n + 2 (He et al. 2016, section 4.2)."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["resnet"] = "resnet"
    init: Init = "auto"
    zero_init_residual: ZeroInitResidual = False
    depth: int = Field(
        default=20, ge=8, le=1202, description="layers with weights, 6n + 2: 20, 32, 44, 56, 110"
    )
    width: Width = Field(default=16, description="channels of the first third; doubled twice")
    norm: BatchNormSetting = Field(default=BatchNormSetting(), description=NORM)
    dropout: Dropout = None
    stochastic_depth: Depth = None

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
    init: Init = "auto"
    cell: Literal["lstm", "gru"] = Field(default="lstm", description="kind of recurrent cell")
    width: Width = Field(default=128, description="size of the state")
    layers: int = Field(default=1, ge=1, le=64, description="recurrent layers on top of each other")
    norm: NormSetting = Field(default=NormSetting(), description=NORM)
    dropout: Dropout = None

    @model_validator(mode="after")
    def _norm_of_states(self) -> RNNModel:
        if self.norm.kind in ("weight", "spectral"):
            raise ValueError(
                f"norm={self.norm.kind} does not reach recurrent weights, which torch reads as one: use layer"
            )
        return self


class TransformerModel(Beginning):
    """Causal transformer for text, with normalization before each part (GPT-2)."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["transformer"] = "transformer"
    init: Init = "auto"
    zero_init_residual: ZeroInitResidual = False
    layers: int = Field(default=3, ge=1, le=256, description="blocks of attention and MLP")
    heads: int = Field(default=4, ge=1, le=256, description="attention heads; must divide the width")
    width: Width = Field(default=96, description="size of each position's vector")
    norm: LayerNormSetting = Field(default=LayerNormSetting(), description=NORM)
    dropout: Dropout = None
    stochastic_depth: Depth = None

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
    init: Init = "auto"
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for the function")


CONFIGS: dict[str, type[BaseModel]] = {
    "linear": LinearModel,
    "mlp": MLPModel,
    "cnn": CNNModel,
    "resnet": ResNetModel,
    "rnn": RNNModel,
    "transformer": TransformerModel,
}
