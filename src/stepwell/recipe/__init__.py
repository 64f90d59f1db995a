"""The typed recipe: what the YAML file and the command line say."""

from stepwell.recipe.describe import describe
from stepwell.recipe.read import parse_changes, read_recipe, write_yaml
from stepwell.recipe.resolve import choose_device, resolve, updates_per_epoch
from stepwell.recipe.schema import Recipe

__all__ = [
    "Recipe",
    "choose_device",
    "describe",
    "parse_changes",
    "read_recipe",
    "resolve",
    "updates_per_epoch",
    "write_yaml",
]
