"""Classifier and Regressor: a recipe's network behind scikit-learn's fit and predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from stepwell.data.dataset import DataSet, Task
from stepwell.errors import UserError
from stepwell.nn import registry
from stepwell.nn.network import Network
from stepwell.populations.member import Member, Outcome
from stepwell.populations.train import train
from stepwell.progress import quietly
from stepwell.recipe import Recipe, read_recipe, resolve
from stepwell.sklearn.arrays import data_set

BATCH = 4096  # samples that predict looks at together
KEYS = {
    "hidden": "model.hidden",
    "lr": "optimizer.lr",
    "optimizer": "optimizer.name",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
}
Job = tuple["_Estimator", Any, Any]  # what to fit, X, y


class _Estimator(BaseEstimator):
    """What both share."""

    def __init__(
        self,
        hidden: Sequence[int] | None = None,
        lr: float | None = None,
        optimizer: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation: float = 0.0,
        random_state: Any = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        """Every parameter is kept as it is, and looked at by `fit`; None leaves what a recipe has by default.

        hidden: units of each hidden layer. lr: learning rate. optimizer: its name. epochs: passes over the
        training rows. batch_size: samples a batch. validation: share of the rows that is not learnt from but
        keeps the best weights and stops early; 0: all are learnt from. random_state: seed of weights, order
        and split. recipe: further keys, {"model.dropout": 0.1, "training.early_stopping": 5}.
        """
        self.hidden = hidden
        self.lr = lr
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation = validation
        self.random_state = random_state
        self.recipe = recipe

    def fit(self, X: Any, y: Any) -> Any:
        """Trains on samples X (N, D) and their targets y."""
        fit_all([(self, X, y)])
        return self

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, Task, list[str]]:
        raise NotImplementedError

    def _recipe(self, seed: int) -> Recipe:
        """The recipe that the parameters make."""
        if not 0 <= self.validation < 1:
            raise UserError(
                f"validation={self.validation} must be at least 0 and below 1 (share of the rows)"
            )
        changes = dict(self.recipe or {})
        for key in changes:
            if key.partition(".")[0] in ("data", "seed") or key in ("model.from", "training.track"):
                raise UserError(f"recipe: {key} has no effect on an estimator: remove it")
        for name, key in KEYS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if key in changes or (name == "optimizer" and "optimizer" in changes):
                raise UserError(f"recipe: {key} is given as {name} too: keep one")
            plain = np.asarray(value).tolist()  # NumPy's numbers, and tuples
            changes[key] = plain
        return read_recipe(None, {**changes, "seed": seed})

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _take(self, member: Member, outcome: Outcome) -> None:
        """Keeps what was trained; in float64, so that a sample's prediction does not depend on others."""
        if outcome.weights is None:
            raise UserError(f"the training diverged at update {outcome.diverged}: lower lr")
        data = member.data
        with torch.random.fork_rng(devices=[]):
            body = registry.build(member.recipe.model, data.input_shape, data.outputs, data.kind)
        network = Network.of(body, data)
        network.load_state_dict(outcome.weights)
        self.network_ = network.double().eval()
        self.recipe_ = member.recipe.model_dump()
        self.curve_ = outcome.curve
        self.n_updates_ = outcome.updates

    def _outputs(self, X: Any) -> np.ndarray:
        """Probabilities (N, C) or values (N, O)."""
        check_is_fitted(self, "network_")
        x: Any = validate_data(self, X, reset=False, dtype=np.float64)
        with torch.no_grad():
            pieces = [self.network_.predict(piece) for piece in torch.from_numpy(x.copy()).split(BATCH)]
        return torch.cat(pieces).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = False
        return tags


class Classifier(ClassifierMixin, _Estimator):
    """Classes from features (N, D), by the network of a recipe.

    After `fit`: classes_, network_ (a torch module with the standardization inside), recipe_ (every key
    decided), curve_ (a row for each evaluation), n_updates_, n_features_in_, feature_names_in_.
    """

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, Task, list[str]]:
        checked: Any = validate_data(self, X, y, dtype=np.float64)
        x, y = checked
        check_classification_targets(y)
        self.classes_, numbers = np.unique(column_or_1d(y, warn=True), return_inverse=True)
        if len(self.classes_) < 2:
            raise UserError(f"y has 1 class only ({self.classes_[0]}): there is nothing to tell apart")
        names = [str(name) for name in self.classes_]
        task: Task = "binary" if len(names) == 2 else "multi-class"
        return x, numbers.astype(np.int64), task, names

    def predict_proba(self, X: Any) -> np.ndarray:
        """Returns the probability of each class, (N, classes)."""
        return self._outputs(X)

    def predict(self, X: Any) -> np.ndarray:
        """Returns the likeliest class of each sample, (N,)."""
        likeliest = self._outputs(X).argmax(1)
        return self.classes_[likeliest]


class Regressor(RegressorMixin, _Estimator):
    """One number or several from features (N, D), by the network of a recipe.

    After `fit`: network_ (a torch module with the standardization inside), recipe_ (every key decided),
    curve_ (a row for each evaluation), n_updates_, n_features_in_, feature_names_in_.
    """

    def _checked(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray, Task, list[str]]:
        checked: Any = validate_data(
            self, X, y, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        x, y = checked[0], np.asarray(checked[1], np.float64)
        if y.size and np.abs(y).max() > np.finfo(np.float32).max:
            raise UserError("y has a number beyond float32's largest, 3.4e38: scale y down")
        self._flat = y.ndim == 1
        return x, y.reshape(len(y), -1), "regression", []

    def predict(self, X: Any) -> np.ndarray:
        """Returns the predicted numbers, (N,), or (N, targets) where y had several."""
        found = self._outputs(X)
        return found[:, 0] if self._flat else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def fit_all(jobs: Sequence[Job]) -> list[Outcome]:
    """Fits many estimators as one population; estimators of the same X and y share it in memory.

    Raises UserError where one diverges, unless there are several: then it stays unfitted, and its outcome
    says where.
    """
    members: list[Member] = []
    known: dict[Any, DataSet] = {}
    for estimator, X, y in jobs:
        x, targets, task, classes = estimator._checked(X, y)
        seed = estimator._seed()
        recipe = estimator._recipe(seed)
        key = (id(X), id(y), estimator.validation, seed if estimator.validation else 0)
        if key not in known:
            known[key] = data_set(x, targets, task, classes, estimator.validation, seed)
        members.append(Member(resolve(recipe, known[key]), known[key]))
    with quietly(True):
        outcomes = train(members, weights=True)
    for (estimator, _, _), member, outcome in zip(jobs, members, outcomes, strict=True):
        if outcome.weights is not None or len(jobs) == 1:
            estimator._take(member, outcome)
    return outcomes
