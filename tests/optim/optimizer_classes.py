"""The optimizer classes by kind, found automatically."""

import stepwell.optim as ours
from stepwell.optim.checked import CheckedOptimizer
from stepwell.optim.optimizer import RuleOptimizer

NAMES = [name for name in ours.__all__ if isinstance(getattr(ours, name), type)]
# Made from a rule and torch's arguments; the others wrap an optimizer or need a closure.
OF_RULES = {name: kind for name in NAMES if issubclass(kind := getattr(ours, name), RuleOptimizer)}
CHECKED = {name: kind for name in NAMES if issubclass(kind := getattr(ours, name), CheckedOptimizer)}
# Those that take parameters of any shape, dense gradients and no closure.
LIKE_ADAM = {
    name: kind
    for name, kind in OF_RULES.items()
    if all(rule.elementwise for rule in kind.rules) and name != "SparseAdam"
}
