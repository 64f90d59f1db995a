"""Estimators with scikit-learn's interface; what trains many of them trains one population."""

from stepwell.sklearn.estimators import Classifier, Regressor
from stepwell.sklearn.selection import GridSearchCV, cross_val_score

__all__ = ["Classifier", "GridSearchCV", "Regressor", "cross_val_score"]
