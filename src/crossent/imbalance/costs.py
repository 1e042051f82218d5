"""Decisions of least expected cost, and what they are worth."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import describe, refuse
from ..masked import refuse_masked
from ..metrics.predictions import check_distributions, check_weights, weighted_mean
from .weights import check_codes

__all__ = [
    "DecisionValue",
    "Thresholds",
    "check_cost",
    "decide",
    "decision_value",
    "expected_cost",
    "realised_cost",
    "thresholds",
]

Float64 = NDArray[np.float64]

_Z_90 = 1.6448536269514722  # the normal quantile of 0.95


def expected_cost(probabilities: ArrayLike, cost: ArrayLike) -> Float64:
    """Return what each action is expected to cost in each row, ``Σ_k p_ik c_ka``.

    Parameters
    ----------
    probabilities : array (N, K)
    cost : array (K, A)
        ``cost[k, a]`` is what action a costs when k is the true class; negative for a gain.

    Returns
    -------
    array (N, A) of float64, in the unit of `cost`

    Raises
    ------
    ValueError
        If the rows are no distributions, or `cost` has another shape or an entry that is not finite.

    Examples
    --------
    >>> expected_cost([[0.75, 0.25]], [[0.0, 1.0], [8.0, 0.0]])
    array([[2.  , 0.75]])
    """
    prob = check_distributions(probabilities)
    return np.asarray(prob @ check_cost(cost, prob.shape[1]))


def decide(probabilities: ArrayLike, cost: ArrayLike) -> NDArray[np.intp]:
    """Return the action of least expected cost for each row: Bayes' decision.

    Parameters
    ----------
    probabilities : array (N, K)
        Calibrated, and for the population where the decisions are made (`correct_prior`).
    cost : array (K, A)
        ``cost[k, a]`` is what action a costs when k is the true class. Actions can be the classes, and others:
        a column of equal numbers is the price of asking a person.

    Returns
    -------
    array (N,) of int
        The first of equally good actions.

    Raises
    ------
    ValueError
        As `expected_cost`.

    Examples
    --------
    >>> decide([[0.95, 0.05], [0.75, 0.25]], [[0.0, 1.0], [8.0, 0.0]])
    array([0, 1])
    """
    return np.asarray(np.argmin(expected_cost(probabilities, cost), axis=1))


def realised_cost(y: ArrayLike, actions: ArrayLike, cost: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Return what actions cost on average, given the true classes: ``mean_i c[y_i, a_i]``.

    Parameters
    ----------
    y : array (N,) of int
        True classes, 0 to K-1.
    actions : array (N,) of int
        0 to A-1, as `decide` returns them.
    cost : array (K, A)
    sample_weight : array (N,), optional

    Raises
    ------
    ValueError
        If a class or an action is out of range, with its row, or shapes disagree.

    Examples
    --------
    >>> realised_cost([0, 1, 1], [0, 1, 0], [[0.0, 1.0], [8.0, 0.0]]) * 3
    8.0
    """
    matrix = check_cost(cost)
    codes = check_codes(y, matrix.shape[0], "y")
    taken = check_codes(actions, matrix.shape[1], "actions", len(codes))
    if not len(codes):
        raise ValueError(refuse("a mean cost is of one row or more", "none"))
    weights = None if sample_weight is None else check_weights(sample_weight, len(codes))
    return weighted_mean(matrix[codes, taken], weights)


class Thresholds(NamedTuple):
    """Which action is best for two classes, by the probability of the second.

    Attributes
    ----------
    probabilities : array (M - 1,)
        Rising; a row at or above the i-th takes the action after it.
    actions : array (M,) of int
        The actions that are ever best.
    """

    probabilities: Float64
    actions: NDArray[np.intp]


def thresholds(cost: ArrayLike) -> Thresholds:
    """Return the probabilities at which the best action changes, for two classes.

    For two actions: act as if the second class were true from
    ``(c_01 - c_00) / (c_01 - c_00 + c_10 - c_11)`` on [1]_. Expected costs are lines in the probability; these are the
    corners of the lowest.

    Parameters
    ----------
    cost : array (2, A)

    Raises
    ------
    ValueError
        If `cost` has another shape or an entry that is not finite.

    References
    ----------
    .. [1] Elkan, "The Foundations of Cost-Sensitive Learning", IJCAI 2001, equation 2.

    Examples
    --------
    >>> thresholds([[0.0, 1.0], [8.0, 0.0]]).probabilities.round(4)
    array([0.1111])
    >>> thresholds([[0.0, 1.0, 0.2], [1.0, 0.0, 0.2]])
    Thresholds(probabilities=array([0.2, 0.8]), actions=array([0, 2, 1]))
    """
    start, end = check_cost(cost, 2)
    slopes = end - start
    best = int(np.lexsort((slopes, start))[0])
    at, actions, found = 0.0, [best], []
    while True:
        falling = np.flatnonzero(slopes < slopes[best])
        if not len(falling):
            break
        corners = (start[falling] - start[best]) / (slopes[best] - slopes[falling])
        place = int(np.lexsort((slopes[falling], corners))[0])
        at = max(at, float(corners[place]))
        if not at < 1:
            break
        best = int(falling[place])
        found.append(at)
        actions.append(best)
    return Thresholds(np.array(found), np.array(actions, dtype=np.intp))


class DecisionValue(NamedTuple):
    """What deciding by cost is worth, per row and in the unit of the costs. ``str()`` says it in words.

    Attributes
    ----------
    decided : float
        Realised cost of `decide`.
    most_probable : float or None
        Realised cost of taking the most probable class; None where actions are not the classes.
    constant : float
        Realised cost of the best action without a model.
    expected : float
        What `decide` was expected to cost by the probabilities themselves; far from `decided` they are not calibrated.
    saving, lower, upper : float
        How much less `decided` is than `most_probable` (or `constant`), and its normal 90 % interval over rows.
    """

    decided: float
    most_probable: float | None
    constant: float
    expected: float
    saving: float
    lower: float
    upper: float

    def __str__(self) -> str:
        other = self.constant if self.most_probable is None else self.most_probable
        beside = "the best single action" if self.most_probable is None else "taking the most probable class"
        if self.lower > 0:
            verdict = f"Deciding by cost saves {self.saving:.3g} a row beside {beside}"
        elif self.upper < 0:
            verdict = f"Deciding by cost loses {-self.saving:.3g} a row beside {beside}"
        else:
            verdict = f"These rows cannot show that deciding by cost beats {beside}"
        return (
            f"{verdict}: {self.decided:.4g} instead of {other:.4g} (difference {self.lower:.2g} to {self.upper:.2g}, "
            f"90 % interval). The probabilities promised {self.expected:.4g}; the best single action, without a model, "
            f"costs {self.constant:.4g}."
        )


def decision_value(
    y: ArrayLike, probabilities: ArrayLike, cost: ArrayLike, sample_weight: ArrayLike | None = None
) -> DecisionValue:
    """Return what `decide` is worth on labelled rows that the model was not trained on.

    Parameters
    ----------
    y : array (N,) of int
        True classes, 0 to K-1.
    probabilities : array (N, K)
    cost : array (K, A)
    sample_weight : array (N,), optional

    Raises
    ------
    ValueError
        As `expected_cost` and `realised_cost`.

    Examples
    --------
    >>> p = np.tile([[0.95, 0.05], [0.75, 0.25]], (200, 1))
    >>> y = np.tile([0, 1, 0, 0, 0, 0, 0, 0], 50)
    >>> print(decision_value(y, p, [[0.0, 1.0], [8.0, 0.0]]))
    Deciding by cost saves 0.625 a row beside taking the most probable class: 0.375 instead of 1 (difference 0.39 to
    0.86, 90 % interval). The probabilities promised 0.575; the best single action, without a model, costs 0.875.
    """
    costs = expected_cost(probabilities, cost)
    matrix = check_cost(cost)
    codes = check_codes(y, matrix.shape[0], "y", len(costs))
    if not len(codes):
        raise ValueError(refuse("the value of a decision is measured on one row or more", "none"))
    weights = np.ones(len(codes)) if sample_weight is None else check_weights(sample_weight, len(codes))
    share = weights / weights.sum()
    paid = matrix[codes, costs.argmin(axis=1)]
    constant = (np.bincount(codes, share, len(matrix)) @ matrix).argmin()
    is_of_classes = matrix.shape[0] == matrix.shape[1]
    other = matrix[codes, np.asarray(probabilities).argmax(axis=1) if is_of_classes else constant]
    saved = other - paid
    saving = float(share @ saved)
    apart = saved - saving
    unit = float(np.abs(apart).max()) or 1.0  # squares of large costs would overflow
    error = _Z_90 * unit * math.sqrt(float(share**2 @ (apart / unit) ** 2))
    return DecisionValue(
        decided=float(share @ paid),
        most_probable=float(share @ other) if is_of_classes else None,
        constant=float(share @ matrix[codes, constant]),
        expected=float(share @ costs.min(axis=1)),
        saving=saving,
        lower=saving - error,
        upper=saving + error,
    )


def check_cost(cost: ArrayLike, num_classes: int | None = None) -> Float64:
    """Return a matrix of costs (K, A) in float64.

    Raises
    ------
    ValueError
        If it is no such matrix, or has an entry that is not finite.
    """
    refuse_masked(cost, "cost")
    rows = "K" if num_classes is None else num_classes
    asked = f"cost must be finite numbers of shape ({rows}, A), a row for each class and a column for each action"
    try:
        raw = np.asarray(cost)
    except ValueError as error:
        raise ValueError(refuse(asked, "rows of different lengths")) from error
    if raw.dtype.kind not in "fiub" or raw.ndim != 2 or 0 in raw.shape or num_classes not in (None, len(raw)):
        raise ValueError(refuse(asked, describe(raw)))
    if not np.isfinite(raw).all():
        k, a = np.argwhere(~np.isfinite(raw))[0]
        raise ValueError(refuse(asked, f"{raw[k, a]} for class {k}, action {a}"))
    return raw.astype(np.float64)
