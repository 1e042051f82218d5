"""Vector scaling and bias-corrected temperature scaling: a factor and a shift for each class."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from crossent.errors import refuse
from crossent.numpy.elementwise import sigmoid, softmax

from ..estimator import all_or_nothing
from .base import Calibrator, Float64, Sample
from .newton import Point, minimize
from .temperature import TemperatureScaling

__all__ = ["BiasCorrectedTemperatureScaling", "VectorScaling"]

_DENSE = 256
"""Up to so many parameters the whole Hessian is formed; beyond, its diagonal blocks precondition L-BFGS."""
_BLOCK_ELEMENTS = 1 << 18
_RIDGE = 1e-11


def blocks_of(sample: Sample) -> list[slice]:
    """Return slices of rows that hold a few hundred thousand logits each."""
    step = max(1, _BLOCK_ELEMENTS // sample.logits.shape[1])
    return [slice(i, i + step) for i in range(0, len(sample.logits), step)]


def dense_solver(hessian: Float64) -> Callable[[Float64], Float64]:
    """Return what solves with a Hessian that a shift of all logits makes singular."""
    ridge = _RIDGE * max(float(np.trace(hessian)) / len(hessian), np.finfo(np.float64).tiny)
    hessian = hessian + ridge * np.eye(len(hessian))
    return lambda v: np.asarray(np.linalg.solve(hessian, v))


class _AffineCalibrator(Calibrator):
    """``softmax(a ∘ z + b)``, with a one number or one per class."""

    _tied = False
    spread: float = 0.0
    intercept: float = 0.0

    def __init__(self, *, input: str = "logits", link: str = "softmax", tol: float = 1e-9, max_iter: int = 200) -> None:
        self.input = input
        self.link = link
        self.tol = tol
        self.max_iter = max_iter

    def _fit(self, logits: Any, y: Any, sample_weight: Any) -> None:
        check_solver_options(self.tol, self.max_iter)
        sample = self._check_sample(logits, y, sample_weight)
        self._refuse_large(sample)
        columns = sample.logits.shape[1]
        self._num_columns = columns
        theta = np.concatenate([np.ones(1 if self._tied else columns), np.zeros(columns)])
        self.n_passes_ = 0
        for stage in sample.stages(len(theta)):
            if stage is sample and len(theta) > _DENSE and self.link == "softmax":
                theta[:-columns] *= self._first_temperature(stage)
            theta, self.n_passes_ = minimize(self._evaluator(stage), theta, self.tol, self.max_iter)
            if stage is sample and len(theta) > _DENSE and self.link == "softmax":
                self.n_passes_ += self._temperature_passes
        if self.link == "softmax":
            theta[-columns:] -= theta[-columns:].mean()
        self.scale_ = np.full(columns, theta[0]) if self._tied else theta[:columns]
        self.bias_ = theta[-columns:]

    def _first_temperature(self, sample: Sample) -> float:
        """Return the best common factor, which the diagonal of the Hessian finds slowly."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            start = TemperatureScaling(tol=1e-2)
            start.n_passes_ = 0
            factor = 1.0
            for stage in sample.stages(1):
                factor = start._newton(stage, factor, stage is sample)
        self._temperature_passes = start.n_passes_
        return factor if factor > 0 else 1.0

    def _evaluator(self, sample: Sample) -> Callable[[Float64], Point]:
        columns = sample.logits.shape[1]

        def evaluate(theta: Float64) -> Point:
            bias = theta[-columns:]
            scale = np.full(columns, theta[0]) if self._tied else theta[:columns]
            if self.link == "softmax":
                loss, sums = sample.kernels.affine_moments(sample.logits, sample.codes, sample.weights, scale, bias)
            else:
                targets = (np.zeros(columns), np.ones(columns))
                all_sums = sample.kernels.sigmoid_affine_moments(
                    sample.logits, sample.codes, sample.events, targets, sample.weights, scale, bias
                )
                loss, sums = float(all_sums[0].sum()), all_sums[1:]
            if not np.isfinite(loss):
                if np.array_equal(theta, start):
                    self._refuse_row(sample)
                return Point(np.inf, np.zeros_like(theta), lambda v: v, False)
            sums = sums / sample.total
            # Priors: on the factors about their mean, and on the shifts. They add 2 λ to the Hessian's diagonals.
            spread, intercept = self.spread / sample.total, self.intercept / sample.total
            about = scale - scale.mean()
            value = loss / sample.total + spread * float(about @ about) + intercept * float(bias @ bias)
            by_bias, by_scale, bb, ab, aa = sums + np.array([bias * 2 * intercept, about * 2 * spread, *3 * [0 * bias]])
            gradient = np.concatenate([[by_scale.sum()] if self._tied else by_scale, by_bias])
            solve, exact = self._solver(sample, scale, bias, bb, ab, aa)
            return Point(value, gradient, solve, exact)

        start = np.concatenate([np.ones(1 if self._tied else columns), np.zeros(columns)])
        return evaluate

    def _solver(
        self, sample: Sample, scale: Float64, bias: Float64, bb: Float64, ab: Float64, aa: Float64
    ) -> tuple[Callable[[Float64], Float64], bool]:
        columns = len(bias)
        size = columns + (1 if self._tied else columns)
        if self.link == "softmax" and size <= _DENSE:
            return dense_solver(self._hessian(sample, scale, bias)), True
        aa, bb = aa + 2 * self.spread / sample.total, bb + 2 * self.intercept / sample.total
        tiny = 1e-10 * max(float(bb.max()), 1e-300)
        if self._tied:
            # An arrow: one factor beside all shifts. Exact for the sigmoid link, whose labels do not interact.
            rest, corner = bb + tiny, float(aa.sum()) + tiny
            schur = max(corner - float(np.sum(ab**2 / rest)), 1e-10 * corner)

            def solve_arrow(v: Float64) -> Float64:
                first = (v[0] - float(np.sum(ab / rest * v[1:]))) / schur
                return np.concatenate([[first], (v[1:] - ab * first) / rest])

            return solve_arrow, self.link == "sigmoid"
        a_diagonal, b_diagonal = aa + 1e-10 * max(float(aa.max()), 1e-300), bb + tiny
        determinant = np.maximum(a_diagonal * b_diagonal - ab**2, 1e-10 * a_diagonal * b_diagonal)

        def solve(v: Float64) -> Float64:
            by_a, by_b = v[:columns], v[columns:]
            return np.concatenate(
                [(b_diagonal * by_a - ab * by_b) / determinant, (a_diagonal * by_b - ab * by_a) / determinant]
            )

        return solve, self.link == "sigmoid" and self.spread == 0

    def _hessian(self, sample: Sample, scale: Float64, bias: Float64) -> Float64:
        """Return the whole Hessian: the diagonals' ``Σ p x²``, less the products of the expectations."""
        columns = len(bias)
        width = 1 if self._tied else columns
        product = np.zeros((width + columns, width + columns))
        squares = np.zeros((3, columns))
        for part in blocks_of(sample):
            z = sample.logits[part].astype(np.float64)
            p = softmax(scale * z + bias)
            z[p == 0] = 0.0
            w = np.ones(len(z)) if sample.weights is None else sample.weights[part]
            pz = p * z
            rows = np.concatenate([pz.sum(axis=1, keepdims=True) if self._tied else pz, p], axis=1)
            weighted = rows * w[:, None]
            product += rows.T @ weighted
            squares += [w @ (pz * z), w @ pz, w @ p]
        by_aa, by_ab, by_bb = squares
        hessian = -product
        hessian[width:, width:] += np.diag(by_bb)
        if self._tied:
            hessian[0, 0] += by_aa.sum()
            hessian[0, 1:] += by_ab
            hessian[1:, 0] += by_ab
        else:
            hessian[:width, :width] += np.diag(by_aa)
            hessian[:width, width:] += np.diag(by_ab)
            hessian[width:, :width] += np.diag(by_ab)
        if not self._tied:
            hessian[:width, :width] += 2 * self.spread * (np.eye(width) - 1 / width)
        hessian[width:, width:] += 2 * self.intercept * np.eye(columns)
        return hessian / sample.total

    def _predict(self, z: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore"):
            mapped = self.scale_.astype(z.dtype) * z + self.bias_.astype(z.dtype)
        mapped = np.where(np.isfinite(z), mapped, z)  # what is masked stays masked, whatever its factor
        return np.asarray(softmax(mapped) if self.link == "softmax" else sigmoid(mapped))


def check_solver_options(tol: Any, max_iter: Any) -> None:
    """Raise ValueError unless `tol` is a positive number and `max_iter` a positive integer."""
    if not (isinstance(tol, int | float) and tol > 0):
        raise ValueError(refuse("tol must be a positive number", repr(tol)))
    if not isinstance(max_iter, int | np.integer) or isinstance(max_iter, bool) or max_iter < 1:
        raise ValueError(refuse("max_iter must be a positive integer", repr(max_iter)))


class BiasCorrectedTemperatureScaling(_AffineCalibrator):
    r"""Temperature and one shift per class: :math:`p = softmax(z / T + b)`, fitted by cross-entropy.

    The shifts repair class shares that differ from those the model was trained on [1]_. Convex; Newton's method with
    the whole Hessian up to 255 classes.

    Parameters
    ----------
    input, link
        As in `TemperatureScaling`.
    tol : float
        Stop when the loss is estimated to be so many nats per row above its minimum.
    max_iter : int

    Attributes
    ----------
    temperature_ : float
    bias_ : array (K,)
        Shifts of mean 0.
    classes_ : array (K,)
    n_passes_ : int
        Passes over all rows for values and gradients; those over the part that the fit starts on are not counted.

    References
    ----------
    .. [1] A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat
       at Label Shift Adaptation", ICML (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import BiasCorrectedTemperatureScaling
    >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0]])
    >>> model = BiasCorrectedTemperatureScaling().fit(logits, [0, 0, 1, 0, 1])
    >>> float(model.predict_proba(logits)[:, 0].sum().round(6))  # as many as there are
    3.0
    """

    _tied = True

    def fit(self, logits: Any, y: Any, sample_weight: Any = None) -> BiasCorrectedTemperatureScaling:
        """Find temperature and shifts; arguments and errors as in `TemperatureScaling.fit`."""
        with all_or_nothing(self):
            self._fit(logits, y, sample_weight)
            with np.errstate(divide="ignore"):
                self.temperature_ = float(1 / self.scale_[0])
        return self


class VectorScaling(_AffineCalibrator):
    r"""A factor and a shift for each class: :math:`p = softmax(a \circ z + b)`, fitted by cross-entropy [1]_.

    Minimises :math:`\sum_i w_i \ell_i + \lambda \sum_k (a_k - \bar a)^2 + \mu \sum_k b_k^2`: weak normal priors, which
    matter where a class has few rows.

    Convex. Up to 128 classes by Newton's method with the whole Hessian; beyond by L-BFGS around its 2 × 2 blocks, class
    by class, from the best temperature: a dozen passes over the data. 2K parameters want some thousand rows.

    Parameters
    ----------
    spread : float
        λ, at least 0: how strongly factors are drawn to their mean.
    intercept : float
        μ, at least 0: how strongly shifts are drawn to 0.
    input, link
        As in `TemperatureScaling`; with link "sigmoid" this is Platt's scaling of each label, without his targets.
    tol : float
        Stop when the loss is estimated to be so many nats per row above its minimum.
    max_iter : int

    Attributes
    ----------
    scale_, bias_ : arrays (K,)
        a and b (b of mean 0 under softmax).
    classes_ : array (K,)
    n_passes_ : int
        Passes over all rows for values and gradients; those over the part that the fit starts on are not counted.

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML (2017).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import VectorScaling
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(2000, 3))
    >>> y = np.array([rng.choice(3, p=np.exp(v) / np.exp(v).sum()) for v in 0.5 * logits])
    >>> bool(abs(VectorScaling().fit(logits, y).scale_ - 0.5).max() < 0.2)
    True
    """

    def __init__(
        self,
        *,
        spread: float = 10.0,
        intercept: float = 1.0,
        input: str = "logits",
        link: str = "softmax",
        tol: float = 1e-9,
        max_iter: int = 200,
    ) -> None:
        super().__init__(input=input, link=link, tol=tol, max_iter=max_iter)
        self.spread = spread
        self.intercept = intercept

    def fit(self, logits: Any, y: Any, sample_weight: Any = None) -> VectorScaling:
        """Find factors and shifts; arguments and errors as in `TemperatureScaling.fit`."""
        for name in ("spread", "intercept"):
            if not (isinstance(getattr(self, name), int | float) and getattr(self, name) >= 0):
                raise ValueError(refuse(f"{name} must be a number of at least 0", repr(getattr(self, name))))
        with all_or_nothing(self):
            self._fit(logits, y, sample_weight)
        return self
