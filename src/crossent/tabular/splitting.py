"""Which rows of a table are learned from, which are held out to test, and which stay together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from .columns import as_numbers, as_text
from .errors import InputError, name_list
from .fitting import FitOptions, require_parts
from .labels import check_classes, encode_labels, unlabelled
from .reading import require_columns

OTHER = "other"
_ISO_TIME = r"^\d{4}-\d\d(-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?)?)?$"

Rows = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The rows that a fit works with, each with its class.

    `training` and `test` count these rows from 0. `numbers` are their places in the file that they come from.
    """

    frame: pl.DataFrame
    classes: list[str]
    codes: Rows  # (N,)
    groups: Rows | None  # (N,), where groups stay together
    training: Rows
    test: Rows
    numbers: Rows  # (N,)
    stratified: bool
    notes: list[str]


def split_table(
    frame: pl.DataFrame, source: str, target: str, options: FitOptions, test: pl.DataFrame | None = None
) -> Split:
    """Return the rows to train and to test on.

    Test rows are those of the table `test` or, without one, a share of `frame`: drawn by the seed with each class in
    proportion, in whole groups if there is a column of groups, or the latest if there is a column of times.

    Raises
    ------
    InputError
        If a column is missing or holds what cannot be ordered, or a part has too few rows or lacks a class.
    """
    if options.time is not None and (options.group is not None or test is not None):
        raise InputError("the latest rows are the test with --time: leave out --time, or --group and --test")
    require_columns(frame.columns, [name for name in (options.group, options.time, options.id) if name], source)
    first_test = frame.height
    if test is not None:
        frame = _joined(frame, test, target)
    numbers = np.arange(frame.height)
    kept, notes = _chosen(frame[target], options)
    classes, codes = encode_labels(frame[target].gather(kept))
    classes, codes, enough, rare_notes = _without_rare(classes, codes, options)
    kept, codes = kept[enough], codes[enough]
    frame = frame if len(kept) == frame.height else frame[kept]
    check_classes(classes, np.bincount(codes, minlength=len(classes)), frame[target])
    groups = None if options.group is None else _groups(frame[options.group], kept)
    if test is not None:
        is_test = kept >= first_test
        numbers[first_test:] -= first_test
        _require_told_apart(is_test, classes, codes, groups, None if options.group is None else frame[options.group])
    elif options.time is not None:
        is_test, time_note = _latest(frame[options.time], kept, options.test_size)
        notes = [*notes, time_note]
    elif groups is not None:
        is_test = _some_groups(codes, groups, options)
    else:
        is_test = _drawn(codes, len(classes), options)
    training, tested = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    if test is None:
        counts = np.bincount(codes[training], minlength=len(classes))
        require_parts(classes, counts, len(tested), options.test_size)
    return Split(
        frame=frame,
        classes=classes,
        codes=codes,
        groups=groups,
        training=training,
        test=tested,
        numbers=numbers[kept],
        stratified=test is None and options.time is None and groups is None,
        notes=[*notes, *rare_notes],
    )


def refuse_streamed(options: FitOptions) -> None:
    """Refuse what needs the whole table, of a fit that never has it."""
    asked = {
        "--group": options.group is not None,
        "--time": options.time is not None,
        "--drop-unlabelled": options.drop_unlabelled,
        "--min-class-rows": options.min_class_rows > 0,
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise InputError(f"{name} needs the table in memory: leave it out, or pass --no-stream")


def deal_folds(codes: Rows, count: int, seed: int, groups: Rows | None = None) -> Iterator[tuple[Rows, Rows]]:
    """Yield the rows kept and held out of each fold, with each class in proportion and no group in two folds."""
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of groups, a fold may lack a rare class
        yield from kind(count, shuffle=True, random_state=seed).split(codes, codes, groups)


def _joined(frame: pl.DataFrame, test: pl.DataFrame, target: str) -> pl.DataFrame:
    """Return the rows of both tables."""
    require_columns(test.columns, frame.columns, "the test table")
    if (without := unlabelled(test[target])).any():
        raise InputError(f"the test table has no label in row {without.arg_max()} (counted from 0)")
    try:
        return pl.concat([frame, test.select(frame.columns)], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        kinds = [(n, frame[n].dtype, test[n].dtype) for n in frame.columns if frame[n].dtype != test[n].dtype]
        name, one, other = kinds[0]
        raise InputError(f"column {name!r} holds {one} in the table and {other} in the test table") from error


def _chosen(labels: pl.Series, options: FitOptions) -> tuple[Rows, list[str]]:
    """Return the rows that have a label, if the others are to be left out, else all."""
    if not options.drop_unlabelled:
        return np.arange(len(labels)), []
    without = unlabelled(labels)
    if without.all():
        raise InputError(f"no row has a label in column {labels.name!r}")
    count = int(without.sum())
    notes = [f"{count:,} of {len(labels):,} rows have no label and were left out"] if count else []
    return np.flatnonzero(~without.to_numpy()), notes


def _without_rare(
    classes: list[str], codes: Rows, options: FitOptions
) -> tuple[list[str], Rows, NDArray[np.bool_], list[str]]:
    """Return classes and codes in which those of few rows are one class or gone, which rows stay, and a note."""
    counts = np.bincount(codes, minlength=len(classes))
    is_rare = counts < options.min_class_rows
    everything = np.ones(len(codes), bool)
    if not is_rare.any():
        return classes, codes, everything, []
    kept = [name for name, rare in zip(classes, is_rare, strict=True) if not rare]
    rare = [name for name, rare in zip(classes, is_rare, strict=True) if rare]
    if options.rare == "drop":
        everything = ~is_rare[codes]
        done = "their rows were left out"
    else:
        kept += [] if OTHER in kept else [OTHER]
        done = f"they are one class, {OTHER!r}"
    place = {name: k for k, name in enumerate(kept)}
    new = np.array([place.get(name, place.get(OTHER, 0)) for name in classes], np.intp)
    note = f"{len(rare)} of {len(classes)} classes have fewer than {options.min_class_rows} rows ({name_list(rare)}): "
    return kept, new[codes], everything, [note + done]


def _groups(column: pl.Series, rows: Rows) -> Rows:
    text = as_text(column)
    if text.null_count():
        raise InputError(f"column {column.name!r} names no group in row {rows[text.is_null().arg_max()]} (from 0)")
    return np.unique(text.to_numpy(), return_inverse=True)[1].astype(np.intp)


def _require_told_apart(
    is_test: NDArray[np.bool_], classes: list[str], codes: Rows, groups: Rows | None, column: pl.Series | None
) -> None:
    """Refuse a test table with a class or without a row that training can tell, or a group of the training rows."""
    if not is_test.any():
        raise InputError("no row of the test table is left to test")
    unknown = np.setdiff1d(np.arange(len(classes)), codes[~is_test])
    if len(unknown):
        raise InputError(f"class {classes[unknown[0]]!r} of the test table has no row to train on")
    if groups is not None and column is not None:
        shared = np.flatnonzero(is_test & np.isin(groups, groups[~is_test]))
        if len(shared):
            raise InputError(f"group {column[int(shared[0])]!r} is both in the table and in the test table")


def _latest(column: pl.Series, rows: Rows, share: float) -> tuple[NDArray[np.bool_], str]:
    """Return which rows are the latest share, with all rows of the same time on one side."""
    values = column if column.dtype.is_temporal() else as_numbers(column)
    if values is None:
        values = as_text(column)
        no_time = ~values.str.contains(_ISO_TIME).fill_null(True)
        if no_time.any():
            row = int(no_time.arg_max() or 0)
            raise InputError(
                f"column {column.name!r} holds {values[row]!r} in row {rows[row]} (counted from 0), which cannot be "
                "put in order: write times as numbers or as 2026-01-31 or 2026-01-31 23:59"
            )
    if values.null_count():
        row = int(values.is_null().arg_max() or 0)
        raise InputError(f"column {column.name!r} has no time in row {rows[row]} (counted from 0)")
    order = values.rank("dense").to_numpy()
    cut = np.sort(order)[len(order) - math.ceil(len(order) * share)]
    is_test: NDArray[np.bool_] = order >= cut
    if is_test.all():
        raise InputError(
            f"the test part, all rows from {column[int(is_test.argmax())]} of column {column.name!r} on, leaves none "
            "to train: hold out fewer"
        )
    first = column[int(np.argmax(order == cut))]
    return is_test, f"the test rows are the latest: those from {first} of column {column.name!r} on"


def _some_groups(codes: Rows, groups: Rows, options: FitOptions) -> NDArray[np.bool_]:
    """Return which rows are tested: whole groups, about the share of the rows, each class nearly in proportion."""
    folds = round(1 / options.test_size)
    num_groups = len(np.unique(groups))
    if folds < 2 or num_groups < folds or np.bincount(codes).max() < folds:
        raise InputError(
            f"{num_groups} groups of column {options.group!r} cannot be dealt into {folds} parts, of which one is the "
            f"test part: hold out another share than {100 * options.test_size:g}%"
        )
    is_test = np.zeros(len(codes), bool)
    is_test[next(deal_folds(codes, folds, options.seed, groups))[1]] = True
    return is_test


def _drawn(codes: Rows, num_classes: int, options: FitOptions) -> NDArray[np.bool_]:
    """Return which rows are tested: drawn by the seed, each class in proportion."""
    held_out = math.ceil(len(codes) * options.test_size)
    if min(held_out, len(codes) - held_out) < num_classes:
        raise InputError(
            f"holding out {100 * options.test_size:g}% of {len(codes)} rows leaves {len(codes) - held_out} to train "
            f"and {held_out} to test, which is too few for {num_classes} classes"
        )
    _, test = train_test_split(np.arange(len(codes)), test_size=held_out, stratify=codes, random_state=options.seed)
    is_test = np.zeros(len(codes), bool)
    is_test[test] = True
    return is_test
