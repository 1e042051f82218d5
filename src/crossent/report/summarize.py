"""The report as one plain, versioned dict: every number that is shown anywhere is computed here.

Schema ``crossent.report/1``: JSON types only; an undefined number is null; a loss is a number, or the string "inf"
where some label was given probability 0. Rows are counted from 0 in the table as it was read. The same input gives the
same dict.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import crossent as ce

from .._version import __version__
from ..metrics import accuracy, brier_score, calibration_error, reliability_curve
from ..tabular import Predictions, TrainedModel
from .advice import advice
from .honesty import honesty

SCHEMA = "crossent.report/1"
RELIABILITY_BINS = 10
RELIABILITY_LEVEL = 0.9
SURPRISING_ROWS = 10
MOST_CONFUSED = 10
COSTLIEST_CLASSES = 20
# A table of more classes than this is no table a person reads; the pairs most often confused are.
MATRIX_CLASSES = 40
# Cells are shown beside a surprising row where the table is narrow enough to read.
SHOWN_COLUMNS = 12

Report = dict[str, Any]


def summarize_fit(result: TrainedModel) -> Report:
    """Return the report on a model just trained: test rows beside the training prior, the optimiser, the data."""
    classes = result.model.classes
    data = result.data
    totals, train_counts, test_codes = data.class_counts, data.training_counts, result.test_codes
    losses = np.asarray(ce.cross_entropy(result.test_logits, test_codes, reduction="none"))
    log_prior = np.log(train_counts / train_counts.sum())
    columns = result.model.preprocessing
    used = columns.column_names
    report: Report = {
        "schema": SCHEMA,
        "crossent_version": __version__,
        "kind": "fit",
        "source": result.source,
        "target": result.model.target,
        "rows_judged": "test rows, held out of training",
        "data": {
            "rows": data.rows,
            "columns": len(used),
            "number_columns": len(columns.numbers),
            "category_columns": len(columns.categories),
            "dropped_columns": data.unused_columns,
            "inputs": len(columns.input_names),
            "missing_cells": data.missing_cells,
            "training_rows": int(train_counts.sum()),
            "test_rows": data.test_rows,
            "calibration_rows": 0 if result.calibration is None else len(result.calibration.rows),
            "seed": result.seed,
        },
        "classes": _classes(classes, totals),
        "imbalance": _imbalance(classes, totals),
        **_evaluation(
            classes,
            test_codes,
            losses,
            np.asarray(ce.softmax(result.test_logits)),
            float(np.mean(-log_prior[test_codes])),
            "cross-entropy of the training part's class shares on the test rows",
            row_numbers=result.test,
            cells=data.cells if len(used) <= SHOWN_COLUMNS else None,
        ),
        "training_loss": _loss(data.training_loss),
        "calibration": _calibration(result),
        "optimiser": _optimiser(result),
        "notes": result.notes,
        "warnings": [],
    }
    return {**report, "advice": advice(report)}


def summarize_predictions(predictions: Predictions) -> Report:
    """Return the report on anyone's predictions: every row is judged, beside the rows' own class shares."""
    counts = np.bincount(predictions.codes, minlength=len(predictions.classes))
    shares = counts[counts > 0] / counts.sum()
    report: Report = {
        "schema": SCHEMA,
        "crossent_version": __version__,
        "kind": "predictions",
        "source": predictions.source,
        "target": predictions.target,
        "declared": predictions.scale,
        "rows_judged": "all rows of the file",
        "data": {"rows": len(predictions.codes)},
        "classes": _classes(predictions.classes, counts),
        "imbalance": _imbalance(predictions.classes, counts),
        **_evaluation(
            predictions.classes,
            predictions.codes,
            predictions.losses,
            predictions.probabilities,
            abs(float(np.sum(shares * np.log(shares)))),  # abs: never -0.0
            "entropy of these rows' own class shares",
            row_numbers=np.arange(len(predictions.codes)),
            cells=None,
        ),
        "training_loss": None,
        "calibration": None,
        "optimiser": None,
        "notes": predictions.notes,
        "warnings": predictions.warnings,
    }
    return {**report, "advice": advice(report)}


def _evaluation(
    classes: tuple[str, ...],
    codes: NDArray[np.intp],
    losses: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    baseline: float,
    baseline_is: str,
    *,
    row_numbers: NDArray[np.intp],
    cells: pl.DataFrame | None,
) -> Report:
    indices = np.arange(len(classes))
    mean = float(np.mean(losses))
    predicted = np.argmax(probabilities, axis=1)
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(matrix, (codes, predicted), 1)
    curve = reliability_curve(codes, probabilities, labels=indices, bins=RELIABILITY_BINS, level=RELIABILITY_LEVEL)
    return {
        "loss": {
            **_loss(mean),
            "baseline": {**_loss(baseline), "is": baseline_is},
            "perfect": _loss(0.0),
            # The share of the baseline's surprise that the predictions take away; below 0 they are worse than it.
            "explained": 1 - mean / baseline if baseline > 0 and math.isfinite(mean) else None,
            "impossible_rows": int(np.sum(np.isinf(losses))),
        },
        "accuracy": {
            "value": accuracy(codes, probabilities, labels=indices),
            "right": int(np.trace(matrix)),
            "rows": len(codes),
            "most_common_class": float(matrix.sum(axis=1).max() / len(codes)),
        },
        "brier_score": brier_score(codes, probabilities, labels=indices),
        "per_class": _per_class(classes, codes, losses, matrix),
        "costliest_classes": _costliest(classes, codes, losses),
        "confusion": {
            "rows_are": "labels",
            "columns_are": "predictions",
            "matrix": matrix.tolist() if len(classes) <= MATRIX_CLASSES else None,
            "most_confused": _most_confused(classes, matrix),
        },
        "reliability": {
            "bins": [
                {
                    "lower": float(curve.edges[b]),
                    "upper": float(curve.edges[b + 1]),
                    "rows": int(curve.counts[b]),
                    "confidence": _number(curve.confidence[b]),
                    "accuracy": _number(curve.accuracy[b]),
                    "accuracy_lower": _number(curve.lower[b]),
                    "accuracy_upper": _number(curve.upper[b]),
                }
                for b in range(RELIABILITY_BINS)
            ],
            "calibration_error": calibration_error(codes, probabilities, labels=indices, bins=RELIABILITY_BINS),
            "level": RELIABILITY_LEVEL,
            "mean_confidence": float(probabilities.max(axis=1).mean()),
        },
        "honesty": honesty(codes, probabilities, losses, RELIABILITY_BINS),
        "surprising": _surprising(classes, codes, losses, probabilities, row_numbers, cells),
    }


def _loss(nats: float) -> dict[str, Any]:
    if math.isinf(nats):
        return {"nats": "inf", "bits": "inf"}
    return {"nats": nats, "bits": nats / math.log(2)}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _classes(classes: tuple[str, ...], counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    total = int(counts.sum())
    return [
        {"label": label, "rows": int(count), "share": int(count) / total}
        for label, count in zip(classes, counts, strict=True)
    ]


def _imbalance(classes: tuple[str, ...], counts: NDArray[np.int64]) -> dict[str, Any]:
    present = np.flatnonzero(counts)
    most, least = present[np.argmax(counts[present])], present[np.argmin(counts[present])]
    return {
        "most_common": {"label": classes[most], "rows": int(counts[most])},
        "least_common": {"label": classes[least], "rows": int(counts[least])},
        "ratio": float(counts[most] / counts[least]),
    }


def _per_class(
    classes: tuple[str, ...], codes: NDArray[np.intp], losses: NDArray[np.float64], matrix: NDArray[np.int64]
) -> list[dict[str, Any]]:
    rows = matrix.sum(axis=1)
    calls = matrix.sum(axis=0)
    right = np.diagonal(matrix)
    sums = np.bincount(codes, weights=losses, minlength=len(classes))
    return [
        {
            "label": label,
            "rows": int(rows[k]),
            "loss": _loss(float(sums[k] / rows[k])) if rows[k] else None,
            "right": int(right[k]),
            "recall": float(right[k] / rows[k]) if rows[k] else None,
            "precision": float(right[k] / calls[k]) if calls[k] else None,
        }
        for k, label in enumerate(classes)
    ]


def _costliest(classes: tuple[str, ...], codes: NDArray[np.intp], losses: NDArray[np.float64]) -> list[int]:
    """Return positions in `per_class`: the classes of highest mean loss first, as many as a screen shows."""
    rows = np.bincount(codes, minlength=len(classes))
    present = np.flatnonzero(rows)
    mean = np.bincount(codes, weights=losses, minlength=len(classes))[present] / rows[present]
    return [int(k) for k in present[np.argsort(-mean, kind="stable")[:COSTLIEST_CLASSES]]]


def _most_confused(classes: tuple[str, ...], matrix: NDArray[np.int64]) -> list[dict[str, Any]]:
    wrong = matrix - np.diag(np.diagonal(matrix))
    label, prediction = np.nonzero(wrong)
    order = np.argsort(-wrong[label, prediction], kind="stable")[:MOST_CONFUSED]
    return [
        {"label": classes[i], "prediction": classes[j], "rows": int(wrong[i, j])}
        for i, j in zip(label[order], prediction[order], strict=True)
    ]


def _surprising(
    classes: tuple[str, ...],
    codes: NDArray[np.intp],
    losses: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    row_numbers: NDArray[np.intp],
    cells: pl.DataFrame | None,
) -> list[dict[str, Any]]:
    shown = []
    for i in np.argsort(-losses, kind="stable")[:SURPRISING_ROWS].tolist():
        prediction = int(np.argmax(probabilities[i]))
        row = int(row_numbers[i])
        entry = {
            "row": row,
            "label": classes[codes[i]],
            "prediction": classes[prediction],
            "loss": _loss(float(losses[i])),
            "label_probability": float(probabilities[i, codes[i]]),
            "prediction_probability": float(probabilities[i, prediction]),
            "cells": None,
        }
        if cells is not None:
            entry["cells"] = {name: _cell(value) for name, value in zip(cells.columns, cells.row(i), strict=True)}
        shown.append(entry)
    return shown


def _cell(value: object) -> str | None:
    if value is None:
        return None
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _calibration(result: TrainedModel) -> dict[str, Any] | None:
    """Return loss and calibration error of the test rows before and after the temperature."""
    if result.calibration is None:
        return None
    temperature = result.calibration.temperature
    codes = result.test_codes
    states = {}
    for name, logits in (("before", result.test_logits * temperature), ("after", result.test_logits)):
        probabilities = np.asarray(ce.softmax(logits))
        states[name] = {
            "loss": _loss(float(ce.cross_entropy(logits, codes))),
            "calibration_error": calibration_error(
                codes, probabilities, labels=np.arange(len(result.model.classes)), bins=RELIABILITY_BINS
            ),
        }
    return {"method": "temperature", "temperature": temperature, "rows": len(result.calibration.rows), **states}


def _optimiser(result: TrainedModel) -> dict[str, Any]:
    return {
        "iterations": result.iterations,
        "duality_gap": result.duality_gap,
        "tolerance": result.tolerance,
        "converged": None if result.duality_gap is None else result.duality_gap <= result.tolerance,
        "history": [
            {
                "iteration": int(entry["iteration"]),
                "objective": _number(entry["objective"]),
                "gradient_norm": _number(entry["gradient_norm"]),
                "duality_gap": None if entry.get("duality_gap") is None else _number(entry["duality_gap"]),
            }
            for entry in result.history
        ],
    }
