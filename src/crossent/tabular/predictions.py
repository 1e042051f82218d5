"""Anyone's predictions: a table with the true labels and one column of probabilities or logits per class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NoReturn

import numpy as np
import polars as pl
from numpy.typing import NDArray

import crossent as ce

from .columns import as_numbers, as_text
from .errors import InputError, name_list
from .labels import encode_labels, truth_value, whole_number
from .reading import remaining_columns, require_columns
from .spreadsheets import read_labels

Scale = Literal["probabilities", "logits"]
PROBABILITY_PREFIX = "probability_"
PREDICTED_CLASS = "prediction"
_PREFIXES = (PROBABILITY_PREFIX, "prob_", "proba_", "p_", "logit_", "logits_", "score_")
# What one column for both of two labels may be called where the labels themselves say which is the positive one.
_POSITIVE_NAMES = tuple(start + prefix.rstrip("_") for start in ("", "y_") for prefix in _PREFIXES)
_POSITIVE_LABELS = (("0", "1"), ("-1", "1"), ("false", "true"))

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
    logits: NDArray[np.float64] | None = None  # where logits were given
    others: pl.DataFrame | None = None  # the columns that are neither labels nor predictions
    columns: dict[str, str] = field(default_factory=dict)  # class -> column; of two classes perhaps one
    weights: NDArray[np.float64] | None = None  # how much each row counts; None: all alike


def read_predictions(
    frame: pl.DataFrame, source: str, target: str, scale: Scale, *, drop: list[str] | None = None
) -> Predictions:
    """Return predictions from a table, checked against what they are declared to be.

    The columns of the classes are called after the labels ("cat", "dog"), all of them perhaps with one of the prefixes
    probability_, prob_, proba_, p_, logit_, logits_, score_ in front. With a prefix, every column that has it is a
    class, one that no row is labelled with too, and other columns are ignored. Without one, another column of numbers
    is refused unless it is in `drop`: nothing tells whether it is a class.

    For two labels one column is enough: the other label has the rest of the probability, or the logit 0. It is called
    after its label as above; where the labels are 0 and 1, -1 and 1, or false and true, it may be called after the
    prefix alone and belongs to the second ("p", "score", "probability" …, perhaps with y_ in front).

    Labels that were written with an apostrophe, lest a spreadsheet run them as formulas, are read without it where a
    column is called so.

    Raises
    ------
    InputError
        If a label has no column, a column of numbers is no class, a cell is missing or no number, or declared
        probabilities are none.
    """
    drop = drop or []
    remaining_columns(frame.columns, target, drop, source)  # refuses what cannot be left out
    labels, whole = frame[target], frame
    frame = frame.drop(drop)
    names = _possible_labels(frame.columns)
    shown, codes_of_shown = encode_labels(labels, names)
    shown = read_labels(shown, names)
    columns = _class_columns(frame, target, shown, source, scale)
    others = whole.drop(target, PREDICTED_CLASS, *columns.values(), strict=False)
    is_single = len(columns) == 1
    classes = tuple(shown if is_single else columns)
    code_of = {label: code for code, label in enumerate(classes)}
    codes = np.array([code_of[label] for label in shown], dtype=np.intp)[codes_of_shown]
    values = np.column_stack([_numbers(frame[name], scale) for name in columns.values()])
    notes: list[str] = []
    if is_single:
        ((label, column),) = columns.items()
        place = code_of[label]
        rest = "1 minus it" if scale == "probabilities" else "logit 0"
        notes.append(f"column {column!r} holds the {scale} of label {label!r}; {classes[1 - place]!r} has {rest}")
    warnings: list[str] = []
    if scale == "probabilities":
        _refuse_outside(values, list(columns.values()))
        if not is_single:
            values = _check_sums(values, list(columns.values()), notes)
    else:
        if is_single:
            suspect = "one lies between 0 and 1" if _is_between_0_and_1(values) else ""
        else:
            suspect = "row lies between 0 and 1 and sums to 1" if _is_simplex(values, _SUM_TOLERANCE) else ""
        if suspect:
            warnings.append(
                f"these are declared logits, but every {suspect}, as probabilities do: if that is what they are, use "
                "--probabilities"
            )
        dead = np.flatnonzero(np.isneginf(values).all(axis=1) & (not is_single))
        if dead.size:
            raise InputError(f"row {dead[0]} (counted from 0) has -infinity for every class")
    scores = score(values, codes, scale, place if is_single else 0)
    return Predictions(
        source, target, scale, classes, codes, *scores[:2], notes, warnings, scores.logits, others, columns
    )


class Scores(NamedTuple):
    """Losses (N,) in nats, probabilities (N, K), and logits (N, K) where logits were given."""

    losses: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    logits: NDArray[np.float64] | None


def score(values: NDArray[np.float64], codes: NDArray[np.intp], scale: Scale, place: int) -> Scores:
    """Return what checked predictions cost.

    Parameters
    ----------
    values : array (N, K), or (N, 1) for two classes
        One column is of the class `place`; the other one has the rest of the probability, or the logit 0.
    codes : array (N,)
        Class indices.
    scale : {"probabilities", "logits"}
    place : int

    Examples
    --------
    >>> score(np.array([[0.25], [0.5]]), np.array([0, 1]), "probabilities", 1).losses.round(4).tolist()
    [0.2877, 0.6931]
    """
    is_single = values.shape[1] == 1
    if scale == "logits":
        logits = _beside(values, np.zeros_like(values), place) if is_single else values
        losses = np.asarray(ce.cross_entropy(logits, codes, reduction="none"))
        return Scores(losses, np.asarray(ce.softmax(logits)), logits)
    probabilities = _beside(values, 1 - values, place) if is_single else values
    with np.errstate(divide="ignore"):  # a label called impossible costs infinitely much
        logs = _beside(np.log(values), np.log1p(-values), place) if is_single else np.log(values)
    return Scores(np.abs(logs[np.arange(len(codes)), codes]), probabilities, None)


def join_by(frames: list[pl.DataFrame], sources: list[str], column: str) -> tuple[list[pl.DataFrame], list[str]]:
    """Return the rows whose ids are in every table, in the order of the first one, and a note on those left out.

    Raises
    ------
    InputError
        If a table lacks the column, an id is missing or not unique, or no id is in every table.
    """
    places = []
    for frame, source in zip(frames, sources, strict=True):
        require_columns(frame.columns, [column], source)
        ids = as_text(frame[column])
        if ids.null_count():
            raise InputError(f"column {column!r} of {source!r} has no id in row {ids.is_null().arg_max()} (from 0)")
        if (repeated := ids.is_duplicated()).any():
            raise InputError(
                f"id {ids[int(repeated.arg_max() or 0)]!r} of column {column!r} is in several rows of {source!r}"
            )
        places.append({name: row for row, name in enumerate(ids)})
    common = [name for name in places[0] if all(name in place for place in places)]
    if not common:
        raise InputError(f"no id of column {column!r} is in {' and '.join(map(repr, sources))} alike")
    notes = [
        f"{frame.height - len(common):,} of {frame.height:,} rows of {source!r} have ids that are not in every file"
        for frame, source in zip(frames, sources, strict=True)
        if frame.height > len(common)
    ]
    return [frame[[place[name] for name in common]] for frame, place in zip(frames, places, strict=True)], notes


def _beside(column: NDArray[np.float64], rest: NDArray[np.float64], place: int) -> NDArray[np.float64]:
    """Return two columns: the one of the label at `place`, and what the other label has."""
    return np.hstack([column, rest] if place == 0 else [rest, column])


def _possible_labels(columns: list[str]) -> set[str]:
    """Return the labels that columns may be called after, with a prefix or without."""
    return {name.removeprefix(prefix) for name in columns for prefix in ("", *_PREFIXES)}


def _class_columns(frame: pl.DataFrame, target: str, labels: list[str], source: str, scale: Scale) -> dict[str, str]:
    """Return class -> column: of every class, or of one of two labels."""
    others = [name for name in frame.columns if name != target]
    prefix = "logit_" if scale == "logits" else PROBABILITY_PREFIX
    starts = reversed(_PREFIXES) if scale == "logits" else _PREFIXES
    by_prefix = [_by_class(others, labels, start) for start in starts]
    known = set(labels)
    by_name = {label: name for label, name in _by_class(others, labels, "").items() if label in known}
    for columns in by_prefix:
        if len(columns) > 1 and columns.keys() >= known:
            return columns
    if by_name.keys() != known and len(labels) == 2:
        for columns in by_prefix:
            if len(columns) == 1 and columns.keys() <= known:
                return columns
    if by_name.keys() == known or (by_name and len(labels) == 2):
        _refuse_other_numbers(frame.drop(target, *by_name.values()), target, source, prefix)
        if len(labels) == 1:
            raise InputError(
                f"every row of {source!r} is labelled {labels[0]!r}, and no other class has a column: call the column "
                f"of every class with a prefix ({prefix + labels[0]!r})"
            )
        return by_name
    return _positive_column(others, labels, source) or _no_column(frame, target, labels, by_name, source, prefix)


def _by_class(names: list[str], labels: list[str], prefix: str) -> dict[str, str]:
    """Return class -> column of the columns with a prefix.

    Where labels are integers, "1.0" is class "1"; where they are false and true, so are "False" and "True".
    """
    rules = (whole_number, truth_value)
    plain = next((rule for rule in rules if all(rule(label) == label for label in labels)), None)
    found: dict[str, str] = {}
    for name in names:
        if not name.startswith(prefix):
            continue
        label = name.removeprefix(prefix)
        label = (plain and plain(label)) or label
        if label in found:
            raise InputError(f"columns {found[label]!r} and {name!r} name the same class: leave one out with --drop")
        found[label] = name
    return found


def _positive_column(names: list[str], labels: list[str], source: str) -> dict[str, str]:
    """Return the second of two labels -> the column that is called after a prefix alone, if there is one."""
    if tuple(label.lower() for label in labels) not in _POSITIVE_LABELS:
        return {}
    named = [name for name in names if name.lower() in _POSITIVE_NAMES]
    if len(named) > 1:
        raise InputError(
            f"columns {name_list(named)} of {source!r} could each be the predictions for label {labels[1]!r}: "
            "leave the others out with --drop"
        )
    return dict(zip(labels[1:], named, strict=False))


def _refuse_other_numbers(others: pl.DataFrame, target: str, source: str, prefix: str) -> None:
    numbers = {series.name: as_numbers(series) for series in others.iter_columns()}
    names = [name for name, column in numbers.items() if column is not None and column.null_count() < len(column)]
    if names:
        which = f"column {names[0]!r}" if len(names) == 1 else f"columns {name_list(names)}"
        raise InputError(
            f"no label of {target!r} gives its name to {which} of {source!r}, so nothing tells whether it is a class: "
            f"leave it out with --drop, or call the column of every class with a prefix ({prefix + names[0]!r})"
        )


def _no_column(
    frame: pl.DataFrame, target: str, labels: list[str], found: dict[str, str], source: str, prefix: str
) -> NoReturn:
    missing = next(label for label in labels if label not in found)
    raise InputError(
        f"{source!r} has no column for label {missing!r} of {target!r}: there should be one column per class, called "
        f"{missing!r} or {prefix + missing!r}{', or one of the two' * (len(labels) == 2)}; "
        f"the columns are {name_list(frame.columns)}"
    )


def _refuse_outside(values: NDArray[np.float64], columns: list[str]) -> None:
    outside = (values < 0) | (values > 1)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise InputError(
            f"these are declared probabilities, but column {columns[column]!r} holds {values[row, column]:g} in row "
            f"{row} (counted from 0): if they are logits, use --logits"
        )


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


def _is_between_0_and_1(values: NDArray[np.float64]) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _is_simplex(values: NDArray[np.float64], tolerance: float) -> bool:
    return _is_between_0_and_1(values) and bool((np.abs(values.sum(axis=1) - 1) <= tolerance).all())


def _check_sums(values: NDArray[np.float64], columns: list[str], notes: list[str]) -> NDArray[np.float64]:
    """Return probabilities whose rows sum to 1, if those that were given do so but for rounding."""
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
