"""The corrected resampled t: an interval of the mean over folds, whose training rows overlap."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from stepwell.metrics.intervals import TAIL, Limits


def corrected_t(values: ArrayLike, held_over_learnt: float) -> Limits | None:
    """Returns the 95 % interval of the mean of J folds' values, m ± t_{J−1} s √(1/J + n_held / n_learnt).

    values: (J,), one a fold, over all repeats. held_over_learnt: rows held out over rows learnt from,
    which is 1/(N−1) for N folds, however often they are repeated. s² = Σ(v − m)² / (J − 1).
    None for fewer than two values.

    The plain s/√J takes the folds for independent. They share most of their training rows, so their
    values vary together, s is too small, and with more repeats the plain interval shrinks to nothing
    around one data set's chance. The second term stays, however many repeats there are.

    Source: Nadeau & Bengio (2003), Machine Learning 52, 239, section 3; for repeated folds Bouckaert & Frank
    (2004), PAKDD. The trap: its correlation n_held / (n_held + n_learnt) between folds is an approximation
    made for random subsets. No estimator of the variance of N folds is unbiased (Bengio & Grandvalet, 2004,
    JMLR 5, 1089). It is no interval of what the model trained on *all* rows will do, which is mostly better.
    """
    x = np.asarray(values, np.float64)
    if x.size < 2:
        return None
    half = float(stdtrit(x.size - 1, 1 - TAIL)) * x.std(ddof=1) * np.sqrt(1 / x.size + held_over_learnt)
    return float(x.mean() - half), float(x.mean() + half)
