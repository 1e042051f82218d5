"""More than two models as a table: each beside the one of least loss, on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._version import __version__
from ..tabular import InputError, Predictions
from .compare import LEVEL, brier_scores, labels_of, paired_difference, require_same_classes
from .evaluation import floored, loss_entry
from .summarize import SCHEMA

Summary = dict[str, Any]


def rank_predictions(judged: Sequence[Predictions]) -> Summary:
    """Return the models in the order of their loss, and what each costs more than the first, with paired intervals.

    A probability of 0 of the label counts as half a row's share in the loss, as where two are compared.

    Raises
    ------
    InputError
        If the models have different classes, or their rows different labels.
    """
    labels = labels_of(judged[0])
    for other in judged[1:]:
        require_same_classes(judged[0], other)
        names = f"{judged[0].source!r} and {other.source!r}"
        if len(other.codes) != len(labels):
            raise InputError(
                f"{names} have {len(labels)} and {len(other.codes)} rows, which cannot be compared one by one: "
                "pass --id COLUMN to join them"
            )
        different = np.flatnonzero(labels_of(other) != labels)
        if len(different):
            raise InputError(
                f"{names} have different labels in row {different[0]} (counted from 0): pass --id COLUMN to join rows"
            )
    ranked = sorted(judged, key=lambda p: float(np.mean(floored(p.losses)[0])))
    models = [{"source": one.source, **_scores(one), "more_than_best": None} for one in ranked]
    for entry, one in zip(models[1:], ranked[1:], strict=True):
        entry["more_than_best"] = paired_difference(ranked[0], one)
    return {
        "schema": SCHEMA,
        "crossent_version": __version__,
        "kind": "ranking",
        "target": judged[0].target,
        "sources": [one.source for one in judged],
        "rows": len(labels),
        "level": LEVEL,
        "models": models,
        "warnings": [f"{one.source}: {text}" for one in judged for text in one.warnings],
    }


def _scores(one: Predictions) -> Summary:
    right = np.argmax(one.probabilities, axis=1) == one.codes
    return {
        "loss": loss_entry(float(np.mean(one.losses))),
        "brier_score": float(np.mean(brier_scores(one))),
        "accuracy": float(np.mean(right)),
        "zeros": int(np.sum(np.isinf(one.losses))),
    }


def told_apart(model: Summary) -> str:
    """Return in words whether a model is worse than the one of least loss."""
    more = model["more_than_best"]
    if more is None:
        return "least loss"
    return "worse" if more["loss"]["lower"] > 0 else "not told apart from the first"


def interval(value: Summary, scale: float = 1.0, digits: int = 4) -> str:
    """Return a difference and its interval.

    Examples
    --------
    >>> interval({"difference": 0.25, "lower": 0.125, "upper": 0.375}, digits=3)
    '+0.250 (+0.125 to +0.375)'
    """
    mean, lower, upper = (f"{scale * value[name]:+.{digits}f}" for name in ("difference", "lower", "upper"))
    return f"{mean} ({lower} to {upper})"
