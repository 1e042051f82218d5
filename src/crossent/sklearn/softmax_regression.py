"""Softmax regression as a scikit-learn classifier."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from crossent.core.reduction import check_total
from crossent.errors import describe, refuse
from crossent.estimator import Classifier, all_or_nothing
from crossent.losses import DEFAULT_LOSS, Loss
from crossent.masked import refuse_masked
from crossent.numpy.dense import binary_cross_entropy_with_logits, cross_entropy
from crossent.numpy.elementwise import log_sigmoid, log_softmax, sigmoid, softmax
from crossent.regression.blas import single_threaded_blas
from crossent.regression.certificate import Certificate
from crossent.regression.checkpoint import Checkpoint, exclusive, identify
from crossent.regression.data.streaming import MappedRows, RowSource
from crossent.regression.interface import Array, Evaluation, Objective
from crossent.regression.objective import CACHE_BYTES, CROSS_ENTROPY_TERMS, SIZEABLE_WORK, LinearObjective, can_copy
from crossent.regression.problem import Problem, has_one_logit, is_cross_entropy
from crossent.regression.rounding import add_products, is_as_good
from crossent.regression.solvers import Monitor, Result, minimize, predicted_start
from crossent.regression.targets import EncodedTarget, class_weights, encode_target

from .inference import CoefficientSummary, summarize_coefficients
from .inputs import (
    are_rows_with_labels,
    check_labels,
    check_source,
    is_accepted,
    is_moderate,
    read_frame,
    refuse_infinite_logits,
    refuse_overflow,
    refuse_source,
)


def is_dask_collection(X: Any) -> bool:
    """Whether X is a Dask array or data frame; Dask is not imported to find out."""
    return type(X).__module__.partition(".")[0] == "dask" and hasattr(X, "__dask_graph__")


def _or_lazily(method: Callable[[Any, Any], NDArray[Any]]) -> Callable[[Any, Any], Any]:
    """Let a method of rows return a lazy dask.array for a Dask collection."""

    @wraps(method)
    def wrapped(self: SoftmaxRegression, X: Any) -> Any:
        if not is_dask_collection(X):
            return method(self, X)
        from crossent.regression.data.dask_collections import frame_of, map_rows

        check_is_fitted(self)
        validate_data(self, frame_of(X), skip_check_array=True, reset=False)
        return map_rows(self._predictor(), method.__name__, X)

    return wrapped


class SoftmaxRegression(Classifier, BaseEstimator):
    """Softmax regression that says how far from the optimum it can be.

    Minimises scikit-learn's objective

        f(W, b) = C · Σ_i s_i ℓ(W x_i + b, y_i) + ½ ‖W‖²

    (s: sample weights times class weights; the intercept b is not penalised; ℓ in nats) by truncated Newton steps, and
    stops when the *duality gap* proves ``(f - f*) / f ≤ tol``.

    Parameters
    ----------
    C : float, default 1.0
        Weight of the losses beside the penalty, positive. ``math.inf`` drops the penalty (and with it the certificate;
        the data may then have no optimum).
    link : {"softmax", "sigmoid"}, default "softmax"
        "softmax": exclusive classes. "sigmoid": one binary cross-entropy per label, for two classes or for label sets.
    loss : loss, optional
        A loss of the family, such as ``crossent.Focal(2.0)``; None is cross-entropy. Other losses than cross-entropy
        have no certificate, and those that are not convex (focal, generalised cross-entropy, Brier) can have more than
        one minimum.
    label_smoothing : float, default 0.0
        ε: the target becomes ``(1-ε) t + ε/K`` (sigmoid: ``(1-ε) t + ε/2``).
    fit_intercept : bool, default True
        Whether to fit b.
    class_weight : dict, "balanced" or None
        Weights of the classes, ``{class: weight}``; "balanced" is scikit-learn's rule. For label sets, the weights of
        0 and of 1.
    tol : float, default 1e-4
        The relative duality gap ``(f - D) / f`` at which to stop. Where no certificate exists (another loss, or
        ``C=inf``): the norm of the gradient relative to its norm at ``W = 0, b = 0``.
    max_iter : int, default 1000
        The most iterations.
    dtype : {None, "float32", "float64"}
        What the matrix products run in. None keeps float32 or float64 data as they are and takes float64 otherwise.
        Sums over rows and the parameters are float64 in any case, and products of float32 data change to float64,
        block by block, when their rounding is what stands in the way.
    warm_start : bool, default False
        Start from the last fit's coefficients where their shapes agree.
    callback : callable, optional
        Called with every entry of the history as it comes; a true result stops the fit.
    verbose : int, default 0
        1 prints one line per iteration.
    checkpoint : str or path, optional
        A file that the state of a fit is written to every `checkpoint_interval` seconds, at the end of an iteration,
        and where the fit goes on from if it finds it: a fit that was killed ends with the coefficients it would have
        had. (A fit with a checkpoint takes other steps than one without, to the same tolerance.) The file appears whole
        or not at all; it holds numbers and JSON (safetensors), no code. Other data, weights or parameters than `tol`,
        `max_iter`, `callback` and `verbose` are refused. After a fit that converged it stays, marked as finished: the
        same fit then only evaluates once, another one replaces it. It is of one fit at a time: a second one that begins
        before the first has ended is refused (not on Windows).
    checkpoint_interval : float, default 60.0
        Seconds between two checkpoints; a fit that is shorter writes none. 0 writes one after each iteration.

    Attributes
    ----------
    classes_ : ndarray (K,)
        The classes; for label sets and for distributions as targets, 0 to K-1.
    coef_ : ndarray (K, D)
        W; one row for two classes with the sigmoid link.
    intercept_ : ndarray (K,)
        b. A class (or label value) with no weight at all in the data is predicted with probability 0, which is where
        the infimum of f lies: its entry is -inf (a label that is always present: +inf).
    n_features_in_, feature_names_in_
        As scikit-learn sets them.
    n_iter_ : int
        Iterations.
    objective_ : float
        f at the returned coefficients, in nats (for ``C=inf`` the sum of the weighted losses).
    duality_gap_ : float
        ``(f - D) / f`` with D ≤ f* the best dual bound found: the relative excess of f at `coef_` and `intercept_`, as
        they are stored, over the optimum is at most this, up to float64's rounding. NaN without a certificate.
    certificate_ : str
        What `duality_gap_` proves, or why there is no proof.
    history_ : list of dict
        One entry per iteration: iteration, objective, gradient_norm, duality_gap (None without a certificate),
        evaluations (of f with its gradient, so far), hessian_products (so far), seconds (so far).

    Notes
    -----
    For two classes `decision_function` returns one column, the difference of the two logits, as scikit-learn's
    classifiers do; `logits` always has a column per class. ``SoftmaxRegression(C)`` with two classes predicts what
    scikit-learn's ``LogisticRegression(2 * C)`` and ``link="sigmoid"`` at ``2 * C`` predict: the difference of two rows
    of W costs half of what a single row would.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from crossent.sklearn import SoftmaxRegression
    >>> X, y = load_digits(return_X_y=True)
    >>> model = SoftmaxRegression(C=0.01).fit(X, y)
    >>> bool(model.duality_gap_ <= 1e-4)
    True
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        link: str = "softmax",
        loss: Loss | None = None,
        label_smoothing: float = 0.0,
        fit_intercept: bool = True,
        class_weight: dict[Any, float] | str | None = None,
        tol: float = 1e-4,
        max_iter: int = 1000,
        dtype: str | None = None,
        warm_start: bool = False,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        verbose: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_interval: float = 60.0,
    ) -> None:
        self.C = C
        self.link = link
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.dtype = dtype
        self.warm_start = warm_start
        self.callback = callback
        self.verbose = verbose
        self.checkpoint = checkpoint
        self.checkpoint_interval = checkpoint_interval

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = self.link == "sigmoid"
        tags.classifier_tags.multi_class = self.link != "sigmoid"
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxRegression:
        """Fit to labels, distributions or label sets.

        Parameters
        ----------
        X : array-like, data frame, sparse matrix, ParquetRows or Dask collection (N, D)
            Finite numbers. Sparse rows are made dense a block at a time; memory maps of float32 or float64 in C order
            and Parquet files are read window by window, and nothing of their size is made (other dtypes and orders are
            converted whole). Rows of a Dask array or data frame stay on its workers.
        y : array-like
            Labels (N,). With the softmax link also distributions, a *floating* (N, K) array whose rows sum to 1; with
            the sigmoid link label sets, (N, K) of 0 and 1 or of probabilities.
        sample_weight : array-like (N,), optional
            Non-negative weights. A weight of k counts a row k times; 0 leaves it out.

        Returns
        -------
        SoftmaxRegression
            Itself.

        Raises
        ------
        ValueError
            If a parameter, the data or the checkpoint cannot be used, with the reason; if a partition of a Dask
            collection holds other rows when it is computed again. After this or any other error the estimator is what
            it was before: unfitted, or the last fit whole.

        Warns
        -----
        ConvergenceWarning
            If `tol` was not reached, with the gap reached and the argument to change, or if the fit was interrupted.
        """
        with all_or_nothing(self):
            with single_threaded_blas():
                problem = self._prepare(X, y, sample_weight)
            with problem.objective.single_threaded_blas(), exclusive(self.checkpoint):
                result, monitor = self._solve(problem, self._start(problem), self._open_checkpoint(problem))
        self._explain(result, monitor)
        return self

    def sweep(self, X: Any, y: Any, Cs: Iterable[float], sample_weight: Any = None) -> Iterator[SoftmaxRegression]:
        """Yield a fitted clone for each C, each fitted from the coefficients of the one before.

        The data are checked, centred and converted once. Best from small C to large.

        Parameters
        ----------
        X, y, sample_weight
            As `fit` takes them.
        Cs : iterable of float

        Yields
        ------
        SoftmaxRegression
            With the parameters of this one but C. This one is not fitted. KeyboardInterrupt during a fit makes it the
            last.

        Raises
        ------
        ValueError
            As `fit`, and if `checkpoint` is set: it would be of one fit of many.
        """
        if self.checkpoint is not None:
            raise ValueError(refuse("a sweep keeps no checkpoint", f"checkpoint={self.checkpoint!r}", "pass None"))
        owner = clone(self)
        problem = owner._prepare(X, y, sample_weight)
        names = ("n_features_in_", "feature_names_in_")
        known = {name: getattr(owner, name) for name in names if hasattr(owner, name)}
        for model, result in self._sweep(problem, Cs, owner._start(problem), known):
            yield model
            if result.status == "interrupted":
                return

    def _sweep(
        self, problem: Problem, Cs: Iterable[float], theta: Array, known: dict[str, Any]
    ) -> Iterator[tuple[SoftmaxRegression, Result]]:
        """Yield a clone with the attributes `known`, fitted, and how its fit ended, for each C."""
        found: list[tuple[float, Evaluation]] = []  # the last two C and their optima
        for C in Cs:
            model = clone(self).set_params(C=C)
            model._check_parameters()
            for name, value in known.items():
                setattr(model, name, value)
            with problem.objective.single_threaded_blas():
                result, monitor = model._solve(problem, theta, found=found)
            model._explain(result, monitor)
            theta = result.at.theta
            found = [*found[-1:], (float(C), result.at)]
            yield model, result

    # -- the fit, step by step ------------------------------------------------------------------------------------

    def check_data(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        """Return X and y as arrays of the dtypes that `fit` works with."""
        refuse_masked(y, "y")
        if isinstance(X, RowSource):
            check_source(self, X, self._accepted_dtypes(), reset=True)
            return X, check_labels(self, X, y)
        options = {"order": "C", "multi_output": True, "y_numeric": False, "accept_sparse": "csr"}
        array, frame = read_frame(X)
        accepted = self._accepted_dtypes()
        # One pass instead of three; what it cannot vouch for is looked at closely.
        is_checked = (
            type(array) in (np.ndarray, np.memmap) and is_accepted(array.dtype, accepted) and is_moderate(array)
        )
        if is_checked and are_rows_with_labels(array, y):
            return validate_data(self, array, y, skip_check_array=True)
        X, y = validate_data(self, array, y, dtype=accepted, ensure_all_finite=not is_checked, **options)
        if frame is not None:
            _check_feature_names(self, frame, reset=True)
        if not is_checked:
            refuse_overflow(X)
        return X, y

    def _prepare(self, X: Any, y: Any, sample_weight: Any) -> Problem:
        """Check everything; return the objective, without its penalty, and how its parameters are stored."""
        loss = self._check_parameters()
        if is_dask_collection(X):
            return self._prepare_distributed(X, y, sample_weight, loss)
        given = X
        X, y = self.check_data(X, y)
        if isinstance(given, np.memmap) and X.nbytes > CACHE_BYTES and np.may_share_memory(X, given):
            X = MappedRows(X)
        return self._build(X, y, checked_weight(sample_weight, X))

    def _build(self, X: Any, y: NDArray[Any], weight: Array, keep_rows: bool = False) -> Problem:
        """Return the problem of checked data; with `keep_rows` rows of weight 0 stay in it."""
        loss = self._check_parameters()
        target, largest = self._encode(y, weight, loss).normalised()
        total = _total(weight, largest)
        outputs, edge = self._active_outputs(target, weight, loss)
        counted = weight > 0
        can_select = isinstance(X, RowSource) or can_copy(X)  # else they stay, with weight 0
        if can_select and not (keep_rows or counted.all()):
            X, weight, target = X[counted], weight[counted], target.take(counted)
        one_logit = has_one_logit(target, outputs, loss)
        objective = self._objective(X, target.restrict(outputs, one_logit), weight / weight.sum(), loss)
        return Problem(objective, outputs, edge, total, target, one_logit)

    def _reweigh(self, problem: Problem, weight: Array) -> Problem:
        """Return the problem with other weights of the rows, which share the data and what was derived from them."""
        weighted = problem.target.weighted(class_weights(problem.target, self.class_weight, weight))
        target, largest = weighted.normalised()
        factor = _terms(self._check_parameters())[1]
        assert isinstance(problem.objective, LinearObjective)  # others are not divided into folds
        problem.objective.reweigh(weight / weight.sum() * factor, target.restrict(problem.outputs, problem.one_logit))
        return replace(problem, total=_total(weight, largest), target=target)

    def _prepare_distributed(self, X: Any, y: Any, sample_weight: Any, loss: Loss) -> Problem:
        """The same for Dask collections, whose rows stay where they are."""
        from crossent.regression.data.dask_collections import frame_of
        from crossent.regression.data.distributed import DistributedObjective, DistributedRows

        validate_data(self, frame_of(X), skip_check_array=True)  # sets n_features_in_ and feature_names_in_
        dtype = None if self.dtype is None else self._accepted_dtypes()
        rows = DistributedRows(X, y, sample_weight, dtype, self.link)
        target, weight = rows.summary.encoded(self.link, float(self.label_smoothing))
        target, largest = self._weighted(target, rows.summary.hard, weight, loss).normalised()
        total = _total(rows.summary.weight, largest)
        outputs, edge = self._active_outputs(target, weight, loss)
        terms, factor = _terms(loss)
        dtype = self._working_dtype(sum(rows.summary.rows) * rows.num_features * target.num_outputs, terms, rows.dtype)
        fit_intercept = bool(self.fit_intercept)
        share = factor / rows.summary.weight
        objective = DistributedObjective(rows, target, weight, outputs, share, terms, fit_intercept, dtype)
        return Problem(objective, outputs, edge, total, target)

    def _open_checkpoint(self, problem: Problem) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        if not isinstance(problem.objective, LinearObjective):
            asked = "a checkpoint is kept of fits to rows that this process reads"
            raise ValueError(refuse(asked, type(problem.objective).__name__, "set checkpoint=None"))
        C = "inf" if math.isinf(self.C) else float(self.C)
        fit = {"C": C, **identify(problem.objective), "total_weight": problem.total}
        return Checkpoint(self.checkpoint, float(self.checkpoint_interval), fit)

    def _solve(
        self,
        problem: Problem,
        theta: Array,
        checkpoint: Checkpoint | None = None,
        found: Sequence[tuple[float, Evaluation]] = (),
    ) -> tuple[Result, Monitor]:
        """Fit at this C: f / (C Σ s) has the penalty 1 / (C Σ s).

        Optima change about evenly with log C; two that were `found` say where to begin instead of at `theta`.
        """
        objective = problem.objective
        scale = problem.total if math.isinf(self.C) else float(self.C) * problem.total
        check_total("C times the sum of the weights", scale)
        objective.restart(problem.penalty(0.0 if math.isinf(self.C) else 1.0 / scale))
        monitor = self._monitor(objective, scale)
        if len(found) == 2 and found[0][0] < found[1][0] < self.C < math.inf:
            (first, earlier), (last, latest) = found
            theta = predicted_start(objective, earlier, latest, math.log(self.C / last) / math.log(last / first))
        result = minimize(monitor, theta, checkpoint)
        self._store(result, monitor, problem, scale)
        return result, monitor

    def _check_parameters(self) -> Loss:
        if not _is_number(self.C) or not self.C > 0:
            raise ValueError(refuse("C must be a positive number (or math.inf)", repr(self.C)))
        if self.link not in ("softmax", "sigmoid"):
            raise ValueError(refuse("link must be 'softmax' or 'sigmoid'", repr(self.link)))
        if not _is_number(self.tol) or not 0 < self.tol < math.inf:
            raise ValueError(refuse("tol must be a positive number", repr(self.tol)))
        if not isinstance(self.max_iter, int | np.integer) or isinstance(self.max_iter, bool) or self.max_iter < 1:
            raise ValueError(refuse("max_iter must be a positive integer", repr(self.max_iter)))
        if not _is_number(self.label_smoothing) or not 0 <= self.label_smoothing <= 1:
            raise ValueError(refuse("label_smoothing must lie in [0, 1]", repr(self.label_smoothing)))
        if not (self.checkpoint is None or isinstance(self.checkpoint, str | os.PathLike)):
            raise ValueError(refuse("checkpoint must be None or a path", describe(self.checkpoint)))
        if not _is_number(self.checkpoint_interval) or self.checkpoint_interval < 0:
            raise ValueError(refuse("checkpoint_interval must be 0 or more seconds", repr(self.checkpoint_interval)))
        if self.loss is None:
            return DEFAULT_LOSS
        if not isinstance(self.loss, Loss) or self.loss.needs_teacher:
            raise ValueError(
                refuse(
                    "loss must be None or a loss of labels such as crossent.Focal(2.0)",
                    describe(self.loss),
                    "to distil, pass the teacher's probabilities as y",
                )
            )
        if any(part.is_cross_entropy and scale < 0 for scale, part in self.loss.terms):
            raise ValueError(refuse("a loss to minimise must not hold cross-entropy negatively", repr(self.loss)))
        return self.loss

    def _accepted_dtypes(self) -> Any:
        if self.dtype is None:
            return [np.float64, np.float32]
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            dtype = np.dtype(object)
        if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(refuse("dtype must be None, 'float32' or 'float64'", repr(self.dtype)))
        return dtype

    def _encode(self, y: Any, weight: Array, loss: Loss) -> EncodedTarget:
        target = encode_target(y, self.link, float(self.label_smoothing))
        return self._weighted(target, target.hard, weight, loss)

    def _weighted(self, target: EncodedTarget, hard: bool, weight: Array, loss: Loss) -> EncodedTarget:
        if loss.needs_hard_target and not (hard and self.label_smoothing == 0):
            works = "set label_smoothing=0 and pass labels"
            raise ValueError(refuse(f"{loss!r} takes labels only", "soft or smoothed targets", works))
        return target.weighted(class_weights(target, self.class_weight, weight))

    def _active_outputs(self, target: EncodedTarget, weight: Array, loss: Loss) -> tuple[NDArray[np.intp], Array]:
        """Return the outputs that take part, and the intercepts of the others.

        Cross-entropy with a free intercept sends a class without mass to probability 0, so that no finite b is optimal.
        """
        edge = np.zeros(target.num_outputs)
        mass, total = target.total_mass(weight)
        if target.link == "softmax":
            active = mass > 0
            edge[~active] = -math.inf
            if np.count_nonzero(active) < 2:
                raise ValueError(refuse("two classes or more must have positive weight", f"{active.sum()} such class"))
        else:
            active = (mass > 0) & (mass < total)
            edge[~active] = np.where(mass[~active] > 0, math.inf, -math.inf)
            if not active.any():
                raise ValueError(refuse("at least one label must hold both classes, 0 and 1", "constant labels"))
        if not (self.fit_intercept and is_cross_entropy(loss)):
            return np.arange(target.num_outputs), np.zeros(target.num_outputs)
        return np.flatnonzero(active), edge

    def _objective(self, X: Any, target: EncodedTarget, share: Array, loss: Loss) -> LinearObjective:
        """Return f / (C Σ s) but for its penalty: row weights sum to 1."""
        terms, factor = _terms(loss)
        dtype = self._working_dtype(X.shape[0] * X.shape[1] * target.num_outputs, terms, X.dtype)
        return LinearObjective(X, target, share * factor, 0.0, terms, bool(self.fit_intercept), dtype)

    def _working_dtype(self, work: int, terms: Array, data_dtype: Any) -> Any:
        """What products run in at first, for `work` multiplications in a pass."""
        quick = self.dtype is None and work >= SIZEABLE_WORK and (terms[:, 0] == 0).all()
        return np.float32 if quick else data_dtype

    def _monitor(self, objective: Objective, scale: float) -> Monitor:
        certified = objective.is_cross_entropy and objective.penalty > 0
        certificate = Certificate.shared(objective) if certified else None
        report = self._report if self.verbose or self.callback is not None else None
        return Monitor(objective, certificate, float(self.tol), int(self.max_iter), scale, report)

    def _report(self, entry: dict[str, Any]) -> bool:
        if self.verbose:
            gap = "" if entry["duality_gap"] is None else f"  gap {entry['duality_gap']:.2e}"
            print(
                f"iteration {entry['iteration']:4d}  objective {entry['objective']:.8g}  "
                f"gradient {entry['gradient_norm']:.2e}{gap}  {entry['seconds']:.2f} s",
                flush=True,
            )
        return self.callback is not None and bool(self.callback(entry))

    def _start(self, problem: Problem) -> Array:
        """Return W = 0 with the best b for it, or the last fit's parameters, in the centred coordinates."""
        objective, outputs = problem.objective, problem.outputs
        theta = np.zeros((objective.num_outputs, objective.num_features + 1))
        shape = (len(problem.edge), objective.num_features)
        if self.warm_start and hasattr(self, "coef_") and self.coef_.shape == shape:
            earlier = np.column_stack([self.coef_[outputs], self.intercept_[outputs]])
            theta = problem.parameters(earlier.astype(np.float64))
            if self.fit_intercept and np.isfinite(theta[:, -1]).all():
                theta[:, -1] += theta[:, :-1] @ objective.center
                return theta
            theta[:, -1] = 0.0
        if self.fit_intercept:
            mass, total = objective.total_mass()
            tiny = np.finfo(np.float64).tiny
            logits = np.log(np.maximum(mass, tiny))
            if objective.link == "sigmoid":
                theta[:, -1] = logits - np.log(np.maximum(total - mass, tiny))
            else:
                theta[:, -1] = logits - logits.mean()
        return theta

    def _store(self, result: Result, monitor: Monitor, problem: Problem, scale: float) -> None:
        """Keep the coefficients in the data's dtype, and what is true of them as they were rounded."""
        objective, outputs = problem.objective, problem.outputs
        theta = problem.coefficients(result.at.theta)
        dtype = objective.data_dtype
        coef = np.zeros((len(problem.edge), objective.num_features), dtype=dtype)
        coef[outputs] = theta[:, :-1]
        intercept = problem.edge.astype(dtype)
        if self.fit_intercept:
            bias = theta[:, -1] - theta[:, :-1] @ objective.center
            intercept[outputs] = bias - bias.mean() if objective.is_shift_invariant else bias
        stored = np.zeros_like(theta)
        stored[:, :-1] = coef[outputs]
        if self.fit_intercept:
            start, shared = intercept[outputs].astype(np.float64), objective.is_shift_invariant
            bias = add_products(start, stored[:, :-1], objective.center, from_first=shared)
            stored[:, -1] = bias - bias.mean() if shared else bias
        stored = problem.parameters(stored)
        if not is_as_good(objective, result.at, stored):
            result.at = objective.evaluate(stored)
            result.gap = monitor.relative_gap(result.at)
        self.classes_, self._multilabel = problem.target.classes, problem.target.multilabel
        self.coef_, self.intercept_ = coef, intercept
        self.n_iter_ = result.iterations
        self.objective_ = result.at.value * scale
        self.duality_gap_ = result.gap
        self.history_ = result.history
        self.certificate_ = self._proof(result, monitor)

    def _proof(self, result: Result, monitor: Monitor) -> str:
        """Return what the duality gap proves, or why there is no proof."""
        if monitor.certificate is not None:
            return f"(f - f*) / f is at most {result.gap:.2g}"
        loss = self._check_parameters()
        if loss.cross_entropy_factor is None:
            why = f"{loss!r} is not " + ("cross-entropy" if loss.is_convex else "convex and may have other minima")
        else:
            why = "C=inf leaves no penalty"
        return f"none: {why}; stopped by the norm of the gradient"

    def _explain(self, result: Result, monitor: Monitor) -> None:
        """Warn where the fit is not what was asked for."""
        if monitor.certificate is not None:
            reached = f"relative duality gap {result.gap:.2e}, asked for {self.tol:.2e}"
        else:
            relative = result.at.gradient_norm / monitor.reference if monitor.reference > 0 else 0.0
            reached = f"relative gradient norm {relative:.2e}, asked for {self.tol:.2e}"
        status = result.status
        if status == "converged" and result.gap > self.tol:
            status = "stored"
        if status in ("converged", "callback"):
            return
        reason = {
            "stored": f"tol was reached, but not by the coefficients as {self.coef_.dtype} ({reached}): "
            + ("set dtype='float64'" if self.coef_.dtype == np.float32 else "subtract from each column its mean"),
            "max_iter": f"max_iter={self.max_iter} was reached ({reached}): raise max_iter, raise tol, or scale the "
            "columns of X",
            "rounding": f"rounding lets no step reduce the objective any more ({reached}): raise tol"
            + (", scale the columns of X" if monitor.certificate is not None else " or lower C"),
            "interrupted": f"interrupted after {result.iterations} iterations, and the best coefficients so far are "
            f"kept ({reached}): fit again, with warm_start=True to go on from here",
            "not_finite": "the objective is not finite at the starting point: scale the columns of X, or set "
            "warm_start=False",
        }[status]
        warnings.warn(f"SoftmaxRegression: {reason}", ConvergenceWarning, stacklevel=3)

    def row_losses(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Return each row's plain cross-entropy in nats, (N,), for labels, distributions or label sets `y`.

        Raises
        ------
        ValueError
            If a label is none of `classes_`.
        """
        refuse_masked(y, "y")
        logits = np.asarray(self.logits(X), dtype=np.float64)
        y = np.asarray(y)
        if y.ndim == 2:
            if self.link == "softmax":
                return np.asarray(cross_entropy(logits, y.astype(np.float64), reduction="none"))
            entries = binary_cross_entropy_with_logits(logits, y.astype(np.float64), reduction="none")
            return np.asarray(entries).sum(axis=1)
        codes = np.minimum(np.searchsorted(self.classes_, y), len(self.classes_) - 1)
        unknown = self.classes_[codes] != y
        if unknown.any():
            row = int(np.argmax(unknown))
            raise ValueError(refuse("labels must be among the classes of the fit", f"{y[row]!r} in row {row}"))
        if self.link == "softmax":
            return np.asarray(cross_entropy(logits, codes, reduction="none"))
        entries = binary_cross_entropy_with_logits(logits[:, 0], codes.astype(np.float64), reduction="none")
        return np.asarray(entries)

    def summary(self, X: Any, y: Any, sample_weight: Any = None, *, confidence: float = 0.95) -> CoefficientSummary:
        """Return coefficients with standard errors, z, p and Wald intervals.

        The covariance is the inverse of the objective's Hessian at the fit: of maximum likelihood for ``C=inf``, else
        of Laplace's approximation with the penalty as a normal prior. Softmax coefficients are contrasts with the
        first class. Only for cross-entropy, and up to 4096 parameters.

        Parameters
        ----------
        X, y, sample_weight
            What the model was fitted to.
        confidence : float, default 0.95
            Of the intervals.

        Raises
        ------
        ValueError
            If the loss is not cross-entropy, there are too many parameters, the Hessian cannot be inverted, or X has
            other features than those of the fit.

        Examples
        --------
        >>> from sklearn.datasets import load_wine
        >>> X, y = load_wine(return_X_y=True)
        >>> X = (X - X.mean(0)) / X.std(0)
        >>> summary = SoftmaxRegression().fit(X[:, :2], y).summary(X[:, :2], y)
        >>> print(summary.contrasts[0], summary.standard_errors.shape)
        1 against 0 (2, 3)
        """
        check_is_fitted(self)
        refuse_source(X, "summary", "X[:] reads all rows")
        loss = self._check_parameters()
        if not loss.is_cross_entropy:
            raise ValueError(refuse("standard errors exist for plain cross-entropy", repr(loss)))
        given = X
        X, y = clone(self).check_data(X, y)  # a fit's checks would overwrite this one's features
        _check_n_features(self, X, reset=False)
        if hasattr(given, "columns"):
            _check_feature_names(self, given, reset=False)
        weight = checked_weight(sample_weight, X)
        target = self._encode(y, weight, loss)
        if not np.isfinite(self.intercept_).all():
            raise ValueError(refuse("standard errors need every class to have weight", "a class without any"))
        X = (X.toarray() if issparse(X) else X).astype(np.float64)
        intercept = self.intercept_.astype(np.float64)
        logits = X @ self.coef_.T.astype(np.float64) + intercept
        tau = target.dense(slice(None))[1]
        factor = weight * (1.0 if math.isinf(self.C) else float(self.C))
        coefficients = self.coef_.astype(np.float64)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(X.shape[1])])
        return summarize_coefficients(
            X,
            factor * tau if tau.ndim == 1 else factor[:, None] * tau,
            softmax(logits) if self.link == "softmax" else sigmoid(logits),
            np.column_stack([coefficients, intercept]) if self.fit_intercept else coefficients,
            penalty=0.0 if math.isinf(self.C) else 1.0,
            fit_intercept=bool(self.fit_intercept),
            target=target,
            names=[str(name) for name in names],
            confidence=confidence,
        )

    # -- predictions ------------------------------------------------------------------------------------------------

    def _predictor(self) -> SoftmaxRegression:
        """Return what predictions need and nothing else, to be sent to where the rows are."""
        model = SoftmaxRegression(link=self.link)
        for name in ("classes_", "coef_", "intercept_", "n_features_in_", "_multilabel"):
            setattr(model, name, getattr(self, name))
        return model

    @_or_lazily
    def logits(self, X: Any) -> NDArray[Any]:
        """Return ``X Wᵀ + b``, (N, K): a column per class (per label; one for two classes with the sigmoid link).

        Raises
        ------
        ValueError
            Here and in all predictions, if ``X Wᵀ`` leaves the range of X's dtype, with the row: infinite logits would
            make any class certain.
        """
        check_is_fitted(self)
        if isinstance(X, RowSource):
            return self._logits_by_window(X)
        read_frame(X)
        X = validate_data(self, X, dtype=[np.float64, np.float32], order="C", reset=False, accept_sparse="csr")
        with np.errstate(over="ignore", invalid="ignore"):
            logits = X @ self.coef_.T.astype(X.dtype, copy=False)
        refuse_infinite_logits(logits)
        return logits + self.intercept_.astype(X.dtype, copy=False)

    def _logits_by_window(self, X: RowSource) -> NDArray[Any]:
        check_source(self, X, [np.float64, np.float32], reset=False)
        logits = np.empty((len(X), len(self.coef_)), X.dtype)
        weight = self.coef_.T.astype(X.dtype, copy=False)
        for rows, window in X.windows():
            with np.errstate(over="ignore", invalid="ignore"):
                np.matmul(window, weight, out=logits[rows])
            refuse_infinite_logits(logits[rows], rows.start)
        logits += self.intercept_.astype(X.dtype, copy=False)
        return logits

    @_or_lazily
    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return logits (N, K); for two classes the evidence for the second, (N,): a difference of logits."""
        logits = self.logits(X)
        if self._multilabel or len(self.classes_) > 2:
            return logits
        return logits[:, 0] if self.link == "sigmoid" else logits[:, 1] - logits[:, 0]

    @_or_lazily
    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class, (N,), or for label sets the labels with probability above ½, (N, K)."""
        decision = self.decision_function(X)
        if self._multilabel:
            return (decision > 0).astype(np.int64)
        if decision.ndim == 1:
            return self.classes_[(decision > 0).astype(np.intp)]
        return self.classes_[decision.argmax(axis=1)]

    @_or_lazily
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return probabilities (N, K) of the classes, or of each label."""
        logits = self.logits(X)
        if self.link == "softmax":
            return softmax(logits)
        if self._multilabel:
            return sigmoid(logits)
        return np.concatenate([sigmoid(-logits), sigmoid(logits)], axis=1)

    @_or_lazily
    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Return log-probabilities (N, K) in nats, exact where a probability would underflow."""
        logits = self.logits(X)
        if self.link == "softmax":
            return log_softmax(logits)
        if self._multilabel:
            return log_sigmoid(logits)
        return np.concatenate([log_sigmoid(-logits), log_sigmoid(logits)], axis=1)


def checked_weight(sample_weight: Any, X: Any) -> Array:
    if sample_weight is None:
        return np.ones(X.shape[0])
    refuse_masked(sample_weight, "sample_weight")
    weight: Array = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    return weight


def _total(weight: Array | float, largest_class_weight: float) -> float:
    """Return the sum of the sample weights times the largest class weight: what f is divided by, beside C.

    Raises
    ------
    ValueError
        If it is positive, and not a normal number.
    """
    with np.errstate(over="ignore"):
        weight = float(np.sum(weight))
    total = weight * largest_class_weight
    if weight > 0:
        check_total("the sum of the sample weights times the largest class weight", total)
    return total


def _terms(loss: Loss) -> tuple[Array, float]:
    """Return the loss as its table, and what row weights are multiplied by: a scaled cross-entropy is cross-entropy."""
    if loss.cross_entropy_factor is not None:
        return CROSS_ENTROPY_TERMS, float(loss.cross_entropy_factor)
    return np.array(loss.table(), dtype=np.float64).reshape(-1, 3), 1.0


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_) and not math.isnan(value)
    )
