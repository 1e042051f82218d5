"""Softmax regression over a range of C: one warm-started sweep, and the choice of C by held-out log-loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, check_cv
from sklearn.utils.validation import _check_sample_weight, check_random_state

from crossent.errors import describe, refuse

from .inputs import refuse_source
from .softmax_regression import SoftmaxRegression, is_dask_collection

DEFAULT_CS = 13


@dataclass(frozen=True)
class RegressionPath:
    """Fits at increasing C.

    Attributes
    ----------
    Cs : ndarray (P,)
        In increasing order.
    coefs : ndarray (P, K, D)
    intercepts : ndarray (P, K)
    objectives, duality_gaps : ndarray (P,)
        As `SoftmaxRegression` reports them.
    models : list of SoftmaxRegression
        The fitted estimators.
    """

    Cs: NDArray[np.float64]
    coefs: NDArray[Any]
    intercepts: NDArray[Any]
    objectives: NDArray[np.float64]
    duality_gaps: NDArray[np.float64]
    models: list[SoftmaxRegression]


def softmax_regression_path(
    X: Any, y: Any, *, Cs: int | Iterable[float] = DEFAULT_CS, sample_weight: Any = None, **parameters: Any
) -> RegressionPath:
    """Fit softmax regressions at several C, each from where the one before ended.

    Small C first: its solutions are near 0 and quick to find, and each is close to the next.

    Parameters
    ----------
    X, y, sample_weight
        As `SoftmaxRegression.fit` takes them.
    Cs : int or iterable of float, default 13
        The values, in any order and without repeats counted twice; a number stands for so many, evenly spaced in the
        logarithm from 1e-4 to 1e4 (scikit-learn's range).
    **parameters
        Of `SoftmaxRegression`, but not C and warm_start.

    Returns
    -------
    RegressionPath
        Of all values, or after KeyboardInterrupt of those that were reached.

    Raises
    ------
    ValueError
        If a C, a parameter or the data cannot be used.

    Warns
    -----
    ConvergenceWarning
        As `SoftmaxRegression.fit`, for each C where it applies.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from crossent.sklearn import softmax_regression_path
    >>> X, y = load_wine(return_X_y=True)
    >>> path = softmax_regression_path((X - X.mean(0)) / X.std(0), y, Cs=[0.1, 1.0, 10.0])
    >>> path.coefs.shape
    (3, 3, 13)
    >>> bool((path.duality_gaps <= 1e-4).all())
    True
    """
    for name in ("C", "warm_start"):
        if name in parameters:
            raise ValueError(refuse(f"a path sets {name} itself", f"{name}={parameters[name]!r}", "pass Cs"))
    values = resolve_cs(Cs)
    model = SoftmaxRegression(**parameters)
    models = list(model.sweep(X, y, values.tolist(), sample_weight))
    return RegressionPath(
        values[: len(models)],
        np.stack([m.coef_ for m in models]),
        np.stack([m.intercept_ for m in models]),
        np.array([m.objective_ for m in models]),
        np.array([m.duality_gap_ for m in models]),
        models,
    )


def resolve_cs(Cs: int | Iterable[float]) -> NDArray[np.float64]:
    """Return the values of C in increasing order."""
    if isinstance(Cs, int | np.integer) and not isinstance(Cs, bool):
        if Cs < 1:
            raise ValueError(refuse("Cs must be a positive number of values, or the values", repr(Cs)))
        return np.geomspace(1e-4, 1e4, int(Cs)) if Cs > 1 else np.array([1.0])
    try:
        values = np.unique(np.asarray(list(Cs), dtype=np.float64))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(refuse("Cs must be an integer or an iterable of numbers", describe(Cs))) from error
    if values.size == 0 or not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(refuse("every C must be positive and finite, and there must be one", values.tolist()))
    return values


class SoftmaxRegressionCV(SoftmaxRegression):
    """Softmax regression whose C is chosen by held-out log-loss.

    One warm-started sweep over C for each fold, then one fit to all rows. Folds share one checked matrix, in which the
    rows held out have weight 0.

    Parameters
    ----------
    Cs : int or iterable of float, default 13
        Values of C; a number stands for so many from 1e-4 to 1e4.
    cv : int, float, cross-validation generator or iterable of (train, test), default 5
        An integer: so many stratified folds. A float in (0, 1): that share of the rows, stratified, is held out once.
    rule : {"best", "one_standard_error"}, default "best"
        "best" takes the C of the least mean loss. "one_standard_error" takes the least C whose mean loss is within one
        standard error of it (Breiman et al. 1984; with a single hold-out set, the standard error over its rows).
    random_state : int, RandomState instance or None, default 0
        Of the folds.
    link, loss, label_smoothing, fit_intercept, class_weight, tol, max_iter, dtype, callback, verbose
        As in `SoftmaxRegression`. Held-out rows are judged by plain cross-entropy, weighted by `sample_weight`.

    Attributes
    ----------
    C_ : float
        The C chosen.
    Cs_ : ndarray (P,)
        The values tried, increasing.
    losses_ : ndarray (folds, P)
        Held-out log-loss in nats.
    mean_losses_, standard_errors_ : ndarray (P,)
        Their means over folds, and the standard errors of these.
    and all attributes of `SoftmaxRegression`, of the fit to all rows at `C_`.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from crossent.sklearn import SoftmaxRegressionCV
    >>> X, y = load_wine(return_X_y=True)
    >>> model = SoftmaxRegressionCV(Cs=[1e-4, 1.0], cv=3).fit((X - X.mean(0)) / X.std(0), y)
    >>> model.C_
    1.0
    """

    def __init__(
        self,
        Cs: int | Sequence[float] = DEFAULT_CS,
        *,
        cv: Any = 5,
        rule: str = "best",
        random_state: Any = 0,
        link: str = "softmax",
        loss: Any = None,
        label_smoothing: float = 0.0,
        fit_intercept: bool = True,
        class_weight: Any = None,
        tol: float = 1e-4,
        max_iter: int = 1000,
        dtype: str | None = None,
        callback: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            link=link,
            loss=loss,
            label_smoothing=label_smoothing,
            fit_intercept=fit_intercept,
            class_weight=class_weight,
            tol=tol,
            max_iter=max_iter,
            dtype=dtype,
            callback=callback,
            verbose=verbose,
        )
        self.Cs = Cs
        self.cv = cv
        self.rule = rule
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxRegressionCV:
        """Choose C, then fit to all rows; arguments, errors and warnings as `SoftmaxRegression.fit`."""
        if self.rule not in ("best", "one_standard_error"):
            raise ValueError(refuse("rule must be 'best' or 'one_standard_error'", repr(self.rule)))
        if is_dask_collection(X):
            works = "choose C with softmax_regression_path on some partitions, by the log-loss of the others"
            raise ValueError(refuse("SoftmaxRegressionCV takes data in memory", describe(X), works))
        values = resolve_cs(self.Cs)
        estimator = self._estimator()
        refuse_source(X, "choosing C by folds", "use softmax_regression_path and rows held out, or pass X[:]")
        data, labels = estimator.check_data(X, y)
        weight = _check_sample_weight(sample_weight, data, dtype=np.float64, ensure_non_negative=True)
        folds = self._folds(data, labels)
        losses = np.empty((len(folds), len(values)))
        within = np.empty((len(folds), len(values)))
        for i, (train, test) in enumerate(folds):
            fold_weight = np.zeros(len(data))
            fold_weight[train] = weight[train]
            held = test[weight[test] > 0]
            if len(held) == 0:
                raise ValueError(refuse("each fold must hold out rows of positive weight", f"none in fold {i}"))
            reached = 0
            for j, fitted in enumerate(estimator.sweep(data, labels, values.tolist(), fold_weight)):
                losses[i, j], within[i, j] = _held_out(fitted, data[held], labels[held], weight[held])
                reached = j + 1
            if reached < len(values):
                raise KeyboardInterrupt  # the sweep keeps what it has, but nothing can be chosen by half of it
        self.Cs_, self.losses_, self.mean_losses_ = values, losses, losses.mean(axis=0)
        if len(folds) == 1:
            self.standard_errors_ = within[0]
        else:
            self.standard_errors_ = losses.std(axis=0, ddof=1) / math.sqrt(len(folds))
        best = int(np.argmin(self.mean_losses_))
        if self.rule == "one_standard_error":
            within_reach = self.mean_losses_ <= self.mean_losses_[best] + self.standard_errors_[best]
            best = int(np.argmax(within_reach))
        self.C_ = self.C = float(values[best])
        try:
            super().fit(X, y, sample_weight)
        finally:
            del self.C
        return self

    def _estimator(self) -> SoftmaxRegression:
        own = self.get_params(deep=False)
        names = SoftmaxRegression._get_param_names()
        return SoftmaxRegression(**{name: own[name] for name in names if name in own})

    def _folds(self, X: Any, y: NDArray[Any]) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        splitter: Any
        if isinstance(self.cv, float):
            if not 0 < self.cv < 1:
                raise ValueError(refuse("a share to hold out must lie in (0, 1)", repr(self.cv)))
            splitter = StratifiedShuffleSplit(1, test_size=self.cv, random_state=seed)
        elif isinstance(self.cv, int | np.integer):
            splitter = StratifiedKFold(int(self.cv), shuffle=True, random_state=seed)
        else:
            splitter = check_cv(self.cv, y, classifier=True)
        strata = y if y.ndim == 1 else y.argmax(axis=1)
        return list(splitter.split(X, strata))


def _held_out(model: SoftmaxRegression, X: Any, y: NDArray[Any], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Return the weighted mean of the rows' log-loss and its standard error, both in nats."""
    losses = model.row_losses(X, y)
    total = float(weight.sum())
    mean = float(weight @ losses) / total
    spread = float(np.square(weight) @ np.square(losses - mean))
    return mean, math.sqrt(spread) / total
