"""What every estimator shares: a score that refuses masked arrays, and a failed fit that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.base import ClassifierMixin

from crossent.masked import refuse_masked

__all__ = ["Classifier", "all_or_nothing"]


class Classifier(ClassifierMixin):
    """scikit-learn's classifier, whose score refuses masked arrays too."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of `predict`.

        Parameters
        ----------
        X : array or table (N, D)
            What `predict` takes.
        y : array (N,), or (N, K) of 0 and 1
            The true labels, or label sets.
        sample_weight : array (N,), optional

        Raises
        ------
        TypeError
            If an argument is a masked array or holds one.
        """
        refuse_masked(y, "y")
        refuse_masked(sample_weight, "sample_weight")
        return float(super().score(X, y, sample_weight))


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Give an estimator back the attributes that it had before a fit which fails or is interrupted.

    The names of a new fit's classes beside the coefficients of an old one would be a model that nobody fitted.
    """
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        estimator.__dict__ = before
        raise
