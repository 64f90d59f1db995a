"""A recipe read, written and read again is the same; YAML and the command line mean the same keys."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.errors import UserError
from stepwell.recipe import describe, parse_changes, read_recipe, write_yaml

CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "model.hidden": st.lists(st.integers(1, 512), min_size=1, max_size=4),
        "model.dropout": st.floats(0, 0.9),
        "optimizer.lr": st.floats(0, 1e3),
        "optimizer.eps": st.floats(1e-12, 1e-3),
        "schedule.warmup": st.floats(0, 0.5),
        "training.batch_size": st.integers(1, 10_000),
        "training.seconds": st.floats(0.1, 1e6),
        "seed": st.integers(0, 2**63 - 1),
    },
)


@settings(max_examples=60)
@given(changes=CHANGES)
def test_written_and_read_again_it_is_the_same(changes, tmp_path_factory):
    """Every number survives recipe.yaml to the last bit, and the key=value form gives the same recipe."""
    recipe = read_recipe(None, changes)
    path = tmp_path_factory.mktemp("r") / "recipe.yaml"
    path.write_text(write_yaml(recipe), encoding="utf-8")
    assert read_recipe(path) == recipe
    words = [f"{key}={value!r}" for key, value in changes.items()]
    assert read_recipe(None, parse_changes(words)) == recipe


def test_a_section_in_one_word_is_its_name(tmp_path):
    """`model: cnn`, `model=cnn` and `model.name=cnn` are one; a key over the file wins."""
    (tmp_path / "r.yaml").write_text("model: cnn\noptimizer: {name: momentum, lr: 1e-3}\n")
    recipe = read_recipe(tmp_path / "r.yaml", {"optimizer.lr": 0.5})
    assert recipe.model == read_recipe(None, {"model": "cnn"}).model
    assert recipe.model == read_recipe(None, {"model.name": "cnn"}).model
    assert (recipe.optimizer.name, recipe.optimizer.lr) == ("momentum", 0.5)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a=1e-3", 1e-3),
        ("a=no", "no"),
        ("a=true", True),
        ("a=[64,64]", [64, 64]),
        ("a=", None),
        ("a=1.5", 1.5),
    ],
)
def test_values_are_yaml_1_2(word, value):
    """1e-3 is a number and `no` a word, as people mean them."""
    assert parse_changes([word]) == {"a": value}


def test_every_described_key_can_be_set():
    """Each key that `stepwell recipe` lists is known: a wrong value for it is not called an unknown key."""
    for row in describe():
        section, _, key = row["key"].partition(".")
        if section in ("data", "loss", "seed") or key in ("name", "arguments"):
            continue
        chosen = {f"{section}.name": row["applies_to"][0]} if row["applies_to"] else {}
        with pytest.raises(UserError) as refused:
            read_recipe(None, {**chosen, row["key"]: {"not": "a value"}})
        assert f"there is no key {row['key']};" not in str(refused.value)
