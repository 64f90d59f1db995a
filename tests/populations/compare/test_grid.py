"""The grammar of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepwell.errors import UserError
from stepwell.populations.compare.grid import Values, as_text, flatten, parse_words, parts, values_of
from stepwell.recipe import parse_changes

positive = st.floats(1e-9, 1e9)


@given(positive, positive, st.integers(2, 60))
def test_log_is_numpys_geomspace(a: float, b: float, n: int):
    """n values, the ends exactly as typed, evenly spaced in log."""
    if not a * 1.001 < b:
        return
    found = values_of("optimizer.lr", f"log({a!r},{b!r},{n})")
    assert found is not None and found.is_range and len(found.values) == n
    assert (found.values[0], found.values[-1]) == (a, b)
    np.testing.assert_allclose(found.values, np.geomspace(a, b, n), rtol=1e-12)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(2, 60))
def test_range_is_numpys_linspace(a: float, b: float, n: int):
    """n values, the ends exactly as typed, evenly spaced."""
    if not a + 1e-3 < b:
        return
    found = values_of("optimizer.lr", f"range({a!r}, {b!r}, {n})")
    assert found is not None and (found.values[0], found.values[-1]) == (a, b)
    np.testing.assert_allclose(found.values, np.linspace(a, b, n), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("range(16,64,4)", (16, 32, 48, 64)),
        ("log(16,128,4)", (16, 32, 64, 128)),
        ("range(1,2,3)", (1, 1.5, 2)),
    ],
)
def test_whole_ends_give_whole_values(text: str, values: tuple[float, ...]):
    """Batch sizes can be written as a range; what falls between stays a fraction, and is refused later."""
    found = values_of("training.batch_size", text)
    assert found is not None and found.values == values
    assert [type(v) for v in found.values] == [type(v) for v in values]


@pytest.mark.parametrize(
    ("word", "key", "values"),
    [
        ("optimizer=sgd,adam", "optimizer.name", ("sgd", "adam")),
        ("optimizer.lr=0.1,1e-2", "optimizer.lr", (0.1, 0.01)),
        ("model.hidden=[16],[64,64]", "model.hidden", ([16], [64, 64])),
        ("model.norm=none,batch", "model.norm", ("none", "batch")),
        ("augment.crop=null,2", "augment.crop", (None, 2)),
        ("optimizer={name: sgd, lr: 0.1},adam", "optimizer.name", ({"name": "sgd", "lr": 0.1}, "adam")),
        ("model.arguments.x='a,b',c", "model.arguments.x", ("a,b", "c")),
    ],
)
def test_commas_outside_brackets_separate_values(word: str, key: str, values: tuple[Any, ...]):
    """A comma list on the command line, and the same as a text in YAML or in a program."""
    found = parse_words([word])[key]
    assert isinstance(found, Values) and found.values == values and not found.is_range
    assert values_of(key, word.partition("=")[2]) == found


@pytest.mark.parametrize(
    ("key", "value", "values"),
    [
        ("optimizer.lr", [0.1, 0.2], (0.1, 0.2)),
        ("model.hidden", [64, 64], None),  # the key takes a list
        ("model.hidden", [[16], [64, 64]], ([16], [64, 64])),
        ("optimizer.name", ["sgd", {"name": "adam"}], ("sgd", {"name": "adam"})),
        ("model.arguments.widths", [1, 2], None),  # a user's own key may take lists
        ("data.ignore", ["x", "y"], None),
        ("optimizer.name", "adam", None),
        ("optimizer.lr", 0.1, None),
    ],
)
def test_a_list_lists_values_unless_the_key_takes_lists(key: str, value: Any, values: Any):
    """In YAML and in programs the key's own type decides."""
    found = values_of(key, value)
    assert (None if found is None else found.values) == values


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
)


@given(st.one_of(scalars, st.lists(scalars, max_size=4)))
def test_a_printed_value_is_read_as_itself(value: Any):
    """as_text is the inverse of reading `key=value`: a printed command trains the same."""
    assert parse_changes([f"model.arguments.x={as_text(value)}"]) == {"model.arguments.x": value}


@settings(max_examples=400)
@given(st.lists(scalars, min_size=2, max_size=5))
@example(['"', ","])
@example(["it's", "\\", "a'b,c"])
def test_listed_values_survive_being_written(values: list[Any]):
    """What comparison.yaml says of a list is read as the same values, of the same types."""
    if any(value in values[:place] for place, value in enumerate(values)):
        return
    found = values_of("optimizer.lr", values)
    assert found is not None
    again = values_of("optimizer.lr", found.text)
    assert again is not None and repr(again.values) == repr(found.values)


def test_parts_are_what_stands_between_outer_commas():
    """Brackets of every kind and quotes keep their commas."""
    assert parts('a, [1,(2,3)],{x: 1, y: 2},"b,c"') == ["a", "[1,(2,3)]", "{x: 1, y: 2}", '"b,c"']
    assert parts("it's,'a,b',c") == ["it's", "'a,b'", "c"]


def test_sections_become_keys():
    """YAML's sections and dotted keys say the same."""
    tree = {"optimizer": {"name": "sgd", "lr": [1, 2]}, "model": "mlp", "training": None, "seeds": 3}
    assert flatten(tree) == {"optimizer.name": "sgd", "optimizer.lr": [1, 2], "model.name": "mlp", "seeds": 3}
    assert flatten({"augment": {"crop": {"pixels": 2}}}) == {"augment.crop.pixels": 2}


@pytest.mark.parametrize(
    "text",
    [
        *("log(1,1e-4,9)", "log(0,1,5)", "log(-1,1,5)", "range(1,2,0)", "range(1,2,1)", "range(2,1,3)"),
        *("log(1,2)", "log(a,b,3)", "range(0,inf,3)", "range(0,1,99999)"),
        *("0.1,,0.2", "0.1,0.10", "log(1,2,3),4"),
    ],
)
def test_what_lists_nothing_is_refused(text: str):
    """Empty, reversed and endless ranges, gaps, doubles: the sentence names the key and the text."""
    with pytest.raises(UserError, match=r"optimizer\.lr.*\w$|optimizer\.lr.*\d\)?$"):
        values_of("optimizer.lr", text)
