"""Update rules, one a file: the formula in the docstring and the same formula as code."""

from stepwell.rules.adafactor import ADAFACTOR
from stepwell.rules.adam import ADAM
from stepwell.rules.amsgrad import AMSGRAD
from stepwell.rules.lamb import LAMB
from stepwell.rules.lars import LARS
from stepwell.rules.momentum import MOMENTUM
from stepwell.rules.momentum_displacement import MOMENTUM_DISPLACEMENT
from stepwell.rules.muon import MUON
from stepwell.rules.nesterov import NESTEROV
from stepwell.rules.rule import Rule, State
from stepwell.rules.sgd import SGD
from stepwell.rules.shampoo import SHAMPOO
from stepwell.rules.soap import SOAP

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        *(SGD, MOMENTUM, MOMENTUM_DISPLACEMENT, NESTEROV, ADAM, AMSGRAD),
        *(LAMB, LARS, ADAFACTOR, MUON, SHAMPOO, SOAP),  # these need whole tensors
    )
}

__all__ = ["RULES", "Rule", "State"]
