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

import crossent as ce

from ..sklearn import CoefficientSummary, SoftmaxRegression, SoftmaxRegressionCV
from ..sklearn.path import DEFAULT_CS
from .boosted import TableBooster
from .calibrating import cross_fit
from .conversions import blank_missing, counts_rows
from .errors import InputError
from .fitting import (
    DEFAULTS,
    Calibration,
    CurvePoint,
    FitOptions,
    TrainedModel,
    build_model,
    require_inputs,
    run,
)
from .labels import label_notes
from .leaks import leak_notes
from .preprocessing import learn_table
from .seen import row_digests
from .splitting import Split, deal_folds, split_table

# Standard errors cost as much as the Hessian of so many parameters, and its inverse.
MOST_PARAMETERS = 1000
MOST_WORK = 4e10
CURVE_SHARES = (0.25, 0.5, 1.0)


def fit_table(
    frame: pl.DataFrame,
    source: str,
    target: str,
    options: FitOptions = DEFAULTS,
    *,
    test: pl.DataFrame | None = None,
) -> TrainedModel:
    """Train a softmax regression, or boosted trees, on a table.

    The rows held out have each class in proportion, unless the options or `test` choose others. A temperature comes
    from a cross-fit (`cross_fit`), each of whose folds has the share `calibration_size` of the training rows; the model
    itself is trained on all of them.

    Parameters
    ----------
    frame : polars.DataFrame
        One column holds the labels, the others are features.
    source : str
        Where the table came from, for messages and the report.
    target : str
        The column of labels.
    options : FitOptions
    test : polars.DataFrame, optional
        The rows to test on; `options.test_size` is then not used.

    Raises
    ------
    InputError
        If the table cannot be learned from, with the reason in one sentence.
    """
    options, index_notes = _without_index(frame, options)
    names = options.features(frame.columns, target, source)
    frame, test = _with_labels(frame, target, options), None if test is None else _with_labels(test, target, options)
    split = split_table(frame, source, target, options, test)
    frame, classes, codes, training = split.frame, split.classes, split.codes, split.training
    features = frame.select(names)
    training_counts = np.bincount(codes[training], minlength=len(classes))
    learned, cells = learn_table(features, training, options.columns)
    require_inputs(learned.preprocessing, source)
    matrix = learned.preprocessing.encode(cells)
    chosen: list[str] = []
    if options.sweep:
        estimator = _sweep(split, options)
        warned = run(estimator, matrix[training], codes[training])
        options = replace(options, strength=float(estimator.C_))
        tried = f"{len(estimator.Cs_)} values from {estimator.Cs_[0]:g} to {estimator.Cs_[-1]:g}"
        folds = len(estimator.losses_)
        chosen = [f"C = {options.strength:.3g} has the least held-out log-loss of {tried} ({folds} folds)"]
    else:
        estimator = options.estimator()
        warned = run(estimator, matrix[training], codes[training])
        if isinstance(estimator, TableBooster):
            chosen = [estimator.account()]
    calibration, calibration_notes = _calibrate(matrix, split, options)
    model = build_model(
        learned.preprocessing, estimator, calibration, classes, target, source, training_counts, options
    )
    model = replace(model, seen=np.unique(row_digests(matrix[training])))
    logits = model.logits_of(matrix)
    parts = (training, split.test)
    test_loss = float(np.mean(ce.cross_entropy(logits[split.test], codes[split.test], reduction="none")))
    used = set(learned.preprocessing.column_names)
    others = frame.drop(target)
    return TrainedModel(
        model=model,
        source=source,
        options=options,
        estimator=estimator,
        rows=frame.height,
        unused_columns=[name for name in others.columns if name not in used],
        missing_cells=learned.missing_cells,
        class_counts=np.bincount(codes, minlength=len(classes)),
        training_counts=training_counts,
        training_loss=float(np.mean(ce.cross_entropy(logits[training], codes[training], reduction="none"))),
        test_rows=len(split.test),
        stratified=split.stratified,
        test=split.numbers[split.test],
        test_codes=codes[split.test],
        test_logits=logits[split.test],
        cells=others[split.test],
        notes=[
            *leak_notes(cells, codes, training, split.test, test_loss),
            *index_notes,
            *split.notes,
            *chosen,
            *label_notes(classes, target),
            *learned.notes,
            *warned,
            *calibration_notes,
        ],
        calibration=calibration,
        coefficients=_coefficients(estimator, matrix[training], codes[training]),
        learning_curve=_learning_curve(matrix, codes, parts, options) if options.learning_curve else (),
    )


def _coefficients(estimator: Any, matrix: NDArray[np.float64], codes: NDArray[np.intp]) -> CoefficientSummary | None:
    """Return the coefficients with standard errors, where the Hessian is small enough and can be inverted."""
    if not isinstance(estimator, SoftmaxRegression):
        return None
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


def _without_index(frame: pl.DataFrame, options: FitOptions) -> tuple[FitOptions, list[str]]:
    """Return options that leave out a first column without a name that counts the rows, and a note if there is one."""
    first = frame.columns[0]
    if first != "" or first in options.drop or not counts_rows(frame[first]):
        return options, []
    note = "the first column has no name and counts the rows: it is left out"
    return replace(options, drop=(*options.drop, first)), [note]


def _with_labels(frame: pl.DataFrame, target: str, options: FitOptions) -> pl.DataFrame:
    """Return a table whose labels hold no words for "no value".

    Raises
    ------
    InputError
        If there are such words, and their rows are not to be left out.
    """
    if target not in frame.columns:
        return frame
    labels = frame[target]
    blank = blank_missing(labels.to_frame(), options.columns.missing).to_series()
    wordless = blank.is_null() & labels.is_not_null()
    if wordless.any() and not options.drop_unlabelled:
        row, others = int(wordless.arg_max() or 0), int(wordless.sum()) - 1
        raise InputError(
            f"the target column {target!r} has no label in row {row} (counted from 0): it holds {labels[row]!r}"
            f"{f', and {others:,} other rows have none' if others else ''}: pass --drop-unlabelled to leave such rows "
            "out, or --no-na if such words are classes"
        )
    return frame.with_columns(blank)


def _sweep(split: Split, options: FitOptions) -> SoftmaxRegressionCV:
    """Return an estimator that chooses C on the training rows."""
    codes, callback = split.codes[split.training], options.callback
    folds = _folds(codes)
    cv: Any = folds
    if split.groups is not None:
        cv = list(deal_folds(codes, folds, options.seed, split.groups[split.training]))
    if callback is not None:
        callback = _count_fits(callback, folds * DEFAULT_CS + 1)  # the last fit is to all training rows
    return SoftmaxRegressionCV(
        DEFAULT_CS, link=options.link, cv=cv, tol=options.tolerance, max_iter=options.max_iter, callback=callback
    )


def _calibrate(matrix: NDArray[np.float64], split: Split, options: FitOptions) -> tuple[Calibration | None, list[str]]:
    """Return what `cross_fit` does; an interruption of one of its models ends the program as usual."""
    make = replace(options, callback=None, checkpoint=None).estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fold models only lend their logits
        warnings.filterwarnings("error", ".*interrupted after", ConvergenceWarning)
        try:
            return cross_fit(
                make, matrix, split.codes, split.training, options.calibration_size, options.seed, split.groups
            )
        except ConvergenceWarning as error:
            raise KeyboardInterrupt from error


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
