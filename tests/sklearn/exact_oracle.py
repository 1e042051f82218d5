"""How far coefficients are from the optimum, in longer numbers than a fit's: what it computes shares no code with
crossent.

F is summed in NumPy's longest floats (80 bits on x86-64), of columns that the intercept was moved to in fractions. The
optimum is approached by Newton's steps; any point above it only makes the excess smaller, so an excess above the
reported gap is proof of a false one.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from crossent.sklearn import SoftmaxRegression

Long = np.longdouble
ROUNDING = 4 * float(np.finfo(np.float64).eps)
"""What a relative gap may be too small by: f, D and their difference are float64."""


class ExactProblem:
    """``f(W, b) = C Σ_i s_i Σ_k (τ_i LSE(z_i) - u_ik z_ik) + ½‖W‖²``, or with the sigmoid link the same for each label.

    Class weights are (K,), for the sigmoid link (2, 1): of 0 and of 1.
    """

    def __init__(
        self,
        X: np.ndarray,
        target: np.ndarray,
        C: float,
        sample_weight: np.ndarray | None = None,
        class_weight: np.ndarray | None = None,
        smoothing: float = 0.0,
        intercept: bool = True,
        link: str = "softmax",
    ) -> None:
        self.center = X.astype(float).mean(axis=0) if intercept else np.zeros(X.shape[1])
        self.X = X.astype(Long) - self.center.astype(Long)
        self.intercept, self.link = intercept, link
        s = np.ones(len(X)) if sample_weight is None else sample_weight
        self.c = (Long(C) * s.astype(Long))[:, None]
        t, share = target.astype(Long), Long(smoothing)
        if link == "sigmoid":
            t = (1 - share) * t + share / 2
            zero, one = np.ones((2, 1)) if class_weight is None else class_weight
            self.u, self.tau = one * t, one * t + zero * (1 - t)
        else:
            self.u = ((1 - share) * t + share / t.shape[1]) * (1 if class_weight is None else class_weight)
            self.tau = self.u.sum(axis=1, keepdims=True)

    def excess(self, W: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        """Return f and, as a part of it, by how much it is above the least f found."""
        moved = []
        for row, start in zip(W.tolist(), b.tolist(), strict=True):
            pairs = zip(row, self.center.tolist(), strict=True)
            moved.append(Fraction(start) + sum(Fraction(w) * Fraction(m) for w, m in pairs))
        theta = np.column_stack([W.astype(Long), [Long(float(v)) + Long(float(v - Fraction(float(v)))) for v in moved]])
        first = value = self._evaluate(theta)[0]
        for _ in range(60):
            _, gradient, curvature = self._evaluate(theta)
            scale = np.sqrt(np.diag(curvature))
            size = np.sqrt(np.sum(np.square(gradient.ravel() / scale)))  # in Long: its square may be beyond float64
            if size == 0:
                break
            direction = (gradient.ravel() / scale / size).astype(float)
            step = np.linalg.lstsq(curvature / np.outer(scale, scale), direction, rcond=1e-15)[0] * size / scale
            trials = (theta - Long(0.5) ** halvings * step.reshape(theta.shape) for halvings in range(30))
            found = next(((t, v) for t in trials if (v := self._evaluate(t)[0]) < value), None)
            if found is None:
                break
            gained, (theta, value) = (value - found[1]) / value, found
            if gained < 1e-20:
                break
        return float(first), float((first - value) / first)

    def _evaluate(self, theta: np.ndarray) -> tuple[Long, np.ndarray, np.ndarray]:
        """Return f, its gradient and, in float64, its second derivative (positive on its diagonal)."""
        z = self.X @ theta[:, :-1].T + theta[:, -1]
        if self.link == "sigmoid":
            small = np.exp(-np.abs(z))
            likely = 1 / (1 + small)
            p, q = np.where(z > 0, likely, small * likely), np.where(z > 0, small * likely, likely)
            plus = np.log1p(small)
            losses = self.u * (plus + np.maximum(-z, 0)) + (self.tau - self.u) * (plus + np.maximum(z, 0))
            residual = (self.tau - self.u) * p - self.u * q
        else:
            top = z.argmax(axis=1)
            rows = np.arange(len(z))
            powers = np.exp(z - z.max(axis=1, keepdims=True))
            others = powers.copy()
            others[rows, top] = 0
            rest = others.sum(axis=1, keepdims=True)
            p = powers / (1 + rest)
            q = 1 - p
            q[rows, top] = (rest / (1 + rest))[:, 0]
            losses = self.u * (np.log1p(rest) - (z - z.max(axis=1, keepdims=True)))
            residual = np.where(self.u == self.tau, -self.u * q, self.tau * p - self.u)
        residual = self.c * residual
        slope = residual.sum(axis=0) if self.intercept else np.zeros(len(theta), Long)
        gradient = np.column_stack([residual.T @ self.X + theta[:, :-1], slope])
        value = np.sum(self.c * losses) + np.sum(theta[:, :-1] ** 2) / 2
        return value, gradient, self._curvature(p.astype(float), q.astype(float))

    def _curvature(self, p: np.ndarray, q: np.ndarray) -> np.ndarray:
        outputs, columns = p.shape[1], np.column_stack([self.X, np.full(len(p), self.intercept)]).astype(float)
        size = columns.shape[1]
        mass = np.broadcast_to(self.c * self.tau, p.shape).astype(float)
        curvature = np.zeros((outputs, size, outputs, size))
        penalty = np.diag([1.0] * (size - 1) + [0.0 if self.intercept else 1.0])
        for i in range(outputs):
            curvature[i, :, i] = (columns * (mass[:, i] * p[:, i] * q[:, i])[:, None]).T @ columns + penalty
            for j in range(i if self.link == "softmax" else 0):
                between = -(columns * (mass[:, i] * p[:, i] * p[:, j])[:, None]).T @ columns
                curvature[i, :, j], curvature[j, :, i] = between, between.T
        curvature = curvature.reshape(outputs * size, -1)
        np.fill_diagonal(curvature, np.maximum(np.diag(curvature), np.finfo(float).tiny))
        return curvature


def relative_excess(model: SoftmaxRegression, X: np.ndarray, target: np.ndarray, C: float, **options: object) -> float:
    """Return how far a fitted model is above the optimum, as a part of f, after a look at its `objective_`."""
    value, excess = ExactProblem(X, target, C, **options).excess(model.coef_, model.intercept_)  # type: ignore[arg-type]
    assert abs(model.objective_ - value) <= 1e-12 * value
    return excess
