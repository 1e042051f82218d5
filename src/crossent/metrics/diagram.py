"""Reliability diagrams in matplotlib."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import refuse
from .calibration import reliability_curve

__all__ = ["reliability_diagram", "reliability_diagram_from_estimator"]


def reliability_diagram(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    bins: int | ArrayLike = 10,
    binning: str = "equal-width",
    level: float = 0.9,
    pos_label: Any = None,
    ax: Any = None,
    name: str | None = None,
    color: Any = None,
) -> Any:
    """Draw accuracy against confidence, with an interval for each bin and the number of rows in it.

    Points lie at each bin's mean confidence; bars are Wilson intervals. Where an interval misses the diagonal, the bin
    is miscalibrated by more than chance explains. The row counts are bars at the foot, in the one of ``ax.child_axes``
    whose gid is "row counts"; other insets are left alone.

    Parameters
    ----------
    y_true, y_prob, labels, sample_weight, bins, binning, level, pos_label
        As in `reliability_curve`.
    ax : matplotlib axes, optional
        Where to draw; several curves can share one. None: a new figure.
    name : str, optional
        The curve's entry in ``ax.legend()``.
    color : optional
        Any matplotlib colour.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed: ``pip install 'crossent[report]'``.
    ValueError
        As `reliability_curve`.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> ax = reliability_diagram([0, 1, 1, 0], [0.1, 0.9, 0.8, 0.8], bins=2)
    >>> ax.get_xlabel()
    'confidence in the predicted class'
    """
    curve = reliability_curve(
        y_true,
        y_prob,
        labels=labels,
        sample_weight=sample_weight,
        bins=bins,
        binning=binning,
        level=level,
        pos_label=pos_label,
    )
    if ax is None:
        try:
            import matplotlib.pyplot as plt
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "reliability_diagram needs matplotlib: pip install 'crossent[report]'", name=error.name
            ) from error
        ax = plt.figure(figsize=(5, 5)).add_subplot()
    if not any(line.get_gid() == "perfect calibration" for line in ax.lines):
        ax.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=(0, (4, 3)), gid="perfect calibration")
    filled = curve.counts > 0
    x, y = curve.confidence[filled], curve.accuracy[filled]
    reach = np.maximum([y - curve.lower[filled], curve.upper[filled] - y], 0.0)
    drawn = ax.errorbar(x, y, yerr=reach, fmt="o", markersize=5, linewidth=1.2, capsize=2, color=color, label=name)
    titles = ("confidence in the predicted class", "accuracy")
    if pos_label is not None:
        titles = (f"probability of {pos_label}", f"share of {pos_label}")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xlabel(titles[0], parse_math=False)
    ax.set_ylabel(titles[1], parse_math=False)
    foot = next((inset for inset in ax.child_axes if inset.get_gid() == "row counts"), None)
    if foot is None:
        foot = ax.inset_axes((0, 0, 1, 0.15), sharex=ax, zorder=0, gid="row counts")
    foot.bar(
        curve.edges[:-1],
        curve.counts,
        width=np.diff(curve.edges),
        align="edge",
        color=drawn.lines[0].get_color(),
        alpha=0.25,
        edgecolor="white",
    )
    foot.set_axis_off()
    return ax


def reliability_diagram_from_estimator(model: Any, X: Any, y: ArrayLike, **options: Any) -> Any:
    """Draw the `reliability_diagram` of a fitted classifier's ``predict_proba(X)``.

    Parameters
    ----------
    model : fitted classifier
        With `predict_proba` and `classes_`.
    X : array (N, D) or data frame
    y : array (N,)
        Labels.
    **options
        Those of `reliability_diagram` but `labels`; `name` is the class of the model by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError
        If the model has no `predict_proba`.
    ModuleNotFoundError, ValueError
        As `reliability_diagram`.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from sklearn.datasets import load_breast_cancer
    >>> from crossent.sklearn import SoftmaxRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = SoftmaxRegression().fit(X[::2, :4], y[::2])
    >>> ax = reliability_diagram_from_estimator(model, X[1::2, :4], y[1::2], pos_label=1)
    >>> ax.get_ylabel()
    'share of 1'
    """
    if not hasattr(model, "predict_proba"):
        raise TypeError(refuse("a reliability diagram needs a classifier with predict_proba", type(model).__name__))
    options = {"name": type(model).__name__, **options}
    return reliability_diagram(y, model.predict_proba(X), labels=model.classes_, **options)
