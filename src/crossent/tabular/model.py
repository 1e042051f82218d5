"""The model file: safetensors for the numbers, JSON in its header for the words, a digest of both.

Reading one runs no code.

Tensors (float64): ``coef`` (K, D), ``intercept`` (K,), ``number.median``, ``number.mean``, ``number.scale`` (one per
column of numbers); and ``training.rows`` (uint64), the digests of the rows it was trained on. The header's
``crossent.model`` entry is a JSON object:

- ``classes``, ``target``, ``link``: what is predicted, and how ("softmax", or "sigmoid": one class against the rest);
- ``numbers``: the names of the columns of numbers;
- ``conversions``: what columns are converted to first, as `crossent.tabular.conversions.Conversions` has it;
- ``categories``: of every other column its ``name``, its ``kind`` ("booleans" or "categories", as in
  `crossent.tabular.columns`), its ``categories``, whether others share an input (``other``), and ``fill``, which a
  missing cell counts as;
- ``trees``, of a boosted model alone: the ``library``, the ``file`` of its own format beside this one and that file's
  ``sha256``, and the ``temperature`` that the trees are divided by. ``coef`` then has no columns, and ``intercept`` is
  the log prior that the trees began at;
- ``training``: how the model came about, for people;
- ``crossent_version``, ``format_version``, which grows when an older crossent could misread the file, and ``digest``.

A file is read strictly: its header must be the one that `Model.header` returns for the model that was read, and names,
shapes and ranges must make sense.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import crossent as ce

from .._version import __version__
from ..errors import first_line
from ..sealed import SealError, require, seal, unseal
from .boosted import Trees
from .columns import TRUTH_VALUES, is_pattern
from .conversions import Conversions
from .errors import InputError, name_list
from .preprocessing import CategoryColumn, NumberColumn, Preprocessing, UnseenCategories
from .reading import exists
from .seen import count_seen

HEADER_ENTRY = "crossent.model"
FORMAT_VERSION = 3
LINKS = ("softmax", "sigmoid")
LEARNED = ("median", "mean", "scale")
SEEN = "training.rows"
TENSORS = {"coef", "intercept", SEEN, *(f"number.{name}" for name in LEARNED)}


@dataclass(frozen=True)
class Model:
    """A trained softmax regression on a table: ``p = softmax(coef · x + intercept)``, x the preprocessed row.

    With the sigmoid link, one class against the rest, ``p ∝ σ(coef · x + intercept)``. A boosted model has trees in the
    place of ``coef · x``. `seen` are the `row_digests` of the rows it was trained on, in order, where they are known.
    """

    preprocessing: Preprocessing
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    classes: tuple[str, ...]
    target: str
    training: dict[str, Any]  # plain JSON values on how it came about; people read them, the model does not
    link: str = "softmax"
    trees: Trees | None = None
    seen: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def logits_of(self, matrix: NDArray[np.float64], first_row: int = 0) -> NDArray[np.float64]:
        """Return logits (N, K), whose softmax are the probabilities, of rows that are preprocessed already.

        Messages count rows from `first_row`.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            scores = matrix @ self.coef.T if self.trees is None else self.trees.logits(matrix)
            logits = scores + self.intercept
        overflowed = ~np.isfinite(logits).all(axis=1)
        if overflowed.any():
            row = first_row + int(np.argmax(overflowed))
            raise InputError(f"the logits of row {row} (counted from 0) overflow: a value there is far too large")
        return logits if self.link == "softmax" else np.asarray(ce.log_sigmoid(logits))

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
        if unseen is not None:
            unseen.trained_on += count_seen(matrix, self.seen)
        return np.asarray(ce.softmax(self.logits_of(matrix, first_row)))

    def header(self) -> dict[str, Any]:
        """Return the JSON object of a model file."""
        columns = self.preprocessing
        return {
            "crossent_version": __version__,
            "classes": list(self.classes),
            "target": self.target,
            "link": self.link,
            "numbers": [column.name for column in columns.numbers],
            "conversions": columns.conversions.as_json(),
            "categories": [{**asdict(column), "categories": list(column.categories)} for column in columns.categories],
            "training": self.training,
            **({} if self.trees is None else {"trees": self.trees.header()}),
        }

    def to_bytes(self) -> bytes:
        """Return the content of a model file."""
        tensors: dict[str, NDArray[Any]] = {"coef": self.coef, "intercept": self.intercept, SEEN: self.seen}
        for name in LEARNED:
            values = [getattr(column, name) for column in self.preprocessing.numbers]
            tensors[f"number.{name}"] = np.array(values, dtype=np.float64)
        return seal(HEADER_ENTRY, FORMAT_VERSION, self.header(), tensors)


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
        return _model(content, tensors, Path(path).parent)
    except SealError as error:
        raise InputError(f"the model file {path!r} is damaged: its parts do not fit together ({error})") from error


def _model(content: dict[str, Any], tensors: dict[str, NDArray[Any]], folder: Path) -> Model:
    """Return the model of a file whose header is the one that this model would have, and makes sense."""
    del content["format_version"]
    require({*tensors} == TENSORS, f"its tensors are {name_list(sorted(tensors))}")
    try:
        numbers = map(NumberColumn, content["numbers"], *(tensors[f"number.{name}"].tolist() for name in LEARNED))
        categories = [CategoryColumn(**{**c, "categories": tuple(c["categories"])}) for c in content["categories"]]
        preprocessing = Preprocessing(tuple(numbers), tuple(categories), Conversions.of_json(content["conversions"]))
        classes, target = tuple(content["classes"]), content["target"]
        account, link = content["training"], content["link"]
        trees = Trees.read(content["trees"], folder, len(classes)) if "trees" in content else None
        coef, intercept, seen = (tensors[name] for name in ("coef", "intercept", SEEN))
        model = Model(preprocessing, coef, intercept, classes, target, account, link, trees, seen)
    except (KeyError, TypeError) as error:
        raise SealError(f"a part of its header: {first_line(error)}") from error
    written = {**model.header(), "crossent_version": content.get("crossent_version")}
    for name in sorted({*written, *content}):
        is_same = name in written and name in content and _text(written[name]) == _text(content[name]) is not None
        require(is_same, f"its entry {name!r} is not as crossent writes it")

    require(isinstance(content["crossent_version"], str), f"its crossent version is {content['crossent_version']!r}")
    number_names = [column.name for column in preprocessing.numbers]
    _require_texts(classes, "its classes")
    _require_texts([*number_names, *(column.name for column in categories), target], "its columns and its target")
    for column in categories:
        _check_categories(column)
    require(link == "softmax" or (link == "sigmoid" and len(classes) > 2), f"its link is {link!r}")
    require(len(classes) > 1, "it has fewer than 2 classes")
    require(not any(map(is_pattern, preprocessing.column_names)), "the name of a column is a pattern of names")
    require(type(model.training) is dict, "its account of the training is no JSON object")
    require(bool(preprocessing.input_names), "it has no input")
    inputs = len(preprocessing.input_names) if trees is None else 0
    shapes = {"coef": (len(classes), inputs), "intercept": (len(classes),)}
    del tensors[SEEN]
    are_digests = seen.dtype == np.uint64 and seen.ndim == 1 and bool((seen[1:] > seen[:-1]).all())
    require(are_digests, f"{SEEN} are not different digests in order")
    for name, tensor in tensors.items():
        shape = shapes.get(name, (len(number_names),))
        require(
            tensor.dtype == np.float64 and tensor.shape == shape,
            f"{name} has dtype {tensor.dtype} and shape {tensor.shape}, where float64 and {shape} are needed",
        )
        require(bool(np.isfinite(tensor).all()), f"{name} holds a number that is not finite")
    require(bool((tensors["number.scale"] > 0).all()), "a scale is not positive")
    return model


def _text(value: object) -> bytes | None:
    """Return a JSON value as it is written; None for what cannot be: NaN, infinity, half a letter."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
    except ValueError:
        return None


def _require_texts(texts: Sequence[object], what: str) -> None:
    are_texts = all(isinstance(text, str) and text != "" for text in texts)
    require(are_texts and len({*texts}) == len(texts), f"{what} are not different texts")


def _check_categories(column: CategoryColumn) -> None:
    name, fill, categories = column.name, column.fill, column.categories
    _require_texts(categories, f"the categories of column {name!r}")
    require(column.kind in ("booleans", "categories"), f"the kind of column {name!r} is {column.kind!r}")
    require(type(column.other) is bool, f"'other' of column {name!r} is {column.other!r}")
    if column.kind == "booleans":
        are_truths = {*categories} <= {*TRUTH_VALUES} and not column.other
        require(are_truths, f"column {name!r} is not of true and false alone")
    if categories:
        require(isinstance(fill, str) and fill != "", f"what fills column {name!r} is {fill!r}")
        is_known = fill in categories or column.other
        require(is_known, f"column {name!r} is filled with {fill!r}, which is not among its categories")
    else:
        require(fill == "" and not column.other, f"column {name!r} has no category, and is filled")
