"""Boosted trees as the model of a table: of the same inputs as the softmax regression, in their library's own file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..boosting import BoostedClassifier
from ..boosting.classifier import can_hold_out
from ..boosting.libraries import LIBRARIES, library_of, per_class
from ..boosting.saving import booster_content, named_booster
from ..kernels.threads import get_num_threads
from ..sealed import require
from .errors import InputError, name_list

__all__ = ["MODELS", "TableBooster", "Trees", "require_model", "trees_file"]

SOFTMAX = "softmax"
MODELS = {
    SOFTMAX: "Softmax regression",
    "xgboost": "Boosted trees (XGBoost)",
    "lightgbm": "Boosted trees (LightGBM)",
    "catboost": "Boosted trees (CatBoost)",
}
LEARNING_RATE = 0.1
# Training stops when the loss of a tenth of the rows has not fallen for so many rounds.
PATIENCE = 20
ROUNDS_OF_FEW_ROWS = 100  # where none can be held out


def require_model(name: str) -> None:
    """Refuse a model that there is none of, or whose library is not installed."""
    if name not in MODELS:
        raise InputError(f"the model must be one of {name_list([*MODELS])}, and is {name!r}")
    if name != SOFTMAX:
        _make(name)


def trees_file(name: str) -> list[str]:
    """Return the names of the files that a model has beside its model file."""
    return [] if name == SOFTMAX else [f"model{LIBRARIES[name].suffix}"]


def _make(name: str, **parameters: Any) -> Any:
    """Return an untrained classifier of a library."""
    try:
        return LIBRARIES[name].make(**parameters)
    except ModuleNotFoundError as error:
        raise InputError(f"the package {error.name} is missing: pip install {error.name}") from error


class TableBooster(BoostedClassifier):
    """A boosted classifier that stops early where every class has rows to hold out."""

    @classmethod
    def of(cls, name: str, rounds: int, seed: int) -> Self:
        """Return one of at most so many rounds."""
        threads, seed = get_num_threads(), seed % 2**31
        own: dict[str, Any] = {
            "xgboost": {"n_jobs": threads},
            "lightgbm": {"n_jobs": threads, "verbosity": -1, "deterministic": True, "force_row_wise": True},
            "catboost": {"thread_count": threads, "allow_writing_files": False},
        }[name]
        estimator = _make(name, n_estimators=rounds, learning_rate=LEARNING_RATE, random_state=seed, **own)
        return cls(estimator, early_stopping_rounds=PATIENCE, random_state=seed)

    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Self:
        counts = np.unique(y, return_counts=True)[1]
        if not can_hold_out(counts, self.validation_fraction):
            most = min(self.estimator.get_params()["n_estimators"], ROUNDS_OF_FEW_ROWS)
            self.estimator.set_params(n_estimators=most)
            self.early_stopping_rounds = None
        return super().fit(X, y, sample_weight, eval_set)

    def account(self) -> str:
        """Return how many rounds there are, and why, for people."""
        if self.early_stopping_rounds is None:
            return f"{self.n_iter_} rounds of boosting: too few rows to hold some out and stop early"
        share = f"{100 * self.validation_fraction:g}%"
        return f"{self.n_iter_} rounds of boosting, of least loss on {share} of the training rows, held out"


@dataclass(frozen=True)
class Trees:
    """What a boosted model adds to its start: ``trees(x) / temperature``, and the file that holds the trees."""

    library: str
    file: str
    content: bytes = field(repr=False)
    booster: Any = field(repr=False)
    num_classes: int
    temperature: float

    @classmethod
    def of(cls, model: BoostedClassifier, temperature: float) -> Self:
        """Return those of a trained classifier."""
        library = library_of(model.estimator)
        (file,) = trees_file(library.package)
        content = library.to_bytes(model.estimator_)
        return cls(library.package, file, content, model.estimator_, len(model.classes_), temperature)

    @classmethod
    def read(cls, header: Any, folder: Path, num_classes: int) -> Self:
        """Return those that a model file names.

        Raises
        ------
        SealError
            If the file beside it is not the one that it names.
        InputError
            If the library is missing.
        """
        content = booster_content(folder, header)
        try:
            booster = LIBRARIES[header["library"]].from_bytes(content, {})
        except ModuleNotFoundError as error:
            raise InputError(f"the package {error.name} is missing: pip install {error.name}") from error
        temperature = header["temperature"]
        require(type(temperature) is float and 0 < temperature < math.inf, f"its temperature is {temperature!r}")
        return cls(header["library"], header["file"], content, booster, num_classes, temperature)

    def header(self) -> dict[str, Any]:
        """Return what the model file says of them."""
        return {**named_booster(LIBRARIES[self.library], self.file, self.content), "temperature": self.temperature}

    def logits(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what is added to the start, (N, K)."""
        nothing = np.zeros(self.num_classes if self.num_classes > 2 else ())
        return (
            per_class(LIBRARIES[self.library].raw(self.booster, matrix, nothing), self.num_classes) / self.temperature
        )
