"""The command line: one verb a file. torch is loaded by the verb that needs it, not by the help."""

# Importing a verb's file makes it known; the help lists them in this order.
from stepwell.cli import train  # isort: skip
from stepwell.cli import ensemble  # isort: skip
from stepwell.cli import compare  # isort: skip
from stepwell.cli import cross_validate  # isort: skip
from stepwell.cli import find_lr  # isort: skip
from stepwell.cli import evaluate, predict, export  # isort: skip
from stepwell.cli import zoo, push, pull  # isort: skip
from stepwell.cli import report, inspect, recipe, schedule, rules  # isort: skip
from stepwell.cli.main import main

__all__ = [
    "compare",
    "cross_validate",
    "ensemble",
    "evaluate",
    "export",
    "find_lr",
    "inspect",
    "main",
    "predict",
    "pull",
    "push",
    "recipe",
    "report",
    "rules",
    "schedule",
    "train",
    "zoo",
]
