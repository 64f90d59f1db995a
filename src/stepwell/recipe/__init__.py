"""The typed recipe: what the YAML file and the command line say."""

from stepwell.recipe.describe import describe
from stepwell.recipe.rate import any_rate, default_rate, is_open, with_rate
from stepwell.recipe.read import parse_changes, read_recipe, write_yaml
from stepwell.recipe.resolve import choose_device, resolve, updates_per_epoch
from stepwell.recipe.schema import Recipe

__all__ = [
    "Recipe",
    "any_rate",
    "choose_device",
    "default_rate",
    "describe",
    "is_open",
    "parse_changes",
    "read_recipe",
    "resolve",
    "updates_per_epoch",
    "with_rate",
    "write_yaml",
]
