"""From a column of labels to classes: what they are called, in which order, and what can be learned of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .columns import EXACT_INTEGERS, TRUTH_VALUES, as_numbers, as_text
from .errors import InputError, name_list

MANY_CLASSES = 20
"""More different numbers than this may be those of a quantity."""
_WHOLE_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(\.0*)?")


def encode_labels(labels: pl.Series, names: Iterable[str] = ()) -> tuple[list[str], NDArray[np.intp]]:
    """Return the classes, as text in the order of their own type (2 before 10), and each row's class index.

    Text is a class as it is written, in the order of the numbers where every label is one. If all labels are whole
    numbers, each is written as an integer ("1.0" is class "1"), and if all are true and false, in lower case ("True" is
    "true"), but only where no two labels become one, nor two of `names`. Floats that are integers, all of them, are
    written as such too: 0.0 is class "0".

    Parameters
    ----------
    labels : polars.Series
    names : iterable of str
        What the classes may be called, also those that these rows have none of.

    Raises
    ------
    InputError
        If a label is missing, NaN or infinite, or of a type that names no class.

    Examples
    --------
    >>> encode_labels(pl.Series(["10.0", "2"]))[0]
    ['2', '10']
    >>> encode_labels(pl.Series(["01", "1", "02"]))[0]
    ['01', '1', '02']
    """
    text = check_labels(labels, missing=no_labels(labels))
    if labels.dtype.is_float() and ((labels == labels.round()) & (labels.abs() <= EXACT_INTEGERS)).all():
        labels = labels.cast(pl.Int64)
        text = as_text(labels)
    elif labels.dtype == pl.String:
        written = text.unique()
        text = text.replace_strict(written, _plain_labels(written.to_list(), names), return_dtype=pl.String)
        numbers = as_numbers(text)
        labels = text if numbers is None else numbers
    in_order = pl.DataFrame({"value": labels, "text": text}).unique("text").sort("value", "text")["text"].to_list()
    codes = text.cast(pl.Enum(in_order)).to_physical().to_numpy().astype(np.intp)
    return in_order, codes


def _plain_labels(labels: list[str], names: Iterable[str]) -> list[str]:
    """Return labels as whole numbers or truth values are written, if all are such and none becomes another's equal."""
    for plain in (whole_number, truth_value):
        renamed = [name for name in map(plain, labels) if name is not None]
        known = [name for name in map(plain, {*names}) if name is not None]
        if len({*renamed}) == len(labels) and len({*known}) == len(known):
            return renamed
    return labels


def whole_number(label: str) -> str | None:
    """Return a label as an integer is written, if it is a whole number: "1.0" is "1"."""
    found = _WHOLE_NUMBER.fullmatch(label)
    return None if found is None else found[2] if found[2] == "0" else found[1] + found[2]


def truth_value(label: str) -> str | None:
    """Return a label in lower case, if it is true or false."""
    return label.lower() if label.lower() in TRUTH_VALUES else None


def no_labels(labels: pl.Series) -> list[str]:
    """Return the labels that name no class among numbers ("NA", "inf"); among words they are words."""
    if labels.dtype != pl.String:
        return []
    values = labels.unique()
    numbers = as_numbers(values)
    return [] if numbers is None else values.filter(~numbers.is_finite().fill_null(False)).drop_nulls().to_list()


def unlabelled(labels: pl.Series) -> pl.Series:
    """Return which rows have no label: those that are empty, NaN or, among numbers, no number.

    Examples
    --------
    >>> unlabelled(pl.Series(["1", "NA", None, "2"])).to_list()
    [False, True, True, False]
    """
    text = as_text(labels)
    without = text.is_null() | text.is_in(no_labels(labels)).fill_null(True)
    return without | labels.is_nan().fill_null(True) if labels.dtype.is_float() else without


def label_notes(classes: Iterable[str], target: str) -> list[str]:
    """Return notes on classes that may be none: groups that look the same, and many whole numbers that are no codes.

    Some look the same but for white space around them, or Unicode forms NFC and NFD. Codes count from 0 or 1 on.

    Examples
    --------
    >>> label_notes(["no", "yes", "yes "], "answer")
    ["classes 'yes', 'yes ' of column 'answer' differ in white space or Unicode form alone: if they are one, mend them"]
    """
    classes = [*classes]
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(unicodedata.normalize("NFC", name).strip(), []).append(name)
    many = (
        f"column {target!r} has {len(classes)} different numbers, each a class of its own: if it is a quantity, a "
        "regression predicts it"
    )
    return [many] * _are_many(classes) + [
        f"classes {_told_apart(group)} of column {target!r} differ in white space or Unicode form alone: if they are "
        "one, mend them"
        for group in alike.values()
        if len(group) > 1
    ]


def _are_many(classes: list[str]) -> bool:
    """Return whether many classes are numbers, and not those from 0 or 1 on, as codes are."""
    if len(classes) <= MANY_CLASSES:
        return False
    numbers = as_numbers(pl.Series(classes))
    first = int("0" not in classes)
    return numbers is not None and sorted(numbers.to_list()) != [*range(first, first + len(classes))]


def _told_apart(names: list[str]) -> str:
    """Return names for a sentence, with the code points of letters that look like those of another name."""
    if len({unicodedata.normalize("NFC", name) for name in names}) == len(names):
        return name_list(names)
    return ", ".join(map(ascii, names))


def check_labels(labels: pl.Series, first_row: int = 0, missing: Sequence[str] = ()) -> pl.Series:
    """Return labels as text, none of them missing, NaN or infinite; messages count rows from `first_row`.

    `missing` are the labels that name no class (`no_labels`), beside empty ones.

    Raises
    ------
    InputError
        If there is such a label, or their type names no class.
    """
    if labels.dtype.is_nested() or labels.dtype in (pl.Binary, pl.Object, pl.Null):
        raise InputError(f"the target column {labels.name!r} holds values of type {labels.dtype}, which name no class")
    if labels.dtype.is_float() and not labels.is_finite().fill_null(True).all():
        row = int((~labels.is_finite()).fill_null(False).arg_max() or 0)
        raise InputError(
            f"the target column {labels.name!r} holds {labels[row]} in row {first_row + row} (counted from 0)"
        )
    text = as_text(labels)
    if missing:
        text = text.set(text.is_in([*missing]), None)
    if text.null_count():
        row = int(text.is_null().arg_max() or 0)
        held = "" if labels[row] is None else f": it holds {labels[row]!r}"
        raise InputError(
            f"the target column {labels.name!r} has no label in row {first_row + row} (counted from 0){held}"
        )
    return text


def check_classes(classes: list[str], counts: NDArray[np.intp], labels: pl.Series) -> None:
    """Refuse classes that nothing can be learned of: a single one, or one of a single row."""
    if len(classes) < 2:
        raise InputError(
            f"the target column {labels.name!r} is constant ({classes[0]!r}): there is nothing to tell apart"
        )
    single = [name for name, count in zip(classes, counts, strict=True) if count == 1]
    numbers = as_numbers(pl.Series(classes))
    if numbers is None:
        what, are_many = "times", len(classes) > MANY_CLASSES
    else:
        what, are_many = "numbers", _are_many(classes) and (bool(single) or (numbers != numbers.round()).any())
    if (numbers is not None or labels.dtype.is_temporal()) and (are_many or 2 * len(single) > len(classes)):
        raise InputError(
            f"the target column {labels.name!r} has {len(classes)} different {what} in {int(counts.sum())} rows: it "
            "looks like a quantity, which a regression predicts, and crossent predicts classes"
        )
    if not single:
        return
    others = f" (and {len(single) - 1} more such classes)" if len(single) > 1 else ""
    raise InputError(
        f"class {single[0]!r} of column {labels.name!r} has one row{others}: each class needs at least 2, to train "
        "and to test; --min-class-rows 2 --rare drop leaves such classes out"
    )
