"""The contract that every rule keeps; rules are found automatically."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import stepwell
from stepwell.engine.state import new_state
from stepwell.errors import UserError
from stepwell.rules import RULES
from stepwell.rules.describe import describe, facts_of

FOLDER = Path(inspect.getfile(stepwell)).parent / "rules"


def run(rule, w, gradients, start=1):
    """The rule's own text for some steps, on tensors."""
    state = list(new_state(rule, w, rule.defaults).values())
    for t, g in enumerate(gradients, start):
        h = dict(rule.defaults)
        if rule.sums is not None:
            h["sums"] = tuple(x.sum() for x in rule.sums(w, g, *state, t=t, **rule.defaults))
        w, *state = rule.update(w, g, *state, t=t, **h)
    return w, state


def draw(seed, shape=(4, 3), steps=6):
    torch.manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64), list(torch.randn(steps, *shape, dtype=torch.float64))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_arguments_stay_and_shapes_too(rule):
    """A rule changes none of its arguments and returns one tensor of the same shape for each."""
    w, gradients = draw(0)
    state = list(new_state(rule, w, rule.defaults).values())
    for t, g in enumerate(gradients, 1):
        h = dict(rule.defaults)
        if rule.sums is not None:
            h["sums"] = tuple(x.sum() for x in rule.sums(w, g, *state, t=t, **rule.defaults))
        before = [x.clone() for x in (w, g, *state)]
        new = rule.update(w, g, *state, t=t, **h)
        assert all(torch.equal(a, b) for a, b in zip((w, g, *state), before, strict=True))
        assert len(new) == 1 + len(state)
        assert [torch.as_tensor(x).shape for x in new] == [x.shape for x in (w, *state)]
        w, state = new[0], [torch.as_tensor(x) for x in new[1:]]
        assert torch.isfinite(w).all()


@pytest.mark.parametrize("name", [n for n, r in RULES.items() if r.elementwise and r.sums is None])
@given(seed=st.integers(0, 1000))
def test_an_elementwise_rule_treats_each_element_alone(name, seed):
    """Elements in another order, or one of them alone, get the same bits."""
    w, gradients = draw(seed, (7,))
    order = torch.randperm(7)
    whole, _ = run(RULES[name], w, gradients)
    shuffled, _ = run(RULES[name], w[order], [g[order] for g in gradients])
    torch.testing.assert_close(shuffled, whole[order], rtol=1e-14, atol=1e-15)
    alone, _ = run(RULES[name], w[2:3], [g[2:3] for g in gradients])
    torch.testing.assert_close(alone, whole[2:3], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_goes_downhill(rule):
    """Ten steps along one gradient go against it."""
    w, g = torch.full((3, 3), 2.0, dtype=torch.float64), torch.eye(3, dtype=torch.float64) + 0.5
    new, _ = run(rule, w, [g] * 10)
    assert ((new - w) * g).sum() < 0


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_signature_state_and_defaults_fit(rule):
    """The update takes w, g, one argument a state, then t and every hyperparameter by keyword."""
    parameters = list(inspect.signature(rule.update).parameters.values())
    before = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    after = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    takes_any_state = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    assert before[1] == "g" and (takes_any_state or len(before) == 2 + len(rule.state))
    fixed = getattr(rule.update, "keywords", {})  # what a partial function has already
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    wanted = ["t", *rule.defaults, *(["sums"] if rule.sums else [])]
    assert takes_any or [name for name in after if name not in fixed] == wanted
    assert len({s.name for s in rule.state}) == len(rule.state)
    assert "lr" in rule.defaults


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_docstring_says_formula_source_and_torch(rule):
    """The formula comes first; the source is named; what torch has of it is said."""
    facts = facts_of(rule)
    assert re.search("←|=", facts["formula"]) and facts["source"]
    assert "torch" in facts["formula"] + facts["text"] + facts["source"]
    page = describe(rule.name)
    assert facts["formula"] in page and "as code:" in page and "return" in facts["code"]
    assert all(s.name in page for s in rule.state) and all(f"{h}=" in page for h in rule.defaults)


def test_every_file_of_rules_is_in_the_registry():
    """No rule is written and forgotten: each file's rules are in RULES, under their own names."""
    helpers = {"__init__", "rule", "registry", "words", "describe", "kronecker"}
    files = {path.stem for path in FOLDER.glob("*.py")} - helpers
    registered = {Path(inspect.getfile(rule.function)).stem for rule in RULES.values()}
    assert files == registered
    assert all(name == rule.name for name, rule in RULES.items())


def test_an_unknown_name_is_refused_with_the_nearest():
    """A misspelt rule is named, with the one that was meant."""
    with pytest.raises(UserError, match="there is no rule adamm; did you mean adam"):
        describe("adamm")


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_fits_a_screen(rule):
    """Its function, signature and docstring included, has at most 60 lines."""
    assert len(inspect.getsource(rule.function).splitlines()) <= 60


def test_rules_load_nothing_of_the_floors_above():
    """The rules stand on the ground floor: they need torch and nothing of ours but errors."""
    code = "import sys, stepwell.rules; print([m for m in sys.modules if m.startswith('stepwell.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [m for m in ast.literal_eval(out) if not m.startswith(("stepwell.rules", "stepwell.errors"))]
