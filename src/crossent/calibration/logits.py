"""Logits of any classifier: its own, or the logarithms of its probabilities, and what to do about zeros."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossent.errors import describe, refuse

__all__ = ["Scores", "scores_of"]


class Scores(NamedTuple):
    """What a classifier says of each row, (N, K) or (N,).

    `kind` is "logits", "log-probabilities" (of exclusive classes), or "label-probabilities" (one event per column).
    """

    kind: str
    values: NDArray[Any]

    def floor(self) -> float | None:
        """Return half of the smallest positive probability, or None where none is 0 (or, of a label, 1)."""
        if self.kind == "logits":
            return None
        p = np.exp(self.values) if self.kind == "log-probabilities" else np.stack([self.values, 1 - self.values])
        zero = self.values == -np.inf if self.kind == "log-probabilities" else p <= 0
        if not zero.any():
            return None
        return 0.5 * float(p[p > 0].min())

    def logits(self, floor: float | None) -> NDArray[Any]:
        """Return logits; probabilities below `floor` count as this much (None: as they are)."""
        if self.kind == "logits":
            return self.values
        if self.kind == "log-probabilities":
            return self.values if floor is None else np.maximum(self.values, np.log(floor))
        p, rest = self.values, 1 - self.values
        if floor is not None:
            p, rest = np.maximum(p, floor), np.maximum(rest, floor)
        with np.errstate(divide="ignore"):
            return np.log(p) - np.log(rest)


def scores_of(estimator: Any, X: Any, label_sets: bool = False) -> Scores:
    """Return a fitted classifier's `logits`, `decision_function`, `predict_log_proba` or `predict_proba`.

    The first that it has. `predict_log_proba` comes before the logarithm of `predict_proba`, which has underflowed
    where the former is computed as a logarithm (naive Bayes).

    Raises
    ------
    ValueError
        If it has none of them.
    """
    for name in ("logits", "decision_function"):
        if hasattr(estimator, name):
            return Scores("logits", np.asarray(getattr(estimator, name)(X)))
    if not hasattr(estimator, "predict_proba"):
        asked = "the estimator must have one of logits, decision_function and predict_proba"
        raise ValueError(refuse(asked, describe(estimator)))
    with np.errstate(divide="ignore"):
        if label_sets:
            found = estimator.predict_proba(X)
            columns = np.stack([p[:, 1] for p in found], axis=1) if isinstance(found, list) else np.asarray(found)
            return Scores("label-probabilities", columns)
        if hasattr(estimator, "predict_log_proba"):
            return Scores("log-probabilities", np.asarray(estimator.predict_log_proba(X)))
        return Scores("log-probabilities", np.log(estimator.predict_proba(X)))
