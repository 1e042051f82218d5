"""Rows read in windows: the answers of rows in memory, in bounded memory, and one sentence for what cannot be read."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from libraries import HAS_NUMBA
from plans import tune
from sklearn.linear_model import LogisticRegression

from crossent.kernels.threads import set_num_threads
from crossent.regression.data.sources import MappedRows, RowSource, even_boundaries
from crossent.sklearn import ParquetRows, SoftmaxRegression, SoftmaxRegressionCV, softmax_regression_path

NAMES = [f"x{j}" for j in range(12)]


@pytest.fixture
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what would fit into memory out of it."""
    tune(monkeypatch, cache_bytes=1 << 10)


def problem(rows: int = 3001, classes: int = 4, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((rows, len(NAMES))) + 0.5).astype(dtype)
    logits = X @ rng.standard_normal((len(NAMES), classes)) + rng.gumbel(size=(rows, classes))
    return X, logits.argmax(axis=1)


def frame(X: np.ndarray, y: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(X, schema=NAMES).with_columns(label=pl.Series(y))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with three files, of one row and of odd row groups."""
    X, y = problem()
    whole = frame(X, y)
    for i, (start, stop, group) in enumerate([(0, 1777, 300), (1777, 1778, 1), (1778, 3001, 999)]):
        whole[start:stop].write_parquet(tmp_path / f"part{i}.parquet", row_group_size=group)
    return tmp_path


def rows_of(files: Path, rows_a_window: int = 411) -> ParquetRows:
    return ParquetRows(files, exclude=["label"], window_bytes=rows_a_window * 4 * len(NAMES))


@pytest.mark.usefixtures("nothing_held")
@pytest.mark.parametrize("options", [{}, {"fit_intercept": False}, {"link": "sigmoid"}, {"label_smoothing": 0.1}])
def test_parquet_rows_give_the_answer_of_an_array(files: Path, options: dict[str, Any]) -> None:
    X, y = problem()
    rows = rows_of(files)
    labels = rows.column("label")
    assert labels.dtype == np.int8
    np.testing.assert_array_equal(labels, y)
    if options.get("link") == "sigmoid":
        y = labels = np.eye(4, dtype=int)[y]
    expected = SoftmaxRegression(tol=1e-10, dtype="float64", **options).fit(X.astype(np.float64), y)
    model = SoftmaxRegression(tol=1e-6, **options).fit(rows, labels)
    assert model.duality_gap_ <= 1e-6
    assert model.feature_names_in_.tolist() == NAMES
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=0, atol=2e-3)
    np.testing.assert_allclose(model.predict_proba(rows), expected.predict_proba(X), atol=1e-3)
    assert model.score(rows, labels) == pytest.approx(expected.score(X.astype(np.float64), y), abs=2e-3)


@pytest.mark.usefixtures("nothing_held")
def test_the_bits_do_not_depend_on_the_number_of_threads(files: Path) -> None:
    found = []
    for threads in (1, 3):
        set_num_threads(threads)
        try:
            found.append(SoftmaxRegression(C=10.0, tol=1e-8).fit(rows_of(files), rows_of(files).column("label")))
        finally:
            set_num_threads(None)
    np.testing.assert_array_equal(found[0].coef_, found[1].coef_)
    assert [e["objective"] for e in found[0].history_] == [e["objective"] for e in found[1].history_]


@pytest.mark.usefixtures("nothing_held")
def test_sample_weights_of_zero_leave_rows_out(files: Path) -> None:
    X, y = problem()
    weight = np.random.default_rng(1).integers(0, 3, len(y)).astype(float)
    expected = SoftmaxRegression(tol=1e-9).fit(X, y, weight)
    model = SoftmaxRegression(tol=1e-9).fit(rows_of(files), y, weight)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=0, atol=1e-4)


def test_a_path_of_fits_takes_rows_in_windows(files: Path) -> None:
    X, y = problem()
    path = softmax_regression_path(rows_of(files), y, Cs=[0.01, 1.0], tol=1e-8)
    expected = softmax_regression_path(X, y, Cs=[0.01, 1.0], tol=1e-8)
    np.testing.assert_allclose(path.coefs, expected.coefs, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(5, 2000),
        slice(0, 3001, 7),
        slice(410, 412),
        slice(-3, None),
        slice(9, 9),
        slice(2900, 3, -31),
    ],
)
def test_slices_are_those_of_the_array(files: Path, rows: slice) -> None:
    X, _ = problem()
    np.testing.assert_array_equal(rows_of(files)[rows], X[rows])


def test_masks_select_rows(files: Path) -> None:
    X, _ = problem()
    mask = np.arange(len(X)) % 3 == 0
    mask[411:900] = False  # no row of a window
    chosen = rows_of(files)[mask]
    assert chosen.shape == X[mask].shape
    np.testing.assert_array_equal(chosen[:], X[mask])
    np.testing.assert_array_equal(chosen[::5], X[mask][::5])


def test_columns_come_in_the_order_asked_for_and_in_a_type_that_holds_them(tmp_path: Path) -> None:
    table = {"a": [1, 2], "b": [0.5, 1.5], "c": [True, False], "d": ["u", "v"], "e": [2**40, 3]}
    path = tmp_path / "t.parquet"
    pl.DataFrame(table, schema_overrides={"a": pl.Int16, "b": pl.Float32}).write_parquet(path)
    rows = ParquetRows(path, columns=["c", "b", "a"])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[:], [[1, 0.5, 1], [0, 1.5, 2]])
    assert ParquetRows(path, columns=["e"]).dtype == np.float64
    assert ParquetRows(path, columns=["e"], dtype="float32").dtype == np.float32
    assert rows.column("d").tolist() == ["u", "v"]
    assert rows.column("e").tolist() == [2**40, 3]
    assert rows.feature_names == ["c", "b", "a"]


class Watched(RowSource):
    """Notes which windows are read, and lets the reader of each say so."""

    def __init__(self, X: np.ndarray, rows: int) -> None:
        super().__init__(X.shape, X.dtype, even_boundaries(X.shape, X.dtype, rows * X.itemsize * X.shape[1]))
        self.X = X
        self.read = [threading.Event() for _ in range(self.num_windows)]
        self.order: list[int] = []

    def read_window(self, index: int) -> np.ndarray:
        self.order.append(index)
        self.read[index].set()
        return self.X[self.boundaries[index] : self.boundaries[index + 1]]


def test_the_next_window_is_read_while_one_is_worked_on() -> None:
    source = Watched(problem()[0], 1000)
    for index, (rows, window) in enumerate(source.windows()):
        # Nobody asks for another window here: only reading ahead can set the event.
        if index + 1 < source.num_windows:
            assert source.read[index + 1].wait(timeout=60)
        assert len(source.order) <= index + 2
        np.testing.assert_array_equal(window, source.X[rows])
    assert source.order == list(range(source.num_windows))


@pytest.mark.usefixtures("nothing_held")
def test_every_pass_of_a_fit_goes_straight_ahead() -> None:
    X, y = problem(6000)
    source = Watched(X, 1000)
    SoftmaxRegression().fit(source, y)
    passes = len(source.order) // source.num_windows
    assert passes > 3
    assert source.order == list(range(source.num_windows)) * passes


def test_a_reader_that_fails_ends_the_fit() -> None:
    class Broken(Watched):
        def read_window(self, index: int) -> np.ndarray:
            if index == 2:
                raise ValueError("no window 2")
            return super().read_window(index)

    X, y = problem()
    with pytest.raises(ValueError, match="no window 2"):
        SoftmaxRegression().fit(Broken(X, 1000), y)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("crossent-read")]


@pytest.mark.usefixtures("nothing_held")
def test_large_memory_maps_are_read_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = problem()
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = SoftmaxRegression(tol=1e-9)
    assert isinstance(model._prepare(mapped, y, None).objective.X, MappedRows)
    expected = SoftmaxRegression(tol=1e-9).fit(X, y)
    np.testing.assert_allclose(model.fit(mapped, y).coef_, expected.coef_, rtol=0, atol=1e-4)
    window = MappedRows(mapped, 4096).read_window(0)
    assert not np.shares_memory(window, mapped)


MEASURE = """
import resource, sys
import numpy as np
from dataclasses import replace
from crossent.regression import plan
from crossent.sklearn import ParquetRows, SoftmaxRegression
plan.TUNED = replace(plan.TUNED, cache_bytes=1 << 24)
rng = np.random.default_rng(0)
SoftmaxRegression(max_iter=1, tol=1.0).fit(rng.normal(size=(999, 9)).astype("f4"), rng.integers(0, 3, 999))
rows = ParquetRows(sys.argv[1], exclude=["label"], window_bytes=1 << 23)
labels = rows.column("label")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 1024 ** 2)
before = peak()
model = SoftmaxRegression(C=1e-4, tol=0.05).fit(rows, labels)
model.predict(rows)
print(len(model.history_), model.history_[-1], file=sys.stderr)
print(model.duality_gap_, rows.shape[0] * rows.shape[1] * 4 >> 20, peak() - before)
"""


@pytest.mark.skipif(not HAS_NUMBA, reason="takes half a minute without the kernels")
@pytest.mark.skipif(sys.platform == "win32", reason="resource")
def test_memory_is_bounded_by_windows_and_not_by_the_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 1 << 17)
    X = rng.integers(0, 6, (len(y), 96), dtype=np.int8)
    X[:, :3] += 3 * np.eye(3, dtype=np.int8)[y]
    table = pl.DataFrame(X, schema=[f"x{j}" for j in range(96)]).with_columns(label=pl.Series(y))
    for part in range(4):
        table.write_parquet(tmp_path / f"{part}.parquet", row_group_size=1 << 16, compression="uncompressed")
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    gap, data, used = map(float, output.split())
    assert gap <= 0.05
    assert data >= 192
    assert used < 2 * data / 3  # one copy of the data would be 1


CELLS = {
    "missing": (None, r"a missing value in column 'x3', row 1790"),
    "nan": (float("nan"), r"NaN in column 'x3', row 1790"),
    "infinite": (float("inf"), r"an infinite value in column 'x3', row 1790"),
}


@pytest.mark.parametrize("name", CELLS)
def test_bad_cells_are_named(files: Path, name: str) -> None:
    value, sentence = CELLS[name]
    path = files / "part2.parquet"
    table = pl.read_parquet(path)
    table.with_columns(x3=pl.Series([*table["x3"][:12], value, *table["x3"][13:]], dtype=pl.Float32)).write_parquet(
        path
    )
    with pytest.raises(ValueError, match=rf"^every feature must be a finite number; got {sentence}$"):
        SoftmaxRegression().fit(rows_of(files), problem()[1])


def test_numbers_whose_sum_overflows_are_no_bad_cells(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1e308, 1e308]}).write_parquet(tmp_path / "t.parquet")
    assert ParquetRows(tmp_path / "t.parquet")[:].tolist() == [[1e308], [1e308]]


def test_what_cannot_be_read_gets_one_sentence(files: Path, tmp_path: Path) -> None:
    rows = rows_of(files)
    good = files / "part0.parquet"
    with pytest.raises(FileNotFoundError, match=r"there is no Parquet file 'none\.parquet'"):
        ParquetRows("none.parquet")
    with pytest.raises(ValueError, match="got an empty list"):
        ParquetRows([])
    with pytest.raises(ValueError, match=r"columns must be among those of the files .* got 'z'"):
        ParquetRows(files, columns=["z"])
    with pytest.raises(ValueError, match="lists of names; got 'x0'"):
        ParquetRows(files, columns="x0")
    with pytest.raises(ValueError, match="different ones"):
        ParquetRows(files, columns=["x0", "x0"])
    with pytest.raises(ValueError, match="dtype must be None"):
        ParquetRows(files, dtype="int8")
    with pytest.raises(ValueError, match="window_bytes must be a positive integer; got 0"):
        ParquetRows(files, window_bytes=0)
    with pytest.raises(ValueError, match="labels must not be among the features; got column 'x0'"):
        rows.column("x0")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cannot read .*cut\.parquet' as parquet: it is damaged"):
        ParquetRows(cut)
    pl.DataFrame({"a": [1.0], "t": ["u"]}).write_parquet(cut)
    with pytest.raises(ValueError, match="column 't' of type String; exclude it"):
        ParquetRows(cut)
    with pytest.raises(ValueError, match=r"the same columns; got others in .*cut\.parquet"):
        ParquetRows([good, cut])
    pl.DataFrame({"a": [1.0, 2.0], "t": ["u", None]}).write_parquet(cut)
    with pytest.raises(ValueError, match="no missing cell; got one in column 't', row 1"):
        ParquetRows(cut, columns=["a"]).column("t")
    pl.DataFrame({"a": []}, schema={"a": pl.Float64}).write_parquet(cut)
    with pytest.raises(ValueError, match="a table must have rows"):
        ParquetRows(cut)


def test_what_needs_all_rows_in_memory_says_so(files: Path) -> None:
    rows, y = rows_of(files), problem()[1]
    model = SoftmaxRegression().fit(rows, y)
    with pytest.raises(ValueError, match="choosing C by folds needs X in memory; got ParquetRows"):
        SoftmaxRegressionCV().fit(rows, y)
    with pytest.raises(ValueError, match="summary needs X in memory; got ParquetRows"):
        model.summary(rows, y)
    with pytest.raises(TypeError, match=r"can be no array; got ParquetRows; X\[:\] reads all rows"):
        LogisticRegression().fit(rows, y)
    with pytest.raises(TypeError, match="by a slice or by a boolean array"):
        rows[[1, 2]]
    with pytest.raises(ValueError, match="must be float64; got float32"):
        SoftmaxRegression(dtype="float64").fit(rows, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        SoftmaxRegression().fit(rows, y[:-1])
    with pytest.raises(ValueError, match="X has 11 features"):
        model.predict(ParquetRows(files, columns=NAMES[1:]))
    with pytest.raises(ValueError, match="in order; got 'x1' in the place of 'x0'"):
        model.predict(ParquetRows(files, columns=[NAMES[1], NAMES[0], *NAMES[2:]]))


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_a_link_beside_its_file_counts_no_row_twice(files: Path, link: str) -> None:
    whole, names = ParquetRows(files), sorted(files.glob("*.parquet"))
    getattr(files / "another.parquet", link)(names[0])  # sorts before the file
    getattr(files / "zero.parquet", link)(names[1])
    for source in (files, str(files / "*.parquet")):
        again = ParquetRows(source)
        assert again.shape == whole.shape
        np.testing.assert_array_equal(again[:], whole[:])


@pytest.mark.parametrize("second", ["the same path", "a link", "a pattern", "its folder"])
def test_a_list_that_names_a_file_twice_is_refused(files: Path, second: str) -> None:
    name = sorted(files.glob("*.parquet"))[0]
    link = files / "link"
    link.symlink_to(name)
    other = {"the same path": name, "a link": link, "a pattern": str(files / "part*.parquet"), "its folder": files}
    with pytest.raises(ValueError, match=r"a list must name each file once; got .*, the same file; leave one out"):
        ParquetRows([name, other[second]])
