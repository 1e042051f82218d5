"""Two models side by side: both reports, and the paired difference where they judge the same rows."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tabular import InputError, Predictions
from .evaluation import COSTLIEST_CLASSES, cells_of
from .summarize import SCHEMA, shown_columns, summarize_predictions
from .two_classes import EVEN, Decision
from .words import count, short

Summary = dict[str, Any]

LEVEL = 0.95
_Z = 1.959963984540054
DIFFERENT_ROWS = 10


def compare_predictions(first: Predictions, second: Predictions, decision: Decision = EVEN) -> Summary:
    """Return both reports under "reports" and, where labels agree row by row, the "paired" difference of losses.

    Where they do not, "paired" is null, and of as many rows "first_different" is the first whose labels differ.

    Raises
    ------
    InputError
        If the two files have different classes.
    """
    if set(first.classes) != set(second.classes):
        others = sorted(set(first.classes) ^ set(second.classes))
        raise InputError(
            f"{first.source!r} and {second.source!r} have different classes: {others[0]!r} is in one of them only"
        )
    reports = [summarize_predictions(predictions, decision) for predictions in (first, second)]
    return {
        "schema": SCHEMA,
        "crossent_version": reports[0]["crossent_version"],
        "kind": "comparison",
        "target": first.target,
        "sources": [first.source, second.source],
        "reports": reports,
        "classes_shown": _classes_shown(reports),
        **_matched(first, second),
        "warnings": [f"{report['source']}: {text}" for report in reports for text in report["warnings"]],
    }


def _classes_shown(reports: list[Summary]) -> list[str]:
    """Return the classes in the first's order; of more than a page lists, those of highest loss in either."""
    labels = [entry["label"] for entry in reports[0]["per_class"]]
    if len(labels) <= COSTLIEST_CLASSES:
        return labels
    ranked = [[one["per_class"][k]["label"] for k in one["costliest_classes"]] for one in reports]
    either = [label for pair in zip_longest(*ranked) for label in pair if label is not None]
    return list(dict.fromkeys(either))[:COSTLIEST_CLASSES]


def _matched(first: Predictions, second: Predictions) -> Summary:
    """Return "paired", or the "first_different" row of two files of as many rows whose labels differ."""
    one, other = (np.array(predictions.classes)[predictions.codes] for predictions in (first, second))
    if len(one) != len(other):
        return {"paired": None, "first_different": None}
    different = np.flatnonzero(one != other)
    if len(different):
        row = int(different[0])
        return {"paired": None, "first_different": {"row": row, "labels": [str(one[row]), str(other[row])]}}
    return {"paired": _paired(first, second, one), "first_different": None}


def _paired(first: Predictions, second: Predictions, labels: NDArray[np.str_]) -> Summary:
    """Return mean and interval of the loss of the second less the first, on rows of the same labels."""
    finite = np.isfinite(first.losses) & np.isfinite(second.losses)
    predicted = [np.array(p.classes)[np.argmax(p.probabilities, axis=1)] for p in (first, second)]
    difference = second.losses[finite] - first.losses[finite]
    error = float(np.std(difference) / math.sqrt(max(len(difference), 1))) if len(difference) else 0.0
    mean = float(np.mean(difference)) if len(difference) else 0.0
    cells = shown_columns(first) if first.others is not None and first.others.width else shown_columns(second)
    shown = np.flatnonzero(finite)[np.argsort(-np.abs(difference), kind="stable")[:DIFFERENT_ROWS]]
    return {
        "rows": len(labels),
        "left_out": int(np.sum(~finite)),
        "difference": mean,
        "lower": mean - _Z * error,
        "upper": mean + _Z * error,
        "level": LEVEL,
        "only_first_right": int(np.sum((predicted[0] == labels) & (predicted[1] != labels))),
        "only_second_right": int(np.sum((predicted[1] == labels) & (predicted[0] != labels))),
        "most_different": [
            {
                "row": int(i),
                "label": str(labels[i]),
                "predictions": [str(p[i]) for p in predicted],
                "probabilities": [float(np.exp(-p.losses[i])) for p in (first, second)],
                "cells": cells_of(cells, int(i)),
            }
            for i in shown
        ],
    }


def verdict(comparison: Summary) -> list[str]:
    """Return which model is better, in sentences."""
    names = [short(report["source"]) for report in comparison["reports"]]
    paired = comparison["paired"]
    if paired is None:
        different = comparison["first_different"]
        if different is None:
            rows = [count(report["data"]["rows"], "row") for report in comparison["reports"]]
            why = f"One file has {rows[0]}, the other {rows[1]}"
        else:
            one, other = (repr(short(label)) for label in different["labels"])
            why = f"Row {different['row']} (counted from 0) has the label {one} in one file and {other} in the other"
        return [f"{why}, so their rows cannot be compared one by one."]
    if paired["left_out"]:
        left_out = f" ({count(paired['left_out'], 'row')} of infinite loss left out)"
    else:
        left_out = ""
    interval = f"{paired['lower']:+.4f} to {paired['upper']:+.4f}"
    level = f"{100 * paired['level']:.0f} %"
    impossible = [report["loss"]["impossible_rows"] for report in comparison["reports"]]
    if (impossible[0] > 0) != (impossible[1] > 0):
        worse = 0 if impossible[0] else 1
        first = (
            f"{names[1 - worse]} is better: {names[worse]} gave probability 0 to the label of "
            f"{count(impossible[worse], 'row')}, so that its loss is infinite. On the other rows the loss of the "
            f"second less the first is {paired['difference']:+.4f} nats a row ({level} interval "
            f"{interval})."
        )
    elif paired["lower"] > 0 or paired["upper"] < 0:
        better = names[0] if paired["lower"] > 0 else names[1]
        first = (
            f"{better} is better: on the same {count(paired['rows'], 'row')} its loss is "
            f"{abs(paired['difference']):.4f} nats a row lower{left_out}; the {level} interval of second "
            f"less first is {interval}."
        )
    else:
        first = (
            f"These {count(paired['rows'], 'row')} do not tell which is better{left_out}: the loss of the second less "
            f"the first is {paired['difference']:+.4f} nats a row, with a {level} interval of {interval}."
        )
    return [
        first,
        f"Only {names[0]} is right in {count(paired['only_first_right'], 'row')}, only {names[1]} in "
        f"{count(paired['only_second_right'], 'row')}.",
    ]
