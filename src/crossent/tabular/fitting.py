"""What both fits of a table share: what is asked for, the optimiser's run, and the model that comes of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..boosting.libraries import per_class
from ..sklearn import CoefficientSummary, SoftmaxRegression
from .boosted import SOFTMAX, TableBooster, Trees, require_model
from .conversions import DEFAULT_COLUMNS, ColumnOptions
from .errors import InputError
from .model import LINKS, Model
from .preprocessing import Preprocessing
from .reading import remaining_columns


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What is asked of a fit.

    Attributes
    ----------
    drop : collection of str
        Columns to leave out.
    test_size : float
        Share of the rows to hold out.
    calibration_size : float
        Share of the rows that find a temperature. Each fit says of which rows it is the share; 0 calibrates nothing.
    seed : int
        Seed of the splits. The same seed gives the same model.
    strength : float
        The estimator's C: the weight of the losses beside ½‖W‖².
    tolerance, max_iter : float, int
        When the optimiser stops: relative duality gap, iterations. Of boosted trees the most rounds.
    model : {"softmax", "xgboost", "lightgbm", "catboost"}
        Softmax regression, or trees that one of the libraries boosts; C, tolerance, link and checkpoint are not theirs.
    group : str, optional
        Column whose equal values stay together: all to train, or all to test, or all in one fold. It is no feature.
    time : str, optional
        Column whose latest rows are the test part.
    id : str, optional
        Column that tells a person which row it is. It is no feature, and predictions hold it.
    drop_unlabelled : bool
        Leave rows without a label out, instead of refusing them.
    min_class_rows : int
        Classes of fewer rows are made one class "other", or are left out.
    rare : {"merge", "drop"}
        Which of the two.
    link : {"softmax", "sigmoid"}
        The estimator's link; "sigmoid" is one class against the rest, and goes without calibration.
    sweep : bool
        Choose C by cross-validation on the training part, from a range of values; `strength` is then not used.
    learning_curve : bool
        Also fit to a quarter and to half of the training rows, and judge these models on the same test rows.
    callback : callable, optional
        Called with every entry of the optimiser's history; in a sweep the entry also says which fit it is of, from 1
        ("fit"), and of how many ("fits").
    columns : ColumnOptions
        What is said of the columns: words for "no value", columns that are no ids, columns of prose.
    checkpoint, checkpoint_interval : path, float
        As the estimator takes them; a sweep has none.
    """

    drop: Collection[str] = ()
    test_size: float = 0.25
    calibration_size: float = 0.0
    seed: int = 0
    strength: float = 1.0
    tolerance: float = 1e-4
    max_iter: int = 1000
    model: str = SOFTMAX
    group: str | None = None
    time: str | None = None
    id: str | None = None
    drop_unlabelled: bool = False
    min_class_rows: int = 0
    rare: Literal["merge", "drop"] = "merge"
    link: str = "softmax"
    sweep: bool = False
    learning_curve: bool = False
    columns: ColumnOptions = DEFAULT_COLUMNS
    callback: Callable[[dict[str, Any]], None] | None = None
    checkpoint: Path | None = None
    checkpoint_interval: float = 60.0

    def estimator(self) -> Any:
        """Return the estimator that is asked for where nothing is swept."""
        if self.model != SOFTMAX:
            return TableBooster.of(self.model, self.max_iter, self.seed)
        return SoftmaxRegression(
            self.strength,
            link=self.link,
            tol=self.tolerance,
            max_iter=self.max_iter,
            callback=self.callback,
            checkpoint=self.checkpoint,
            checkpoint_interval=self.checkpoint_interval,
        )

    def features(self, columns: list[str], target: str, source: str) -> list[str]:
        """Return the columns to learn from, if the shares of the rows are such and there is a column to learn from."""
        if not 0 < self.test_size < 1:
            raise InputError(f"the test part must be a share of the rows between 0 and 1, and is {self.test_size}")
        require_model(self.model)
        if self.model != SOFTMAX and (self.link != "softmax" or self.sweep):
            raise InputError(f"a link and a sweep of C are of the softmax regression, and the model is {self.model!r}")
        if self.link not in LINKS:
            raise InputError(f"the link must be one of {', '.join(LINKS)}, and is {self.link!r}")
        if self.link != "softmax" and self.calibration_size:
            raise InputError("a temperature is fitted to the softmax link only: leave out the calibration or the link")
        no_features = [name for name in (self.group, self.id) if name is not None]
        features = remaining_columns(columns, target, {*self.drop, *no_features}, source)
        if not features:
            raise InputError(f"{source!r} has no column beside {target!r} to learn from")
        return features


DEFAULTS = FitOptions()


@dataclass(frozen=True)
class Calibration:
    """The temperature that a model's coefficients are divided by, and the rows that it comes from.

    `best` is the temperature of least loss on these rows (tiny or infinite where the loss falls for ever);
    `temperature` is the one nearest to 1 that they do not contradict, 1 itself included. `folds` is the number of
    models that gave the rows their logits, each to rows that it was not trained on; 1 is the model itself.
    """

    rows: NDArray[np.intp]
    folds: int
    best: float
    temperature: float


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model beside what was seen on the way to it. Rows are counted from 0 in the table as read."""

    model: Model
    source: str
    options: FitOptions  # with the C that a sweep chose
    estimator: Any  # fitted: history, duality gap and iterations
    rows: int
    unused_columns: list[str]  # features that the model does not read
    missing_cells: int  # of the columns that it reads
    class_counts: NDArray[np.intp]  # (K,), all rows
    training_counts: NDArray[np.intp]  # (K,)
    training_loss: float  # mean over the training rows, nats
    test_rows: int  # held out; not all need be judged
    stratified: bool  # whether each class has its share of them
    test: NDArray[np.intp]  # numbers of the rows judged, held out of training
    test_codes: NDArray[np.intp]  # their class indices
    test_logits: NDArray[np.float64]
    cells: pl.DataFrame  # their features
    notes: list[str]
    calibration: Calibration | None = None
    coefficients: CoefficientSummary | None = None  # where their standard errors are known
    learning_curve: tuple[CurvePoint, ...] = ()


class CurvePoint(NamedTuple):
    """A model of so many training rows, and its mean losses in nats, before any calibration."""

    rows: int
    training_loss: float
    test_loss: float


def require_parts(classes: list[str], training: NDArray[np.intp], test: int, test_size: float) -> None:
    """Refuse a split that leaves a class without rows to train, of the counts `training`, or too few rows to test."""
    held_out = f"holding out {100 * test_size:g}% of the rows leaves"
    without = np.flatnonzero(training == 0)
    if len(without):
        raise InputError(
            f"{held_out} class {classes[without[0]]!r} without training rows: hold out fewer, or try another seed"
        )
    if test < len(classes):
        raise InputError(f"{held_out} {test} to test, which is too few for {len(classes)} classes")


def require_inputs(preprocessing: Preprocessing, source: str) -> None:
    """Refuse a table from which nothing can be learned."""
    if not preprocessing.input_names:
        raise InputError(f"no column of {source!r} holds a value in the training part")


def run(estimator: Any, X: Any, codes: NDArray[Any]) -> list[str]:
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
    estimator: Any,
    calibration: Calibration | None,
    classes: list[str],
    target: str,
    source: str,
    training_counts: NDArray[np.intp],
    options: FitOptions,
) -> Model:
    """Return the model of a fitted estimator, its coefficients divided by the temperature."""
    account = {
        "source": source,
        "training_rows": int(training_counts.sum()),
        "class_counts": training_counts.tolist(),
        "C": options.strength,
        "tolerance": options.tolerance,
        "seed": options.seed,
        "test_size": options.test_size,
        "id": options.id,
    }
    temperature = 1.0
    if calibration is not None:
        temperature = calibration.temperature
        account |= {"temperature": temperature, "calibration_rows": len(calibration.rows)}
    if isinstance(estimator, TableBooster):
        for name in ("C", "tolerance"):
            del account[name]
        account |= {"model": options.model, "rounds": estimator.n_iter_}
        trees = Trees.of(estimator, temperature)
        start = per_class(estimator.start_, len(classes)) / temperature
        nothing = np.zeros((len(classes), 0))
        return Model(preprocessing, nothing, start, tuple(classes), target, account, trees=trees)
    coef, intercept = (np.asarray(a, np.float64) / temperature for a in (estimator.coef_, estimator.intercept_))
    link = estimator.link
    if len(coef) == 1:  # the yes or no of two classes, as the softmax of two logits
        coef, intercept, link = (
            np.concatenate([-coef, coef]) / 2,
            np.concatenate([-intercept, intercept]) / 2,
            "softmax",
        )
    return Model(preprocessing, coef, intercept, tuple(classes), target, account, link)
