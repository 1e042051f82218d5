"""What any predictions are worth beside their labels: loss, classes, confusions, reliability, the worst rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..metrics import accuracy, brier_score, calibration_error, reliability_curve
from ..metrics.predictions import weighted_mean
from .honesty import honesty
from .two_classes import Decision, two_classes
from .words import short

RELIABILITY_BINS = 10
RELIABILITY_LEVEL = 0.9
SURPRISING_ROWS = 10
MOST_CONFUSED = 10
# A page lists at most so many classes: those of highest loss.
COSTLIEST_CLASSES = 100
# Larger matrices are not kept whole.
MATRIX_CLASSES = 40
# Of more classes, a matrix shows those of most mistakes and takes the others as one.
FULL_MATRIX, FOLDED_MATRIX = 12, 10
# A cell may hold a document.
CELL_WIDTH = 200

Summary = dict[str, Any]
Codes = NDArray[np.intp]
Float64 = NDArray[np.float64]


def evaluation(
    classes: tuple[str, ...],
    codes: Codes,
    losses: Float64,
    probabilities: Float64,
    logits: Float64,
    baseline: tuple[float, str],
    *,
    row_numbers: Codes,
    cells: pl.DataFrame | None,
    decision: Decision,
    weights: Float64 | None = None,
) -> Summary:
    """Return the part of the report that only needs labels and predictions.

    Parameters
    ----------
    classes : tuple of str
        K names.
    codes, losses : array (N,)
        Class indices, and -log p of the label in nats.
    probabilities, logits : array (N, K)
        The same predictions twice: a probability may be 0 where a logit is finite.
    baseline : (float, str)
        The loss to compare with, in nats, and what it is.
    row_numbers : array (N,)
        The rows' numbers in the table as it was read.
    cells : polars.DataFrame, optional
        What to show beside a surprising row; its rows are those of the table as it was read.
    decision : Decision
        What is decided, where there are two classes.
    weights : array (N,), optional
        How much each row counts in means and shares; numbers of rows are numbers of rows.
    """
    options: dict[str, Any] = {"labels": np.arange(len(classes)), "sample_weight": weights}
    mean = weighted_mean(losses, weights)
    predicted = np.argmax(probabilities, axis=1)
    right = int(np.sum(codes == predicted))
    counted = losses if weights is None else np.where(weights > 0, losses, 0.0)
    per_class = _per_class(classes, codes, predicted, losses, np.ones(len(codes)) if weights is None else weights)
    means = [math.nan if entry["loss"] is None else float(entry["loss"]["nats"]) for entry in per_class]
    present = np.flatnonzero(~np.isnan(means))
    costliest = present[np.argsort(-np.array(means)[present], kind="stable")]
    most_common = np.bincount(codes, weights=weights).max() / (len(codes) if weights is None else weights.sum())
    return {
        "loss": {
            **loss_entry(mean),
            "baseline": {**loss_entry(baseline[0]), "is": baseline[1]},
            "perfect": loss_entry(0.0),
            # The share of the baseline's surprise that the predictions take away; below 0 they are worse than it.
            "explained": 1 - mean / baseline[0] if baseline[0] > 0 and math.isfinite(mean) else None,
            "impossible_rows": int(np.sum(np.isinf(counted))),
            # A few labels that were called impossible make the mean infinite: the same with half a row in their place.
            "floored": _floored(losses, weights),
        },
        "accuracy": {
            "value": accuracy(codes, probabilities, **options),
            "right": right,
            "rows": len(codes),
            "most_common_class": float(most_common),
        },
        "brier_score": brier_score(codes, probabilities, **options),
        "per_class": per_class,
        # Positions in "per_class", of the highest mean loss first.
        "costliest_classes": costliest[:COSTLIEST_CLASSES].tolist(),
        "confusion": {
            "rows_are": "labels",
            "columns_are": "predictions",
            "matrix": _matrix(codes, predicted, len(classes)) if len(classes) <= MATRIX_CLASSES else None,
            "shown": _folded(classes, codes, predicted),
            "most_confused": _most_confused(classes, codes, predicted),
        },
        "reliability": reliability(codes, probabilities, weights),
        "two_classes": two_classes(classes, codes, probabilities, decision, weights),
        "honesty": honesty(codes, probabilities, logits, losses, RELIABILITY_BINS, weights),
        "surprising": _surprising(classes, codes, counted, probabilities, row_numbers, cells),
    }


def floored(losses: Float64) -> tuple[Float64, float]:
    """Return losses in which a label of probability 0 counts as one of half a row in N, and that probability."""
    floor = 0.5 / len(losses)
    return np.where(np.isinf(losses), -math.log(floor), losses), floor


def _floored(losses: Float64, weights: Float64 | None) -> Summary | None:
    if not np.isinf(losses).any():
        return None
    values, floor = floored(losses)
    return {**loss_entry(weighted_mean(values, weights)), "floor": floor}


def reliability(codes: Codes, probabilities: Float64, weights: Float64 | None = None) -> Summary:
    """Return accuracy against confidence, bin by bin, and the calibration error that sums it up."""
    if weights is not None:  # a bin of rows that do not count would have no accuracy
        codes, probabilities, weights = codes[weights > 0], probabilities[weights > 0], weights[weights > 0]
    options: dict[str, Any] = {"labels": np.arange(probabilities.shape[1]), "sample_weight": weights}
    options["bins"] = RELIABILITY_BINS
    curve = reliability_curve(codes, probabilities, level=RELIABILITY_LEVEL, **options)
    return {
        "bins": [
            {
                "lower": float(curve.edges[b]),
                "upper": float(curve.edges[b + 1]),
                "rows": int(curve.counts[b]),
                "confidence": number(curve.confidence[b]),
                "accuracy": number(curve.accuracy[b]),
                "accuracy_lower": number(curve.lower[b]),
                "accuracy_upper": number(curve.upper[b]),
            }
            for b in range(RELIABILITY_BINS)
        ],
        "calibration_error": calibration_error(codes, probabilities, **options),
        "level": RELIABILITY_LEVEL,
        "mean_confidence": weighted_mean(probabilities.max(axis=1), weights),
    }


def loss_entry(nats: float) -> dict[str, Any]:
    """Return a loss in nats and bits."""
    if math.isinf(nats):
        return {"nats": "inf", "bits": "inf"}
    return {"nats": nats, "bits": nats / math.log(2)}


def number(value: float) -> float | None:
    """Return the number, or None for NaN and infinity, which JSON lacks."""
    return float(value) if math.isfinite(value) else None


def class_shares(classes: tuple[str, ...], counts: NDArray[np.int64]) -> Summary:
    """Return each class with its rows and their share, and how uneven these are among the classes that occur."""
    total = int(counts.sum())
    present = np.flatnonzero(counts)
    entries = [
        {"label": label, "rows": int(count), "share": int(count) / total}
        for label, count in zip(classes, counts, strict=True)
    ]
    most, least = (entries[present[find(counts[present])]] for find in (np.argmax, np.argmin))
    return {
        "classes": entries,
        "imbalance": {
            "most_common": {"label": most["label"], "rows": most["rows"]},
            "least_common": {"label": least["label"], "rows": least["rows"]},
            "ratio": most["rows"] / least["rows"],
        },
    }


def shown_classes(report: Summary, most: int) -> list[dict[str, Any]]:
    """Return at most so many entries of "per_class": of more than two classes, those of highest loss first."""
    entries: list[dict[str, Any]] = report["per_class"]
    if len(entries) <= 2:
        return entries
    without_rows = [entry for entry in entries if not entry["rows"]]
    return [*(entries[k] for k in report["costliest_classes"]), *without_rows][:most]


def _per_class(
    classes: tuple[str, ...], codes: Codes, predicted: Codes, losses: Float64, weights: Float64
) -> list[dict[str, Any]]:
    hit, counted = codes == predicted, weights > 0
    rows = np.bincount(codes, minlength=len(classes))
    right = np.bincount(codes[hit], minlength=len(classes))

    def weigh(of: Codes, values: Float64) -> Float64:
        return np.bincount(of, weights=values, minlength=len(classes)).astype(np.float64)

    mass, calls = weigh(codes, weights), weigh(predicted, weights)
    hits = weigh(codes[hit], weights[hit])
    sums = weigh(codes[counted], weights[counted] * losses[counted])
    return [
        {
            "label": label,
            "rows": int(rows[k]),
            "loss": loss_entry(float(sums[k] / mass[k])) if mass[k] else None,
            "right": int(right[k]),
            "recall": float(hits[k] / mass[k]) if mass[k] else None,
            "precision": float(hits[k] / calls[k]) if calls[k] else None,
        }
        for k, label in enumerate(classes)
    ]


def _matrix(codes: Codes, predicted: Codes, num_classes: int) -> Any:
    pairs = np.bincount(codes * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes).tolist()


def _folded(classes: tuple[str, ...], codes: Codes, predicted: Codes) -> dict[str, Any]:
    """Return the matrix that is shown: of many classes, those of most mistakes, and all others as the last one."""
    size = len(classes)
    kept = np.arange(size)
    if size > FULL_MATRIX:
        wrong = codes != predicted
        mistakes = np.bincount(codes[wrong], minlength=size) + np.bincount(predicted[wrong], minlength=size)
        kept = np.argsort(-mistakes, kind="stable")[:FOLDED_MATRIX]
    place = np.full(size, len(kept))
    place[kept] = np.arange(len(kept))
    folded = size - len(kept)
    width = len(kept) + (folded > 0)
    matrix = _matrix(place[codes], place[predicted], width)
    return {"labels": [classes[k] for k in kept], "folded": folded, "matrix": matrix}


def _most_confused(classes: tuple[str, ...], codes: Codes, predicted: Codes) -> list[dict[str, Any]]:
    # Only the pairs that occur are counted: a matrix of 5000 classes would take 200 MB.
    wrong = codes != predicted
    pairs, counts = np.unique(codes[wrong] * len(classes) + predicted[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_CONFUSED]
    return [
        {
            "label": classes[pairs[i] // len(classes)],
            "prediction": classes[pairs[i] % len(classes)],
            "rows": int(counts[i]),
        }
        for i in order
    ]


def _surprising(
    classes: tuple[str, ...],
    codes: Codes,
    losses: Float64,
    probabilities: Float64,
    row_numbers: Codes,
    cells: pl.DataFrame | None,
) -> list[dict[str, Any]]:
    shown = []
    for i in np.argsort(-losses, kind="stable")[:SURPRISING_ROWS]:
        prediction = int(np.argmax(probabilities[i]))
        row = int(row_numbers[i])
        shown.append(
            {
                "row": row,
                "label": classes[codes[i]],
                "prediction": classes[prediction],
                "loss": loss_entry(float(losses[i])),
                "label_probability": float(probabilities[i, codes[i]]),
                "prediction_probability": float(probabilities[i, prediction]),
                "cells": cells_of(cells, i),
                "outlying": None,
            }
        )
    return shown


def cells_of(cells: pl.DataFrame | None, row: int) -> dict[str, str | None] | None:
    """Return a row's cells as text, cut where they are too long to read."""
    if cells is None:
        return None
    return {name: _cell(value) for name, value in zip(cells.columns, cells.row(row), strict=True)}


def _cell(value: object) -> str | None:
    if value is None:
        return None
    return f"{value:.6g}" if isinstance(value, float) else short(str(value), CELL_WIDTH)
