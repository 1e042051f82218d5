"""What a training leaves for a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .model import Model


@dataclass(frozen=True)
class Calibration:
    """The temperature that a model's coefficients are divided by, and the rows that it comes from.

    `best` is the temperature of least loss on these rows (tiny or infinite where the loss falls for ever);
    `temperature` the one nearest to 1 that they do not contradict, 1 itself included. `folds` is the number of models
    that gave the rows their logits, each to rows that it was not trained on; 1 is the model itself.
    """

    rows: NDArray[np.intp]
    folds: int
    best: float
    temperature: float


@dataclass(frozen=True)
class DataSummary:
    """A table in numbers: rows, cells, and rows of each class."""

    rows: int
    unused_columns: list[str]  # features that the model does not read
    missing_cells: int  # of the columns that it reads
    class_counts: NDArray[np.intp]  # (K,), all rows
    training_counts: NDArray[np.intp]  # (K,)
    test_rows: int  # held out; not all need be judged
    training_loss: float  # mean over the training rows, nats
    cells: pl.DataFrame  # features of the rows judged


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model beside what was seen on the way to it. Rows are counted from 0 in the table as read."""

    model: Model
    source: str
    data: DataSummary
    test: NDArray[np.intp]  # numbers of the rows judged, held out of training
    test_codes: NDArray[Any]  # their class indices
    test_logits: NDArray[np.float64]
    history: list[dict[str, Any]]
    duality_gap: float | None
    tolerance: float
    iterations: int
    seed: int
    notes: list[str]
    calibration: Calibration | None = None
