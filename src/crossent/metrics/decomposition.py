"""What a score is made of: being wrong about one's own certainty, and not knowing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import refuse
from ..kernels import registry
from .binning import check_edges
from .predictions import check_predictions

__all__ = ["ScoreDecomposition", "score_decomposition"]

Float64 = NDArray[np.float64]


class ScoreDecomposition(NamedTuple):
    """``score = calibration + refinement = calibration - resolution + uncertainty``.

    Attributes
    ----------
    score : float
        The mean score.
    calibration : float
        What recalibration on these rows takes off the score (also called reliability, or miscalibration).
    resolution : float
        What recalibrated predictions gain on the prior (also called discrimination).
    uncertainty : float
        The score of the prior: the share of each event.
    refinement : float
        The score of the recalibrated predictions.
    """

    score: float
    calibration: float
    resolution: float
    uncertainty: float
    refinement: float


def score_decomposition(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    score: str = "brier",
    method: str = "isotonic",
    kind: str = "class-wise",
    bins: int | ArrayLike = 10,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> ScoreDecomposition:
    r"""Split a score into calibration, resolution and uncertainty.

    Predictions p are recalibrated to the shares of events at (about) the same p; with S the mean score and π the
    events' share, :math:`calibration = S(p) - S(p_{recal})`, :math:`resolution = S(\pi) - S(p_{recal})` and
    :math:`uncertainty = S(\pi)`, so that the parts add up exactly.

    Parameters
    ----------
    y_true, y_prob, labels, sample_weight
        As in `log_loss`.
    score : {"brier", "log"}
        `brier_score`, or `log_loss` in nats (with `kind` "class-wise" for two classes only).
    method : {"isotonic", "bins"}
        "isotonic": the CORP decomposition [1]_, recalibrated by isotonic regression; nothing to choose, calibration and
        resolution are never negative. "bins": Murphy's [2]_, recalibrated to the share of each bin of equal width; with
        forecasts that vary inside a bin, calibration also holds what they lose by that, and may be negative.
    kind : {"class-wise", "top-label"}
        The sum over the classes of "the label is this class", or the event "the prediction is right" (a binary score,
        of the confidence; Brier counts both of its outcomes).
    bins : int, or increasing edges from 0 to 1
        For "bins", as in `reliability_curve`.

    Returns
    -------
    ScoreDecomposition

    Raises
    ------
    ValueError
        If an argument is malformed, or the log loss of more than two classes is to be split class by class.

    References
    ----------
    .. [1] T. Dimitriadis, T. Gneiting, A. I. Jordan, "Stable reliability diagrams for probabilistic classifiers",
       PNAS 118 (2021).
    .. [2] A. H. Murphy, "A New Vector Partition of the Probability Score", Journal of Applied Meteorology 12 (1973).

    Examples
    --------
    >>> parts = score_decomposition([0, 1, 0, 1], [0.1, 0.9, 0.4, 0.4])
    >>> round(parts.score, 4), round(parts.calibration, 4), round(parts.resolution, 4), round(parts.uncertainty, 4)
    (0.27, 0.02, 0.25, 0.5)
    """
    if score not in ("brier", "log"):
        raise ValueError(refuse("score must be 'brier' or 'log'", repr(score)))
    if method not in ("isotonic", "bins"):
        raise ValueError(refuse("method must be 'isotonic' or 'bins'", repr(method)))
    if kind not in ("class-wise", "top-label"):
        raise ValueError(refuse("kind must be 'class-wise' or 'top-label'", repr(kind)))
    edges = check_edges(bins)
    edges = np.linspace(0.0, 1.0, edges + 1) if isinstance(edges, int) else edges
    checked = check_predictions(y_true, y_prob, labels, sample_weight)
    prob, weights = checked.probabilities, checked.weight_or_ones()
    counted = weights > 0
    weights = weights[counted] / weights.sum()
    columns: list[tuple[NDArray[Any], NDArray[np.bool_]]]
    factor = 2.0 if score == "brier" else 1.0  # both outcomes of a binary event
    if kind == "top-label":
        columns = [(checked.rows().high, checked.rows().hit)]
    elif prob.shape[1] == 2:
        columns = [(prob[:, 1], checked.codes == 1)]
    elif score == "log":
        asked = "the log loss of more than two classes does not split class by class"
        raise ValueError(refuse(asked, f"{prob.shape[1]} classes", "use score='brier' or kind='top-label'"))
    else:
        columns, factor = [(prob[:, k], checked.codes == k) for k in range(prob.shape[1])], 1.0
    total = np.zeros(3)
    for values, events in columns:
        p, event = values[counted].astype(np.float64), events[counted].astype(np.float64)
        again = _isotonic(p, event, weights) if method == "isotonic" else _binned(p, event, weights, edges)
        prior = np.full_like(p, weights @ event)
        total += [_mean_score(score, q, event, weights) for q in (p, again, prior)]
    whole, recalibrated, prior_score = (factor * total).tolist()
    return ScoreDecomposition(whole, whole - recalibrated, prior_score - recalibrated, prior_score, recalibrated)


def _mean_score(score: str, p: Float64, event: Float64, weights: Float64) -> float:
    if score == "brier":
        return float(weights @ (p - event) ** 2)
    with np.errstate(divide="ignore"):
        return float(weights @ -np.log(np.where(event > 0, p, 1 - p)))


def _isotonic(p: Float64, event: Float64, weights: Float64) -> Float64:
    """Return the events' shares as the best non-decreasing function of p; equal p share one value."""
    distinct, place = np.unique(p, return_inverse=True)
    mass = np.bincount(place, weights=weights)
    mean = np.bincount(place, weights=weights * event) / mass
    fitted = registry.find(np.dtype(np.float64)).pool_adjacent(mean, mass)
    # Sums of weights that should be 0 or 1 must not miss it by rounding: a log loss would notice.
    return np.asarray(np.clip(fitted, 0.0, 1.0)[place]) if len(distinct) else p


def _binned(p: Float64, event: Float64, weights: Float64, edges: Float64) -> Float64:
    place = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, len(edges) - 2)
    mass = np.bincount(place, weights=weights, minlength=len(edges) - 1)
    share = np.bincount(place, weights=weights * event, minlength=len(edges) - 1)
    return np.asarray(share[place] / mass[place])
