"""Probabilities for a population in which the classes are as common as one says, or as unlabelled rows say."""

from __future__ import annotations

import math
import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import check_number, describe, refuse
from ..masked import refuse_masked
from ..metrics.predictions import check_distributions

__all__ = ["correct_prior", "estimate_prior"]

Float64 = NDArray[np.float64]


def correct_prior(probabilities: ArrayLike, trained_on: ArrayLike, deployed_on: ArrayLike) -> Float64:
    """Return the probabilities that a model would give if the classes were as common as `deployed_on` says.

    ``p'_k = p_k d_k / t_k / Σ_j p_j d_j / t_j`` [1]_, in logarithms, so that nothing underflows on the way. This is
    exact where rows of a class look the same in both populations. Of a softmax it is a shift of the logits:

    - after resampling, t are the shares of the resampled rows and d those of the population;
    - after training with class weights w on rows of shares π, t = w π and d = π, so t = w and d = 1 do;
    - after training with ``prior=π`` (logit adjustment), t = 1 and d = π.

    Parameters
    ----------
    probabilities : array (N, K)
    trained_on : array (K,)
        What the classes had in training: shares, counts or products with weights. Only ratios count. All positive.
    deployed_on : array (K,)
        The same where the model is used. 0 for a class that does not occur there.

    Returns
    -------
    array (N, K) of float64
        Rows that sum to 1. A probability of 0 stays 0, and equal arguments change nothing but rounding.

    Raises
    ------
    ValueError
        If the rows are no distributions, a prior has another shape, a negative entry, NaN or (`trained_on`) a 0, or a
        row has no class left that occurs.

    References
    ----------
    .. [1] Saerens, Latinne, Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
       Neural Computation 14 (2002), equation 2.4.

    Examples
    --------
    >>> correct_prior([[0.5, 0.5]], trained_on=[0.5, 0.5], deployed_on=[0.99, 0.01])
    array([[0.99, 0.01]])
    """
    prob = check_distributions(probabilities)
    deployed = _log_prior(deployed_on, "deployed_on", prob.shape[1], may_be_zero=True)
    shift = deployed - _log_prior(trained_on, "trained_on", prob.shape[1])
    with np.errstate(divide="ignore"):
        logits = np.log(prob, dtype=np.float64) + shift
    largest = logits.max(axis=1, initial=-np.inf, keepdims=True)
    if np.isneginf(largest).any():
        row = int(np.argmax(np.isneginf(largest)))
        asked = "each row must give probability to a class that occurs"
        raise ValueError(refuse(asked, f"none in row {row}", "give each class a positive share in deployed_on"))
    odds = np.exp(logits - largest)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def estimate_prior(
    probabilities: ArrayLike,
    trained_on: ArrayLike,
    *,
    smoothing: float = 0.0,
    tol: float = 1e-8,
    max_iter: int = 10_000,
) -> Float64:
    """Return how common the classes are among unlabelled rows, from the probabilities that a model gave them.

    Maximises the mean log-likelihood ``L(q) = mean_i log Σ_k q_k p_ik / t_k`` over distributions q by the EM algorithm
    of [1]_: q becomes the mean of ``correct_prior(p, t, q)``. L is concave, so ``max_k ∂L/∂q_k - 1`` bounds what is
    missing to its maximum; the steps end where that is at most `tol`. The estimate is as good as the probabilities are
    calibrated.

    Parameters
    ----------
    probabilities : array (N, K)
    trained_on : array (K,)
        As in `correct_prior`.
    smoothing : float, default 0
        a of a Dirichlet prior: ``a Σ_k log q_k / N`` is added to L, which counts for a rows of each class. Without it,
        few rows or overlapping classes can end in a share of 0, which calls a class impossible.
    tol : float, default 1e-8
        In nats a row. Far below 1 / N, errors of the estimate are those of the sample.
    max_iter : int, default 10,000

    Returns
    -------
    array (K,) of float64, which sums to 1

    Raises
    ------
    ValueError
        If there is no row, or an argument is not as `correct_prior` takes it.

    Warns
    -----
    RuntimeWarning
        If `tol` was not reached, with what was.

    References
    ----------
    .. [1] Saerens, Latinne, Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities",
       Neural Computation 14 (2002), equation 2.9.

    Examples
    --------
    >>> estimate_prior([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]], trained_on=[0.5, 0.5]).round(3)
    array([0.708, 0.292])
    """
    prob = check_distributions(probabilities)
    if not len(prob):
        raise ValueError(refuse("a prior is estimated from one row or more", "none"))
    tol = check_number("tol", tol, above=0.0)
    with np.errstate(divide="ignore"):
        logs = np.log(prob, dtype=np.float64) - _log_prior(trained_on, "trained_on", prob.shape[1])
    ratios = np.exp(logs - logs.max(axis=1, keepdims=True))
    smoothing = check_number("smoothing", smoothing, minimum=0.0) / len(prob)
    total = 1 + smoothing * prob.shape[1]
    prior = np.full(prob.shape[1], 1 / prob.shape[1])
    missing = math.inf
    for _ in range(int(check_number("max_iter", max_iter, minimum=1))):
        slopes = (1 / (ratios @ prior)) @ ratios / len(ratios)
        if smoothing:
            slopes += smoothing / prior
        missing = float(slopes.max()) - total
        if missing <= tol:
            return prior
        prior = prior * slopes
        prior /= prior.sum()
    warnings.warn(
        f"estimate_prior: max_iter={max_iter} was reached {missing:.2g} nats below the maximum at most, asked for "
        f"{tol:.2g}: raise max_iter or tol",
        RuntimeWarning,
        stacklevel=2,
    )
    return prior


def _log_prior(prior: ArrayLike, name: str, num_classes: int, *, may_be_zero: bool = False) -> Float64:
    """Return the logarithms of shares or counts."""
    refuse_masked(prior, name)
    raw = np.asarray(prior)
    asked = f"{name} must be {num_classes} finite numbers, {'not negative' if may_be_zero else 'all positive'}"
    if raw.dtype.kind not in "fiub" or raw.shape != (num_classes,):
        raise ValueError(refuse(asked, describe(prior if isinstance(prior, str) else raw)))
    wrong = ~(np.isfinite(raw) & ((raw >= 0) if may_be_zero else (raw > 0)))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(refuse(asked, f"{raw[k]} for class {k}"))
    if not raw.any():
        raise ValueError(refuse(asked, "zeros alone"))
    with np.errstate(divide="ignore"):
        return np.log(raw, dtype=np.float64)
