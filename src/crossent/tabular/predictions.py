"""Anyone's predictions: a table with the true labels and one column of probabilities or logits per class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

import crossent as ce

from .errors import InputError, name_list
from .model import Model
from .reading import as_numbers, require_column
from .training import encode_labels

Scale = Literal["probabilities", "logits"]
PROBABILITY_PREFIX = "probability_"
_PREFIXES = (PROBABILITY_PREFIX, "prob_", "proba_", "p_", "logit_", "logits_", "score_")

# A probability written with two digits is off by 0.005 at most; three classes may then miss 1 by 0.015.
_SUM_TOLERANCE = 0.02
_EXACT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Predictions:
    """Labels, log-probability of each label, and probabilities, of N rows and K classes."""

    source: str
    target: str
    scale: Scale
    classes: tuple[str, ...]
    codes: NDArray[np.intp]
    losses: NDArray[np.float64]  # -log p of the label, nats
    probabilities: NDArray[np.float64]
    notes: list[str]
    warnings: list[str]


def read_predictions(frame: pl.DataFrame, source: str, target: str, scale: Scale) -> Predictions:
    """Return predictions from a table, checked against what they are declared to be.

    The columns of the classes are called after the labels ("cat", "dog"), all of them perhaps with one of the prefixes
    probability_, prob_, proba_, p_, logit_, logits_, score_ in front; with a prefix, other columns are ignored.

    Raises
    ------
    InputError
        If a label has no column, a cell is missing or no number, or declared probabilities are none.
    """
    labels = require_column(frame, target, source)
    shown, codes_of_shown = encode_labels(labels)
    columns = _class_columns(frame, target, shown, source)
    classes = tuple(columns)
    codes = np.array([classes.index(label) for label in shown], dtype=np.intp)[codes_of_shown]
    values = np.column_stack([_numbers(frame[name], scale) for name in columns.values()])
    notes: list[str] = []
    warnings: list[str] = []
    if scale == "probabilities":
        probabilities = _check_probabilities(values, list(columns.values()), notes)
        with np.errstate(divide="ignore"):  # a label called impossible costs infinitely much
            losses = np.abs(np.log(probabilities[np.arange(len(codes)), codes]))
    else:
        if _is_simplex(values, _SUM_TOLERANCE):
            warnings.append(
                "these are declared logits, but every row lies between 0 and 1 and sums to 1, as probabilities do: "
                "if that is what they are, use --probabilities"
            )
        dead = np.flatnonzero(np.isneginf(values).all(axis=1))
        if dead.size:
            raise InputError(f"row {dead[0]} (counted from 0) has -infinity for every class")
        probabilities = np.asarray(ce.softmax(values))
        losses = np.asarray(ce.cross_entropy(values, codes, reduction="none"))
    return Predictions(source, target, scale, classes, codes, losses, probabilities, notes, warnings)


def _class_columns(frame: pl.DataFrame, target: str, labels: list[str], source: str) -> dict[str, str]:
    """Return class -> column."""
    others = [name for name in frame.columns if name != target]
    for prefix in _PREFIXES:
        if all(prefix + label in others for label in labels):
            return {name.removeprefix(prefix): name for name in others if name.startswith(prefix)}
    missing = [label for label in labels if label not in others]
    if missing:
        raise InputError(
            f"{source!r} has no column for label {missing[0]!r} of {target!r}: there should be one column per "
            "class, called "
            f"{missing[0]!r} or {PROBABILITY_PREFIX + missing[0]!r}; the columns are {name_list(frame.columns)}"
        )
    return {name: name for name in others if name in labels or as_numbers(frame[name]) is not None}


def _numbers(series: pl.Series, scale: Scale) -> NDArray[np.float64]:
    numbers = as_numbers(series)
    if numbers is None:
        raise InputError(f"column {series.name!r} should hold {scale} and holds {series.dtype} values")
    if numbers.null_count():
        raise InputError(
            f"column {series.name!r} has no value in row {int(numbers.is_null().arg_max() or 0)} (counted from 0)"
        )
    values = numbers.to_numpy().astype(np.float64)
    bad = np.isnan(values) | (values == np.inf)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"column {series.name!r} holds {values[row]} in row {row} (counted from 0)")
    return values


def _is_simplex(values: NDArray[np.float64], tolerance: float) -> bool:
    inside = bool(((values >= 0) & (values <= 1)).all())
    return inside and bool((np.abs(values.sum(axis=1) - 1) <= tolerance).all())


def _check_probabilities(values: NDArray[np.float64], columns: list[str], notes: list[str]) -> NDArray[np.float64]:
    outside = (values < 0) | (values > 1)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise InputError(
            f"these are declared probabilities, but column {columns[column]!r} holds {values[row, column]:g} in row "
            f"{row} "
            "(counted from 0): if they are logits, use --logits"
        )
    total = values.sum(axis=1)
    off = np.abs(total - 1)
    if off.max() > _SUM_TOLERANCE:
        row = int(np.argmax(off))
        raise InputError(
            f"these are declared probabilities, but row {row} (counted from 0) sums to {total[row]:.6g}, not 1, "
            "over the "
            f"columns {name_list(columns)}: a class may be missing, or a column there may be no class"
        )
    if off.max() > _EXACT_TOLERANCE:
        notes.append(
            f"the probabilities are rounded (a row sums to {total[int(np.argmax(off))]:.6g}): each row was divided "
            "by its sum"
        )
        return values / total[:, None]
    return values


def prediction_table(model: Model, frame: pl.DataFrame, source: str) -> pl.DataFrame:
    """Return the probabilities of every row, one column per class called after it, beside the predicted class.

    Where the table holds the target column, it comes along, so that the result can be judged by `read_predictions`.
    """
    probabilities = model.predict_probabilities(frame, source)
    names = [PROBABILITY_PREFIX + name for name in model.classes]
    columns: dict[str, pl.Series] = {}
    if model.target in frame.columns and model.target not in ("prediction", *names):
        columns[model.target] = frame[model.target]
    columns["prediction"] = pl.Series([model.classes[k] for k in np.argmax(probabilities, axis=1)])
    columns.update({name: pl.Series(probabilities[:, k]) for k, name in enumerate(names)})
    return pl.DataFrame(columns)
