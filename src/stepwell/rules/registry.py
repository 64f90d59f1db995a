"""Every rule by name: a new rule is one file and one row here."""

from stepwell.rules.adadelta import ADADELTA
from stepwell.rules.adafactor import ADAFACTOR
from stepwell.rules.adagrad import ADAGRAD, ADAGRAD_INSIDE
from stepwell.rules.adam import ADAM
from stepwell.rules.adam_inside import ADAM_INSIDE
from stepwell.rules.adam_then_sgd import ADAM_THEN_SGD
from stepwell.rules.adam_uncorrected import ADAM_UNCORRECTED
from stepwell.rules.adamax import ADAMAX
from stepwell.rules.adan import ADAN
from stepwell.rules.ademamix import ADEMAMIX
from stepwell.rules.amsgrad import AMSGRAD
from stepwell.rules.asgd import ASGD
from stepwell.rules.lamb import LAMB
from stepwell.rules.lars import LARS
from stepwell.rules.lion import LION
from stepwell.rules.momentum import MOMENTUM
from stepwell.rules.momentum_displacement import MOMENTUM_DISPLACEMENT
from stepwell.rules.muon import MUON
from stepwell.rules.nadam import NADAM
from stepwell.rules.nesterov import NESTEROV
from stepwell.rules.nesterov_classic import NESTEROV_CLASSIC
from stepwell.rules.prodigy import PRODIGY
from stepwell.rules.radam import RADAM
from stepwell.rules.rms import RMS
from stepwell.rules.rmsprop import CENTERED, CENTERED_WITH_MOMENTUM, RMSPROP, WITH_MOMENTUM
from stepwell.rules.rprop import RPROP
from stepwell.rules.rule import Rule
from stepwell.rules.schedule_free import SCHEDULE_FREE_ADAMW, SCHEDULE_FREE_RADAM, SCHEDULE_FREE_SGD
from stepwell.rules.sgd import SGD
from stepwell.rules.shampoo import SHAMPOO
from stepwell.rules.soap import SOAP
from stepwell.rules.sparse_adam import SPARSE_ADAM

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        SGD,
        MOMENTUM,
        MOMENTUM_DISPLACEMENT,
        NESTEROV,
        NESTEROV_CLASSIC,
        ASGD,
        SCHEDULE_FREE_SGD,
        LION,
        RPROP,
        ADAGRAD,
        ADAGRAD_INSIDE,
        RMS,
        RMSPROP,
        CENTERED,
        WITH_MOMENTUM,
        CENTERED_WITH_MOMENTUM,
        ADADELTA,
        ADAM,
        ADAM_UNCORRECTED,
        ADAM_INSIDE,
        AMSGRAD,
        RADAM,
        NADAM,
        ADAMAX,
        ADAM_THEN_SGD,
        ADEMAMIX,
        ADAN,
        PRODIGY,
        SCHEDULE_FREE_ADAMW,
        SCHEDULE_FREE_RADAM,
        SPARSE_ADAM,
        LAMB,
        LARS,
        ADAFACTOR,
        MUON,
        SHAMPOO,
        SOAP,
    )
}
