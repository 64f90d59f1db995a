"""What a rule is, in words: its formula, what it keeps, its defaults, and how it differs from torch's."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
from typing import Any

from stepwell.errors import UserError
from stepwell.rules.registry import RULES
from stepwell.rules.rule import Rule


def describe(name: str) -> str:
    """A page of text on a rule: `print(stepwell.rules.describe("adam"))`.

    Raises UserError for a name that does not exist, with the nearest.
    """
    facts = facts_of(rule_named(name))
    state = [
        f"{s['name']} (starts at {s['start']}{', one number' if s['scalar'] else ''})" for s in facts["state"]
    ]
    lines = [f"{facts['name']}: {facts['title']}", "", facts["formula"], ""]
    lines += [facts["text"], ""] if facts["text"] else []
    lines += ["as code:", *(f"    {line}" for line in facts["code"].splitlines()), ""]
    traffic = f"memory     {facts['bytes']} bytes read and written per float32 weight and update"
    lines += [
        f"defaults   {', '.join(f'{key}={value:g}' for key, value in rule_named(name).defaults.items())}",
        f"state      {', '.join(state) or 'none'}",
        *([traffic] if facts["bytes"] else []),
        f"engines    {', '.join(facts['engines'])}",
        f"source     {facts['source']}",
    ]
    return "\n".join(lines)


def rule_named(name: str) -> Rule:
    """The rule of this name; raises UserError with the nearest name otherwise."""
    if name not in RULES:
        near = difflib.get_close_matches(name.lower(), RULES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(RULES)}"
        raise UserError(f"there is no rule {name}; {hint}")
    return RULES[name]


def facts_of(rule: Rule) -> dict[str, Any]:
    """The same as values: name, title, formula, text, code, source, defaults, state, bytes, engines.

    bytes: what an update of a float32 weight reads and writes: the weight, its gradient and the state;
    None for a rule that needs whole tensors.
    """
    formula, _, rest = inspect.cleandoc(rule.function.__doc__ or "").partition("\n\n")
    text, _, source = rest.partition("Source:")
    module = inspect.getmodule(rule.function)
    # Rules that share a file share what stands at its top.
    title, _, shared = inspect.cleandoc((module and module.__doc__) or "").partition("\n")
    shared, _, source_of_all = shared.partition("Source:")
    text = "\n\n".join(filter(None, (shared.strip(), text.strip())))
    kept = sum(not s.scalar for s in rule.state)
    return {
        "name": rule.name,
        "title": title,
        "formula": formula,
        "text": text,
        "code": _body(rule),
        "source": " ".join((source or source_of_all).split()),
        "defaults": {key: value if math.isfinite(value) else None for key, value in rule.defaults.items()},
        "state": [{"name": s.name, "start": _start(s.start), "scalar": s.scalar} for s in rule.state],
        "bytes": 4 * (3 + 2 * kept) if rule.elementwise else None,
        "engines": ["eager", "fused", "sharded", "stacked"] if rule.elementwise else ["eager", "stacked"],
    }


def _body(rule: Rule) -> str:
    """The text of the rule's function below its docstring; empty where it has no file."""
    try:
        lines, _ = inspect.getsourcelines(rule.function)
    except OSError:
        return ""
    (function,) = ast.parse(inspect.cleandoc("\n".join(["", *map(str.rstrip, lines)]))).body
    statements = function.body[1:] if ast.get_docstring(function) else function.body  # type: ignore[attr-defined]
    return inspect.cleandoc("\n" + "".join(lines[statements[0].lineno - 1 :]))


def _start(start: Any) -> str:
    if callable(start):
        return "what is made from the weight"
    return start if isinstance(start, str) else f"{start:g}"
