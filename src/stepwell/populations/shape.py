"""Which members make one stack: those whose programs differ in numbers alone."""

from __future__ import annotations

from stepwell.optim.configs import CHOICES
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.populations.member import Member

# Their values may differ from member to member within one stack.
FREE = {"average", "early_stopping", "track", "checkpoint_every", "keep_checkpoints", "epochs", "updates"}


def reason_alone(member: Member) -> str | None:
    """Why a member cannot be stacked, for the user; None where it can, as far as its recipe says."""
    recipe = member.recipe
    name = recipe.optimizer.name
    if not issubclass(CHOICES[name].kind, RuleOptimizer):
        return f"optimizer={name} asks for the loss several times an update"
    if name == "soap":
        return "optimizer=soap turns its axes on the last bit of a gradient, which is another in a stack"
    if recipe.training.seconds is not None:
        return "training.seconds belongs to each model's own clock"
    if recipe.training.precision == "fp16":
        return "training.precision=fp16 skips updates of its own"
    model = recipe.model
    if (
        model.layer_rates is not None
        or model.unfreeze is not None
        or getattr(model, "from", None) is not None
    ):
        return "fine-tuning goes layer by layer"
    depth = getattr(model, "stochastic_depth", None)
    if depth is not None and depth.by == "batch":
        return "model.stochastic_depth.by=batch leaves branches out, each model its own"
    return None


def shape(member: Member) -> str:
    """Members of equal shape, and data of equal size, are one stack."""
    recipe, data = member.recipe, member.data
    training = recipe.training.model_dump(exclude=FREE)
    length = recipe.training.updates or f"{recipe.training.epochs} epochs"
    samples = data.train.inputs
    parts = [
        *(getattr(recipe, section).model_dump_json() for section in ("model", "loss", "augment")),
        *(recipe.regularize.label_smoothing, training, length),
        *(data.kind, data.task, data.input_shape, data.outputs, len(data.train)),
        *(type(samples).__name__, getattr(getattr(samples, "values", None), "dtype", None)),
    ]
    return repr(parts)
