"""Beta calibration: the map of a probability that can be the identity, which Platt's sigmoid cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from crossent.errors import refuse
from crossent.numpy.dense import value_and_grad
from crossent.numpy.elementwise import softmax

from .affine import check_solver_options, dense_solver
from .base import Float64, Sample
from .newton import Point, minimize
from .one_vs_rest import OneVersusRest

__all__ = ["BetaCalibration"]

_DENSE = 384


class BetaCalibration(OneVersusRest):
    r"""Beta calibration: :math:`logit\,p = a \log q - b \log(1 - q) + c` with a, b ≥ 0, by cross-entropy [1]_.

    For scores q that are already probabilities, where Platt's sigmoid cannot express the identity. Two classes: one map
    of the second. More: :math:`p = softmax_k(a_k \log q_k - b_k \log(1 - q_k) + c_k)`, all classes fitted together.
    Label sets: one map per label. Convex; Newton's method, with the whole Hessian up to 128 classes.

    Minimises :math:`\sum_i w_i \ell_i + \lambda \sum_k \bigl((a_k - 1)^2 + (b_k - 1)^2\bigr)`: a weak normal prior
    about the identity, without which scores that hardly differ are blown up to certainties.

    Parameters
    ----------
    prior : float
        λ, at least 0. More rows outweigh it.
    input, link
        As in `TemperatureScaling`; no probability may be 0 or 1.
    tol : float
        Stop when the loss is estimated to be so many nats per row above its minimum.
    max_iter : int

    Attributes
    ----------
    coef_ : array (K, 3), or (1, 3) for two classes
        a, b and c.
    classes_ : array (K,)

    References
    ----------
    .. [1] M. Kull, T. Silva Filho, P. Flach, "Beta calibration: a well-founded and easily implemented improvement on
       logistic calibration for binary classifiers", AISTATS (2017).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import BetaCalibration
    >>> rng = np.random.default_rng(0)
    >>> q = rng.random(4000)
    >>> model = BetaCalibration(input="probabilities").fit(q, rng.random(4000) < q)
    >>> bool(abs(model.coef_ - [1, 1, 0]).max() < 0.2)  # calibrated already: the identity
    True
    """

    def __init__(
        self,
        *,
        prior: float = 0.1,
        input: str = "logits",
        link: str = "softmax",
        tol: float = 1e-9,
        max_iter: int = 200,
    ) -> None:
        super().__init__(input=input, link=link)
        self.prior = prior
        self.tol = tol
        self.max_iter = max_iter

    def _fit_columns(self, sample: Sample) -> None:
        check_solver_options(self.tol, self.max_iter)
        if not (isinstance(self.prior, int | float) and self.prior >= 0):
            raise ValueError(refuse("prior must be a number of at least 0", repr(self.prior)))
        counted = slice(None) if sample.weights is None else sample.weights > 0
        scores = sample.logits[counted].astype(np.float64)
        if not np.isfinite(scores).all():
            row = int(np.argmax(~np.isfinite(sample.logits).all(axis=1)))
            raise ValueError(refuse("beta calibration needs finite log-odds", f"a probability of 0 or 1 in row {row}"))
        self._refuse_large(sample)
        weights = np.ones(len(scores)) if sample.weights is None else sample.weights[counted]
        self._penalty = self.prior / float(weights.sum())
        weights = weights / weights.sum()
        self._joint = sample.events is None
        if self._joint:
            self.coef_ = self._fit_jointly(_features(scores), sample.codes[counted], weights)
        else:
            # One event per column: a softmax over "not" (logits 0) and "yes".
            events = np.asarray(sample.events)[counted]
            columns = [self._fit_one(scores[:, k], events[:, k], weights) for k in range(scores.shape[1])]
            self.coef_ = np.array(columns)

    def _fit_one(self, scores: Float64, events: NDArray[np.bool_], weights: Float64) -> Float64:
        features = np.zeros((3, len(scores), 2))
        features[:, :, 1] = _features(scores[:, None])[:, :, 0]
        found = self._fit_jointly(features, events.astype(np.intp), weights)
        return np.asarray(found[1] - [0.0, 0.0, found[0, 2]])

    def _fit_jointly(self, features: Float64, codes: NDArray[np.intp], weights: Float64) -> Float64:
        """Return (K, 3) of a, b, c; factors that want to be negative are held at 0, and the others fitted anew."""
        classes = features.shape[2]
        free = np.abs(features).max(axis=1) > 0
        theta = np.array([np.ones(classes), np.ones(classes), np.zeros(classes)]) * free
        while True:
            theta[~free] = 0.0
            evaluate = _evaluator(features, codes, weights, free, self._penalty)
            found, _ = minimize(evaluate, theta[free], self.tol, self.max_iter)
            theta[free] = found
            negative = free & (theta < 0)
            negative[2] = False
            if not negative.any():
                return theta.T.copy()
            free = free & ~negative

    def _map(self, scores: NDArray[Any]) -> NDArray[Any]:
        features = _features(scores.astype(np.float64))
        with np.errstate(invalid="ignore"):  # 0 · inf is 0
            terms = [np.where(c == 0, 0.0, c * f) for c, f in zip(self.coef_.T, features, strict=True)]
        mapped = terms[0] + terms[1] + terms[2]
        return np.asarray(softmax(mapped) if self._joint else expit(mapped))


def _features(scores: Float64) -> Float64:
    """Return log q, -log(1 - q) and 1 of log-odds (N, K), as an array (3, N, K)."""
    return np.stack([-np.logaddexp(0.0, -scores), np.logaddexp(0.0, scores), np.ones_like(scores)])


def _evaluator(
    features: Float64, codes: NDArray[np.intp], weights: Float64, free: NDArray[np.bool_], penalty: float
) -> Callable[[Float64], Point]:
    twice = np.zeros(free.shape)  # the penalty's second derivatives: none by c
    twice[:2] = 2 * penalty
    twice = twice[free]

    def evaluate(values: Float64) -> Point:
        theta = np.zeros(free.shape)
        theta[free] = values
        z = np.einsum("fnk,fk->nk", features, theta)
        value, gap = value_and_grad(z, codes, sample_weight=weights, reduction="sum")
        value = float(value) + float(np.sum(0.5 * twice * (values - 1) ** 2))
        gradient = np.einsum("fnk,nk->fk", features, gap)[free] + twice * (values - 1)
        p = softmax(z)
        # The diagonal blocks of the Hessian, (3, 3, K): Σ w p (1 - p) f f'.
        spread = weights[:, None] * p * (1 - p)
        if len(values) > _DENSE:
            blocks = np.einsum("fnk,gnk,nk->kfg", features, features, spread)
            blocks[:, [0, 1], [0, 1]] += 2 * penalty
            return Point(value, gradient, _block_solver(blocks, free), False)
        rows = (features * p).transpose(1, 0, 2)[:, free]
        hessian = np.diag(twice) - rows.T @ (rows * weights[:, None])
        whole = np.einsum("fnk,gnk,nk->fgk", features, features, weights[:, None] * p)
        full = np.zeros((*free.shape, *free.shape))
        k = np.arange(free.shape[1])
        for f in range(3):
            for g in range(3):
                full[f, k, g, k] = whole[f, g]
        return Point(value, gradient, dense_solver(hessian + full[free][:, free]), True)

    return evaluate


def _block_solver(blocks: Float64, free: NDArray[np.bool_]) -> Callable[[Float64], Float64]:
    """Return what solves class by class; what is held at 0 has a row and column of the identity."""
    held = ~free.T
    blocks = blocks.copy()
    blocks[held] = 0.0
    blocks.transpose(0, 2, 1)[held] = 0.0
    trace = np.trace(blocks, axis1=1, axis2=2)
    ridge = 1e-8 * trace + 1e-10 * trace.max() + 1e-300
    index = np.arange(3)
    blocks[:, index, index] += ridge[:, None] + held * 1.0

    def solve(v: Float64) -> Float64:
        padded = np.zeros(free.shape)
        padded[free] = v
        return np.asarray(np.linalg.solve(blocks, padded.T[:, :, None])[:, :, 0].T[free])

    return solve
