"""The model file: safetensors for the numbers, JSON in its header for the words. Reading one runs no code.

Tensors (float64): ``coef`` (K, D), ``intercept`` (K,), ``number.median``, ``number.mean``, ``number.scale`` (one per
column of numbers). The header's ``crossent.model`` entry is a JSON object: classes, target, the columns with their
categories, how it was trained. ``format_version`` is a number that grows when an older crossent could misread the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import crossent as ce

from .._version import __version__
from .errors import InputError
from .preprocessing import CategoryColumn, NumberColumn, Preprocessing, UnseenCategories
from .reading import exists

HEADER_ENTRY = "crossent.model"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Model:
    """A trained softmax regression on a table: ``p = softmax(coef · x + intercept)``, x the preprocessed row."""

    preprocessing: Preprocessing
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    classes: tuple[str, ...]
    target: str
    training: dict[str, Any]  # how it came about, as plain JSON values; for people, never read back by the model

    def predict_logits(self, frame: pl.DataFrame, source: str = "the table") -> NDArray[np.float64]:
        """Return the logits (N, K) of the rows of a table."""
        return self.logits_of(self.preprocessing.transform(frame, source))

    def logits_of(self, matrix: NDArray[np.float64], first_row: int = 0) -> NDArray[np.float64]:
        """Return the logits (N, K) of rows that are preprocessed already; messages count them from `first_row`."""
        with np.errstate(over="ignore", invalid="ignore"):
            logits = matrix @ self.coef.T + self.intercept
        overflowed = ~np.isfinite(logits).all(axis=1)
        if overflowed.any():
            row = first_row + int(np.argmax(overflowed))
            raise InputError(f"the logits of row {row} (counted from 0) overflow: a value there is far too large")
        return logits

    def predict_probabilities(
        self,
        frame: pl.DataFrame,
        source: str = "the table",
        first_row: int = 0,
        unseen: UnseenCategories | None = None,
    ) -> NDArray[np.float64]:
        """Return the probabilities (N, K) of the rows of a table; column k belongs to ``classes[k]``.

        `first_row` and `unseen` are those of `Preprocessing.transform`.
        """
        matrix = self.preprocessing.transform(frame, source, first_row, unseen)
        return np.asarray(ce.softmax(self.logits_of(matrix, first_row)))

    def to_bytes(self) -> bytes:
        """Return the content of a model file."""
        numbers = self.preprocessing.numbers
        tensors = {
            "coef": self.coef,
            "intercept": self.intercept,
            "number.median": np.array([column.median for column in numbers]),
            "number.mean": np.array([column.mean for column in numbers]),
            "number.scale": np.array([column.scale for column in numbers]),
        }
        content = {
            "format_version": FORMAT_VERSION,
            "crossent_version": __version__,
            "classes": list(self.classes),
            "target": self.target,
            "link": "softmax",
            "numbers": [column.name for column in numbers],
            "categories": [
                {"name": c.name, "fill": c.fill, "categories": list(c.categories), "other": c.other}
                for c in self.preprocessing.categories
            ],
            "training": self.training,
        }
        # One entry: safetensors writes several in an order that changes from call to call.
        header = {HEADER_ENTRY: json.dumps(content, ensure_ascii=False, allow_nan=False)}
        return save({name: np.ascontiguousarray(tensor, dtype=np.float64) for name, tensor in tensors.items()}, header)


def read_model(path: str) -> Model:
    """Read a model file.

    Raises
    ------
    InputError
        If there is no such file, it is no crossent model, it is damaged or cut short, or a newer crossent wrote it.
    """
    if not (exists(Path(path)) and Path(path).is_file()):
        raise InputError(f"there is no model file {path!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(HEADER_ENTRY)
            if text is None:
                raise InputError(f"{path!r} is a safetensors file, but not a crossent model")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping: keys() only)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"cannot read {path!r} as a model file: it is damaged, cut short or not safetensors"
        ) from error
    try:
        content = json.loads(text)
        _check_version(content, path)
        return _model(content, tensors)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the model file {path!r} is damaged: its parts do not fit together ({error})") from error


def _check_version(content: dict[str, Any], path: str) -> None:
    version = content["format_version"]
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"its format version is {version!r}")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path!r} was written by a newer crossent ({content.get('crossent_version', 'unknown')}, "
            f"model format {version}; this is {__version__}, which reads up to format {FORMAT_VERSION}): "
            "upgrade crossent to use it"
        )


def _model(content: dict[str, Any], tensors: dict[str, NDArray[np.float64]]) -> Model:
    names = [str(name) for name in content["numbers"]]
    learned = [tensors["number.median"], tensors["number.mean"], tensors["number.scale"]]
    preprocessing = Preprocessing(
        tuple(
            NumberColumn(name, float(median), float(mean), float(scale))
            for name, median, mean, scale in zip(names, *learned, strict=True)
        ),
        tuple(
            CategoryColumn(str(c["name"]), str(c["fill"]), tuple(map(str, c["categories"])), bool(c["other"]))
            for c in content["categories"]
        ),
    )
    classes = tuple(map(str, content["classes"]))
    coef, intercept = tensors["coef"], tensors["intercept"]
    expected = (len(classes), len(preprocessing.input_names))
    if coef.shape != expected or intercept.shape != expected[:1]:
        raise ValueError(f"coef has shape {coef.shape} where {expected} is needed")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("it holds a number that is not finite")
    return Model(preprocessing, coef, intercept, classes, str(content["target"]), dict(content["training"]))
