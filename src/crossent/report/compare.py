"""Two models side by side: both reports, and the paired difference where they judge the same rows."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tabular import InputError, Predictions
from .evaluation import COSTLIEST_CLASSES, cells_of, floored
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
    require_same_classes(first, second)
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


def require_same_classes(first: Predictions, second: Predictions) -> None:
    """Refuse two models of different classes."""
    if set(first.classes) != set(second.classes):
        others = sorted(set(first.classes) ^ set(second.classes))
        raise InputError(
            f"{first.source!r} and {second.source!r} have different classes: {others[0]!r} is in one of them only"
        )


def labels_of(predictions: Predictions) -> NDArray[np.str_]:
    """Return the label of each row."""
    return np.array(predictions.classes)[predictions.codes]


def paired_difference(first: Predictions, second: Predictions) -> Summary:
    """Return the second's "loss", "brier_score" and "errors" less the first's, each with its interval."""
    paired = _paired(first, second, labels_of(first))
    loss = {name: paired[name] for name in ("difference", "lower", "upper")}
    return {"loss": loss, "brier_score": paired["brier_score"], "errors": paired["errors"]}


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
    one, other = labels_of(first), labels_of(second)
    if len(one) != len(other):
        return {"paired": None, "first_different": None}
    different = np.flatnonzero(one != other)
    if len(different):
        row = int(different[0])
        return {"paired": None, "first_different": {"row": row, "labels": [str(one[row]), str(other[row])]}}
    return {"paired": _paired(first, second, one), "first_different": None}


def _paired(first: Predictions, second: Predictions, labels: NDArray[np.str_]) -> Summary:
    """Return the second's loss, Brier score and errors less the first's, with intervals, on rows of the same labels.

    A probability of 0 of the label counts as half a row's share in the loss: a few such rows must not decide alone.
    """
    predicted = [np.array(p.classes)[np.argmax(p.probabilities, axis=1)] for p in (first, second)]
    losses, (floor, _) = zip(*(floored(p.losses) for p in (first, second)), strict=True)
    scores = [brier_scores(p) for p in (first, second)]
    errors = [(p != labels).astype(np.float64) for p in predicted]
    difference = losses[1] - losses[0]
    cells = shown_columns(first) if first.others is not None and first.others.width else shown_columns(second)
    shown = np.argsort(-np.abs(difference), kind="stable")[:DIFFERENT_ROWS]
    return {
        "rows": len(labels),
        **mean_difference(difference),
        "level": LEVEL,
        "brier_score": mean_difference(scores[1] - scores[0]),
        "errors": mean_difference(errors[1] - errors[0]),
        "zeros": [int(np.sum(np.isinf(p.losses))) for p in (first, second)],
        "floor": floor,
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
    level = f"{100 * paired['level']:.0f} %"
    lines = [
        _judgement(names, paired),
        f"The second less the first: loss {_signed(paired)} nats a row, Brier score {_signed(paired['brier_score'])}, "
        f"errors {_points(paired['errors'])} points ({level} intervals).",
    ]
    lines += [
        f"{name} gave probability 0 to the label of {count(zeros, 'row')}, so that its loss is infinite; here they "
        f"count as {paired['floor']:.2g}, half a row in {paired['rows']:,}."
        for name, zeros in zip(names, paired["zeros"], strict=True)
        if zeros
    ]
    lines.append(
        f"Only {names[0]} is right in {count(paired['only_first_right'], 'row')}, only {names[1]} in "
        f"{count(paired['only_second_right'], 'row')}."
    )
    return lines


def _judgement(names: list[str], paired: Summary) -> str:
    """Return which model is better by loss, Brier score and accuracy, and what to go by if they disagree."""
    rows = count(paired["rows"], "row")
    measures = {"loss": paired, "Brier score": paired["brier_score"], "accuracy": paired["errors"]}
    better = {name: 0 if value["lower"] > 0 else 1 for name, value in measures.items() if _is_decided(value)}
    if not better:
        return f"These {rows} do not tell which is better."
    by_model = [[name for name, winner in better.items() if winner == k] for k in (0, 1)]
    if all(by_model):
        return (
            f"They disagree: on the same {rows} {names[0]} is better by {_listed(by_model[0])}, {names[1]} by "
            f"{_listed(by_model[1])}. Go by the loss where the probabilities are used, by accuracy where the predicted "
            "class alone is."
        )
    k = 0 if by_model[0] else 1
    undecided = [name for name in measures if name not in better]
    rest = f"; by {_listed(undecided)} they cannot be told apart" if undecided else ""
    return f"{names[k]} is better: on the same {rows} by {_listed(by_model[k])}{rest}."


def _is_decided(value: Summary) -> bool:
    return bool(value["lower"] > 0 or value["upper"] < 0)


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _signed(value: Summary) -> str:
    return f"{value['difference']:+.4f} ({value['lower']:+.4f} to {value['upper']:+.4f})"


def _points(value: Summary) -> str:
    return f"{100 * value['difference']:+.1f} ({100 * value['lower']:+.1f} to {100 * value['upper']:+.1f})"


def mean_difference(differences: NDArray[np.float64]) -> Summary:
    """Return the mean of a row's differences, and its normal interval."""
    mean, error = float(np.mean(differences)), float(np.std(differences) / math.sqrt(len(differences)))
    return {"difference": mean, "lower": mean - _Z * error, "upper": mean + _Z * error}


def brier_scores(predictions: Predictions) -> NDArray[np.float64]:
    """Return each row's Brier score, without a matrix of its labels."""
    p = predictions.probabilities
    of_label = p[np.arange(len(p)), predictions.codes]
    scores: NDArray[np.float64] = (p * p).sum(axis=1) - 2 * of_label + 1
    return np.maximum(scores, 0.0)
