"""Train on a table: hold out a stratified test part, preprocess, fit, and keep what a report needs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

import crossent as ce

from ..sklearn import CoefficientSummary, SoftmaxRegression, SoftmaxRegressionCV
from ..sklearn.path import DEFAULT_CS
from .calibrating import cross_fit
from .errors import InputError
from .fitting import (
    DEFAULTS,
    Calibration,
    CurvePoint,
    FitOptions,
    TrainedModel,
    build_model,
    require_inputs,
    require_parts,
    run,
)
from .labels import check_classes, encode_labels, label_notes
from .preprocessing import learn_table

# Standard errors cost as much as the Hessian of so many parameters, and its inverse.
MOST_PARAMETERS = 1000
MOST_WORK = 4e10
CURVE_SHARES = (0.25, 0.5, 1.0)


def fit_table(frame: pl.DataFrame, source: str, target: str, options: FitOptions = DEFAULTS) -> TrainedModel:
    """Train a softmax regression on a table.

    The rows held out have each class in proportion. A temperature comes from a cross-fit (`cross_fit`), each of whose
    folds has the share `calibration_size` of the training rows; the model itself is trained on all of them.

    Parameters
    ----------
    frame : polars.DataFrame
        One column holds the labels, the others are features.
    source : str
        Where the table came from, for messages and the report.
    target : str
        The column of labels.
    options : FitOptions

    Raises
    ------
    InputError
        If the table cannot be learned from, with the reason in one sentence.
    """
    features = frame.select(options.features(frame.columns, target, source))
    classes, codes = encode_labels(frame[target])
    counts = np.bincount(codes, minlength=len(classes))
    check_classes(classes, counts, frame[target])
    training, test = _split(codes, len(classes), options)
    training_counts = np.bincount(codes[training], minlength=len(classes))
    require_parts(classes, training_counts, len(test), options.test_size)
    learned, cells = learn_table(features, training)
    require_inputs(learned.preprocessing, source)
    matrix = learned.preprocessing.encode(cells)
    chosen: list[str] = []
    if options.sweep:
        estimator = _sweep(codes[training], options)
        warned = run(estimator, matrix[training], codes[training])
        options = replace(options, strength=float(estimator.C_))
        tried = f"{len(estimator.Cs_)} values from {estimator.Cs_[0]:g} to {estimator.Cs_[-1]:g}"
        folds = len(estimator.losses_)
        chosen = [f"C = {options.strength:.3g} has the least held-out log-loss of {tried} ({folds} folds)"]
    else:
        estimator = options.estimator()
        warned = run(estimator, matrix[training], codes[training])
    calibration, calibration_notes = _calibrate(matrix, codes, training, options)
    model = build_model(
        learned.preprocessing, estimator, calibration, classes, target, source, training_counts, options
    )
    logits = model.logits_of(matrix)
    parts = (training, test)
    used = set(cells.columns)
    others = frame.drop(target)
    return TrainedModel(
        model=model,
        source=source,
        options=options,
        estimator=estimator,
        rows=frame.height,
        unused_columns=[name for name in others.columns if name not in used],
        missing_cells=learned.missing_cells,
        class_counts=counts,
        training_counts=training_counts,
        training_loss=float(np.mean(ce.cross_entropy(logits[training], codes[training], reduction="none"))),
        test_rows=len(test),
        stratified=True,
        test=test,
        test_codes=codes[test],
        test_logits=logits[test],
        cells=others[test],
        notes=[*chosen, *label_notes(classes, target), *learned.notes, *warned, *calibration_notes],
        calibration=calibration,
        coefficients=_coefficients(estimator, matrix[training], codes[training]),
        learning_curve=_learning_curve(matrix, codes, parts, options) if options.learning_curve else (),
    )


def _coefficients(
    estimator: SoftmaxRegression, matrix: NDArray[np.float64], codes: NDArray[np.intp]
) -> CoefficientSummary | None:
    """Return the coefficients with standard errors, where the Hessian is small enough and can be inverted."""
    parameters = estimator.coef_.size + estimator.intercept_.size
    if parameters > MOST_PARAMETERS or parameters**2 * len(matrix) > MOST_WORK:
        return None
    try:
        return estimator.summary(matrix, codes)
    except ValueError:
        return None


def _learning_curve(
    matrix: NDArray[np.float64],
    codes: NDArray[np.intp],
    parts: tuple[NDArray[np.intp], NDArray[np.intp]],
    options: FitOptions,
) -> tuple[CurvePoint, ...]:
    """Return the losses of models of a quarter, half and all of the training rows, judged on the same test rows.

    Each larger part holds the smaller ones, and each class its share of them.

    Raises
    ------
    InputError
        If a part lacks a class.
    """
    training, test = parts
    drawn = np.random.default_rng(options.seed).permutation(training)
    by_class = np.argsort(codes[drawn], kind="stable")
    counts = np.bincount(codes[drawn])
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])  # of a row within its class, from 0 to 1
    spread = drawn[by_class[np.argsort(place, kind="stable")]]
    points = []
    for share in CURVE_SHARES:
        rows = spread[: math.ceil(share * len(spread))]
        if len(np.unique(codes[rows])) < len(counts):
            raise InputError(f"a learning curve needs each class in {share:.0%} of the training rows: one is too rare")
        estimator = replace(options, callback=None, checkpoint=None).estimator()
        run(estimator, matrix[rows], codes[rows])
        losses = [
            float(np.mean(-estimator.predict_log_proba(matrix[part])[np.arange(len(part)), codes[part]]))
            for part in (rows, test)
        ]
        points.append(CurvePoint(len(rows), *losses))
    return tuple(points)


def _sweep(codes: NDArray[np.intp], options: FitOptions) -> SoftmaxRegressionCV:
    """Return an estimator that chooses C, for rows of these classes."""
    folds, callback = _folds(codes), options.callback
    if callback is not None:
        callback = _count_fits(callback, folds * DEFAULT_CS + 1)  # the last fit is to all training rows
    return SoftmaxRegressionCV(
        DEFAULT_CS, link=options.link, cv=folds, tol=options.tolerance, max_iter=options.max_iter, callback=callback
    )


def _calibrate(
    matrix: NDArray[np.float64], codes: NDArray[np.intp], training: NDArray[np.intp], options: FitOptions
) -> tuple[Calibration | None, list[str]]:
    """Return what `cross_fit` does; an interruption of one of its models ends the program as usual."""
    make = replace(options, callback=None, checkpoint=None).estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fold models only lend their logits
        warnings.filterwarnings("error", ".*interrupted after", ConvergenceWarning)
        try:
            return cross_fit(make, matrix, codes, training, options.calibration_size, options.seed)
        except ConvergenceWarning as error:
            raise KeyboardInterrupt from error


def _split(codes: NDArray[np.intp], num_classes: int, options: FitOptions) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    held_out = math.ceil(len(codes) * options.test_size)
    if min(held_out, len(codes) - held_out) < num_classes:
        raise InputError(
            f"holding out {100 * options.test_size:g}% of {len(codes)} rows leaves {len(codes) - held_out} to train "
            f"and {held_out} to test, which is too few for {num_classes} classes"
        )
    training, test = train_test_split(
        np.arange(len(codes)), test_size=held_out, stratify=codes, random_state=options.seed
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
