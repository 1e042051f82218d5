"""Anyone's predictions calibrated: each row by a map that was fitted to other rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..calibration.classifier import METHODS, Scores
from .errors import InputError
from .predictions import PREDICTED_CLASS, Predictions
from .splitting import Rows, deal_folds

CHOICES = ("auto", *METHODS)
FOLDS = 5
_PER_PAIR = ("matrix", "dirichlet")  # as many parameters as pairs of classes


@dataclass(frozen=True)
class Recalibrated:
    """Probabilities (N, K) after calibration, and what each method that was tried costs a row.

    `losses` are means in nats, of every row at a map fitted to other rows; "none" is the predictions as they are.
    """

    method: str
    probabilities: NDArray[np.float64]
    row_losses: NDArray[np.float64]  # (N,), nats
    losses: dict[str, float]


def recalibrate(predictions: Predictions, method: str = "auto", seed: int = 0) -> Recalibrated:
    """Return calibrated probabilities.

    The rows are dealt into folds with each class in proportion, and each fold is calibrated by a map that was fitted to
    the others. With "auto" the method of least mean loss is taken, "none" among them. A probability of 0 counts as half
    of the smallest positive one.

    Parameters
    ----------
    predictions : Predictions
    method : str
        "auto" or one of those of `crossent.sklearn.CalibratedClassifier`.
    seed : int
        Deals the folds.

    Raises
    ------
    InputError
        If the method is unknown or refuses the predictions, or a class has a single row.
    """
    if method not in CHOICES:
        raise InputError(f"the method must be one of {', '.join(CHOICES)}, and is {method!r}")
    codes = predictions.codes
    counts = np.bincount(codes, minlength=len(predictions.classes))
    fewest = int(counts[counts > 0].min())
    if fewest < 2:
        name = predictions.classes[int(np.argmax(counts == 1))]
        raise InputError(f"class {name!r} has one row, and rows are calibrated by others: each class needs at least 2")
    folds = list(deal_folds(codes, min(FOLDS, fewest), seed))
    logits = predictions.logits
    if logits is None:
        with np.errstate(divide="ignore"):
            scores = Scores("log-probabilities", np.log(predictions.probabilities))
        logits = scores.logits(scores.floor())
    tried = [method]
    if method == "auto":
        enough = len(codes) > logits.shape[1] ** 2
        tried = [name for name in METHODS if enough or name not in _PER_PAIR]
    found = {"none": predictions.probabilities}
    for name in tried:
        try:
            found[name] = _cross_fitted(name, logits, codes, folds)
        except ValueError as error:
            if method != "auto":
                raise InputError(str(error)) from error
    rows = np.arange(len(codes))
    with np.errstate(divide="ignore"):
        losses = {name: np.abs(np.log(p[rows, codes])) for name, p in found.items()}
    losses["none"] = predictions.losses
    means = {name: float(loss.mean()) for name, loss in losses.items()}
    chosen = method if method != "auto" else min(means, key=lambda name: means[name])
    return Recalibrated(chosen, found[chosen], losses[chosen], means)


def _cross_fitted(
    name: str,
    logits: NDArray[np.float64],
    codes: NDArray[np.intp],
    folds: list[tuple[Rows, Rows]],
) -> NDArray[np.float64]:
    calibrated = np.empty(logits.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that fall for ever: the held-out loss says what they are worth
        for kept, held_out in folds:
            # Labels are class indices, also where a class has no row.
            calibrated[held_out] = METHODS[name]().fit(logits[kept], codes[kept]).predict_proba(logits[held_out])
    return calibrated


def replace_predictions(
    frame: pl.DataFrame, predictions: Predictions, probabilities: NDArray[np.float64]
) -> pl.DataFrame:
    """Return the table that predictions were read from with other probabilities, on the scale that it had."""
    with np.errstate(divide="ignore"):
        log = np.log(probabilities)
    if len(predictions.columns) == 1:  # of two classes one has a column, and the other the rest, or the logit 0
        place = predictions.classes.index(next(iter(predictions.columns)))
        log = log - log[:, [1 - place]]
    values = probabilities if predictions.scale == "probabilities" else log
    places = {label: k for k, label in enumerate(predictions.classes)}
    new = [pl.Series(column, values[:, places[label]]) for label, column in predictions.columns.items()]
    if PREDICTED_CLASS in frame.columns and predictions.target != PREDICTED_CLASS:
        best = [predictions.classes[k] for k in np.argmax(probabilities, axis=1)]
        new.append(pl.Series(PREDICTED_CLASS, best, dtype=pl.String))
    return frame.with_columns(new)
