"""Train on a table: hold out a stratified test part, preprocess, fit, and keep what a report needs."""

from __future__ import annotations

import math
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

import crossent as ce

from ..sklearn import SoftmaxRegression, SoftmaxRegressionCV
from ..sklearn.path import DEFAULT_CS
from .calibrating import cross_fit
from .columns import EXACT_INTEGERS, TRUTH_VALUES, as_numbers, as_text, refuse_unnamed
from .errors import InputError, name_list
from .model import Model
from .preprocessing import Preprocessing, category_notes
from .reading import drop_columns, require_column
from .results import Calibration, DataSummary, TrainedModel

_WHOLE_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(\.0*)?")


@dataclass(frozen=True, kw_only=True)
class TrainedTable(TrainedModel):
    """A model trained on a table in memory, with the table. Rows are counted from 0 in the table as read."""

    frame: pl.DataFrame
    codes: NDArray[np.intp]  # class index of every row
    training: NDArray[np.intp]  # row numbers
    training_losses: NDArray[np.float64]  # nats, one per training row


def fit_table(
    frame: pl.DataFrame,
    source: str,
    target: str,
    *,
    drop: list[str] | None = None,
    test_size: float = 0.25,
    calibration_size: float = 0.0,
    seed: int = 0,
    strength: float = 1.0,
    tolerance: float = 1e-4,
    max_iter: int = 1000,
    sweep: bool = False,
    callback: Callable[[dict[str, Any]], None] | None = None,
    checkpoint: Path | None = None,
    checkpoint_interval: float = 60.0,
) -> TrainedTable:
    """Train a softmax regression on a table.

    Parameters
    ----------
    frame : polars.DataFrame
        One column holds the labels, the others are features.
    source : str
        Where the table came from, for messages and the report.
    target : str
        The column of labels.
    drop : list of str, optional
        Columns to leave out.
    test_size : float
        Share of the rows to hold out, each class in proportion.
    calibration_size : float
        Share of the training rows in a fold of the cross-fit that finds a temperature (`cross_fit`); 0 calibrates
        nothing. The model itself is trained on all training rows.
    seed : int
        Seed of the splits. The same seed gives the same model.
    strength : float
        The estimator's C: the weight of the losses beside ½‖W‖².
    tolerance, max_iter : float, int
        When the optimiser stops: relative duality gap, iterations.
    sweep : bool
        Choose C by cross-validation on the training part, from a range of values; `strength` is then not used.
    callback : callable, optional
        Called with every entry of the optimiser's history; in a sweep the entry also says which fit it is of, from 1
        ("fit"), and of how many ("fits").
    checkpoint, checkpoint_interval : path, float
        As the estimator takes them; a sweep has none.

    Raises
    ------
    InputError
        If the table cannot be learned from, with the reason in one sentence.
    """
    labels = require_column(frame, target, source)
    features = drop_columns(frame, drop, target, source).drop(target)
    if features.width == 0:
        raise InputError(f"{source!r} has no column beside {target!r} to learn from")
    refuse_unnamed([target, *features.columns], source)
    classes, codes = encode_labels(labels)
    check_classes(classes, np.bincount(codes, minlength=len(classes)), labels)
    training, test = _split(codes, len(classes), test_size, seed)
    preprocessing = Preprocessing.fit(features, training)
    if not preprocessing.input_names:
        raise InputError(f"no column of {source!r} holds a value in the training part")
    cells = preprocessing.read(features, source)
    matrix = preprocessing.encode(cells)

    common: dict[str, Any] = {"tol": tolerance, "max_iter": max_iter, "callback": callback}
    if sweep:
        folds = _folds(codes[training])
        if callback is not None:
            common["callback"] = _count_fits(callback, folds * DEFAULT_CS + 1)  # the last is to all training rows
        estimator = SoftmaxRegressionCV(DEFAULT_CS, cv=folds, **common)
    else:
        kept: dict[str, Any] = {"checkpoint": checkpoint, "checkpoint_interval": checkpoint_interval}
        estimator = SoftmaxRegression(strength, **common, **kept)
    warned = fit_estimator(estimator, matrix[training], codes[training])
    if isinstance(estimator, SoftmaxRegressionCV):
        strength = float(estimator.C_)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the fold models, which only lend their logits
        warnings.filterwarnings("error", ".*interrupted after", ConvergenceWarning)
        try:
            calibration, calibration_notes = cross_fit(
                lambda: SoftmaxRegression(strength, tol=tolerance, max_iter=max_iter),
                matrix,
                codes,
                training,
                calibration_size,
                seed,
            )
        except ConvergenceWarning as error:
            raise KeyboardInterrupt from error
    chosen: list[str] = []
    if isinstance(estimator, SoftmaxRegressionCV):
        tried = f"{len(estimator.Cs_)} values from {estimator.Cs_[0]:g} to {estimator.Cs_[-1]:g}"
        chosen = [f"C = {strength:.3g} has the least held-out log-loss of {tried} ({len(estimator.losses_)} folds)"]
    model = build_model(
        preprocessing,
        estimator,
        calibration,
        classes,
        target,
        {
            "source": source,
            "training_rows": len(training),
            "class_counts": np.bincount(codes[training], minlength=len(classes)).tolist(),
            "C": strength,
            "tolerance": tolerance,
            "seed": seed,
            "test_size": test_size,
        },
    )
    logits = model.logits_of(matrix)
    losses = np.asarray(ce.cross_entropy(logits[training], codes[training], reduction="none"))
    others = frame.drop(target)
    return TrainedTable(
        model=model,
        source=source,
        data=DataSummary(
            rows=frame.height,
            unused_columns=[name for name in others.columns if name not in preprocessing.column_names],
            missing_cells=sum(series.null_count() for series in cells.iter_columns()),
            class_counts=np.bincount(codes, minlength=len(classes)),
            training_counts=np.bincount(codes[training], minlength=len(classes)),
            test_rows=len(test),
            training_loss=float(np.mean(losses)),
            cells=others[test],
        ),
        frame=frame,
        codes=codes,
        training=training,
        test=test,
        test_codes=codes[test],
        test_logits=logits[test],
        training_losses=losses,
        **optimiser_summary(estimator),
        tolerance=tolerance,
        seed=seed,
        notes=[
            *chosen,
            *label_notes(classes, target),
            *_notes(cells, preprocessing, training),
            *warned,
            *calibration_notes,
        ],
        calibration=calibration,
    )


def fit_estimator(estimator: SoftmaxRegression, X: Any, codes: NDArray[Any]) -> list[str]:
    """Fit, and return the first lines of what the estimator warns of.

    Raises
    ------
    InputError
        If the estimator refuses the data.
    KeyboardInterrupt
        If it was interrupted: it keeps its best coefficients, but a file of half a training is not wanted.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.fit(X, codes)
        except ValueError as error:
            raise InputError(str(error)) from error
    if any("interrupted after" in str(warning.message) for warning in caught):
        raise KeyboardInterrupt
    return [str(warning.message).splitlines()[0] for warning in caught]


def build_model(
    preprocessing: Preprocessing,
    estimator: SoftmaxRegression,
    calibration: Calibration | None,
    classes: list[str],
    target: str,
    training: dict[str, Any],
) -> Model:
    """Return the model of a fitted estimator, its coefficients divided by the temperature."""
    temperature = 1.0 if calibration is None else calibration.temperature
    if calibration is not None:
        training = {**training, "temperature": temperature, "calibration_rows": len(calibration.rows)}
    return Model(
        preprocessing,
        np.asarray(estimator.coef_, dtype=np.float64) / temperature,
        np.asarray(estimator.intercept_, dtype=np.float64) / temperature,
        tuple(classes),
        target,
        training,
    )


def optimiser_summary(estimator: SoftmaxRegression) -> dict[str, Any]:
    """Return how a fit went, as fields of `TrainedModel`."""
    gap = float(estimator.duality_gap_)
    return {
        "history": [dict(entry) for entry in estimator.history_],
        "duality_gap": gap if math.isfinite(gap) else None,
        "iterations": int(np.max(estimator.n_iter_)),
    }


def encode_labels(labels: pl.Series, names: Iterable[str] = ()) -> tuple[list[str], NDArray[np.intp]]:
    """Return the classes, as text in the order of their own type (2 before 10), and each row's class index.

    Text is a class as it is written, in the order of the numbers where every label is one. If all labels are whole
    numbers, each is written as an integer ("1.0" is class "1"), and if all are true and false, in lower case ("True" is
    "true"), but only where no two labels become one, nor two of `names`. Floats that are integers, all of them, are
    written as such too: 0.0 is class "0".

    Parameters
    ----------
    labels : polars.Series
    names : iterable of str
        What the classes may be called, also those that these rows have none of.

    Raises
    ------
    InputError
        If a label is missing, NaN or infinite, or of a type that names no class.

    Examples
    --------
    >>> encode_labels(pl.Series(["10.0", "2"]))[0]
    ['2', '10']
    >>> encode_labels(pl.Series(["01", "1", "02"]))[0]
    ['01', '1', '02']
    """
    text = check_labels(labels, missing=no_labels(labels))
    if labels.dtype.is_float() and ((labels == labels.round()) & (labels.abs() <= EXACT_INTEGERS)).all():
        labels = labels.cast(pl.Int64)
        text = as_text(labels)
    elif labels.dtype == pl.String:
        written = text.unique()
        text = text.replace_strict(written, _plain_labels(written.to_list(), names), return_dtype=pl.String)
        numbers = as_numbers(text)
        labels = text if numbers is None else numbers
    in_order = pl.DataFrame({"value": labels, "text": text}).unique("text").sort("value", "text")["text"].to_list()
    codes = text.cast(pl.Enum(in_order)).to_physical().to_numpy().astype(np.intp)
    return in_order, codes


def _plain_labels(labels: list[str], names: Iterable[str]) -> list[str]:
    """Return labels as whole numbers or truth values are written, if all are such and none becomes another's equal."""
    for plain in (_whole_number, _truth_value):
        renamed = [name for name in map(plain, labels) if name is not None]
        known = [name for name in map(plain, {*names}) if name is not None]
        if len({*renamed}) == len(labels) and len({*known}) == len(known):
            return renamed
    return labels


def _whole_number(label: str) -> str | None:
    found = _WHOLE_NUMBER.fullmatch(label)
    return None if found is None else found[2] if found[2] == "0" else found[1] + found[2]


def _truth_value(label: str) -> str | None:
    return label.lower() if label.lower() in TRUTH_VALUES else None


def no_labels(labels: pl.Series) -> list[str]:
    """Return the labels that name no class among numbers ("NA", "inf"); among words they are words."""
    if labels.dtype != pl.String:
        return []
    values = labels.unique()
    numbers = as_numbers(values)
    return [] if numbers is None else values.filter(~numbers.is_finite().fill_null(False)).drop_nulls().to_list()


def label_notes(classes: Iterable[str], target: str) -> list[str]:
    """Return a note on each group of classes that look the same: white space around them, Unicode forms NFC and NFD.

    Examples
    --------
    >>> label_notes(["no", "yes", "yes "], "answer")
    ["classes 'yes', 'yes ' of column 'answer' differ in white space or Unicode form alone: if they are one, mend them"]
    """
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(unicodedata.normalize("NFC", name).strip(), []).append(name)
    return [
        f"classes {_told_apart(group)} of column {target!r} differ in white space or Unicode form alone: if they are "
        "one, mend them"
        for group in alike.values()
        if len(group) > 1
    ]


def _told_apart(names: list[str]) -> str:
    """Return names for a sentence, with the code points of letters that look like those of another name."""
    if len({unicodedata.normalize("NFC", name) for name in names}) == len(names):
        return name_list(names)
    return ", ".join(map(ascii, names))


def check_labels(labels: pl.Series, first_row: int = 0, missing: Sequence[str] = ()) -> pl.Series:
    """Return labels as text, none of them missing, NaN or infinite; messages count rows from `first_row`.

    `missing` are the labels that name no class (`no_labels`), beside empty ones.

    Raises
    ------
    InputError
        If there is such a label, or their type names no class.
    """
    if labels.dtype.is_nested() or labels.dtype in (pl.Binary, pl.Object, pl.Null):
        raise InputError(f"the target column {labels.name!r} holds values of type {labels.dtype}, which name no class")
    if labels.dtype.is_float() and not labels.is_finite().fill_null(True).all():
        row = int((~labels.is_finite()).fill_null(False).arg_max() or 0)
        raise InputError(
            f"the target column {labels.name!r} holds {labels[row]} in row {first_row + row} (counted from 0)"
        )
    text = as_text(labels)
    if missing:
        text = text.set(text.is_in([*missing]), None)
    if text.null_count():
        row = int(text.is_null().arg_max() or 0)
        held = "" if labels[row] is None else f": it holds {labels[row]!r}"
        raise InputError(
            f"the target column {labels.name!r} has no label in row {first_row + row} (counted from 0){held}"
        )
    return text


def check_classes(classes: list[str], counts: NDArray[np.intp], labels: pl.Series) -> None:
    """Refuse classes that nothing can be learned of: a single one, or one of a single row."""
    if len(classes) < 2:
        raise InputError(
            f"the target column {labels.name!r} is constant ({classes[0]!r}): there is nothing to tell apart"
        )
    single = [name for name, count in zip(classes, counts, strict=True) if count == 1]
    if not single:
        return
    if 2 * len(single) > len(classes) and as_numbers(labels) is not None:
        raise InputError(
            f"the target column {labels.name!r} has {len(classes)} different numbers in {int(counts.sum())} rows, most "
            "of them once: it looks like a quantity, and crossent predicts classes"
        )
    others = f" (and {len(single) - 1} more such classes)" if len(single) > 1 else ""
    raise InputError(
        f"class {single[0]!r} of column {labels.name!r} has one row{others}: each class needs at least 2, to train "
        "and to test"
    )


def _split(
    codes: NDArray[np.intp], num_classes: int, test_size: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if not 0 < test_size < 1:
        raise InputError(f"the test part must be a share of the rows between 0 and 1, and is {test_size}")
    held_out = math.ceil(len(codes) * test_size)
    if min(held_out, len(codes) - held_out) < num_classes:
        raise InputError(
            f"holding out {100 * test_size:g}% of {len(codes)} rows leaves {len(codes) - held_out} to train and "
            f"{held_out} to test, "
            f"which is too few for {num_classes} classes"
        )
    training, test = train_test_split(np.arange(len(codes)), test_size=held_out, stratify=codes, random_state=seed)
    if len(np.unique(codes[training])) < num_classes:
        raise InputError(
            f"holding out {100 * test_size:g}% of the rows leaves a class without training rows: hold out fewer"
        )
    return np.sort(training), np.sort(test)


def _count_fits(callback: Callable[[dict[str, Any]], None], fits: int) -> Callable[[dict[str, Any]], None]:
    """Return a callback that adds to each entry which fit of how many it is of; the history of each begins at 0."""
    fit = 0

    def counted(entry: dict[str, Any]) -> None:
        nonlocal fit
        fit += entry["iteration"] == 0
        return callback({**entry, "fit": fit, "fits": fits})

    return counted


def _folds(codes: NDArray[np.intp]) -> int:
    """Return how many folds leave each class in every training part: 5, or fewer where a class has fewer rows."""
    counts = np.bincount(codes)
    fewest = int(counts[counts > 0].min())
    if fewest < 2:
        raise InputError(
            "choosing C needs at least 2 training rows of each class, and one class has 1: leave out --sweep"
        )
    return min(5, fewest)


def _notes(cells: pl.DataFrame, preprocessing: Preprocessing, training: NDArray[np.intp]) -> list[str]:
    """Return what a person should know about the columns, whose cells `Preprocessing.read` returned."""
    notes = category_notes(preprocessing.categories)
    for column in preprocessing.categories:
        if column.holds_dates:
            continue
        distinct = cells[column.name].n_unique()
        if distinct > 0.9 * cells.height and cells.height > 20:
            notes.append(
                f"column {column.name!r} has {distinct} different values in {cells.height} rows: if it is an "
                "identifier, "
                "leave it out with --drop"
            )
        elif column.other:
            notes.append(
                f"column {column.name!r} has many categories: the {len(column.categories)} most common have an "
                "input of "
                "their own, the others share one"
            )
    empty = [c.name for c in preprocessing.categories if not c.categories]
    empty += [c.name for c in preprocessing.numbers if cells[c.name].gather(training).null_count() == len(training)]
    notes += [f"column {name!r} has no value in the training part and has no influence" for name in empty]
    return notes
