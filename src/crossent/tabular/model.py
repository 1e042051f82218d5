"""The model file: safetensors for the numbers, JSON in its header for the words, a digest of both.

Reading one runs no code.

Tensors (float64): ``coef`` (K, D), ``intercept`` (K,), ``number.median``, ``number.mean``, ``number.scale`` (one per
column of numbers). The header's ``crossent.model`` entry is a JSON object:

- ``classes``, ``target``, ``link``: what is predicted, and how ("softmax");
- ``numbers``: the names of the columns of numbers, and ``missing``: the words that are no value among them;
- ``categories``: of every other column its ``name``, its ``kind`` ("booleans" or "categories", as in
  `crossent.tabular.columns`), its ``categories``, whether others share an input (``other``), and ``fill``, which a
  missing cell counts as;
- ``training``: how the model came about, for people;
- ``crossent_version``, ``format_version``, which grows when an older crossent could misread the file, and ``digest``.

A file is read strictly: what is not of the very type, name, shape and range that `Model.to_bytes` writes is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import crossent as ce

from .._version import __version__
from ..sealed import SealError, require, seal, unseal
from .columns import TRUTH_VALUES, is_pattern
from .errors import InputError, name_list
from .preprocessing import CategoryColumn, NumberColumn, Preprocessing, UnseenCategories
from .reading import exists

HEADER_ENTRY = "crossent.model"
FORMAT_VERSION = 2
LINK = "softmax"


@dataclass(frozen=True)
class Model:
    """A trained softmax regression on a table: ``p = softmax(coef · x + intercept)``, x the preprocessed row."""

    preprocessing: Preprocessing
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    classes: tuple[str, ...]
    target: str
    training: dict[str, Any]  # plain JSON values on how it came about; people read them, the model does not

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
            "crossent_version": __version__,
            "classes": list(self.classes),
            "target": self.target,
            "link": LINK,
            "numbers": [column.name for column in numbers],
            "missing": list(self.preprocessing.missing),
            "categories": [
                {"name": c.name, "kind": c.kind, "fill": c.fill, "categories": list(c.categories), "other": c.other}
                for c in self.preprocessing.categories
            ],
            "training": self.training,
        }
        tensors = {name: np.asarray(tensor, dtype=np.float64) for name, tensor in tensors.items()}
        return seal(HEADER_ENTRY, FORMAT_VERSION, content, tensors)


def read_model(path: str) -> Model:
    """Read a model file.

    Raises
    ------
    InputError
        If there is no such file, it is no crossent model, it is damaged or cut short, an older or newer crossent wrote
        it, or its parts do not fit together.
    """
    if not exists(Path(path)):
        raise InputError(f"there is no model file {path!r}")
    try:
        content, tensors = unseal(path, HEADER_ENTRY, FORMAT_VERSION, anew="train again")
    except SealError as error:
        raise InputError(f"cannot read {path!r} as a model file: {error}") from error
    try:
        return _model(content, tensors)
    except SealError as error:
        raise InputError(f"the model file {path!r} is damaged: its parts do not fit together ({error})") from error


def _model(content: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Model:
    kept = ("crossent_version", "classes", "target", "link", "numbers", "missing", "categories", "training")
    _names_are(content, ("format_version", *kept), "its header")
    _text(content["crossent_version"], "its crossent version")
    require(content["link"] == LINK, f"its link is {content['link']!r}, and this crossent knows {LINK!r}")
    classes = _texts(content["classes"], "its classes")
    require(len(classes) > 1, "it has fewer than 2 classes")
    target = _text(content["target"], "its target")
    names = _texts(content["numbers"], "its columns of numbers")
    missing = _texts(content["missing"], "its words for no value")
    categories = tuple(map(_category_column, _list(content["categories"], "its columns of categories")))
    columns = _texts([*names, *(column.name for column in categories), target], "its columns")
    require(not any(map(is_pattern, columns)), "the name of a column is a pattern of names")
    training = content["training"]
    require(type(training) is dict and _is_finite(training), "its account of the training is no plain JSON object")

    learned = ("number.median", "number.mean", "number.scale")
    _names_are(tensors, ("coef", "intercept", *learned), "its tensors")
    for name in learned:
        _check_tensor(tensors, name, (len(names),))
    require(bool((tensors["number.scale"] > 0).all()), "a scale is not positive")
    numbers = map(NumberColumn, names, *(tensors[name].tolist() for name in learned))
    preprocessing = Preprocessing(tuple(numbers), categories, missing)
    require(bool(preprocessing.input_names), "it has no input")
    _check_tensor(tensors, "coef", (len(classes), len(preprocessing.input_names)))
    _check_tensor(tensors, "intercept", (len(classes),))
    return Model(preprocessing, tensors["coef"], tensors["intercept"], classes, target, training)


def _category_column(entry: object) -> CategoryColumn:
    if not isinstance(entry, dict):
        raise SealError(f"a column of categories is {entry!r}")
    _names_are(entry, ("name", "kind", "fill", "categories", "other"), "a column of categories")
    name = _text(entry["name"], "the name of a column")
    kind, other, fill = entry["kind"], entry["other"], entry["fill"]
    require(kind in ("booleans", "categories"), f"the kind of column {name!r} is {kind!r}")
    require(type(other) is bool, f"'other' of column {name!r} is {other!r}")
    categories = _texts(entry["categories"], f"the categories of column {name!r}")
    if kind == "booleans":
        require({*categories} <= {*TRUTH_VALUES} and not other, f"column {name!r} is not of true and false alone")
    if categories:
        _text(fill, f"what fills column {name!r}")
        require(
            fill in categories or other, f"column {name!r} is filled with {fill!r}, which is not among its categories"
        )
    else:
        require(fill == "" and not other, f"column {name!r} has no category, and is filled")
    return CategoryColumn(name, fill, categories, other, kind)


def _names_are(entries: Mapping[str, object], names: Sequence[str], what: str) -> None:
    surplus, lacking = sorted({*entries} - {*names}), sorted({*names} - {*entries})
    require(not lacking, f"{what} lacks {name_list(lacking)}")
    require(not surplus, f"{what} holds {name_list(surplus)}")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or value == "":
        raise SealError(f"{what} is {value!r}, where text is needed")
    is_unicode = value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    require(is_unicode, f"{what} is no Unicode text")
    return value


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise SealError(f"{what} are no list")
    return value


def _texts(values: object, what: str) -> tuple[str, ...]:
    """Return different texts."""
    texts = tuple(_text(value, f"one of {what}") for value in _list(values, what))
    require(len({*texts}) == len(texts), f"{what} are not different from each other")
    return texts


def _is_finite(value: object) -> bool:
    """Return whether every number in a JSON value is finite."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _check_tensor(tensors: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> None:
    tensor = tensors[name]
    require(
        tensor.dtype == np.float64 and tensor.shape == shape,
        f"{name} has dtype {tensor.dtype} and shape {tensor.shape}, where float64 and {shape} are needed",
    )
    require(bool(np.isfinite(tensor).all()), f"{name} holds a number that is not finite")
