"""A model's predictions of a table: in memory, or of Parquet files window by window, with the same bytes either way.

Rows are predicted in blocks, whose size depends on the model alone: a matrix product may round a row differently among
other rows, and so the last bits must not depend on how many rows are in memory.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.io.plugins import register_io_source

import crossent as ce

from ..kernels.threads import OneThread
from ..regression.data.parquet import ParquetTable
from ..regression.data.sources import WINDOW_BYTES, even_boundaries
from .columns import as_text
from .errors import InputError
from .fitting import TrainedModel
from .model import Model
from .predictions import PREDICTED_CLASS, PROBABILITY_PREFIX
from .preprocessing import UnseenCategories
from .reading import require_columns, source_name
from .spreadsheets import escape_formulas
from .streaming import BLOCK_LOGITS, as_input_errors, windows

# Left to itself, polars makes row groups of as many rows as happen to come together.
ROW_GROUP_ROWS = 1 << 18
ROW_GROUP_CELLS = 1 << 25


def prediction_table(
    model: Model, frame: pl.DataFrame, source: str, unseen: UnseenCategories | None = None
) -> pl.DataFrame:
    """Return the probabilities of every row, one column per class called after it, beside the predicted class.

    Where the table holds the model's column of ids or the target column, they come along, so that the result can be
    judged by `read_predictions`. Rows with a category that was not there in training are added to `unseen`.
    """
    schema = _schema(model, frame.schema, source)
    return pl.concat([pl.DataFrame(schema=schema), *_blocks(model, frame, source, unseen=unseen)])


def held_out_predictions(result: TrainedModel) -> pl.DataFrame:
    """Return the probabilities of the test rows that are judged, beside their labels and their ids or row numbers.

    Without a column of ids, the column "row" counts from 0 in the table that the rows come from.
    """
    model, id_column = result.model, result.options.id
    columns = _predictions(model, np.asarray(ce.softmax(result.test_logits)))
    target = "label" if model.target in columns else model.target
    labels = pl.Series([model.classes[code] for code in result.test_codes], dtype=pl.String)
    ids = pl.Series(result.test) if id_column is None else result.cells[id_column]
    name = id_column if id_column and id_column not in columns else "row" if target != "row" else "number"
    return pl.DataFrame({name: ids, target: labels, **columns})


def _predictions(model: Model, probabilities: NDArray[np.float64]) -> dict[str, pl.Series]:
    classes = pl.Series([model.classes[k] for k in np.argmax(probabilities, axis=1)], dtype=pl.String)
    columns = {PROBABILITY_PREFIX + name: pl.Series(probabilities[:, k]) for k, name in enumerate(model.classes)}
    return {PREDICTED_CLASS: classes, **columns}


def prediction_bytes(
    table: pl.DataFrame, suffix: str, *, escape: bool = True, metadata: dict[str, str] | None = None
) -> bytes:
    """Return a table as the content of a ".csv" or ".parquet" file.

    A ".csv" file is one in which no formula starts (`escape_formulas`), if `escape`; a ".parquet" file has `metadata`.
    """
    file = io.BytesIO()
    if suffix == ".csv":
        _as_text_file(table, escape).write_csv(file)
    else:
        table.write_parquet(file, row_group_size=_group_rows(table.width), metadata=metadata)
    return file.getvalue()


def _as_text_file(table: pl.DataFrame, escape: bool) -> pl.DataFrame:
    """Return a table whose times are written as labels are, and in which no formula starts if `escape`."""
    table = table.with_columns([as_text(column) for column in table if column.dtype.is_temporal()])
    return escape_formulas(table) if escape else table


class ParquetPredictions:
    """The `prediction_table` of Parquet files, written without holding the files or the table.

    Parameters
    ----------
    model : Model
    source : str or sequence of str
        A Parquet file, a folder of them, a pattern, or several of these.
    window_bytes : int
        About how much of the files' columns, as numbers, to hold at a time.

    Attributes
    ----------
    paths : list of str
        The files that are read.
    num_rows : int
    unseen : UnseenCategories
        What `write` has found.

    Raises
    ------
    InputError
        If the files cannot be read or lack a column.
    """

    def __init__(self, model: Model, source: str | Sequence[str], window_bytes: int = WINDOW_BYTES) -> None:
        with as_input_errors():
            self._table = ParquetTable(source)
        self.paths = self._table.paths
        self._model = model
        self._source = source if isinstance(source, str) else source_name(source)
        self._schema = _schema(model, self._table.schema, self._source)
        names = {*model.preprocessing.column_names, *_carried(model)}
        self._columns = [name for name in self._table.schema if name in names]
        block = _block_rows(model)
        self.num_rows = rows = self._table.num_rows
        self.unseen = UnseenCategories()
        in_blocks = even_boundaries((-(-rows // block), block * len(self._columns)), np.float64, window_bytes)
        self._boundaries = np.minimum(in_blocks * block, rows)

    def write(self, path: Path, suffix: str, *, escape: bool = True) -> None:
        """Write the table as ".csv" or ".parquet" to a file, which after an error or Ctrl-C is to be removed.

        If `escape`, the text of a ".csv" file is written as by `escape_formulas`.

        polars pulls the blocks from a thread of its own. Ctrl-C reaches it in the middle of a query, and may be raised
        again while the first is handled; so the query runs on another thread, and here it ends at the next block.

        Raises
        ------
        InputError
            If a row cannot be predicted, or the file not be written.
        OSError
            If the file cannot be created.
        """
        finish = partial(_as_text_file, escape=escape) if suffix == ".csv" else pl.DataFrame.clone
        path.touch()  # an error here has the system's words, not those of polars
        stopped = False
        failures: list[BaseException] = []
        one_at_a_time = Lock()  # closing a generator that is at work elsewhere is an error

        def pull(*_: object) -> Generator[pl.DataFrame]:
            while True:
                with one_at_a_time:
                    try:
                        block = None if stopped else next(blocks, None)
                    except BaseException as error:
                        failures.append(error)
                        raise
                if block is None:
                    return
                yield finish(block)

        lazy = register_io_source(pull, schema=finish(pl.DataFrame(schema=self._schema)).schema)
        groups = _group_rows(len(self._schema))
        sink = lazy.sink_csv if suffix == ".csv" else partial(lazy.sink_parquet, row_group_size=groups)
        blocks = self._all_blocks()
        try:
            with OneThread("crossent-write") as writer:
                written = writer.submit(sink, path)
                try:
                    written.result()
                except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
                    if not failures:
                        raise InputError(f"cannot write the predictions: {error}") from error
                finally:
                    stopped = True
        finally:
            with one_at_a_time:
                blocks.close()
        if failures:
            raise failures[0]

    def _all_blocks(self) -> Generator[pl.DataFrame]:
        with as_input_errors(), closing(windows(self._table, self._boundaries, self._columns)) as read:
            for start, frame in read:
                yield from _blocks(self._model, frame, self._source, start, self.unseen)


def _schema(model: Model, columns: pl.Schema | dict[str, pl.DataType], source: str) -> dict[str, pl.DataType]:
    """Return the columns that are written, if those that are needed are there and none has another's name."""
    require_columns([*columns], model.preprocessing.column_names, source)
    names = [PROBABILITY_PREFIX + name for name in model.classes]
    schema: dict[str, pl.DataType] = {}
    for carried in _carried(model):
        if carried not in columns:
            continue
        if carried in (PREDICTED_CLASS, *names):
            raise InputError(
                f"the {'target ' * (carried == model.target)}column {carried!r} has the name of a column that predict "
                f"writes: drop or rename it in {source!r}"
            )
        schema[carried] = columns[carried]
    return {**schema, PREDICTED_CLASS: pl.String(), **dict.fromkeys(names, pl.Float64())}


def _carried(model: Model) -> list[str]:
    """Return the columns that predictions take over, where a table has them: the ids and the labels."""
    id_column = model.training.get("id")
    return [*([id_column] if isinstance(id_column, str) else []), model.target]


def _group_rows(num_columns: int) -> int:
    return max(1, min(ROW_GROUP_ROWS, ROW_GROUP_CELLS // num_columns))


def _block_rows(model: Model) -> int:
    return max(1, BLOCK_LOGITS // max(len(model.classes), len(model.preprocessing.input_names)))


def _blocks(
    model: Model, frame: pl.DataFrame, source: str, first_row: int = 0, unseen: UnseenCategories | None = None
) -> Generator[pl.DataFrame]:
    """Yield the predictions of a frame that begins at the row `first_row`, where a block begins."""
    size = _block_rows(model)
    for first in range(0, frame.height, size):
        rows = frame[first : first + size]
        probabilities = model.predict_probabilities(rows, source, first_row + first, unseen)
        carried = {name: rows[name] for name in _carried(model) if name in rows.columns}
        yield pl.DataFrame({**carried, **_predictions(model, probabilities)})
