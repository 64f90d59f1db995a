"""The task and the targets that an array's type and values say, case by case."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stepwell.data.npztargets import learn_task, read_targets
from stepwell.data.targets import Wish
from stepwell.errors import UserError

DRAW = np.random.default_rng(3)
Y = np.arange(60) % 3
MIXED = DRAW.permutation(np.arange(200) % 60)  # 60 whole numbers from 0, each 3 or 4 times
FLOATS = DRAW.normal(size=(60, 2))


def learn(y: np.ndarray, wish: Wish = "auto"):
    return learn_task("data.npz", "y", y, wish)


@pytest.mark.parametrize(
    ("y", "task", "classes", "targets"),
    [
        (Y % 2 == 0, "binary", ["0", "1"], ["y"]),
        (Y[:, None] * 10 - 5, "multi-class", ["-5", "5", "15"], ["y"]),
        (np.array(["cat", "ärger", "dog"])[Y], "multi-class", ["cat", "dog", "ärger"], ["y"]),
        (np.array([b"no", b"yes", b"no"])[Y], "binary", ["no", "yes"], ["y"]),
        (np.eye(3)[Y] + np.eye(3)[2 - Y] > 0, "multi-label", ["0", "1", "2"], ["0", "1", "2"]),
        (FLOATS[:, 0], "regression", [], ["y"]),
        (FLOATS.astype(np.float16), "regression", [], ["y[0]", "y[1]"]),
    ],
)
def test_the_type_says_the_task(y, task, classes, targets):
    """Integers and texts are classes by name, rows of 0 and 1 labels, floats numbers to predict."""
    assert learn(y)[:3] == (task, classes, targets)
    found = read_targets("data.npz", "y", y, task, classes, len(targets))
    if task in ("binary", "multi-class"):
        names = [v.decode() if isinstance(v, bytes) else str(v * 1) for v in y.ravel().tolist()]
        assert found.dtype == torch.int64 and [classes[i] for i in found.tolist()] == names
    else:
        assert found.dtype == (torch.float32 if task == "multi-label" else torch.float64)
        np.testing.assert_array_equal(found, y.reshape(60, -1))


@pytest.mark.parametrize(
    ("y", "wish", "task", "note"),
    [
        (DRAW.permutation(np.arange(200) % 5) * 7, "auto", "multi-class", None),  # few, as in a table
        (18 + MIXED, "auto", "regression", "60 different whole numbers"),  # ages
        (MIXED, "auto", "multi-class", "whole numbers 0 to 59"),
        (MIXED[MIXED < 20], "auto", "multi-class", None),
        (np.arange(200), "auto", "regression", "200 different whole numbers"),
        (MIXED, "regression", "regression", None),
        (18 + MIXED, "classification", "multi-class", None),
        (Y / 1.0, "auto", "regression", "data.task=classification"),
        (MIXED / 1.0, "auto", "regression", None),
        (Y / 1.0, "classification", "multi-class", None),
        (Y == 0, "auto", "binary", None),
        (Y == 0, "regression", "regression", None),
        (np.eye(3)[Y], "auto", "multi-label", "y.argmax(1)"),
        (np.eye(3)[Y], "regression", "regression", None),
        (np.arange(400).reshape(200, 2), "regression", "regression", None),
    ],
)
def test_the_task_follows_from_the_values_or_the_wish(y, wish, task, note):
    """Whole numbers that may be either are decided with a note; a wish overrules, and targets fit it."""
    found, classes, targets, notes = learn(y, wish)
    assert found == task and [str(note) in n for n in notes] == [True] * (note is not None)
    values = read_targets("data.npz", "y", y, found, classes, len(targets)).numpy()
    if task in ("binary", "multi-class"):
        assert [float(classes[k]) for k in values] == y.tolist()
    else:
        np.testing.assert_array_equal(values, y.reshape(len(y), -1))


@pytest.mark.parametrize(
    ("y", "wish", "said"),
    [
        (np.array(["a", "b"])[Y % 2], "regression", "holds texts"),
        (np.linspace(0, 1, 60), "classification", "not whole, such as 0.0169"),
        (np.ones((60, 2)) * 2, "classification", "each 0 or 1"),
        (np.arange(600), "classification", "600 different values"),
        (np.ones(60, bool), "regression", "is 1 in all 60 rows"),
        (Y * 0.0 + 2, "auto", "is 2 in all 60 rows"),
        (Y * 0, "auto", "one class only ('0')"),
        (Y * 1j, "auto", "holds complex numbers"),
        (DRAW.integers(0, 9, (60, 2)), "auto", "several targets"),
        (np.ones((60, 2, 2)), "auto", "has shape (60, 2, 2)"),
        (np.ones((60, 0)), "auto", "has shape (60, 0)"),
        (np.where(Y == 1, np.nan, Y), "auto", "holds nan in row 1"),
    ],
)
def test_targets_that_cannot_be_learnt_are_refused(y, wish, said):
    """One sentence with file and array for a wish that the values deny, and for nothing to learn."""
    with pytest.raises(UserError) as refused:
        learn(y, wish)
    assert said in str(refused.value) and str(refused.value).startswith("data.npz: ")


@pytest.mark.parametrize(
    ("y", "task", "columns", "said"),
    [
        (np.array(["a", "c", "a"]), "binary", 1, "class 'c' (row 1)"),
        (Y * 0.5, "binary", 1, "where training had classes"),
        (FLOATS, "binary", 1, "where training had classes"),
        (np.array(["a", "b"]), "regression", 1, "where training had numbers"),
        (FLOATS, "regression", 1, "shape (60, 2), where training had 1 targets"),
        (FLOATS[:, 0], "multi-label", 2, "shape (60), where training had 2 targets"),
        (FLOATS[:, None], "regression", 1, "shape (60, 1, 2), where training had 1 targets"),
        (FLOATS, "multi-label", 2, "other values than 0 and 1"),
        (FLOATS * np.inf, "regression", 2, "in row 0"),
    ],
)
def test_other_targets_than_in_training_are_refused(y, task, columns, said):
    """Another type, class, shape or range; broadcasting two targets against one would pass silently."""
    with pytest.raises(UserError) as refused:
        read_targets("new.npz", "y", y, task, ["a", "b"], columns)
    assert said in str(refused.value) and str(refused.value).startswith("new.npz: ")
