"""cross_val_score and GridSearchCV give what scikit-learn's own give, which fit one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import model_selection
from sklearn.base import clone as cloned
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import LogisticRegression

import stepwell as sw
from stepwell.errors import UserError

TINY = {"hidden": (8,), "lr": 0.03, "epochs": 4, "random_state": 0}


def clone(estimator: Any) -> Any:
    return cloned(estimator)


@pytest.mark.parametrize("scoring", [None, "neg_log_loss"])
def test_scores_of_folds(scoring):
    """The same scores as scikit-learn's function, fold by fold."""
    x, y = load_wine(return_X_y=True)
    estimator = sw.sklearn.Classifier(**TINY, validation=0.2)
    expected = model_selection.cross_val_score(estimator, x, y, cv=3, scoring=scoring)
    found = sw.sklearn.cross_val_score(estimator, x, y, cv=3, scoring=scoring)
    assert found == pytest.approx(expected, rel=1e-4) and not hasattr(estimator, "network_")


def test_scores_of_groups():
    """Groups and splitters are scikit-learn's."""
    x, y = load_diabetes(return_X_y=True)
    groups, cv = np.arange(len(y)) % 7, model_selection.GroupKFold(3)
    estimator = sw.sklearn.Regressor(**TINY)
    expected = model_selection.cross_val_score(estimator, x, y, cv=cv, groups=groups)
    assert sw.sklearn.cross_val_score(estimator, x, y, cv=cv, groups=groups) == pytest.approx(
        expected, rel=1e-4
    )


def test_a_grid():
    """Scores, ranks, parameters and the refit estimator are those of scikit-learn's search."""
    x, y = load_diabetes(return_X_y=True)
    grid = [{"lr": [0.001, 0.03], "hidden": [(4,), (8,)]}, {"optimizer": ["sgd"]}]
    estimator = sw.sklearn.Regressor(**TINY)
    theirs = model_selection.GridSearchCV(estimator, grid, cv=3).fit(x, y)
    ours = sw.sklearn.GridSearchCV(estimator, grid, cv=3).fit(x, y)
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    for name, column in theirs.cv_results_.items():
        if name.endswith("test_score") and not name.startswith("rank"):
            assert ours.cv_results_[name] == pytest.approx(column, rel=1e-3, abs=1e-4), name
    for name in ("rank_test_score", "params"):
        assert list(ours.cv_results_[name]) == list(theirs.cv_results_[name])
    assert (ours.cv_results_["param_lr"].mask == theirs.cv_results_["param_lr"].mask).all()
    assert ours.best_params_ == theirs.best_params_ and ours.n_splits_ == 3
    assert ours.predict(x) == pytest.approx(theirs.predict(x), rel=1e-4)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), rel=1e-4)
    assert clone(ours).get_params()["cv"] == 3


def test_one_that_diverges_is_last():
    """Its score is NaN and its rank the last; the others are untouched. If all diverge, one sentence."""
    x, y = load_diabetes(return_X_y=True)
    estimator = sw.sklearn.Regressor(**TINY, optimizer="sgd")
    found = sw.sklearn.GridSearchCV(estimator, {"lr": [1e30, 0.01]}, cv=3).fit(x, y)
    assert np.isnan(found.cv_results_["mean_test_score"][0]) and found.best_params_ == {"lr": 0.01}
    assert found.cv_results_["rank_test_score"].tolist() == [2, 1]
    with pytest.raises(UserError, match="every fit has diverged: lower lr"):
        sw.sklearn.cross_val_score(clone(estimator).set_params(lr=1e30), x, y)


def test_others_are_refused():
    """scikit-learn's own estimators have scikit-learn's own functions."""
    x, y = load_wine(return_X_y=True)
    with pytest.raises(UserError, match=r"LogisticRegression is none of stepwell\.sklearn's estimators"):
        sw.sklearn.cross_val_score(LogisticRegression(), x, y)
