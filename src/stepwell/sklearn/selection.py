"""scikit-learn's cross_val_score and GridSearchCV, whose fits are one population."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
from numpy.ma import MaskedArray
from scipy.stats import rankdata
from sklearn import base, model_selection
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.utils import _safe_indexing, indexable

from stepwell.errors import UserError
from stepwell.sklearn.estimators import _Estimator, fit_all


def cross_val_score(
    estimator: Any, X: Any, y: Any, *, groups: Any = None, scoring: Any = None, cv: Any = None
) -> np.ndarray:
    """Returns the score of each fold, (folds,), as scikit-learn's function of this name; all fits together.

    cv: folds or a splitter, scoring: a name or a function, as there. A fold that diverges has NaN.
    """
    return _scores([estimator], X, y, groups, check_scoring(estimator, scoring), cv)[0][0]


class GridSearchCV(model_selection.GridSearchCV):
    """scikit-learn's search of this name; all candidates on all folds are trained as one population.

    After `fit` it has what scikit-learn's has: best_params_, best_score_, best_estimator_ (refit on all
    rows), cv_results_. The times in cv_results_ are the whole time, shared equally: all were trained at once.
    """

    def __init__(
        self, estimator: Any, param_grid: Any, *, scoring: Any = None, refit: bool = True, cv: Any = None
    ) -> None:
        super().__init__(estimator, param_grid, scoring=scoring, refit=refit, cv=cv)

    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> GridSearchCV:
        """Trains and scores every candidate on every fold, then the best one on all rows."""
        self.scorer_, self.multimetric_ = check_scoring(self.estimator, self.scoring), False
        candidates = list(ParameterGrid(self.param_grid))
        tried = [_clone(self.estimator).set_params(**copy.deepcopy(c)) for c in candidates]
        scores, fit_time, score_time = _scores(tried, X, y, groups, self.scorer_, self.cv)
        self.n_splits_ = scores.shape[1]
        self.cv_results_ = _results(candidates, scores, fit_time, score_time)
        self.best_index_ = int(self.cv_results_["rank_test_score"].argmin())
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.best_params_ = candidates[self.best_index_]
        if self.refit:
            begun = time.monotonic()
            self.best_estimator_ = _clone(tried[self.best_index_]).fit(X, y)
            self.refit_time_ = time.monotonic() - begun
            if hasattr(self.best_estimator_, "feature_names_in_"):
                self.feature_names_in_ = self.best_estimator_.feature_names_in_
        return self


def _clone(estimator: Any) -> Any:
    return base.clone(estimator)


def _scores(
    estimators: list[Any], X: Any, y: Any, groups: Any, scorer: Any, cv: Any
) -> tuple[np.ndarray, float, float]:
    """Returns the scores (estimators, folds), and the seconds of each fit and score."""
    for estimator in estimators:
        if not isinstance(estimator, _Estimator):
            raise UserError(
                f"{type(estimator).__name__} is none of stepwell.sklearn's estimators: use scikit-learn's "
                "own function (standardization is inside ours, without a pipeline)"
            )
    X, y, groups = indexable(X, y, groups)
    splitter: Any = check_cv(cv, y, classifier=base.is_classifier(estimators[0]))
    splits = list(splitter.split(X, y, groups))
    parts = [[(_safe_indexing(X, rows), _safe_indexing(y, rows)) for rows in split] for split in splits]
    fitted = [[_clone(estimator) for _ in splits] for estimator in estimators]
    begun = time.monotonic()
    outcomes = iter(
        fit_all([(one, *learn) for row in fitted for one, (learn, _) in zip(row, parts, strict=True)])
    )
    trained = time.monotonic()
    scores = np.full((len(estimators), len(splits)), np.nan)
    for k, row in enumerate(fitted):
        for fold, (one, (_, held)) in enumerate(zip(row, parts, strict=True)):
            if next(outcomes).weights is not None:
                scores[k, fold] = scorer(one, *held)
    if np.isnan(scores).all():
        raise UserError("every fit has diverged: lower lr")
    count = scores.size
    return scores, (trained - begun) / count, (time.monotonic() - trained) / count


def _results(
    candidates: list[dict[str, Any]], scores: np.ndarray, fit_time: float, score_time: float
) -> dict[str, Any]:
    """cv_results_: a column for each parameter and fold, mean, deviation and rank, as scikit-learn has it."""
    count = len(candidates)
    found: dict[str, Any] = {}
    for name, seconds in (("fit", fit_time), ("score", score_time)):
        found[f"mean_{name}_time"], found[f"std_{name}_time"] = np.full(count, seconds), np.zeros(count)
    for name in dict.fromkeys(name for candidate in candidates for name in candidate):
        column = MaskedArray(np.empty(count, dtype=object), mask=True)
        for k, candidate in enumerate(candidates):
            if name in candidate:
                column[k] = candidate[name]
        found[f"param_{name}"] = column
    found["params"] = candidates
    for fold, column in enumerate(scores.T):
        found[f"split{fold}_test_score"] = column
    mean = scores.mean(1)
    found |= {"mean_test_score": mean, "std_test_score": scores.std(1)}
    worst = np.nan_to_num(mean, nan=np.nanmin(mean) - 1 if np.isfinite(mean).any() else 0.0)
    found["rank_test_score"] = rankdata(-worst, method="min").astype(np.int32)
    return found
