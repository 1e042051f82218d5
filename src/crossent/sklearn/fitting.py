"""From data and parameters to a fit, and from a fit to the attributes of an estimator."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import (
    _check_feature_names,
    _check_sample_weight,
    _check_y,
    check_consistent_length,
    validate_data,
)

from crossent.core.reduction import check_total
from crossent.errors import describe, refuse
from crossent.losses import DEFAULT_LOSS, Loss
from crossent.masked import refuse_masked
from crossent.regression.arrays import Array
from crossent.regression.certificate import Certificate
from crossent.regression.checkpoint import Checkpoint, identify
from crossent.regression.data.sources import MappedRows, RowSource, can_copy
from crossent.regression.interface import Evaluation
from crossent.regression.method import Goal
from crossent.regression.objective import LinearObjective
from crossent.regression.penalty import Ridge
from crossent.regression.plan import tuned
from crossent.regression.problem import Problem, has_one_logit, is_cross_entropy
from crossent.regression.rounding import add_products, is_as_good
from crossent.regression.solvers import Result, Solver, predicted_start
from crossent.regression.targets import EncodedTarget, class_weights, encode_target, weighted_rows

from .inputs import check_source, check_values, read_frame
from .predictions import LinearPredictions, is_dask_collection

__all__ = ["Fitting", "checked_weight"]


@dataclass(eq=False, repr=False)
class Fitting(LinearPredictions):
    """What `SoftmaxRegression` and `SoftmaxRegressionCV` do with their parameters, which are the fields."""

    C: float = 1.0
    _: KW_ONLY
    link: str = "softmax"
    loss: Loss | None = None
    label_smoothing: float = 0.0
    fit_intercept: bool = True
    class_weight: dict[Any, float] | str | None = None
    tol: float = 1e-4
    max_iter: int = 1000
    dtype: str | None = None
    warm_start: bool = False
    callback: Callable[[dict[str, Any]], Any] | None = None
    verbose: int = 0
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_interval: float = 60.0

    def _sweep(
        self, problem: Problem, Cs: Iterable[float], theta: Array, known: dict[str, Any]
    ) -> Iterator[tuple[Self, Result]]:
        """Yield a clone with the attributes `known`, fitted, and how its fit ended, for each C."""
        found: list[tuple[float, Evaluation]] = []  # the last two C and their optima
        for C in Cs:
            model = clone(self).set_params(C=C)
            model._check_parameters()
            for name, value in known.items():
                setattr(model, name, value)
            with problem.objective.single_threaded_blas():
                result, solver = model._solve(problem, theta, found=found)
            model._explain(result, solver)
            theta = result.at.theta
            found = [*found[-1:], (float(C), result.at)]
            yield model, result

    def check_data(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]]:
        """Return X and y as arrays of the dtypes that `fit` works with."""
        refuse_masked(y, "y")
        if isinstance(X, RowSource):
            check_source(self, X, self._accepted_dtypes(), reset=True)
            y = _check_y(y, multi_output=True, y_numeric=False, estimator=self)
            check_consistent_length(X, y)
            return X, y
        options = {"order": "C", "multi_output": True, "y_numeric": False, "accept_sparse": "csr"}
        array, frame = read_frame(X)
        X, y = validate_data(self, array, y, dtype=self._accepted_dtypes(), ensure_all_finite=False, **options)
        if frame is not None:
            _check_feature_names(self, frame, reset=True)
        check_values(self, X)
        return X, y

    def _prepare(self, X: Any, y: Any, sample_weight: Any) -> Problem:
        """Check everything; return the objective, without its penalty, and how its parameters are stored."""
        loss = self._check_parameters()
        if is_dask_collection(X):
            return self._prepare_distributed(X, y, sample_weight, loss)
        given = X
        X, y = self.check_data(X, y)
        if isinstance(given, np.memmap) and X.nbytes > tuned().cache_bytes and np.may_share_memory(X, given):
            X = MappedRows(X)
        return self._build(X, y, checked_weight(sample_weight, X))

    def _build(self, X: Any, y: NDArray[Any], weight: Array, keep_rows: bool = False) -> Problem:
        """Return the problem of checked data; with `keep_rows` rows of weight 0 stay in it."""
        loss = self._check_parameters()
        target = self._encode(y, weight, loss)
        weight = weighted_rows(target, self.class_weight, weight)
        target, largest = target.normalised()
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
        weight = weighted_rows(problem.target, self.class_weight, weight)
        target, largest = weighted.normalised()
        factor = _scaled(self._check_parameters())[1]
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
        if target.is_one_against_rest:
            asked = "link='sigmoid' on more than two exclusive classes is fitted to rows that this process reads"
            raise ValueError(refuse(asked, "a Dask collection", "use link='softmax'"))
        target, largest = self._weighted(target, rows.summary.hard, weight, loss).normalised()
        total = _total(rows.summary.weight, largest)
        outputs, edge = self._active_outputs(target, weight, loss)
        loss, factor = _scaled(loss)
        dtype = self._working_dtype(sum(rows.summary.rows) * rows.num_features * target.num_outputs, loss, rows.dtype)
        fit_intercept = bool(self.fit_intercept)
        share = factor / rows.summary.weight
        objective = DistributedObjective(rows, target, weight, outputs, share, loss, fit_intercept, dtype)
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
    ) -> tuple[Result, Solver]:
        """Fit at this C: f / (C Σ s) has the penalty 1 / (C Σ s).

        Optima change about evenly with log C; two that were `found` say where to begin instead of at `theta`.
        """
        objective = problem.objective
        scale = problem.total if math.isinf(self.C) else float(self.C) * problem.total
        check_total("C times the sum of the weights", scale)
        objective.restart(problem.penalty(Ridge(0.0 if math.isinf(self.C) else 1.0 / scale)))
        certified = objective.is_cross_entropy and objective.penalty.has_dual
        goal = Goal(objective, Certificate.shared(objective) if certified else None, float(self.tol))
        report = self._report if self.verbose or self.callback is not None else None
        solver = Solver(goal, int(self.max_iter), scale, report, learns=checkpoint is None)
        if len(found) == 2 and found[0][0] < found[1][0] < self.C < math.inf:
            (first, earlier), (last, latest) = found
            theta = predicted_start(objective, earlier, latest, math.log(self.C / last) / math.log(last / first))
        resumed = None if checkpoint is None else checkpoint.resume(solver)
        result = solver.run(solver.init(theta) if resumed is None else resumed, checkpoint)
        result = self._store(result, solver, problem, scale)
        return result, solver

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
        loss, factor = _scaled(loss)
        dtype = self._working_dtype(X.shape[0] * X.shape[1] * target.num_outputs, loss, X.dtype)
        return LinearObjective(X, target, share * factor, Ridge(0.0), loss, bool(self.fit_intercept), dtype)

    def _working_dtype(self, work: int, loss: Loss, data_dtype: Any) -> Any:
        """What products run in at first, for `work` multiplications in a pass."""
        quick = self.dtype is None and work >= tuned().sizeable_work and is_cross_entropy(loss)
        return np.float32 if quick else data_dtype

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

    def _store(self, result: Result, solver: Solver, problem: Problem, scale: float) -> Result:
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
            at = objective.evaluate(stored)
            result = replace(result, at=at, gap=solver.relative_gap(result.bound, at))
        self.classes_, self._multilabel = problem.target.classes, problem.target.multilabel
        self.coef_, self.intercept_ = coef, intercept
        self.n_iter_ = result.iterations
        self.objective_ = result.at.value * scale
        self.duality_gap_ = result.gap
        self.history_ = result.history
        self.certificate_ = self._proof(result, solver)
        return result

    def _proof(self, result: Result, solver: Solver) -> str:
        """Return what the duality gap proves, or why there is no proof."""
        if solver.goal.certificate is not None:
            return f"(f - f*) / f is at most {result.gap:.2g}"
        loss = self._check_parameters()
        if loss.cross_entropy_factor is None:
            why = f"{loss!r} is not " + ("cross-entropy" if loss.is_convex else "convex and may have other minima")
        else:
            why = "C=inf leaves no penalty"
        return f"none: {why}; stopped by the norm of the gradient"

    def _explain(self, result: Result, solver: Solver) -> None:
        """Warn where the fit is not what was asked for."""
        if solver.goal.certificate is not None:
            reached = f"relative duality gap {result.gap:.2e}, asked for {self.tol:.2e}"
        else:
            relative = result.at.gradient_norm / solver.reference if solver.reference > 0 else 0.0
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
            + (", scale the columns of X" if solver.goal.certificate is not None else " or lower C"),
            "interrupted": f"interrupted after {result.iterations} iterations, and the best coefficients so far are "
            f"kept ({reached}): fit again, with warm_start=True to go on from here",
            "not_finite": "the objective is not finite at the starting point: scale the columns of X, or set "
            "warm_start=False",
        }[status]
        warnings.warn(f"SoftmaxRegression: {reason}", ConvergenceWarning, stacklevel=3)


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


def _scaled(loss: Loss) -> tuple[Loss, float]:
    """Return a loss and what row weights are multiplied by: a scaled cross-entropy is cross-entropy."""
    factor = loss.cross_entropy_factor
    return (loss, 1.0) if factor is None else (DEFAULT_LOSS, float(factor))


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_) and not math.isnan(value)
    )
