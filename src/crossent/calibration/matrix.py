"""Matrix scaling and Dirichlet calibration: a softmax regression on the logits, kept near the diagonal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.errors import refuse
from crossent.numpy.dense import value_and_grad
from crossent.numpy.elementwise import log_softmax, softmax

from ..estimator import all_or_nothing
from .affine import check_solver_options, dense_solver
from .base import Calibrator, Float64, Sample
from .newton import Point, minimize

__all__ = ["DirichletCalibration", "MatrixScaling"]

_DENSE_CLASSES = 12
_CG_STEPS = 50


class MatrixScaling(Calibrator):
    r"""A linear map of the logits: :math:`p = softmax(W z + b)`, fitted by cross-entropy and kept near a diagonal.

    Minimises, by Newton's method (conjugate gradients on exact Hessian products beyond 12 classes),

    .. math:: \sum_i w_i \ell_i + \lambda \sum_{j \ne k} W_{jk}^2 + \mu \sum_k b_k^2,

    the off-diagonal and intercept regularisation (ODIR) of [1]_, without which K² parameters overfit.

    Parameters
    ----------
    off_diagonal : float
        λ, at least 0: a normal prior of variance ``1 / (2 λ)`` on the entries off the diagonal. More rows outweigh it.
    intercept : float
        μ, at least 0.
    input : {"logits", "any-logits", "probabilities"}
        As in `TemperatureScaling`; no probability may be 0 here.
    tol : float
        Stop when the objective is estimated to be so many nats per row above its minimum.
    max_iter : int

    Attributes
    ----------
    coef_ : array (K, K)
        W.
    bias_ : array (K,)
        b.
    classes_ : array (K,)
    n_passes_ : int
        Evaluations of value and gradient.

    References
    ----------
    .. [1] M. Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with
       Dirichlet calibration", NeurIPS (2019).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import MatrixScaling
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=900)
    >>> logits = 5.0 * np.eye(3)[(y + (rng.random(900) < 0.2)) % 3]  # one class is taken for the next
    >>> model = MatrixScaling(off_diagonal=1.0).fit(logits, y)
    >>> model.predict_proba(5.0 * np.eye(3)).round(1).tolist()
    [[0.8, 0.0, 0.2], [0.2, 0.8, 0.0], [0.0, 0.2, 0.8]]
    """

    link = "softmax"

    def __init__(
        self,
        *,
        off_diagonal: float = 150.0,
        intercept: float = 1.0,
        input: str = "logits",
        tol: float = 1e-9,
        max_iter: int = 200,
    ) -> None:
        self.off_diagonal = off_diagonal
        self.intercept = intercept
        self.input = input
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, logits: Any, y: Any, sample_weight: Any = None) -> MatrixScaling:
        """Find W and b; arguments and errors as in `TemperatureScaling.fit`, and no logit may be infinite."""
        check_solver_options(self.tol, self.max_iter)
        for name in ("off_diagonal", "intercept"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and value >= 0):
                raise ValueError(refuse(f"{name} must be a number of at least 0", repr(value)))
        with all_or_nothing(self):
            sample = self._check_sample(logits, y, sample_weight)
            self._refuse_large(sample)
            classes = sample.logits.shape[1]
            self._num_columns = classes
            features = self._features(sample.logits)
            if not np.isfinite(features).all():
                row = int(np.argmax(~np.isfinite(features).all(axis=1)))
                got = f"{features[row][:8].tolist()} in row {row}"
                raise ValueError(refuse("this calibrator needs finite logits", got))
            sample = Sample(features, sample.codes, None, sample.weights)
            theta = np.concatenate([np.eye(classes), np.zeros((classes, 1))], axis=1).ravel()
            self.n_passes_ = 0
            for stage in sample.stages(classes):
                theta, self.n_passes_ = minimize(self._evaluator(stage), theta, self.tol, self.max_iter)
            matrix = theta.reshape(classes, classes + 1)
            self.coef_, self.bias_ = matrix[:, :-1].copy(), matrix[:, -1] - matrix[:, -1].mean()
        return self

    def _features(self, logits: NDArray[Any]) -> Float64:
        return np.ascontiguousarray(logits, dtype=np.float64)

    def _predict(self, z: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(softmax(self._features(z) @ self.coef_.T + self.bias_))

    def _penalty(self, sample: Sample) -> Float64:
        """Return half the second derivative of the regulariser, per row, by each of (W, b)."""
        classes = sample.logits.shape[1]
        penalty = np.full((classes, classes + 1), self.off_diagonal / sample.total)
        np.fill_diagonal(penalty[:, :-1], 0.0)
        penalty[:, -1] = self.intercept / sample.total
        return penalty

    def _evaluator(self, sample: Sample) -> Callable[[Float64], Point]:
        n, classes = sample.logits.shape
        extended = np.concatenate([sample.logits, np.ones((n, 1))], axis=1)
        weights = (np.ones(n) if sample.weights is None else sample.weights) / sample.total
        penalty = self._penalty(sample)

        def evaluate(theta: Float64) -> Point:
            matrix = theta.reshape(classes, classes + 1)
            z = extended @ matrix.T
            if not np.isfinite(z).all():
                return Point(np.inf, np.zeros_like(theta), lambda v: v, True)
            value, gap = value_and_grad(z, sample.codes, sample_weight=weights, reduction="sum")
            gradient = gap.T @ extended + 2 * penalty * matrix
            value = float(value) + float(np.sum(penalty * matrix**2))
            p = softmax(z)
            if classes <= _DENSE_CLASSES:
                return Point(value, gradient.ravel(), dense_solver(_hessian(extended, p, weights, penalty)), True)
            solve = _conjugate_gradients(extended, p, weights, penalty)
            return Point(value, gradient.ravel(), solve, True)

        return evaluate


class DirichletCalibration(MatrixScaling):
    r"""Matrix scaling of *log-probabilities*: :math:`p = softmax(W \log q + b)` with q the uncalibrated probabilities.

    The map that calibrates predictions whose distributions, class by class, are Dirichlet [1]_; the beta calibration of
    many classes. Takes logits, whose log-softmax is the feature. Parameters, attributes and errors as in
    `MatrixScaling`.

    References
    ----------
    .. [1] M. Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with
       Dirichlet calibration", NeurIPS (2019).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import DirichletCalibration
    >>> probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7]])
    >>> model = DirichletCalibration(input="probabilities").fit(probabilities, [0, 1, 1, 0])
    >>> model.predict_proba(probabilities).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def _features(self, logits: NDArray[Any]) -> Float64:
        return np.asarray(log_softmax(np.asarray(logits, dtype=np.float64)))


def _hessian(x: Float64, p: Float64, weights: Float64, penalty: Float64) -> Float64:
    """Return the whole Hessian by (W, b), row by row of the matrix."""
    classes, width = penalty.shape
    hessian = np.empty((classes, width, classes, width))
    for k in range(classes):
        for j in range(k + 1):
            spread = weights * p[:, k] * ((j == k) - p[:, j])
            hessian[k, :, j, :] = (x * spread[:, None]).T @ x
            hessian[j, :, k, :] = hessian[k, :, j, :].T
    flat = hessian.reshape(classes * width, classes * width)
    flat[np.diag_indices_from(flat)] += 2 * penalty.ravel()
    return flat


def _conjugate_gradients(x: Float64, p: Float64, weights: Float64, penalty: Float64) -> Callable[[Float64], Float64]:
    """Return what solves with the Hessian by conjugate gradients, preconditioned by its diagonal."""
    shape = penalty.shape
    diagonal = (weights[:, None] * p * (1 - p)).T @ x**2 + 2 * penalty
    diagonal = np.maximum(diagonal, 1e-12 * diagonal.max())

    def product(v: Float64) -> Float64:
        u = x @ v.T
        u -= np.einsum("ij,ij->i", p, u)[:, None]
        u *= p
        u *= weights[:, None]
        return np.asarray(u.T @ x + 2 * penalty * v)

    def solve(gradient: Float64) -> Float64:
        residual = gradient.reshape(shape).copy()
        solution = np.zeros(shape)
        step = residual / diagonal
        fall = float(np.sum(residual * step))
        first = fall
        for _ in range(_CG_STEPS):
            image = product(step)
            curvature = float(np.sum(step * image))
            if curvature <= 0:
                break
            solution += fall / curvature * step
            residual -= fall / curvature * image
            scaled = residual / diagonal
            before, fall = fall, float(np.sum(residual * scaled))
            if fall <= 1e-4 * first:
                break
            step = scaled + fall / before * step
        return (solution if solution.any() else gradient.reshape(shape) / diagonal).ravel()

    return solve
