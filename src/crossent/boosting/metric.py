"""A loss as the metric that early stopping looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from crossent.errors import refuse
from crossent.numpy.dense import value_and_grad

from .objective import RowLosses, labels_of, weights_of

__all__ = ["Metric"]

RAW = "predictions must be raw, as beside a custom objective"
SUM_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Metric(RowLosses):
    """The mean loss of raw predictions in nats, for evaluation and early stopping; less is better.

    ``Σ_i s_i ℓ(z_i, y_i) / Σ_i s_i`` with s the rows' weights (for label sets ℓ sums over the labels). What it returns
    is what the library that calls it wants: ``(name, value)`` for `xgboost.train(custom_metric=)`, a number for
    `XGBClassifier(eval_metric=)`, ``(name, value, False)`` for LightGBM, and CatBoost's three methods.

    The predictions must be raw. XGBoost and LightGBM hand out raw ones beside a custom objective, and probabilities
    beside one of their own. Where that can be seen it is refused: rows of three and more classes that sum to 1, and a
    LightGBM `Dataset` that knows its objective.

    Parameters
    ----------
    loss, link, weight, pos_weight, label_smoothing, temperature, prior, prior_strength, target
        As in :class:`Objective`.
    name : str
        What the libraries print.

    Raises
    ------
    TypeError, ValueError
        As :class:`Objective`; on a call, if predictions are seen to be probabilities.

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.boosting import Metric
    >>> round(Metric()(np.array([1]), np.array([[0.0, 0.0]])), 6)
    0.693147
    """

    name: str = "crossent"

    @property
    def __name__(self) -> str:
        return self.name

    def total(self, raw: Any, label: Any, sample_weight: Any = None) -> tuple[float, float]:
        """Return the weighted sum of the losses and of the weights."""
        z, y = self.rows(raw, label)
        if self.link == "softmax" and z.shape[1] > 2 and len(z) and z.min() >= 0:
            sums = z.sum(axis=1)
            if np.abs(sums - 1).max() < SUM_TOLERANCE:
                raise ValueError(refuse(RAW, f"{len(z)} rows of probabilities", "train with an Objective"))
        weight = None if sample_weight is None or np.size(sample_weight) == 0 else np.asarray(sample_weight)
        value = value_and_grad(z, y, sample_weight=weight, **self.options()).value
        return float(value), float(len(z)) if weight is None else float(weight.sum())

    def __call__(self, y_true: Any, y_pred: Any, *lightgbm: Any, sample_weight: Any = None) -> Any:
        """Return the mean loss in the form of the caller; LightGBM is known by its third and fourth argument."""
        if not hasattr(y_pred, "get_label"):
            total, mass = self.total(y_pred, y_true, lightgbm[0] if lightgbm else sample_weight)
            return (self.name, total / mass, False) if lightgbm else total / mass
        trained_with = (getattr(y_pred, "params", None) or {}).get("objective")
        if trained_with not in (None, "none", "custom"):
            raise ValueError(refuse(RAW, f"a booster with objective={trained_with!r}", "train with an Objective"))
        total, mass = self.total(y_true, labels_of(y_pred), weights_of(y_pred))
        is_xgboost = hasattr(y_pred, "get_base_margin")
        return (self.name, total / mass) if is_xgboost else (self.name, total / mass, False)

    def is_max_optimal(self) -> bool:
        """Return False: less is better (CatBoost asks)."""
        return False

    def evaluate(self, approxes: Any, target: Any, weight: Any) -> tuple[float, float]:
        """Return the weighted sums of losses and of weights, of CatBoost's predictions and label sets, (K, N)."""
        raw = np.stack([np.asarray(column) for column in approxes], axis=1)
        return self.total(raw[:, 0] if raw.shape[1] == 1 else raw, np.asarray(target).T, weight)

    def get_final_error(self, error: float, weight: float) -> float:
        """Return their ratio."""
        return error / (weight + 1e-38)
