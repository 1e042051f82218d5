"""The report as one plain, versioned dict: every number that is shown anywhere is computed here.

Schema ``crossent.report/1``: JSON types only; an undefined number is null; a loss is a number, or the string "inf"
where some label was given probability 0. Rows are counted from 0 in the table as it was read. The same input gives the
same dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import crossent as ce

from .._version import __version__
from ..metrics import brier_score
from ..tabular import Predictions, TrainedModel
from ..tabular.boosted import MODELS
from .advice import advice
from .card import fit_card, run_card
from .drivers import coefficients, drivers
from .evaluation import class_shares, evaluation, floored, loss_entry, number, reliability
from .outliers import name_outliers
from .slices import slices
from .two_classes import EVEN, Decision

SCHEMA = "crossent.report/1"
# Cells are shown beside a surprising row as far as a person can read them.
SHOWN_COLUMNS = 12

Summary = dict[str, Any]


def summarize_fit(result: TrainedModel, decision: Decision = EVEN, command: Sequence[str] = ()) -> Summary:
    """Return the report on a model just trained: test rows beside the training prior, the optimiser, the data.

    `command` is the command line, where there was one.
    """
    model, codes = result.model, result.test_codes
    columns = model.preprocessing
    used = columns.column_names
    log_prior = np.log(result.training_counts / result.training_counts.sum())
    losses = np.asarray(ce.cross_entropy(result.test_logits, codes, reduction="none"))
    probabilities = np.asarray(ce.softmax(result.test_logits))
    cells = columns.read(result.cells)

    def predict(rows: pl.DataFrame) -> NDArray[np.float64]:
        return np.asarray(ce.softmax(model.logits_of(columns.encode(rows))))

    temperature = 1.0 if result.calibration is None else result.calibration.temperature
    judged = evaluation(
        model.classes,
        codes,
        losses,
        probabilities,
        result.test_logits,
        (float(np.mean(-log_prior[codes])), "the training part's class shares"),
        row_numbers=result.test,
        cells=_shown_cells(result.cells, used),
        decision=decision,
    )
    name_outliers(judged["surprising"], cells, {int(row): place for place, row in enumerate(result.test)})
    return _report(
        kind="fit",
        model=MODELS[result.options.model],
        source=result.source,
        target=model.target,
        rows_judged="test rows, held out of training",
        data={
            "rows": result.rows,
            "columns": len(used),
            "number_columns": len(columns.numbers),
            "category_columns": len(columns.categories),
            "dropped_columns": result.unused_columns,
            "inputs": len(columns.input_names),
            "missing_cells": result.missing_cells,
            "training_rows": int(result.training_counts.sum()),
            "test_rows": result.test_rows,
            "stratified": result.stratified,
            "calibration_rows": 0 if result.calibration is None else len(result.calibration.rows),
            "seed": result.options.seed,
        },
        **class_shares(model.classes, result.class_counts),
        **judged,
        slices=_slices(result.cells, losses, probabilities, result.test),
        drivers=drivers(predict, cells, cells, codes, model.classes, result.options.seed),
        coefficients=None
        if model.trees is not None
        else coefficients(model, result.coefficients, temperature, columns.encode(cells)),
        learning_curve=[
            {"rows": point.rows, "training": loss_entry(point.training_loss), "test": loss_entry(point.test_loss)}
            for point in result.learning_curve
        ],
        training_loss=loss_entry(result.training_loss),
        calibration=_calibration(result),
        optimiser=_optimiser(result),
        card=fit_card(result, command),
        notes=result.notes,
        warnings=[],
    )


def summarize_predictions(
    predictions: Predictions,
    decision: Decision = EVEN,
    command: Sequence[str] = (),
    found_drivers: Summary | None = None,
) -> Summary:
    """Return the report on anyone's predictions: every row is judged, beside the rows' own class shares.

    `command` is the command line, where there was one, and `found_drivers` what `drivers` found of the model, where
    that is known.
    """
    counts = np.bincount(predictions.codes, minlength=len(predictions.classes))
    weights = predictions.weights
    mass = np.bincount(predictions.codes, weights=weights)
    shares = mass[mass > 0] / mass.sum()
    weighted = [] if weights is None else ["rows count by their weights, but in slices and in what columns are worth"]
    rows = np.arange(len(predictions.codes))
    return _report(
        kind="predictions",
        model=None,
        source=predictions.source,
        target=predictions.target,
        declared=predictions.scale,
        rows_judged="all rows",
        data={"rows": len(predictions.codes)},
        **class_shares(predictions.classes, counts),
        **evaluation(
            predictions.classes,
            predictions.codes,
            predictions.losses,
            predictions.probabilities,
            _logits(predictions),
            (abs(float(np.sum(shares * np.log(shares)))), "these rows' own class shares"),  # abs: never -0.0
            row_numbers=rows,
            cells=shown_columns(predictions),
            decision=decision,
            weights=weights,
        ),
        slices=_slices(predictions.others, predictions.losses, predictions.probabilities, rows),
        drivers=found_drivers,
        coefficients=None,
        learning_curve=[],
        training_loss=None,
        calibration=None,
        optimiser=None,
        card=run_card(predictions.source, command),
        notes=[*predictions.notes, *weighted],
        warnings=predictions.warnings,
    )


def _report(**entries: Any) -> Summary:
    report = {"schema": SCHEMA, "crossent_version": __version__, **entries}
    return {**report, "advice": advice(report)}


def _slices(
    cells: pl.DataFrame | None,
    losses: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    row_numbers: NDArray[np.intp],
) -> Summary | None:
    return slices(cells, floored(losses)[0], np.asarray(ce.entropy(probabilities)), row_numbers)


def _shown_cells(features: pl.DataFrame, used: list[str]) -> pl.DataFrame | None:
    """Return the columns that tell a person which row it is: those left out, and the inputs where they are few."""
    known = set(used)
    others = [name for name in features.columns if name not in known]
    names = others + used if len(others) + len(used) <= SHOWN_COLUMNS else others[:SHOWN_COLUMNS]
    return features.select(names) if names else None


def shown_columns(predictions: Predictions) -> pl.DataFrame | None:
    """Return the columns that may tell a person which row it is, if the file has any."""
    others = predictions.others
    return None if others is None or others.width == 0 else others[:, :SHOWN_COLUMNS]


def _logits(predictions: Predictions) -> NDArray[np.float64]:
    if predictions.logits is not None:
        return predictions.logits
    with np.errstate(divide="ignore"):  # the logarithm of a probability is a logit; that of 0 is -infinity
        return np.log(predictions.probabilities)


def _calibration(result: TrainedModel) -> dict[str, Any] | None:
    """Return the temperature and where it came from, and the test rows before and after it."""
    if result.calibration is None:
        return None
    temperature = result.calibration.temperature
    codes = result.test_codes
    states = {}
    for name, logits in (("before", result.test_logits * temperature), ("after", result.test_logits)):
        probabilities = np.asarray(ce.softmax(logits))
        states[name] = {
            "loss": loss_entry(float(np.mean(ce.cross_entropy(logits, codes, reduction="none")))),
            "brier_score": brier_score(codes, probabilities, labels=np.arange(probabilities.shape[1])),
            "reliability": reliability(codes, probabilities),
        }
    return {
        "method": "temperature",
        "temperature": temperature,
        "best_temperature": number(result.calibration.best),
        "rows": len(result.calibration.rows),
        "folds": result.calibration.folds,
        **states,
    }


def _optimiser(result: TrainedModel) -> dict[str, Any] | None:
    if result.model.trees is not None:
        return None
    estimator, tolerance = result.estimator, result.options.tolerance
    gap = number(estimator.duality_gap_)
    return {
        "iterations": int(np.max(estimator.n_iter_)),
        "duality_gap": gap,
        "tolerance": tolerance,
        "converged": None if gap is None else gap <= tolerance,
        "history": [
            {
                "iteration": int(entry["iteration"]),
                "objective": number(entry["objective"]),
                "gradient_norm": number(entry["gradient_norm"]),
                "duality_gap": None if entry.get("duality_gap") is None else number(entry["duality_gap"]),
            }
            for entry in estimator.history_
        ],
    }
