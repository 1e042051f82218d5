"""What people bring, and what they put the estimator into: frames, sparse rows, memory maps, pipelines, searches."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sklearn
from libraries import HAS_NUMBA
from plans import tune
from regression_oracle import blobs
from scipy.sparse import csc_array, csr_array, csr_matrix, random_array
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from crossent.sklearn import SoftmaxRegression, SoftmaxRegressionCV


@pytest.mark.parametrize("kind", [csr_array, csr_matrix, csc_array])
@pytest.mark.parametrize("intercept", [True, False])
def test_sparse_rows_give_what_dense_rows_give(kind: type, intercept: bool) -> None:
    X, y = load_digits(return_X_y=True)
    weight = np.random.default_rng(0).uniform(0, 2, len(y)) * (np.arange(len(y)) % 7 > 0)
    model = SoftmaxRegression(0.01, fit_intercept=intercept, tol=1e-8)
    dense = model.fit(X, y, weight).coef_
    expected = model.predict_proba(X)
    sparse = model.fit(kind(X), y, weight)
    assert sparse.duality_gap_ <= 1e-8
    np.testing.assert_allclose(sparse.coef_, dense, atol=1e-5)
    np.testing.assert_allclose(sparse.predict_proba(kind(X)), expected, atol=1e-4)


def test_sparse_data_are_never_dense_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tune(monkeypatch, cache_bytes=1 << 16)
    X, y = load_digits(return_X_y=True)
    largest = []
    dense = csr_array.toarray

    def watched(self: csr_array, *args: object, **kwargs: object) -> np.ndarray:
        largest.append(self.shape[0])
        return dense(self, *args, **kwargs)

    monkeypatch.setattr(csr_array, "toarray", watched)
    many = csr_array(np.tile(X, (12, 1)))
    model = SoftmaxRegression(1e-3).fit(many, np.tile(y, 12))
    assert model.duality_gap_ <= 1e-4
    assert 0 < max(largest) < many.shape[0] / 2


def test_wide_sparse_rows_are_not_made_dense_for_the_preconditioner(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 400 rows of 20,000 columns would take 32 MB; a basis wants 160,000."""
    tune(monkeypatch, cache_bytes=1 << 21)
    rng = np.random.default_rng(0)
    X = random_array((400, 20_000), density=1e-3, rng=rng, format="csr")
    y = (X[:, :10_000].sum(axis=1) > X[:, 10_000:].sum(axis=1)).astype(int)
    SoftmaxRegression().fit(X[:50], y[:50])  # what is compiled takes memory, too
    tracemalloc.start()
    model = SoftmaxRegression().fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.duality_gap_ <= 1e-4
    assert peak < X.shape[0] * X.shape[1] * 4


@pytest.mark.skipif(not HAS_NUMBA, reason="takes a minute without the kernels")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_array_of_all_rows_by_all_classes_is_made(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(40_000, 4, 64, seed=1, spread=2.0)
    SoftmaxRegression().fit(X[:1000].astype(dtype), y[:1000])  # compiles
    tune(monkeypatch, cache_bytes=1 << 19, block_elements=1 << 14)
    X = X.astype(dtype)
    tracemalloc.start()
    model = SoftmaxRegression(1e-3).fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert model.duality_gap_ <= 1e-4
    assert peak < X.shape[0] * 64 * np.dtype(np.float32).itemsize


def test_a_memory_map_is_read_and_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune(monkeypatch, cache_bytes=1 << 16)
    X, y = load_digits(return_X_y=True)
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    model = SoftmaxRegression(1e-3)
    problem = model._prepare(mapped, y, None)
    assert np.shares_memory(problem.objective.X._array, mapped)
    assert not problem.objective.holds_columns
    assert model.fit(mapped, y).duality_gap_ <= 1e-4
    assert model.score(mapped, y) > 0.9


def test_frames_keep_their_names() -> None:
    X, y = blobs(200, 3, 3)
    frame = pl.DataFrame(X, schema=["a", "b", "c"])
    model = SoftmaxRegression().fit(frame, pl.Series(y))
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(model.predict(frame), SoftmaxRegression().fit(X, y).predict(X))
    assert "a " in str(model.summary(frame, y))


def test_pipelines_and_searches() -> None:
    X, y = load_digits(return_X_y=True)
    pipeline = make_pipeline(StandardScaler().set_output(transform="polars"), SoftmaxRegression())
    search = GridSearchCV(pipeline, {"softmaxregression__C": [1e-3, 1e-1]}, cv=3).fit(X[:600], y[:600])
    assert search.best_score_ > 0.8
    assert search.best_estimator_[-1].feature_names_in_[0] == "x0"


@pytest.mark.parametrize("estimator", [SoftmaxRegression(), SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=3)])
def test_sample_weights_are_routed(estimator: SoftmaxRegression) -> None:
    X, y = blobs(300, 3, 3)
    weight = np.where(y == 2, 0.0, 1.0)  # the third class must then never be predicted
    with sklearn.config_context(enable_metadata_routing=True):
        routed = estimator.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), routed)
        found = cross_validate(pipeline, X, y, params={"sample_weight": weight}, return_estimator=True, cv=3)
    for fitted in found["estimator"]:
        assert set(fitted.predict(X)) == {0, 1}


@pytest.mark.parametrize("C", [0.1, 3.0])
def test_two_softmax_classes_at_c_are_one_sigmoid_at_2c(C: float) -> None:
    X, y = blobs(300, 4, 2, spread=0.5)
    softmax = SoftmaxRegression(C, tol=1e-10).fit(X, y)
    sigmoid = SoftmaxRegression(2 * C, link="sigmoid", tol=1e-10).fit(X, y)
    peer = LogisticRegression(C=2 * C, tol=1e-12, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(softmax.coef_[1] - softmax.coef_[0], sigmoid.coef_[0], atol=1e-4)
    np.testing.assert_allclose(sigmoid.coef_, peer.coef_, atol=1e-4)
    np.testing.assert_allclose(softmax.predict_proba(X), sigmoid.predict_proba(X), atol=1e-5)
