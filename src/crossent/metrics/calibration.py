"""Does 90 % mean 90 %? Reliability curves, and the calibration errors that they add up to."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import refuse
from ..masked import refuse_masked
from ..shown import data_frame, html_table
from .binning import Bins, class_wise_bins, top_label_bins
from .predictions import Predictions, check_predictions
from .simplex import simplex_bins
from .smooth import smooth_error

__all__ = ["ReliabilityCurve", "calibration_error", "reliability_curve", "wilson_interval"]

Float64 = NDArray[np.float64]


class ReliabilityCurve(NamedTuple):
    """Rows grouped by confidence, the probability of their predicted class, or of the one that was asked for.

    In a notebook it shows itself as a table.

    Attributes
    ----------
    edges : array of shape (bins + 1,)
        Bin b holds the confidences in ``(edges[b], edges[b + 1]]``; the first bin also holds 0.
    counts : array of shape (bins,)
        Rows in each bin.
    confidence, accuracy : arrays of shape (bins,)
        Weighted mean confidence and share of right predictions (or of the class asked for); NaN where the bin is empty.
    lower, upper : arrays of shape (bins,)
        Wilson interval of each bin's accuracy; NaN where the bin is empty.
    """

    edges: Float64
    counts: NDArray[np.int64]
    confidence: Float64
    accuracy: Float64
    lower: Float64
    upper: Float64

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a line for each bin.

        Raises
        ------
        ModuleNotFoundError
            If pandas is not installed.
        """
        return data_frame(self._columns())

    def _repr_html_(self) -> str:
        return html_table(self._columns())

    def _columns(self) -> dict[str, list[Any]]:
        arrays = {"from": self.edges[:-1], "to": self.edges[1:], "rows": self.counts}
        arrays |= {name: getattr(self, name) for name in ("confidence", "accuracy", "lower", "upper")}
        return {name: array.tolist() for name, array in arrays.items()}


def reliability_curve(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    bins: int | ArrayLike = 10,
    binning: str = "equal-width",
    level: float = 0.9,
    pos_label: Any = None,
) -> ReliabilityCurve:
    """Accuracy against confidence of the predicted class, in bins; or the share of one class against its probability.

    A bin is open on the left and closed on the right, ``(lower, upper]``: a confidence of exactly 0.8 counts in
    (0.7, 0.8] when `bins` is 10, and 1 in the last bin. Edges of equal width are ``numpy.linspace(0, 1, bins + 1)``,
    compared in float64 with the confidence as it is: the float32 number nearest to 0.8 is above 0.8 and counts in
    (0.8, 0.9]. (netcal counts a float64 confidence of 0.8 in [0.8, 0.9), torchmetrics too; see docs/calibration.md.)

    Parameters
    ----------
    y_true : array of shape (N,)
        Labels.
    y_prob : array of shape (N, K), or (N,) for two classes
        Probabilities; column k belongs to the k-th label.
    labels : array of shape (K,), optional
        The columns' labels, in the columns' order. None: those of `y_true`, sorted.
    sample_weight : array of shape (N,), optional
        Weight of each row, at least 0.
    bins : int, or increasing edges from 0 to 1
        Number of bins, at least 1, or where they are.
    binning : {"equal-width", "equal-mass"}
        "equal-mass": edges at quantiles of the confidence, so that bins hold about the same weight; equal confidences
        share a bin, so there can be fewer bins than asked for.
    level : float
        Of the Wilson interval of each accuracy, between 0 and 1; weighted rows count as ``(Σw)² / Σw²`` rows.
    pos_label : label, optional
        Bin the probability of this class, over the whole of 0 to 1, beside the share of the rows that it labels. None:
        the probability of the predicted class, beside the share of right predictions.

    Returns
    -------
    ReliabilityCurve
        Named tuple ``edges, counts, confidence, accuracy, lower, upper``.

    Raises
    ------
    ValueError
        If an argument is malformed or a row of `y_prob` is no distribution.

    Examples
    --------
    >>> curve = reliability_curve([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.8], bins=2)
    >>> curve.counts.tolist(), curve.accuracy.tolist()
    ([0, 4], [nan, 0.75])
    """
    if binning == "smooth":
        raise ValueError(refuse("a reliability curve needs bins: 'equal-width' or 'equal-mass'", repr(binning)))
    checked = check_predictions(y_true, y_prob, labels, sample_weight)
    table = top_label_bins(checked, bins, binning) if pos_label is None else _bins_of(checked, pos_label, bins, binning)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 = NaN marks an empty bin
        confidence, accuracy = table.value[0] / table.weight[0], table.event[0] / table.weight[0]
        effective = table.weight[0] ** 2 / table.weight_squares[0]
    accuracy = np.minimum(accuracy, 1.0)
    lower, upper = wilson_interval(accuracy, effective, level)
    edges = np.asarray(table.edges[0])
    return ReliabilityCurve(edges, table.rows[0].astype(np.int64), confidence, accuracy, lower, upper)


def _bins_of(checked: Predictions, label: Any, bins: int | ArrayLike, binning: str) -> Bins:
    """Return the bins of one class's probability."""
    places = np.flatnonzero(checked.labels == label)
    if len(places) != 1:
        raise ValueError(refuse(f"pos_label must be one of the labels {checked.labels.tolist()}", repr(label)))
    column = checked.probabilities[:, places[0]]
    pair = np.stack([1 - column, column], axis=1)
    event = (checked.codes == places[0]).astype(np.intp)
    tables = class_wise_bins(checked._replace(codes=event, probabilities=pair), bins, binning)
    return tables[-1]._replace(**{name: array[-1:] for name, array in tables[-1]._asdict().items()})


def wilson_interval(share: Float64, rows: Float64, level: float) -> tuple[Float64, Float64]:
    """Return Wilson's interval of a proportion: the shares that a score test at 1 - `level` does not reject.

    Parameters
    ----------
    share, rows : arrays
        Observed proportions, and the number of rows they were observed on.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    lower, upper : arrays

    Examples
    --------
    >>> lower, upper = wilson_interval(np.array([1.0]), np.array([10.0]), 0.95)
    >>> lower.round(4).tolist(), upper.tolist()
    ([0.7225], [1.0])
    """
    refuse_masked(share, "share")
    refuse_masked(rows, "rows")
    if not (isinstance(level, float) and 0 < level < 1):
        raise ValueError(refuse("level must lie between 0 and 1", repr(level)))
    z = NormalDist().inv_cdf(0.5 + level / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        center = (share + z * z / (2 * rows)) / (1 + z * z / rows)
        half = z / (1 + z * z / rows) * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return np.maximum(center - half, 0.0), np.minimum(center + half, 1.0)


def calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    bins: int | ArrayLike = 10,
    binning: str = "equal-width",
    kind: str = "top-label",
    norm: str = "l1",
    debiased: bool = False,
) -> float:
    r"""How far predicted probabilities are from observed shares.

    The default is the expected calibration error of the predicted class [1]_,
    :math:`\sum_b \frac{W_b}{W} |acc_b - conf_b|` over the bins of `reliability_curve`. It is biased upwards when bins
    hold few rows: a perfectly calibrated model does not score 0 on a small sample.

    Parameters
    ----------
    y_true, y_prob, labels, sample_weight, bins
        As in `reliability_curve`.
    binning : {"equal-width", "equal-mass", "smooth"}
        "smooth": a Gaussian kernel in the place of bins, whose width the error itself sets [2]_; `bins` is not used.
    kind : {"top-label", "class-wise", "full"}
        "top-label": the confidence against "the prediction is right". "class-wise": the probability of each class
        against "the label is this class", averaged over the classes [3]_. "full": the whole vector against the label,
        in `bins` cells of the simplex [4]_: always the heaviest cell is split by the class that varies most in it, in
        the middle of that class's range ("equal-width") or at its median ("equal-mass"). A cell's
        gap is half the sum of absolute differences (its L2 norm the Euclidean distance).
    norm : {"l1", "l2", "max"}
        Weighted mean of the gaps, root of the weighted mean of their squares, or the largest gap.
    debiased : bool
        With "l2": estimate each squared gap without bias, from products of different rows. The squared error is then
        unbiased, and can come out negative, which is returned as an error of 0; `calibration_interval` has the number
        itself.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If an argument is malformed, a row of `y_prob` is no distribution, or the options do not go together.

    References
    ----------
    .. [1] M. Pakdaman Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
       Binning", AAAI (2015).
    .. [2] J. Błasiok, P. Nakkiran, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing", ICLR (2024).
    .. [3] M. Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with
       Dirichlet calibration", NeurIPS (2019).
    .. [4] J. Vaicenavicius et al., "Evaluating model calibration in classification", AISTATS (2019).

    Examples
    --------
    >>> round(calibration_error([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.8], bins=2), 12)
    0.1
    >>> calibration_error([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.8], bins=2, norm="l2", debiased=True)
    0.0
    """
    if kind not in ("top-label", "class-wise", "full"):
        raise ValueError(refuse("kind must be 'top-label', 'class-wise' or 'full'", repr(kind)))
    if norm not in ("l1", "l2", "max"):
        raise ValueError(refuse("norm must be 'l1', 'l2' or 'max'", repr(norm)))
    if debiased and norm != "l2":
        raise ValueError(refuse("only the L2 error can be debiased", f"norm={norm!r}", "pass norm='l2'"))
    checked = check_predictions(y_true, y_prob, labels, sample_weight)
    if binning == "smooth":
        return _smooth(checked, kind, norm)
    if kind == "full":
        return simplex_bins(checked, bins, binning).error(norm, debiased)
    tables = [top_label_bins(checked, bins, binning)]
    if kind == "class-wise":
        tables = class_wise_bins(checked, bins, binning)
    return _binned(tables, norm, debiased)


def _binned(tables: list[Bins], norm: str, debiased: bool) -> float:
    if norm == "max":
        return max(float(np.nanmax(np.abs(table.gaps()))) for table in tables)
    columns = sum(len(table.weight) for table in tables)
    total = 0.0
    for table in tables:
        share = table.weight / table.weight.sum(axis=1, keepdims=True)
        squares = table.squared_gaps(debiased)
        total += float(np.sum(share * (squares if norm == "l2" else np.sqrt(squares))))
    mean = total / columns
    return math.sqrt(max(mean, 0.0)) if norm == "l2" else mean


def _smooth(checked: Predictions, kind: str, norm: str) -> float:
    if kind == "full" or norm != "l1":
        asked = "the smooth error is top-label or class-wise, in the L1 norm"
        raise ValueError(refuse(asked, f"kind={kind!r}, norm={norm!r}"))
    weights = checked.weight_or_ones()
    weights = weights / weights.sum()
    if kind == "top-label":
        rows = checked.rows()
        return smooth_error(rows.high, weights * (rows.hit - rows.high))
    columns: Any = checked.probabilities.T
    errors = [smooth_error(p, weights * ((checked.codes == k) - p)) for k, p in enumerate(columns)]
    return float(np.mean(errors))
