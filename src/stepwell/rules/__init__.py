"""Update rules, one a file: the formula in the docstring and the same formula as code."""

from stepwell.rules.describe import describe
from stepwell.rules.registry import RULES
from stepwell.rules.rule import Rule, State

__all__ = ["RULES", "Rule", "State", "describe"]
