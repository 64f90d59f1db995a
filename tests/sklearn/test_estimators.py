"""The estimators keep scikit-learn's contract, by its own checks, and train what a recipe says."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import stepwell as sw
from stepwell.errors import UserError

QUICK = {"hidden": (16,), "lr": 0.03, "epochs": 60, "batch_size": 32}
TINY = {"hidden": (8,), "lr": 0.03, "epochs": 3, "random_state": 0}


def _xy(load: Any) -> Any:
    return load(return_X_y=True)


@parametrize_with_checks([sw.sklearn.Classifier(**QUICK), sw.sklearn.Regressor(**QUICK)])
def test_scikit_learns_checks(estimator, check):
    """Every one of scikit-learn's own checks passes, without an exception."""
    check(estimator)


@pytest.mark.parametrize("validation", [0.0, 0.25])
@pytest.mark.parametrize("kind", ["Classifier", "Regressor"])
def test_it_trains_what_a_recipe_trains(kind, validation, tmp_path):
    """Its predictions are those of `stepwell train` of the same keys on the same rows."""
    x, y = _xy(load_wine if kind == "Classifier" else load_diabetes)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    own = getattr(sw.sklearn, kind)(**TINY, validation=validation).fit(x, y)
    keys = {"model.hidden": [8], "optimizer.lr": 0.03, "training.epochs": 3}
    more = {"data": str(tmp_path / "d.npz"), "data.test": 0, "data.validation": validation}
    if kind == "Regressor":
        more["data.task"] = "regression"
    run = sw.train({**more, **keys}, out=str(tmp_path / "run"), quiet=True)
    expected = sw.load(run["folder"])(torch.from_numpy(x.astype(np.float32))).detach().numpy()
    found = own.predict_proba(x) if kind == "Classifier" else own.predict(x)[:, None]
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert own.n_updates_ == run["updates"] and own.recipe_["optimizer"]["lr"] == 0.03


def test_classes_and_score():
    """Classes are those of y, in their order; probabilities sum to 1; score is the accuracy."""
    x, y = _xy(load_wine)
    names = np.array(["red", "amber", "clear"])[y]
    found = sw.sklearn.Classifier(**{**TINY, "epochs": 40}).fit(x, names)
    p = found.predict_proba(x)
    assert found.classes_.tolist() == ["amber", "clear", "red"] and np.allclose(p.sum(1), 1)
    assert (found.predict(x) == found.classes_[p.argmax(1)]).all()
    assert found.score(x, names) == accuracy_score(names, found.predict(x)) > 0.9


def test_several_targets():
    """(N, 2) targets are predicted together, each in its own units."""
    x, y = _xy(load_diabetes)
    both = np.stack([y, 1e6 - 1000 * y], 1)
    found = sw.sklearn.Regressor(**{**TINY, "epochs": 60}).fit(x, both)
    assert found.predict(x).shape == both.shape
    assert (
        found.score(x, both) == pytest.approx(r2_score(both, found.predict(x))) and found.score(x, both) > 0.4
    )


def test_names_of_a_frame_clones_and_pickles():
    """Columns' names are kept and checked; a clone is unfitted; what is unpickled predicts the same."""
    x, y = _xy(load_diabetes)
    frame = pl.DataFrame(x, schema=[f"f{k}" for k in range(x.shape[1])])
    found = sw.sklearn.Regressor(**TINY).fit(frame, y)
    assert found.feature_names_in_.tolist() == frame.columns and found.n_features_in_ == 10
    with pytest.raises(ValueError, match="feature names"):
        found.predict(frame.rename({"f0": "other"}))
    with pytest.raises(NotFittedError):
        fresh: Any = clone(found)
        fresh.predict(frame)
    assert (pickle.loads(pickle.dumps(found)).predict(frame) == found.predict(frame)).all()


def test_the_seed_decides():
    """The same random_state gives the same bits, another one others; None draws anew."""
    x, y = _xy(load_diabetes)
    one, two, other, new = (
        sw.sklearn.Regressor(**{**TINY, "random_state": seed}).fit(x, y).predict(x)
        for seed in (1, 1, 2, None)
    )
    assert (one == two).all() and not (one == other).all() and not (one == new).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lr": -1}, "optimizer.lr=-1 must be"),
        ({"hidden": (0,)}, "model.hidden"),
        ({"validation": 1.5}, "validation=1.5 must be at least 0 and below 1"),
        ({"recipe": {"optimizer.lrr": 1}}, "did you mean optimizer.lr"),
        ({"recipe": {"optimizer.lr": 1}}, "recipe: optimizer.lr is given as lr too: keep one"),
        ({"recipe": {"data.test": 0.1}}, "recipe: data.test has no effect on an estimator"),
        ({"recipe": {"training.early_stopping": 3}}, "no effect without a validation part"),
        ({"lr": 1e30, "optimizer": "sgd"}, "the training diverged at update"),
    ],
)
def test_a_mistake_is_one_sentence(parameters, message):
    x, y = _xy(load_diabetes)
    with pytest.raises(UserError, match=message):
        sw.sklearn.Regressor(**{**TINY, **parameters}).fit(x, y)


def test_further_keys_of_a_recipe():
    """recipe reaches every key: another model, dropout, early stopping with a validation share."""
    x, y = _xy(load_diabetes)
    line = sw.sklearn.Regressor(epochs=200, lr=0.05, random_state=0, recipe={"model": "linear"}).fit(x, y)
    design = np.column_stack([x, np.ones(len(x))])
    best = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert line.score(x, y) == pytest.approx(r2_score(y, best), abs=0.01)
    keys = {"model.dropout": 0.2, "training.early_stopping": 3}
    stopped = sw.sklearn.Regressor(**{**TINY, "epochs": 500}, validation=0.3, recipe=keys).fit(x, y)
    assert stopped.n_updates_ < 500 * 5 and "loss" in stopped.curve_[-1]["validation"]
