"""What drives the predictions: what each column is worth, how they depend on it, and the model's coefficients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..sklearn import CoefficientSummary
from ..tabular import Model
from ..tabular.columns import as_numbers, as_text
from .slices import MOST_VALUES

__all__ = ["coefficients", "drivers"]

Float64 = NDArray[np.float64]
Codes = NDArray[np.intp]
Predict = Callable[[Any], Any]

LEVEL = 0.95
_Z = 1.959963984540054
# Importance takes so many rows, drawn at random, and no more columns: each is shuffled and predicted again.
ROWS = 2000
MOST_COLUMNS = 200
REPEATS = 5
PREDICTIONS = 200
DEPENDENT = 5
GRID = 15
CURVES = 3
STRONGEST_INPUTS = 12


def drivers(
    predict: Predict, X: Any, cells: pl.DataFrame, codes: Codes, classes: tuple[str, ...], seed: int = 0
) -> dict[str, Any] | None:
    """Return the permutation importance of each column (Breiman 2001), and the partial dependence of the strongest.

    The importance of a column is the mean log loss gained by it: that of the rows with this column's values shuffled,
    less that of the rows as they are, in nats. Its interval is that of the mean over the rows. The partial dependence
    (Friedman 2001) is the mean prediction where all rows hold the same value of a column.

    Parameters
    ----------
    predict : callable
        Returns probabilities (N, K) of rows of `X`.
    X : data frame or array (N, D)
        As the model reads it.
    cells : polars.DataFrame
        The same columns, to be read.
    codes : array (N,)
        Class indices.
    classes : tuple of str
    seed : int
        Draws rows and shuffles.

    Returns
    -------
    dict or None
        None where there are more columns than 200.
    """
    if not 0 < cells.width <= MOST_COLUMNS:
        return None
    rng = np.random.default_rng(seed)
    if len(codes) > ROWS:
        rows = np.sort(rng.choice(len(codes), ROWS, replace=False))
        X, cells, codes = _rows(X, rows), cells[rows], codes[rows]
    before = _losses(predict(X), codes)
    repeats = max(1, min(REPEATS, PREDICTIONS // cells.width))
    columns: list[dict[str, Any]] = []
    for j, name in enumerate(cells.columns):
        orders = (rng.permutation(len(codes)) for _ in range(repeats))
        gains = np.mean([_losses(predict(_with_column(X, j, order)), codes) - before for order in orders], axis=0)
        columns.append({"column": name, "place": j, **_interval(gains), "per_class": _by_class(gains, codes, classes)})
    columns.sort(key=lambda entry: -entry["gain"])
    strongest = [(entry["column"], entry.pop("place")) for entry in columns][:DEPENDENT]
    gaining = {entry["column"] for entry in columns if entry["gain"] > 0}
    return {
        "rows": len(codes),
        "repeats": repeats,
        "level": LEVEL,
        "columns": columns,
        "dependence": [_dependence(predict, X, cells, classes, j) for name, j in strongest if name in gaining],
    }


def _rows(X: Any, rows: Codes) -> Any:
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    return frame[rows].to_native() if isinstance(frame, nw.DataFrame) else np.asarray(X)[rows]


def _with_column(X: Any, j: int, rows: Codes) -> Any:
    """Return X with the values of column j taken from other rows."""
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return frame.with_columns(frame[frame.columns[j]][rows]).to_native()
    changed = np.array(X)
    changed[:, j] = changed[rows, j]
    return changed


def _losses(probabilities: Any, codes: Codes) -> Float64:
    """Return the losses of rows, in which a probability of 0 counts as half a row's share."""
    p = np.asarray(probabilities, dtype=np.float64)[np.arange(len(codes)), codes]
    return np.asarray(-np.log(np.maximum(p, 0.5 / len(p))))


def _interval(gains: Float64) -> dict[str, float]:
    mean, reach = float(gains.mean()), _Z * float(gains.std(ddof=1)) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return {"gain": mean, "lower": mean - reach, "upper": mean + reach}


def _by_class(gains: Float64, codes: Codes, classes: tuple[str, ...]) -> list[float | None]:
    rows = np.bincount(codes, minlength=len(classes))
    sums = np.bincount(codes, weights=gains, minlength=len(classes))
    return [float(total / n) if n else None for total, n in zip(sums, rows, strict=True)]


def _dependence(predict: Predict, X: Any, cells: pl.DataFrame, classes: tuple[str, ...], j: int) -> dict[str, Any]:
    """Return the mean prediction at the values of a column: its common categories, or quantiles from 5 % to 95 %."""
    column = cells.to_series(j)
    numbers = as_numbers(column)
    values: list[Any]
    if numbers is not None:
        held = numbers.to_numpy()
        order = np.argsort(held)[: int(np.sum(~np.isnan(held)))]  # rows without a value stand last
        if len(np.unique(held[order])) <= MOST_VALUES:
            rows = order[np.unique(held[order], return_index=True)[1]]
        else:
            chosen = order[np.round(np.linspace(0.05, 0.95, GRID) * (len(order) - 1)).astype(int)]
            rows = chosen[np.unique(held[chosen], return_index=True)[1]]
        values = held[rows].tolist()
    else:
        words = as_text(column)
        values = words.drop_nulls().value_counts(sort=True)[:MOST_VALUES][column.name].to_list()
        rows = np.array([int(words.index_of(value) or 0) for value in values])
    means = np.array([np.mean(predict(_with_column(X, j, np.full(len(cells), row))), axis=0) for row in rows])
    shown = [1] if len(classes) == 2 else np.sort(np.argsort(-np.ptp(means, axis=0), kind="stable")[:CURVES])
    return {
        "column": column.name,
        "kind": "categories" if numbers is None else "numbers",
        "values": values,
        "curves": [{"label": classes[k], "probabilities": means[:, k].tolist()} for k in shown],
    }


def coefficients(
    model: Model, fitted: CoefficientSummary | None, temperature: float, matrix: Float64
) -> list[dict[str, Any]]:
    """Return each class's strongest inputs with their coefficients: signed, standardised, with intervals where known.

    Strong is what moves the logits of the rows of `matrix`, (N, D): coefficient times standard deviation there.

    A column of numbers counts in standard deviations, a category as present or not. Of two classes these are the
    log-odds of the second, of more classes each one's distance to the mean of all, and with the sigmoid link each
    class's own.
    """
    names = model.preprocessing.input_names
    values = model.coef
    errors = np.full(values.shape, np.nan)
    classes = list(model.classes)
    if len(classes) == 2:
        values, classes = values[1:] - values[:1], classes[1:]
        if fitted is not None:
            errors = fitted.standard_errors[:, :-1] / temperature
    elif model.link == "softmax":
        values = values - values.mean(axis=0)
        if fitted is not None:
            num_contrasts, size = fitted.coefficients.shape
            back = np.linalg.pinv(np.column_stack([-np.ones(num_contrasts), np.eye(num_contrasts)]))
            covariance = fitted.covariance.reshape(num_contrasts, size, num_contrasts, size)
            errors = np.sqrt(np.einsum("ki,kj,idjd->kd", back, back, covariance))[:, :-1] / temperature
    elif fitted is not None:
        errors = fitted.standard_errors[:, :-1]
    spread = matrix.std(axis=0)
    reach = np.where(np.isnan(errors), np.nan, _Z * errors)
    found = []
    for k, label in enumerate(classes):
        strongest = np.argsort(-np.abs(values[k]) * spread, kind="stable")[:STRONGEST_INPUTS]
        inputs = [
            {
                "input": names[d],
                "value": float(values[k, d]),
                "lower": None if np.isnan(reach[k, d]) else float(values[k, d] - reach[k, d]),
                "upper": None if np.isnan(reach[k, d]) else float(values[k, d] + reach[k, d]),
            }
            for d in strongest
        ]
        found.append({"label": label, "inputs": inputs})
    return found
