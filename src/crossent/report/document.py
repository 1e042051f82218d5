"""The report from Python: what `crossent report` writes, as an object that shows itself in a notebook."""

from __future__ import annotations

import copy
import html
import io
import os
from pathlib import Path
from typing import Any, Self

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from scipy.sparse import issparse

from crossent import sigmoid, softmax

from ..errors import describe, refuse
from ..files import write_together
from ..metrics.predictions import check_predictions
from ..tabular import Predictions
from ..tabular.predictions import Scale, score
from . import charts
from .charts import LIGHT
from .compare import compare_predictions, verdict
from .drivers import drivers
from .files import report_files
from .html import render_html
from .summarize import summarize_predictions
from .terminal import render_terminal
from .two_classes import EVEN, Decision
from .words import loss, percent

__all__ = ["Report", "evaluate", "from_estimator"]

_SIMPLEX_TOLERANCE = 1e-2


# What each plot reads of the report, and what draws it.
_PLOTS = {
    "reliability": ("reliability", charts.draw_reliability),
    "roc": ("two_classes", charts.draw_roc),
    "precision_recall": ("two_classes", charts.draw_precision),
    "scores": ("two_classes", charts.draw_scores),
    "importance": ("drivers", charts.draw_importance),
}


class Report:
    """A report on predictions, made by :func:`evaluate`, :func:`from_estimator` or :meth:`compare`.

    In a notebook it shows the page of `crossent report`; ``print`` shows what the terminal would.

    Examples
    --------
    >>> from crossent.report import evaluate
    >>> report = evaluate(["a", "b", "b"], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> report
    <Report of 3 rows: loss 0.4149 nats, accuracy 66.7 %>
    >>> round(report.to_dict()["loss"]["bits"], 4)
    0.5986
    """

    def __init__(self, summary: dict[str, Any], judged: Predictions | None = None, decision: Decision = EVEN) -> None:
        self._summary, self._judged, self._decision = summary, judged, decision

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as `report.json` has them (schema ``crossent.report/1``), in a dict of its own."""
        return copy.deepcopy(self._summary)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write ``report.json`` and ``report.html`` into a folder; return their paths.

        Raises
        ------
        FileExistsError
            If one of them is there and `overwrite` is False.
        OSError
            If one cannot be written. Then neither has changed.
        """
        files = report_files(self._summary, Path(folder))
        there = [path for path in files if os.path.lexists(path)]
        if there and not overwrite:
            asked = "save writes into a folder without a report"
            raise FileExistsError(refuse(asked, repr(str(there[0])), "another folder, or overwrite=True"))
        write_together(files)
        return list(files)

    def plot(self, kind: str = "reliability") -> Figure:
        """Return a matplotlib figure.

        Parameters
        ----------
        kind : {"reliability", "roc", "precision_recall", "scores", "importance"}
            "reliability": accuracy against confidence with intervals, above the rows of each bin. Of two classes: the
            ROC and precision-recall curves, and the shares and distribution of P(positive). "importance": the nats that
            each of the strongest columns is worth, of a report made from an estimator.

        Raises
        ------
        ValueError
            For a comparison, which has two: plot each report. Also for another word, and for what this report lacks.

        Examples
        --------
        >>> from crossent.report import evaluate
        >>> report = evaluate([0, 1, 1, 0], [0.2, 0.7, 0.4, 0.1], scale="probabilities")
        >>> report.plot("roc").axes[0].get_ylabel()
        'recall'
        """
        self._refuse_comparison("plot draws one report", "plot each of the two")
        if kind not in _PLOTS:
            raise ValueError(refuse(f"kind must be one of {', '.join(_PLOTS)}", repr(kind)))
        part, draw = _PLOTS[kind]
        if self._summary[part] is None:
            needs = {"two_classes": "two classes", "drivers": "from_estimator, with at most 200 columns"}[part]
            raise ValueError(refuse(f"plot({kind!r}) needs a report of {needs}", repr(self)))
        figure = Figure(figsize=(5.2, 4.6), layout="constrained")
        draw(figure, LIGHT, self._summary[part])
        return figure

    def compare(self, other: Self) -> Report:
        """Return the comparison with another report: both, and the paired difference of losses with its interval.

        Raises
        ------
        ValueError
                If one of the two is a comparison or has weights, or their classes differ.
        """
        for report in (self, other):
            report._refuse_comparison("compare takes reports on predictions", "the reports it was made of")
            if report._judged is not None and report._judged.weights is not None:
                raise ValueError(refuse("compare takes reports on rows that count alike", "sample_weight"))
        return Report(compare_predictions(self._judged, other._judged, self._decision))  # type: ignore[arg-type]

    def _refuse_comparison(self, asked: str, works: str) -> None:
        if self._judged is None:
            raise ValueError(refuse(asked, "a comparison of two", works))

    def __repr__(self) -> str:
        if self._judged is None:
            return f"<Report: {verdict(self._summary)[0]}>"
        score = self._summary["accuracy"]
        nats = loss(self._summary["loss"]["nats"])
        return f"<Report of {score['rows']} rows: loss {nats} nats, accuracy {percent(score['value'])}>"

    def __str__(self) -> str:
        text = io.StringIO()
        render_terminal(self._summary, Console(file=text, width=100, color_system=None))
        return text.getvalue()

    def _repr_html_(self) -> str:
        # A page within the page: neither's style reaches the other, and the report's content policy stays.
        page = html.escape(render_html(self._summary), quote=True)
        return f'<iframe title="crossent report" srcdoc="{page}" style="width:100%;height:44rem;border:0"></iframe>'


def evaluate(
    y: ArrayLike,
    predictions: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    X: Any = None,
    sample_weight: ArrayLike | None = None,
    scale: Scale | None = None,
    decision: Decision = EVEN,
    name: str = "predictions",
    target: str = "y",
) -> Report:
    """Return the report on predictions beside their labels, in nats and bits.

    The loss is the mean of ``-log p`` of the labels; the baseline is what predicting the rows' own class shares costs.

    Parameters
    ----------
    y : array (N,)
        Labels.
    predictions : array (N, K), or (N,) for two classes
        Probabilities, or logits. One column is the probability of the second class, or its logit beside 0.
    classes : array (K,), optional
        The label of each column. By default the sorted labels of `y`.
    X : array (N, D) or data frame, optional
        What to show beside a row that surprises (the first twelve columns), and to cut the rows into slices by.
    sample_weight : array (N,), optional
        How much each row counts in means and shares. Areas then have no intervals, and no temperature is tried.
    scale : {"probabilities", "logits"}, optional
        By default "probabilities" where every row lies in [0, 1] and sums to 1.
    decision : Decision(positive, false_negative, false_positive)
        Of two classes: the one that is looked for (by default the second), and what both mistakes cost.
    name, target : str
        What the page calls the predictions and the labels.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If shapes disagree, a label has no column, there are no rows, what are to be probabilities are none, or the
        numbers do not tell which they are.

    Examples
    --------
    >>> from crossent.report import evaluate
    >>> evaluate([0, 1, 1], [[2.0, 0.0], [0.0, 1.5], [0.5, 0.0]])  # logits
    <Report of 3 rows: loss 0.4341 nats, accuracy 66.7 %>
    """
    judged = _judged(y, predictions, classes, X, sample_weight, scale, name, target)
    return Report(summarize_predictions(judged, decision), judged, decision)


def _judged(
    y: ArrayLike,
    predictions: ArrayLike,
    classes: ArrayLike | None,
    X: Any,
    sample_weight: ArrayLike | None,
    scale: Scale | None,
    name: str,
    target: str,
) -> Predictions:
    """Return what `evaluate` was given, checked."""
    values = np.asarray(predictions)
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
    scale = _scale_of(values) if scale is None else scale
    if scale not in ("probabilities", "logits"):
        raise ValueError(refuse('scale must be "probabilities", "logits" or None', repr(scale)))
    probabilities = values
    if scale == "logits":
        probabilities = sigmoid(values) if values.ndim == 1 else softmax(values, axis=-1)
    checked = check_predictions(y, probabilities, classes, sample_weight)
    columns = values[:, None] if values.ndim == 1 else values
    scores = score(columns.astype(np.float64, copy=False), checked.codes, scale, 1)
    labels = tuple(map(str, checked.labels.tolist()))
    cells = _cells(X, len(values))
    return Predictions(
        name, target, scale, labels, checked.codes, *scores[:2], [], [], scores.logits, cells, weights=checked.weights
    )


def from_estimator(
    model: Any,
    X: Any,
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    decision: Decision = EVEN,
    name: str | None = None,
    target: str = "y",
) -> Report:
    """Return the report on a fitted classifier: :func:`evaluate` of its ``predict_proba(X)``, and what drives it.

    The report also has the permutation importance of each column of X on these rows, in nats of log loss gained, and
    how the predictions depend on the strongest five. Both predict again, some 200 times for up to 2000 rows; more than
    200 columns, or a sparse X, go without.

    Parameters
    ----------
    model : fitted classifier
        With `predict_proba` and `classes_`, as scikit-learn's have.
    X : array (N, D) or data frame
    y : array (N,)
    sample_weight, decision
        As of :func:`evaluate`.
    name, target : str
        What the page calls the model (by default its class) and the labels.

    Returns
    -------
    Report

    Raises
    ------
    TypeError
        If the model has no `predict_proba`.
    ValueError
        As :func:`evaluate`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from crossent.report import from_estimator
    >>> from crossent.sklearn import SoftmaxRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> from_estimator(SoftmaxRegression().fit(X[::2], y[::2]), X[1::2], y[1::2])
    <Report of 75 rows: loss 0.1638 nats, accuracy 96.0 %>
    """
    if not hasattr(model, "predict_proba"):
        works = "for other models: evaluate(y, probabilities)"
        raise TypeError(refuse("from_estimator needs a classifier with predict_proba", type(model).__name__, works))
    name = type(model).__name__ if name is None else name
    shown = None if issparse(X) else X
    judged = _judged(y, model.predict_proba(X), model.classes_, shown, sample_weight, "probabilities", name, target)
    cells = judged.others
    found = None if cells is None else drivers(model.predict_proba, X, cells, judged.codes, judged.classes)
    return Report(summarize_predictions(judged, decision, found_drivers=found), judged, decision)


def _scale_of(values: NDArray[np.float64]) -> Scale:
    """Return what the numbers are, where they tell."""
    if not ((values >= 0) & (values <= 1)).all():
        return "logits"
    if values.ndim == 2 and (np.abs(values.sum(axis=1) - 1) <= _SIMPLEX_TOLERANCE).all():
        return "probabilities"
    works = 'scale="probabilities" or scale="logits"'
    raise ValueError(refuse("the numbers must tell whether they are probabilities or logits", describe(values), works))


def _cells(X: Any, num_rows: int) -> pl.DataFrame | None:
    """Return the cells to show beside a row."""
    if X is None:
        return None
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        cells = pl.DataFrame({str(name): frame[name].to_list() for name in frame.columns}, strict=False)
    else:
        array = np.asarray(X)
        if array.ndim != 2:
            raise ValueError(refuse("X must be a data frame or an array (N, D)", describe(array)))
        cells = pl.DataFrame(array, schema=[f"column {k}" for k in range(array.shape[1])])
    if cells.height != num_rows:
        raise ValueError(refuse(f"X must have {num_rows} rows, one for each prediction", f"{cells.height} rows"))
    return cells
