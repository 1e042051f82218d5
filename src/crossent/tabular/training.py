"""Train on a table: hold out a stratified test part, preprocess, fit, and keep what a report needs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
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
from .columns import refuse_names
from .errors import InputError
from .labels import check_classes, encode_labels, label_notes
from .model import Model
from .preprocessing import Preprocessing, category_notes
from .reading import drop_columns, require_column
from .results import Calibration, DataSummary, TrainedModel


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
    refuse_names(frame.columns, source, drop)
    labels = require_column(frame, target, source)
    features = drop_columns(frame, drop, target, source).drop(target)
    if features.width == 0:
        raise InputError(f"{source!r} has no column beside {target!r} to learn from")
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
    used = set(preprocessing.column_names)
    return TrainedTable(
        model=model,
        source=source,
        data=DataSummary(
            rows=frame.height,
            unused_columns=[name for name in others.columns if name not in used],
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
    columns = [*cells.iter_columns()]
    numbers, categories = columns[: len(preprocessing.numbers)], columns[len(preprocessing.numbers) :]
    notes = [
        note
        for column, words in zip(preprocessing.categories, categories, strict=True)
        for note in category_notes(column, words.unique(), cells.height)
    ]
    empty = [c.name for c in preprocessing.categories if not c.categories]
    incomplete = [series for series in numbers if series.null_count()]
    empty += [series.name for series in incomplete if series.gather(training).null_count() == len(training)]
    notes += [f"column {name!r} has no value in the training part and has no influence" for name in empty]
    return notes
