"""Update rules, one a file: the formula in the docstring and the same formula as code."""

from stepwell.rules.adam import ADAM
from stepwell.rules.amsgrad import AMSGRAD
from stepwell.rules.momentum import MOMENTUM
from stepwell.rules.momentum_displacement import MOMENTUM_DISPLACEMENT
from stepwell.rules.nesterov import NESTEROV
from stepwell.rules.rule import Rule, State
from stepwell.rules.sgd import SGD

RULES: dict[str, Rule] = {
    rule.name: rule for rule in (SGD, MOMENTUM, MOMENTUM_DISPLACEMENT, NESTEROV, ADAM, AMSGRAD)
}

__all__ = ["RULES", "Rule", "State"]
