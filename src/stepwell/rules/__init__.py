"""Update rules, one a file: the formula in the docstring and the same formula as code."""

from stepwell.rules.adam import ADAM
from stepwell.rules.momentum import MOMENTUM
from stepwell.rules.momentum_displacement import MOMENTUM_DISPLACEMENT
from stepwell.rules.rule import Rule
from stepwell.rules.sgd import SGD

RULES: dict[str, Rule] = {rule.name: rule for rule in (SGD, MOMENTUM, MOMENTUM_DISPLACEMENT, ADAM)}

__all__ = ["RULES", "Rule"]
