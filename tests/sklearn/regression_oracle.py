"""Softmax regression written out naively, in float64: objective, dual value, optimum. What it computes shares no code
with crossent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax, xlogy

from crossent.sklearn import SoftmaxRegression


def one_hot(y: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels to rows of 0 and 1."""
    return np.eye(num_classes)[y]


@dataclass(frozen=True)
class Problem:
    """``f(W, b) = C Σ_i s_i Σ_k w_k t'_ik (LSE(z_i) - z_ik) + ½‖W‖²``; sigmoid: w is (2, K), entry by entry."""

    X: np.ndarray
    target: np.ndarray  # (N, K)
    C: float = 1.0
    sample_weight: np.ndarray | None = None
    class_weight: np.ndarray | None = None
    smoothing: float = 0.0
    intercept: bool = True
    link: str = "softmax"

    @property
    def row_weight(self) -> np.ndarray:
        return self.C * (np.ones(len(self.X)) if self.sample_weight is None else self.sample_weight)

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """u and τ, both (N, K) for the sigmoid link."""
        if self.link == "sigmoid":
            t = (1 - self.smoothing) * self.target + self.smoothing / 2
            w0, w1 = np.ones((2, 1)) if self.class_weight is None else self.class_weight
            return w1 * t, w1 * t + w0 * (1 - t)
        u = (1 - self.smoothing) * self.target + self.smoothing / self.target.shape[1]
        u = u if self.class_weight is None else u * self.class_weight
        return u, u.sum(axis=1)

    def value(self, W: np.ndarray, b: np.ndarray) -> float:
        z = self.X @ W.T + b
        u, tau = self.parts()
        if self.link == "sigmoid":
            losses = (tau * np.logaddexp(0, z) - u * z).sum(axis=1)
        else:
            losses = -(u * log_softmax(z, axis=1)).sum(axis=1)
        return float(self.row_weight @ losses + 0.5 * np.sum(W**2))

    def dual(self, W: np.ndarray, b: np.ndarray) -> float:
        """The dual value of the mixed predictions, term by term as in the derivation (softmax: one s; sigmoid too)."""
        z = self.X @ W.T + b
        u, tau = self.parts()
        c = self.row_weight[:, None]
        p = expit(z) if self.link == "sigmoid" else softmax(z, axis=1)
        a = c * (tau if self.link == "sigmoid" else tau[:, None])
        y_bar, p_bar = (c * u).sum(axis=0), (a * p).sum(axis=0)
        s = 0.0
        if self.intercept:
            s = max(0.0, np.max(1 - y_bar / p_bar))
            if self.link == "sigmoid":
                total = a.sum(axis=0)
                s = max(s, np.max(1 - (total - y_bar) / (total - p_bar)))
        r = np.clip((y_bar - (1 - s) * p_bar) / (s * a.sum(axis=0)), 0, 1) if s else y_bar / a.sum(axis=0)
        q = (1 - s) * p + s * r
        mixed = (a * q - c * u).T @ self.X

        def entropy(q: np.ndarray) -> np.ndarray:
            h = -xlogy(q, q)
            return h - xlogy(1 - q, 1 - q) if self.link == "sigmoid" else h

        # concavity: H(q) ≥ (1 - s) H(p) + s H(r)
        return float(np.sum(a * ((1 - s) * entropy(p) + s * entropy(r))) - 0.5 * np.sum(mixed**2))

    def optimum(self) -> tuple[float, np.ndarray, np.ndarray]:
        """f*, W and b by SciPy's BFGS, for small problems."""
        k, d = self.target.shape[1], self.X.shape[1]
        u, tau = self.parts()

        def split(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            W, b = theta[: k * d].reshape(k, d), theta[k * d :]
            return W, b if self.intercept else np.zeros(k)

        def gradient(theta: np.ndarray) -> np.ndarray:
            W, b = split(theta)
            z = self.X @ W.T + b
            p = expit(z) if self.link == "sigmoid" else softmax(z, axis=1)
            g = self.row_weight[:, None] * ((tau if self.link == "sigmoid" else tau[:, None]) * p - u)
            bias = g.sum(axis=0) if self.intercept else np.zeros(k)
            return np.concatenate([(g.T @ self.X + W).ravel(), bias])

        scale = self.row_weight.sum()
        found = minimize(
            lambda theta: self.value(*split(theta)) / scale,
            np.zeros(k * d + k),
            jac=lambda theta: gradient(theta) / scale,
            method="BFGS",
            options={"gtol": 1e-11, "maxiter": 5000},
        )
        W, b = split(found.x)
        return self.value(W, b), W, b


def blobs(n: int, d: int, k: int, *, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian classes with every label present."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(k, d)) * spread
    y = rng.integers(k, size=n)
    y[:k] = np.arange(k)
    return centers[y] + rng.normal(size=(n, d)), y


def assert_certified(model: SoftmaxRegression, problem: Problem) -> None:
    """What `objective_` and `duality_gap_` say holds of an objective written out in NumPy."""
    assert model.objective_ == pytest.approx(problem.value(model.coef_, model.intercept_), rel=1e-9)
    assert model.duality_gap_ <= model.tol
    weights = None if problem.class_weight is None else dict(enumerate(problem.class_weight))
    local = SoftmaxRegression(problem.C, tol=1e-8, class_weight=weights)
    local.fit(problem.X, problem.target.argmax(axis=1), problem.sample_weight)
    optimum = problem.value(local.coef_, local.intercept_)
    assert (model.objective_ - optimum) / model.objective_ <= model.duality_gap_ + 1e-9
