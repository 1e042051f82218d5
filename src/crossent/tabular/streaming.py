"""Train on Parquet files that are larger than memory: the same model file and report, a window of rows at a time.

A row takes about ten bytes of memory: two for its class and its part (to train, to calibrate or to test), and eight for
its weight. A few windows come on top. The parts are drawn row by row, from a hash of the row's number and the seed, so
no list of row numbers is shuffled, and neither files nor row groups matter.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import crossent as ce

from ..regression.data.parquet import ParquetTable
from ..regression.data.sources import WINDOW_BYTES, RowSource, even_boundaries, read_ahead
from .boosted import SOFTMAX
from .calibrating import cautious_temperature
from .columns import as_text, kinds_in_windows, read_columns
from .conversions import blank_missing, typed_conversions
from .errors import InputError
from .file_sizes import fits, table_bytes
from .fitting import DEFAULTS, Calibration, FitOptions, TrainedModel, build_model, require_inputs, require_parts, run
from .labels import check_classes, check_labels, encode_labels, label_notes, no_labels
from .model import Model
from .preprocessing import MAX_DISTINCT, Learned, Preprocessing, learn
from .reading import BUILT_IN, SUFFIXES, exists, source_name, table_suffix
from .seen import splitmix64
from .splitting import refuse_streamed

MEMORY_SHARE = 1 / 8
"""A table of a larger share is streamed: in memory it becomes a matrix, of which the training rows are copied."""
MEDIAN_CELLS = 1 << 22
MOST_JUDGED = 100_000
JUDGED_LOGITS = 1 << 25
BLOCK_LOGITS = 1 << 20
TRAINING, CALIBRATING, TEST = 0, 1, 2
_TO_TEST, _TO_CALIBRATE, _TO_SAMPLE = 0, 1, 2  # a row has a number in [0, 1) for each of these


def should_stream(*sources: str) -> bool:
    """Return whether these are several Parquet files, or one that is too large to be held.

    That is one that would fill more than an eighth of memory, or, twice, more than is free.
    """
    if len(sources) > 1:
        return all(should_stream(source) or table_suffix(source) == ".parquet" for source in sources)
    source = sources[0]
    path = Path(source)
    if source in BUILT_IN:
        return False
    if not exists(path):
        is_parquet = table_suffix(source) == ".parquet" or table_suffix(source) not in SUFFIXES
        return is_parquet and any(character in source for character in "*?[")
    if path.is_file():
        if path.suffix.lower() != ".parquet" or not hasattr(os, "sysconf"):
            return False
        size = table_bytes(path, ".parquet")  # None in a damaged file: whoever reads it says what is wrong
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return size is not None and (size > MEMORY_SHARE * memory or not fits(size))
    return path.is_dir()


def fit_parquet(
    source: str | Sequence[str],
    target: str,
    options: FitOptions = DEFAULTS,
    *,
    window_bytes: int = WINDOW_BYTES,
) -> TrainedModel:
    """Train a softmax regression on Parquet files that are never in memory as a whole.

    Rows are drawn for the test part and, from the others, for the calibration part, independently of each other and of
    their classes.

    Parameters
    ----------
    source : str or sequence of str
        A Parquet file, a folder of them, a pattern, or several of these.
    target : str
        The column of labels.
    options : FitOptions
        Not to sweep.
    window_bytes : int
        About how much of the table, as a matrix, to hold at a time.

    Raises
    ------
    InputError
        If the table cannot be learned from, with the reason in one sentence.
    """
    if options.model != SOFTMAX:
        raise InputError(
            f"--model {options.model} needs the table in memory: pass --no-stream, or train the softmax regression"
        )
    if not 0 <= options.calibration_size < 1:
        raise InputError(
            f"the calibration part must be a share of the rows from 0 to below 1, and is {options.calibration_size}"
        )
    refuse_streamed(options)
    seed = options.seed
    sources = [source] if isinstance(source, str) else [*source]
    source = source_name(sources)
    with as_input_errors():
        table = _Table(sources, target, options, window_bytes)
        classes, codes = table.labels()
        part = draw_parts(table.num_rows, options.test_size, options.calibration_size, seed)
        counts = [np.bincount(codes[part == which], minlength=len(classes)) for which in (TRAINING, CALIBRATING, TEST)]
        require_parts(classes, counts[TRAINING], int(counts[TEST].sum()), options.test_size)
        training = part == TRAINING
        learned = table.learn(training, seed)
        preprocessing = learned.preprocessing
        require_inputs(preprocessing, source)
        rows = _PreprocessedRows(table, preprocessing, window_bytes)
        estimator = options.estimator()
        warned = run(estimator, rows[training], codes[training])
        kept = _Kept(part, seed, len(classes))
        build = partial(
            build_model,
            preprocessing,
            estimator,
            classes=classes,
            target=target,
            source=source,
            training_counts=counts[TRAINING],
            options=options,
        )
        model = build(calibration=None)
        loss, cells = kept.collect(rows, model, codes)
        calibration = None
        if len(kept.calibrating):
            best, temperature = cautious_temperature(kept.calibrating_logits, codes[kept.calibrating])
            calibration = Calibration(kept.calibrating, folds=1, best=best, temperature=temperature)
            model = build(calibration=calibration)
            if temperature != 1:
                loss, cells = kept.collect(rows, model, codes)
    notes = [
        f"read window by window ({rows.num_windows} of them), never in memory as a whole",
        *label_notes(classes, target),
        *learned.notes,
        *warned,
    ]
    test_rows = int(counts[TEST].sum())
    if len(kept.judged) < test_rows:
        notes.append(f"the report judges {len(kept.judged):,} of the {test_rows:,} test rows, drawn by the seed")
    return TrainedModel(
        model=model,
        source=source,
        options=options,
        estimator=estimator,
        rows=table.num_rows,
        unused_columns=[],
        missing_cells=learned.missing_cells,
        class_counts=np.bincount(codes, minlength=len(classes)),
        training_counts=counts[TRAINING],
        training_loss=loss,
        test_rows=test_rows,
        stratified=False,
        test=kept.judged,
        test_codes=codes[kept.judged].astype(np.intp),
        test_logits=kept.judged_logits,
        cells=cells,
        notes=notes,
        calibration=calibration,
    )


@contextmanager
def as_input_errors() -> Generator[None]:
    """Turn what the files' reader refuses into sentences for the command line."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, FileNotFoundError) as error:
        raise InputError(str(error)) from error


def windows(table: ParquetTable, boundaries: NDArray[Any], columns: list[str]) -> Generator[tuple[int, pl.DataFrame]]:
    """Yield the first row and some columns of every window between boundaries, while the next one is read."""
    bounds = boundaries.tolist()
    with closing(read_ahead(lambda i: table.frame(bounds[i], bounds[i + 1], columns), len(bounds) - 1)) as frames:
        yield from zip(bounds, frames, strict=False)


class _Table:
    """The feature and target columns of Parquet files, in windows."""

    def __init__(self, sources: list[str], target: str, options: FitOptions, window_bytes: int) -> None:
        self.files = ParquetTable(sources)
        self._target, self._id = target, options.id
        self._columns = options.columns
        self._features = options.features([*self.files.schema], target, source_name(sources))
        self.num_rows = self.files.num_rows
        self._boundaries = even_boundaries((self.num_rows, len(self._features)), np.float64, window_bytes)

    def _windows(self, columns: list[str]) -> Generator[tuple[int, pl.DataFrame]]:
        return windows(self.files, self._boundaries, columns)

    def with_id(self, names: list[str]) -> list[str]:
        """Return the names of columns, and that of the column of ids, if there is one."""
        return names if self._id is None else [*names, self._id]

    def _without_missing(self, frame: pl.DataFrame) -> pl.Series:
        return blank_missing(frame.select(self._target), self._columns.missing)[self._target]

    def labels(self) -> tuple[list[str], NDArray[Any]]:
        """Return the classes and every row's class index, in the least type."""
        values = pl.Series(self._target, [], self.files.schema[self._target])
        for start, frame in self._windows([self._target]):
            series = self._without_missing(frame)
            check_labels(series, start)
            values = pl.concat([values, series.unique()]).unique()
            if len(values) > MAX_DISTINCT:
                raise InputError(f"the target column {self._target!r} has more than {MAX_DISTINCT:,} different values")
        missing = no_labels(values)
        values = values.filter(~values.is_in(missing)) if missing else values  # their rows are refused below
        classes, order = encode_labels(values)
        codes = np.empty(self.num_rows, np.min_scalar_type(len(classes) - 1))
        code_of = pl.DataFrame({"text": as_text(values), "code": order.astype(np.int64)}).unique("text")
        for start, frame in self._windows([self._target]):
            text = check_labels(self._without_missing(frame), start, missing)
            found = text.replace_strict(code_of["text"], code_of["code"], return_dtype=pl.Int64)
            codes[start : start + len(found)] = found.to_numpy()
        check_classes(classes, np.bincount(codes, minlength=len(classes)), values)
        return classes, codes

    def learn(self, training: NDArray[np.bool_], seed: int) -> Learned:
        """Return what the training rows teach."""
        schema = {name: self.files.schema[name] for name in self._features}
        conversions = typed_conversions(schema, self._columns)
        converted = conversions.apply(pl.DataFrame(schema=schema)).schema
        text = [*conversions.sources(name for name, type_ in converted.items() if type_ == pl.String)]
        kinds = kinds_in_windows(
            converted, lambda names: (conversions.apply(frame).select(names) for _, frame in self._windows(text))
        )

        def read() -> Generator[tuple[int, pl.DataFrame]]:
            for start, frame in self._windows(self._features):
                yield start, read_columns(conversions.apply(frame), [*kinds.values()], start)

        share = max(1, MEDIAN_CELLS // len(self._features)) / max(1, int(training.sum()))
        sampled = hashed_shares(0, self.num_rows, seed, _TO_SAMPLE) < share
        return learn(read, kinds, training, sampled, MAX_DISTINCT, conversions)


class _PreprocessedRows(RowSource):
    """The matrix of a table, made window by window."""

    def __init__(self, table: _Table, preprocessing: Preprocessing, window_bytes: int) -> None:
        shape = (table.num_rows, len(preprocessing.input_names))
        super().__init__(shape, np.float64, even_boundaries(shape, np.float64, window_bytes))
        self._table = table
        self._preprocessing = preprocessing

    def cells_and_matrix(self, index: int) -> tuple[pl.DataFrame, NDArray[np.float64]]:
        """Return the cells of a window, and its rows."""
        start, stop = self.boundaries[index : index + 2].tolist()
        cells = self._table.files.frame(start, stop, self._table.with_id(self._preprocessing.column_names))
        return cells, self._preprocessing.transform(cells, first_row=start)

    def read_window(self, index: int) -> NDArray[np.float64]:
        """Return the rows of one window."""
        return self.cells_and_matrix(index)[1]


@dataclass
class _Kept:
    """The rows whose logits are kept: some to calibrate on, some to be judged."""

    part: NDArray[np.int8]
    seed: int
    num_classes: int

    def __post_init__(self) -> None:
        self.calibrating = self._draw(CALIBRATING)
        self.judged = self._draw(TEST)
        self.calibrating_logits = np.empty((len(self.calibrating), self.num_classes))
        self.judged_logits = np.empty((len(self.judged), self.num_classes))

    def _draw(self, which: int) -> NDArray[np.intp]:
        rows = np.flatnonzero(self.part == which)
        most = max(1, min(MOST_JUDGED, JUDGED_LOGITS // self.num_classes))
        if len(rows) <= most:
            return rows
        order = np.argpartition(hashed_shares(0, len(self.part), self.seed, _TO_SAMPLE)[rows], most)
        return np.sort(rows[order[:most]])

    def collect(self, rows: _PreprocessedRows, model: Model, codes: NDArray[Any]) -> tuple[float, pl.DataFrame]:
        """Fill in the logits kept, in one pass; return the mean loss of the training rows, and the cells judged."""
        total = 0.0
        cells = []
        block = max(1, BLOCK_LOGITS // max(self.num_classes, rows.shape[1]))
        with closing(read_ahead(rows.cells_and_matrix, rows.num_windows)) as read:
            for start, (frame, matrix) in zip(rows.boundaries.tolist(), read, strict=False):
                for kept, logits in (
                    (self.calibrating, self.calibrating_logits),
                    (self.judged, self.judged_logits),
                ):
                    first, last = np.searchsorted(kept, [start, start + frame.height])
                    places = kept[first:last] - start
                    logits[first:last] = model.logits_of(matrix[places])
                cells.append(frame[places])
                training = np.flatnonzero(self.part[start : start + frame.height] == TRAINING)
                for i in range(0, len(training), block):
                    chosen = training[i : i + block]
                    logits = model.logits_of(matrix[chosen])
                    total += float(ce.cross_entropy(logits, codes[start + chosen].astype(np.intp), reduction="sum"))
        return total / np.count_nonzero(self.part == TRAINING), pl.concat(cells)


def draw_parts(num_rows: int, test_size: float, calibration_size: float, seed: int) -> NDArray[np.int8]:
    """Return what each row is for: 0 to train, 1 to calibrate, 2 to test.

    Examples
    --------
    >>> np.bincount(draw_parts(1000, 0.2, 0.1, seed=0)).tolist()
    [724, 71, 205]
    """
    part = np.empty(num_rows, np.int8)
    piece = 1 << 20
    for start in range(0, num_rows, piece):
        stop = min(start + piece, num_rows)
        calibrating = hashed_shares(start, stop, seed, _TO_CALIBRATE) < calibration_size
        tested = hashed_shares(start, stop, seed, _TO_TEST) < test_size
        part[start:stop] = np.where(tested, TEST, np.where(calibrating, CALIBRATING, TRAINING))
    return part


def hashed_shares(start: int, stop: int, seed: int, purpose: int) -> NDArray[np.float64]:
    """Return numbers in [0, 1) that belong to rows, by splitmix64 of the row's number."""
    key = np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0]
    z = splitmix64((np.arange(start, stop, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + key)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
