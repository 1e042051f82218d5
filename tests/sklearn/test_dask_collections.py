"""Dask collections without a cluster: arrays, data frames, weights, targets, and what is wrong with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from regression_oracle import Problem, assert_certified, blobs, one_hot
from scipy.sparse import csr_array

import crossent as ce
from crossent.sklearn import SoftmaxRegression, SoftmaxRegressionCV, softmax_regression_path

pytest.importorskip("dask")
import dask
import dask.array as da
import dask.dataframe as dd
import pandas as pd

from crossent.regression.data import partitions
from crossent.regression.data.dask_graphs import WorkersLost
from crossent.regression.data.distributed import DistributedRows
from crossent.regression.data.partitions import Part, read_rows

X, LABELS = blobs(9000, 6, 4, seed=3, spread=0.7)
X = X * [1, 1, 10, 1, 0.1, 1] + [0, 100, 0, 0, 0, 0]
CHUNKS = (2500, 1000, 3100, 2400)
WEIGHT = np.random.default_rng(0).uniform(0, 2, len(X)) * (np.arange(len(X)) % 5 > 0)
DX, DY = da.from_array(X, chunks=(CHUNKS, 6)), da.from_array(LABELS, chunks=(CHUNKS,))


@pytest.mark.parametrize("columns", [6, 4])
def test_weights_and_chunks(columns: int) -> None:
    model = SoftmaxRegression(0.1, class_weight={0: 1.0, 1: 2.0, 2: 0.5, 3: 1.0})
    model.fit(DX.rechunk((2000, columns)), DY, da.from_array(WEIGHT, chunks=5000))
    class_weight = np.array([1.0, 2.0, 0.5, 1.0])
    assert_certified(model, Problem(X, one_hot(LABELS, 4), 0.1, WEIGHT, class_weight))


def test_balanced_is_balanced_over_all_rows() -> None:
    order = np.argsort(LABELS, kind="stable")  # parts miss classes
    model = SoftmaxRegression(0.1, class_weight="balanced", tol=1e-7)
    model.fit(da.from_array(X[order], chunks=(1100, 6)), da.from_array(LABELS[order], chunks=1100), WEIGHT[order])
    local = SoftmaxRegression(0.1, class_weight="balanced", tol=1e-7).fit(X, LABELS, WEIGHT)
    assert model.objective_ == pytest.approx(local.objective_, rel=1e-6)
    np.testing.assert_allclose(model.coef_, local.coef_, atol=1e-3)


def test_data_frames_of_unknown_length() -> None:
    names = [f"f{i}" for i in range(6)]
    table = pd.DataFrame(X, columns=names).assign(y=np.array(["a", "b", "c", "d"])[LABELS], label=LABELS)
    frame = dd.from_pandas(table, npartitions=3)
    frame = frame[frame.f0 > -1]
    model = SoftmaxRegression(0.1).fit(frame[names], frame["y"])
    kept = X[:, 0] > -1
    assert_certified(model, Problem(X[kept], one_hot(LABELS[kept], 4), 0.1))
    assert model.classes_.tolist() == ["a", "b", "c", "d"]
    assert model.feature_names_in_.tolist() == names
    lazy = model.predict(frame[names])
    assert isinstance(lazy, da.Array)
    assert math.isnan(lazy.shape[0])
    np.testing.assert_array_equal(lazy.compute(), model.predict(table[names][kept]))
    unknown = frame[names].to_dask_array()
    arrays = SoftmaxRegression(0.1).fit(unknown, frame["label"].to_dask_array())
    np.testing.assert_array_equal(arrays.coef_, model.coef_)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[names[::-1]])


def test_predictions_are_lazy_and_the_same() -> None:
    model = SoftmaxRegression(0.1).fit(DX, DY)
    for method in ("logits", "decision_function", "predict", "predict_proba", "predict_log_proba"):
        lazy = getattr(model, method)(DX.rechunk((4000, 4)))
        here = getattr(model, method)(X)
        assert isinstance(lazy, da.Array)
        assert (lazy.shape, lazy.dtype) == (here.shape, here.dtype)
        np.testing.assert_allclose(lazy.compute(), here, rtol=1e-12, atol=1e-12)


def test_parts_without_rows_or_without_weight() -> None:
    weight = np.where(np.arange(len(X)) < 2500, 0.0, 1.0)
    model = SoftmaxRegression(0.1).fit(DX, DY, weight)
    assert_certified(model, Problem(X, one_hot(LABELS, 4), 0.1, weight))
    few = da.concatenate([DX[:0], DX[:3000]])
    labels = da.concatenate([DY[:0], DY[:3000]])
    assert_certified(SoftmaxRegression(0.1).fit(few, labels), Problem(X[:3000], one_hot(LABELS[:3000], 4), 0.1))


def test_a_class_without_weight_has_probability_zero() -> None:
    model = SoftmaxRegression(0.1).fit(DX, DY, np.where(LABELS == 2, 0.0, 1.0))
    assert model.intercept_[2] == -np.inf
    assert model.predict_proba(DX).compute()[:, 2].max() == 0


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_targets_of_several_columns(link: str) -> None:
    rng = np.random.default_rng(1)
    target = rng.dirichlet(np.ones(4), len(X)) if link == "softmax" else (rng.random((len(X), 3)) < 0.3).astype(int)
    model = SoftmaxRegression(0.1, link=link, tol=1e-8).fit(DX, da.from_array(target, chunks=(3000, 2)))
    local = SoftmaxRegression(0.1, link=link, tol=1e-8).fit(X, target)
    assert model.objective_ == pytest.approx(local.objective_, rel=1e-7)
    assert model.classes_.tolist() == local.classes_.tolist()


def test_other_losses_and_float32_and_a_path() -> None:
    focal = SoftmaxRegression(0.1, loss=ce.Focal(2.0), tol=1e-5)
    here = focal.fit(X, LABELS).objective_
    assert focal.fit(DX, DY).objective_ == pytest.approx(here, rel=1e-4)
    small = SoftmaxRegression(0.1).fit(DX.astype(np.float32), DY)
    assert small.coef_.dtype == np.float32
    assert small.duality_gap_ <= 1e-4
    path = softmax_regression_path(DX, DY, Cs=[0.01, 0.1])
    assert (path.duality_gaps <= 1e-4).all()


def with_nan(place: int) -> Any:
    broken = X.copy()
    broken[place, 3] = np.nan
    return da.from_array(broken, chunks=(CHUNKS, 6))


BAD = {
    "lengths": (lambda: (DX, DY[:-1]), r"X and y must have as many rows; got 9000 and 8999"),
    "nan": (lambda: (with_nan(2600), DY), r"X must be finite; got nan in row 100, column 3 of partition 1"),
    "labels": (lambda: (DX, DY + 0.5), r"labels must be .* whole numbers; got \d\.5 in row 0 of partition 0"),
    "one class": (lambda: (DX, DY * 0), r"y must hold at least two classes"),
    "weights": (
        lambda: (DX, DY, -da.ones(9000, chunks=CHUNKS)),
        r"sample_weight must be .*-1.0 in row 0 of partition 0",
    ),
    "dimensions": (lambda: (DX[:, 0], DY), r"X must be a dask.array \(N, D\)"),
    "columns": (lambda: (DX, da.stack([DY, DY], axis=1)), r"partition 0 of y: with link='softmax'"),
    "uncounted": (lambda: (DX[DX[:, 0] > 0], LABELS), r"y must be a Dask collection divided as X is"),
    "uneven": (
        lambda: (DX[DX[:, 0] > 0], DY[DX[:, 1] > 100]),
        r"partitions of X, y and sample_weight must have as many rows; got \d+, \d+ and \d+ in partition 0",
    ),
    "divided": (lambda: (DX[DX[:, 0] > 0], DY.rechunk(100)), r"X and y must be divided alike .* 4 and 90 partitions"),
    "no rows": (lambda: (DX, DY, da.zeros(9000, chunks=9000)), r"X must hold rows of positive weight"),
    "no y": (lambda: (DX, None), r"y must have a value for each row; got NoneType"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        SoftmaxRegression().fit(*make())


@pytest.mark.parametrize("changing", ["X", "y", "weight"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_partition_that_changes_is_named(changing: str, sparse: bool) -> None:
    calls: list[None] = []

    def swapped(rows: np.ndarray) -> np.ndarray:
        """Return the rows, and from the second call on two of them in each other's place."""
        calls.append(None)
        return rows if len(calls) == 1 else rows[[1, 0, *range(2, len(rows))]]

    places = np.argsort(LABELS, kind="stable")[:: len(X) // 40][:40]  # rows 20 and 21 are of different classes
    places[[21, 35]] = places[[35, 21]]
    columns = {"X": X[places], "y": np.array(["a", "b", "c", "d"], dtype=object)[LABELS[places]], "weight": WEIGHT[:40]}
    assert len(set(columns["y"][20:22])) == 2
    lazy: dict[str, Any] = {}
    for name, values in columns.items():
        parts = [dask.delayed(values[:20]), dask.delayed(values[20:])]
        if name == changing:
            parts[1] = dask.delayed(swapped)(values[20:])
        lazy[name] = da.concatenate([da.from_delayed(p, (20, *values.shape[1:]), values.dtype) for p in parts])
    if sparse:
        lazy["X"] = lazy["X"].map_blocks(csr_array)
    rows = DistributedRows(lazy["X"], lazy["y"], lazy["weight"], None, "softmax")
    with pytest.raises(
        ValueError, match=r"^a partition must hold the same rows .*; got other rows in partition 1 than"
    ):
        rows.read_again()
    assert len(calls) == 2


def test_a_fit_goes_on_with_the_same_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, due = partitions.evaluate, [False]

    def lose_workers(entry: dict[str, Any]) -> None:
        due[0] = entry["iteration"] == 1

    def lost(*arguments: Any) -> Any:
        if due[0]:
            due[0] = False
            raise WorkersLost
        return evaluate(*arguments)

    monkeypatch.setattr(partitions, "evaluate", lost)

    def drawn(rows: np.ndarray) -> np.ndarray:
        return rows + np.random.default_rng().normal(size=rows.shape)

    same = SoftmaxRegression(0.1, callback=lose_workers).fit(DX, DY)
    np.testing.assert_array_equal(same.coef_, SoftmaxRegression(0.1).fit(DX, DY).coef_)
    with pytest.raises(
        ValueError, match=r"^a partition must hold the same rows .*; got other rows in partition 0 than"
    ):
        SoftmaxRegression(0.1, callback=lose_workers).fit(DX.map_blocks(drawn), DY)


def test_a_part_is_made_of_its_own_rows_only() -> None:
    rows = read_rows(X, LABELS, None, 0, "<f8", "softmax", 6)
    with pytest.raises(
        ValueError, match=r"^a partition must hold the same rows .* in partition 7 than before, .*; seed"
    ):
        Part(rows, None, 0, 7, rows.summary.checksums[0] ^ 1)  # type: ignore[arg-type]


def test_cross_validation_wants_memory() -> None:
    with pytest.raises(ValueError, match=r"SoftmaxRegressionCV .* in memory; got .*; choose C with"):
        SoftmaxRegressionCV(Cs=[1.0]).fit(DX, DY)
