"""Softmax regression over a range of C: one warm-started sweep, and the choice of C by held-out log-loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, check_cv
from sklearn.utils.validation import check_random_state, column_or_1d

from crossent.errors import describe, refuse
from crossent.estimator import all_or_nothing
from crossent.masked import refuse_masked
from crossent.regression.arrays import Array
from crossent.regression.plan import tuned

from .fitting import checked_weight
from .inputs import refuse_source
from .predictions import is_dask_collection
from .softmax_regression import SoftmaxRegression

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]

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
    refuse_masked(Cs, "Cs")
    try:
        values = np.unique(np.asarray(list(Cs), dtype=np.float64))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(refuse("Cs must be an integer or an iterable of numbers", describe(Cs))) from error
    if values.size == 0 or not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(refuse("every C must be positive and finite, and there must be one", values.tolist()))
    return values


@dataclass(kw_only=True, eq=False, repr=False)
class SoftmaxRegressionCV(SoftmaxRegression):
    """Softmax regression whose C is chosen by held-out log-loss.

    One warm-started sweep over C for each fold, then one fit to all rows from where the first fold's ended. Folds share
    one matrix, in which the rows held out have weight 0.

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

    Cs: int | Sequence[float] = field(default=DEFAULT_CS, kw_only=False)
    cv: Any = 5
    rule: str = "best"
    random_state: Any = 0
    C: ClassVar[Any] = property(lambda self: float(getattr(self, "C_", 1.0)))  # type: ignore[misc]
    """The C chosen; before a fit, scikit-learn's default."""
    warm_start: ClassVar[bool] = False  # type: ignore[misc]
    checkpoint: ClassVar[None] = None  # type: ignore[misc]
    checkpoint_interval: ClassVar[float] = math.inf  # type: ignore[misc]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxRegressionCV:
        """Choose C, then fit to all rows; arguments, errors and warnings as `SoftmaxRegression.fit`.

        Raises
        ------
        ValueError
            Also if a fold trains without one of the classes, which no C could then predict.
        KeyboardInterrupt
            If the choice is interrupted. Interrupting the last fit, at the C chosen, keeps its best coefficients.
        """
        if self.rule not in ("best", "one_standard_error"):
            raise ValueError(refuse("rule must be 'best' or 'one_standard_error'", repr(self.rule)))
        if is_dask_collection(X):
            works = "choose C with softmax_regression_path on some partitions, by the log-loss of the others"
            raise ValueError(refuse("SoftmaxRegressionCV takes data in memory", describe(X), works))
        values = resolve_cs(self.Cs)
        refuse_source(X, "choosing C by folds", "use softmax_regression_path and rows held out, or pass X[:]")
        loss = self._check_parameters()
        with all_or_nothing(self):
            data, labels = self.check_data(X, y)
            if labels.ndim == 2 and labels.shape[1] == 1:
                labels = column_or_1d(labels, warn=True)
            weight = checked_weight(sample_weight, data)
            self._encode(labels, weight, loss)  # says what is wrong with labels before they are split
            folds = self._folds(data, labels)
            problem = self._build(data, labels, weight, keep_rows=True)
            self._check_folds(problem, weight, folds)
            losses, within, thetas = self._try(values, problem, data, labels, weight, folds)
            self.Cs_, self.losses_, self.mean_losses_ = values, losses, losses.mean(axis=0)
            if len(folds) == 1:
                self.standard_errors_ = within[0]
            else:
                self.standard_errors_ = losses.std(axis=0, ddof=1) / math.sqrt(len(folds))
            best = int(np.argmin(self.mean_losses_))
            if self.rule == "one_standard_error":
                within_reach = self.mean_losses_ <= self.mean_losses_[best] + self.standard_errors_[best]
                best = int(np.argmax(within_reach))
            self.C_ = float(values[best])
            problem = self._reweigh(problem, weight)
            with problem.objective.single_threaded_blas():
                result, solver = self._solve(problem, thetas[best] if thetas else self._start(problem))
        self._explain(result, solver)
        return self

    def sweep(self, X: Any, y: Any, Cs: Iterable[float], sample_weight: Any = None) -> Iterator[SoftmaxRegression]:
        """Yield a fitted `SoftmaxRegression` for each C, with this one's other parameters."""
        yield from self._estimator().sweep(X, y, Cs, sample_weight)

    def _try(
        self, values: Array, problem: Any, data: Any, labels: NDArray[Any], weight: Array, folds: list[Fold]
    ) -> tuple[Array, Array, list[Array]]:
        """Return the held-out losses (folds, P), their standard errors within a fold, and the parameters that the first
        fold ended with at each C (none, if they are many)."""
        losses, within = np.empty((2, len(folds), len(values)))
        known = {"n_features_in_": self.n_features_in_}
        estimator = self._estimator()
        thetas: list[Array] = []
        for i, (train, test) in enumerate(folds):
            fold = self._reweigh(problem, _fold_weight(weight, train))
            held = test[weight[test] > 0]
            start = self._start(fold)
            keeps = i == 0 and start.nbytes * len(values) <= tuned().cache_bytes
            for j, (fitted, result) in enumerate(estimator._sweep(fold, values.tolist(), start, known)):
                if result.status == "interrupted":
                    raise KeyboardInterrupt  # nothing can be chosen by a part of the fits
                row_losses = _losses_in_blocks(fitted, data, labels, held)
                losses[i, j], within[i, j] = _mean_and_error(row_losses, weight[held])
                if keeps:
                    thetas.append(result.at.theta)
        return losses, within, thetas

    def _check_folds(self, problem: Any, weight: Array, folds: list[Fold]) -> None:
        classes, outputs = problem.target.classes, np.flatnonzero(~self._constant(problem, weight))
        for i, (train, test) in enumerate(folds):
            if not weight[test].any():
                raise ValueError(refuse("each fold must hold out rows of positive weight", f"none in fold {i}"))
            lacking = self._constant(problem, _fold_weight(weight, train))[outputs]
            if lacking.any():
                place = int(outputs[np.argmax(lacking)]) if len(problem.edge) == len(classes) else 1
                asked = "of every class" if self.link == "softmax" else "with and without each label"
                works = "use fewer or stratified folds, or leave out classes of a few rows"
                raise ValueError(
                    refuse(
                        f"each fold must train on rows {asked}",
                        f"{classes[place]!r} lacks them in fold {i}",
                        works,
                    )
                )

    def _constant(self, problem: Any, weight: Array) -> NDArray[np.bool_]:
        """Return which outputs have no mass, or with the sigmoid link only one value."""
        mass, total = problem.target.total_mass(weight)
        return np.asarray(mass <= 0 if self.link == "softmax" else (mass <= 0) | (mass >= total))

    def _estimator(self) -> SoftmaxRegression:
        own = self.get_params(deep=False)
        names = SoftmaxRegression._get_param_names()
        return SoftmaxRegression(**{name: own[name] for name in names if name in own})

    def _folds(self, X: Any, y: NDArray[Any]) -> list[Fold]:
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
        return [(np.asarray(train), np.asarray(test)) for train, test in splitter.split(X, strata)]


def _fold_weight(weight: Array, train: NDArray[np.intp]) -> Array:
    out = np.zeros(len(weight))
    out[train] = weight[train]
    return out


def _losses_in_blocks(model: SoftmaxRegression, X: Any, y: NDArray[Any], rows: NDArray[np.intp]) -> Array:
    """Return the log-loss of some rows, without a copy of all of them."""
    size = max(1, tuned().block_elements // max(X.shape[1], len(model.classes_)))
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    return np.concatenate([model.row_losses(X[part], y[part]) for part in parts])


def _mean_and_error(losses: Array, weight: Array) -> tuple[float, float]:
    """Return the weighted mean of the rows' log-loss and its standard error, both in nats."""
    total = float(weight.sum())
    mean = float(weight @ losses) / total
    spread = float(np.square(weight) @ np.square(losses - mean))
    return mean, math.sqrt(spread) / total
