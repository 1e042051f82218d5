"""The model file: it comes back the same, and what is not exactly as `Model.to_bytes` writes is refused by name."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damages, wrong_with_sentence
from safetensors.numpy import load, save

from crossent.sealed import _digest, seal
from crossent.tabular import InputError, Model, Preprocessing, read_model
from crossent.tabular.model import FORMAT_VERSION, HEADER_ENTRY
from crossent.tabular.preprocessing import CategoryColumn, NumberColumn

MODEL = Model(
    Preprocessing(
        (NumberColumn("size", 1.0, 1.5, 0.5), NumberColumn("age", 30.0, 31.5, 12.0)),
        (
            CategoryColumn("colour", "red", ("blue", "red"), False),
            CategoryColumn("town", "a", ("a", "b"), True),
            CategoryColumn("flag", "true", ("false", "true"), False, "booleans"),
            CategoryColumn("nothing", "", (), False),
        ),
    ),
    np.arange(27.0).reshape(3, 9),
    np.array([0.5, -0.5, 0.0]),
    ("ant", "bee", "cat"),
    "kind",
    {"source": "t.csv", "C": 1.0, "class_counts": [1, 2, 3]},
)
WHOLE = MODEL.to_bytes()


def parts() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    length = struct.unpack("<Q", WHOLE[:8])[0]
    content = json.loads(json.loads(WHOLE[8 : 8 + length])["__metadata__"][HEADER_ENTRY])
    del content["format_version"], content["digest"]
    return content, load(WHOLE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.safetensors"


def sealed(content: dict[str, Any], tensors: dict[str, np.ndarray]) -> bytes:
    """A file with a right digest, of whatever JSON can write: NaN and half a letter too."""
    content = {"format_version": FORMAT_VERSION, **content}
    content["digest"] = _digest(content, tensors)
    return save({name: np.ascontiguousarray(a) for name, a in tensors.items()}, {HEADER_ENTRY: json.dumps(content)})


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_model(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "m")


def test_the_file_comes_back(path: Path) -> None:
    path.write_bytes(WHOLE)
    again = read_model(str(path))
    assert again.preprocessing == MODEL.preprocessing
    assert again.to_bytes() == WHOLE
    content, tensors = parts()
    path.write_bytes(sealed(content, tensors))  # what the mutations below begin with
    assert read_model(str(path)).preprocessing == MODEL.preprocessing


def test_model_files_that_cannot_be_read(path: Path) -> None:
    assert refusal(path) == "there is no model file 'm'"
    for size in (0, 4, 8, 100, len(WHOLE) // 2, len(WHOLE) - 1):
        path.write_bytes(WHOLE[:size])
        assert "damaged, cut short or not safetensors" in refusal(path)
    content, tensors = parts()
    path.write_bytes(save({"coef": np.ones(2)}))
    assert "it is a safetensors file of another kind" in refusal(path)
    path.write_bytes(seal(HEADER_ENTRY, FORMAT_VERSION + 1, content, tensors))
    assert "a newer crossent wrote it (format 4, and this one reads 3): upgrade" in refusal(path)
    path.write_bytes(save(tensors, {HEADER_ENTRY: json.dumps({"format_version": 2, **content})}))
    assert refusal(path) == (
        "cannot read 'm' as a model file: an older crossent wrote it (format 2, and this one reads 3): train again"
    )
    for text in ("", "{}", "[]", '{"format_version": 3}', "[" * 100_000):
        path.write_bytes(save(tensors, {HEADER_ENTRY: text}))
        assert "damaged" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "no regular file" in refusal(path)
    path.rmdir()
    os.mkfifo(path)
    assert "no regular file" in refusal(path)


def test_no_truncation_passes_for_the_whole(path: Path) -> None:
    for length in range(0, len(WHOLE), 9):
        path.write_bytes(WHOLE[:length])
        assert "damaged" in refusal(path)


@pytest.mark.attack
def test_no_damage_passes_unseen(path: Path) -> None:
    wrong: dict[int, str] = {}
    for seed, damaged in damages(WHOLE):
        path.write_bytes(damaged)
        try:
            if read_model(str(path)).to_bytes() != WHOLE:  # white space of the header may change
                wrong[seed] = "another model"
        except InputError as error:
            if problem := wrong_with_sentence(str(error)):
                wrong[seed] = problem
    assert not wrong


Change = Callable[[dict[str, Any], dict[str, np.ndarray]], object]


def entry(name: str, value: object) -> Change:
    return lambda content, tensors: content.update({name: value})


def converted(**parts: object) -> dict[str, object]:
    return {"missing": [], "numbers": [], "dates": [], "texts": [], **parts}


def without(name: str) -> Change:
    return lambda content, tensors: content.pop(name)


def column(k: int, name: str, value: object) -> Change:
    return lambda content, tensors: content["categories"][k].update({name: value})


def tensor(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda content, tensors: tensors.update({name: change(tensors[name])})


def cell(name: str, place: int, value: float) -> Change:
    return lambda content, tensors: tensors[name].reshape(-1).__setitem__(place, value)


def no_columns(content: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    content.update(numbers=[], categories=[])
    tensors.update({name: array[:0] for name, array in tensors.items() if name.startswith("number")})


MUTATIONS: dict[str, tuple[Change, str]] = {
    **{f"no {name}": (without(name), f"{name!r}") for name in parts()[0]},
    "another entry": (entry("prior", [1]), "its entry 'prior' is not as crossent writes it"),
    "an unknown link": (entry("link", "probit"), "its link is 'probit'"),
    "a link that is no text": (entry("link", True), "its link is True"),
    "a version that is no text": (entry("crossent_version", 1), "its crossent version is 1"),
    "duplicate classes": (entry("classes", ["ant", "bee", "ant"]), "its classes are not different texts"),
    "a class more": (entry("classes", ["ant", "bee", "cat", "dog"]), "where float64 and (4, 9) are needed"),
    "one class": (entry("classes", ["ant"]), "fewer than 2 classes"),
    "an empty class": (entry("classes", ["ant", "bee", ""]), "its classes are not different texts"),
    "a number as a class": (entry("classes", ["ant", "bee", 3]), "its classes are not different texts"),
    "a null class": (entry("classes", ["ant", "bee", None]), "its classes are not different texts"),
    "classes as text": (entry("classes", "abc"), "its entry 'classes' is not as crossent writes it"),
    "classes as an object": (
        entry("classes", {"ant": 1, "bee": 2, "cat": 3}),
        "its entry 'classes' is not as crossent writes it",
    ),
    "an empty target": (entry("target", ""), "its columns and its target are not different texts"),
    "a number as target": (entry("target", 7), "its columns and its target are not different texts"),
    "the target among the columns": (entry("target", "town"), "its columns and its target are not different texts"),
    "half a letter": (entry("target", "\ud800"), "its entry 'target' is not as crossent writes it"),
    "duplicate columns": (entry("numbers", ["size", "size"]), "its columns and its target are not different texts"),
    "a column of two kinds": (entry("numbers", ["size", "town"]), "its columns and its target are not different texts"),
    "a column more": (entry("numbers", ["size", "age", "width"]), "its entry 'numbers' is not as crossent writes it"),
    "an empty name": (entry("numbers", ["size", ""]), "its columns and its target are not different texts"),
    "a number as a name": (entry("numbers", ["size", 2]), "its columns and its target are not different texts"),
    "numbers as an object": (
        entry("numbers", {"size": 0, "age": 1}),
        "its entry 'numbers' is not as crossent writes it",
    ),
    "a pattern as a name": (entry("numbers", ["size", "*"]), "the name of a column is a pattern of names"),
    "missing words twice": (entry("conversions", converted(missing=["na", "na"])), "conversions are not of different"),
    "a number as a missing word": (entry("conversions", converted(missing=[-9])), "conversions are not of different"),
    "a column converted twice": (entry("conversions", converted(numbers=["a"], texts=["a"])), "is converted twice"),
    "dates of no order": (entry("conversions", converted(dates=[["a", "ydm"]])), "the order of a date is none"),
    "dates without an order": (entry("conversions", converted(dates=[["a"]])), "has not a name and an order"),
    "no list of categories": (entry("categories", None), "a part of its header: 'NoneType' object is not iterable"),
    "a column that is no object": (entry("categories", [3]), "a part of its header: 'int' object is not"),
    "a column without a fill": (
        lambda c, t: c["categories"][0].pop("fill"),
        "missing 1 required positional argument: 'fill'",
    ),
    "a column with more": (column(0, "order", 1), "unexpected keyword argument 'order'"),
    "an empty name of a column": (column(0, "name", ""), "its columns and its target are not different texts"),
    "a name that is a number": (column(0, "name", 1.5), "its columns and its target are not different texts"),
    "an unknown kind": (column(0, "kind", "dates"), "the kind of column 'colour' is 'dates'"),
    "a kind that is a list": (column(0, "kind", ["booleans"]), "the kind of column 'colour' is ['booleans']"),
    "a boolean as text": (column(0, "other", "false"), "'other' of column 'colour' is 'false'"),
    "a boolean as a number": (column(0, "other", 0), "'other' of column 'colour' is 0"),
    "duplicate categories": (
        column(0, "categories", ["red", "red"]),
        "the categories of column 'colour' are not different texts",
    ),
    "an empty category": (
        column(0, "categories", ["red", ""]),
        "the categories of column 'colour' are not different texts",
    ),
    "a number as a category": (
        column(0, "categories", ["red", 1]),
        "the categories of column 'colour' are not different texts",
    ),
    "categories as text": (column(0, "categories", "ab"), "its entry 'categories' is not as crossent writes it"),
    "a fill that is none": (column(0, "fill", "green"), "filled with 'green', which is not among its categories"),
    "a number as the fill": (column(0, "fill", 0), "what fills column 'colour' is 0"),
    "words among booleans": (column(2, "categories", ["true", "yes"]), "column 'flag' is not of true and false alone"),
    "booleans and others": (column(2, "other", True), "column 'flag' is not of true and false alone"),
    "a fill of nothing": (column(3, "fill", "a"), "column 'nothing' has no category, and is filled"),
    "training that is text": (entry("training", "t.csv"), "its account of the training is no JSON object"),
    "training with NaN": (
        entry("training", {"C": [1.0, float("nan")]}),
        "its entry 'training' is not as crossent writes it",
    ),
    "no input": (no_columns, "it has no input"),
    "no tensor": (
        lambda c, t: t.pop("number.scale"),
        "its tensors are 'coef', 'intercept', 'number.mean', 'number.median'",
    ),
    "another tensor": (lambda c, t: t.update(prior=np.ones(3)), "'number.scale', 'prior'"),
    "whole coefficients": (tensor("coef", lambda a: a.astype(np.int8)), "coef has dtype int8"),
    "narrow coefficients": (tensor("coef", lambda a: a.astype(np.float32)), "coef has dtype float32"),
    "true coefficients": (tensor("coef", lambda a: a > 0), "coef has dtype bool"),
    "complex coefficients": (tensor("intercept", lambda a: a.astype(np.complex64)), "intercept has dtype complex64"),
    "flat coefficients": (tensor("coef", np.ravel), "shape (27,), where float64 and (3, 9) are needed"),
    "turned coefficients": (tensor("coef", np.transpose), "shape (9, 3), where float64 and (3, 9) are needed"),
    "a narrow median": (tensor("number.median", lambda a: a.astype(np.int64)), "number.median has dtype int64"),
    "means in a column": (tensor("number.mean", lambda a: a[:, None]), "number.mean has dtype float64 and shape (2,"),
    "digests of another type": (
        tensor("training.rows", lambda a: a.astype(np.float64)),
        "are not different digests in",
    ),
    "digests out of order": (
        tensor("training.rows", lambda a: np.array([2, 1], np.uint64)),
        "not different digests in",
    ),
    "a scale of 0": (cell("number.scale", 1, 0.0), "a scale is not positive"),
    "a negative scale": (cell("number.scale", 0, -1.0), "a scale is not positive"),
    **{
        f"{value} in {name}": (cell(name, 1, value), f"{name} holds a number that is not finite")
        for name in sorted(parts()[1].keys() - {"training.rows"})
        for value in (np.nan, np.inf)
    },
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_part_that_does_not_fit_is_refused_by_name(path: Path, name: str) -> None:
    """Each file has a right digest: whoever writes it means what it says."""
    content, tensors = parts()
    change, sentence = MUTATIONS[name]
    change(content, tensors)
    path.write_bytes(sealed(content, tensors))
    told = refusal(path)
    assert told.startswith("the model file 'm' is damaged: its parts do not fit together (")
    assert sentence in told
