"""Update rules, one a file: the formula in the docstring and the same formula as code."""

from stepwell.rules.adadelta import ADADELTA
from stepwell.rules.adagrad import ADAGRAD, ADAGRAD_INSIDE
from stepwell.rules.adam import ADAM
from stepwell.rules.adamax import ADAMAX
from stepwell.rules.amsgrad import AMSGRAD
from stepwell.rules.asgd import ASGD
from stepwell.rules.momentum import MOMENTUM
from stepwell.rules.momentum_displacement import MOMENTUM_DISPLACEMENT
from stepwell.rules.nadam import NADAM
from stepwell.rules.nesterov import NESTEROV
from stepwell.rules.radam import RADAM
from stepwell.rules.rmsprop import CENTERED, CENTERED_WITH_MOMENTUM, RMSPROP, WITH_MOMENTUM
from stepwell.rules.rprop import RPROP
from stepwell.rules.rule import Rule, State
from stepwell.rules.sgd import SGD
from stepwell.rules.sparse_adam import SPARSE_ADAM

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        SGD,
        MOMENTUM,
        MOMENTUM_DISPLACEMENT,
        NESTEROV,
        ADAM,
        AMSGRAD,
        ADAGRAD,
        ADAGRAD_INSIDE,
        RMSPROP,
        CENTERED,
        WITH_MOMENTUM,
        CENTERED_WITH_MOMENTUM,
        ADADELTA,
        RADAM,
        NADAM,
        ADAMAX,
        ASGD,
        RPROP,
        SPARSE_ADAM,
    )
}

__all__ = ["RULES", "Rule", "State"]
