"""The learning rate of a recipe: the rule's own, another, or still to be found."""

from __future__ import annotations

from stepwell.optim.configs import AUTO
from stepwell.recipe.schema import Recipe


def is_open(recipe: Recipe) -> bool:
    """Whether the recipe says optimizer.lr=auto."""
    return recipe.optimizer.lr == AUTO


def with_rate(recipe: Recipe, rate: float) -> Recipe:
    """The recipe with this optimizer.lr."""
    return recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"lr": rate})})


def any_rate(recipe: Recipe) -> Recipe:
    """The recipe with the rule's own rate in the place of auto: for looking at it before any update."""
    return with_rate(recipe, default_rate(recipe)) if is_open(recipe) else recipe


def default_rate(recipe: Recipe) -> float:
    """The rate that the recipe's optimizer has where none is given."""
    return type(recipe.optimizer).model_fields["lr"].default
