"""Rows of which a model says nothing get no label: finite features whose logits overflow, logits that are NaN."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

import crossent.sklearn as cs
from crossent.sklearn import CalibratedClassifier, ParquetRows, SoftmaxRegression, TemperatureScaling

RNG = np.random.default_rng(0)
Y = np.arange(60) % 3
X = 1e-2 * (RNG.normal(size=(60, 2)) + np.column_stack([Y, -Y]))  # for coefficients above 1
TARGETS = {
    "softmax": ("softmax", Y),
    "two classes": ("softmax", Y == 1),
    "sigmoid": ("sigmoid", Y == 1),
    "label sets": ("sigmoid", np.eye(3, dtype=int)[Y]),
    "a class without weight": ("softmax", Y),
}
METHODS = ["predict", "predict_proba", "predict_log_proba", "decision_function", "logits"]
CALIBRATORS = [
    "BetaCalibration",
    "BiasCorrectedTemperatureScaling",
    "DirichletCalibration",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "PlattScaling",
    "TemperatureScaling",
    "VectorScaling",
]
Z = RNG.normal(size=(60, 3)) + np.eye(3)[Y]
OVERFLOW = "the logits X W must be finite in float.*; got an overflow in row 7; scale that row"


def fitted(case: str, dtype: Any) -> SoftmaxRegression:
    link, y = TARGETS[case]
    weight = (Y > 0).astype(float) if case == "a class without weight" else None
    return SoftmaxRegression(C=1e4, link=link).fit(X.astype(dtype), y, weight)


def with_a_large_row(model: SoftmaxRegression, dtype: Any) -> np.ndarray:
    """Rows of finite features, of which row 7 points where the model is surest, beyond what its dtype holds."""
    rows = X.astype(dtype)
    direction = model.coef_[np.abs(model.coef_).sum(axis=1).argmax()]
    rows[7] = np.sign(direction) * 0.9 * np.finfo(dtype).max
    assert np.isfinite(rows).all()
    return rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", TARGETS)
def test_no_prediction_is_made_of_logits_that_overflow(case: str, dtype: Any) -> None:
    model = fitted(case, dtype)
    rows = with_a_large_row(model, dtype)
    for method in METHODS:
        with pytest.raises(ValueError, match=OVERFLOW):
            getattr(model, method)(rows)
    with pytest.raises(ValueError, match=OVERFLOW):
        model.row_losses(rows, TARGETS[case][1])
    for method in METHODS:
        getattr(model, method)(np.delete(rows, 7, axis=0))


def test_infinite_intercepts_are_no_overflow() -> None:
    model = fitted("a class without weight", np.float64)
    assert np.isinf(model.intercept_).any()
    assert set(model.predict(X)) == {1, 2}


def test_rows_that_are_read_in_windows_are_counted_from_the_first(tmp_path: Any) -> None:
    model = fitted("softmax", np.float64)
    pl.DataFrame(with_a_large_row(model, np.float64), schema=["a", "b"]).write_parquet(tmp_path / "x.parquet")
    rows = ParquetRows(tmp_path / "x.parquet", window_bytes=48)  # of three rows
    assert rows.num_windows > 3
    with pytest.raises(ValueError, match=OVERFLOW):
        model.predict(rows)


def test_rows_on_workers_are_refused_too() -> None:
    array = pytest.importorskip("dask.array")
    model = fitted("softmax", np.float64)
    rows = array.from_array(with_a_large_row(model, np.float64), chunks=(20, 2))
    with pytest.raises(ValueError, match=OVERFLOW):
        model.predict(rows).compute(scheduler="synchronous")


@pytest.mark.parametrize("bad", [[np.nan, 0, 0], [np.inf, 0, 0], [np.inf, -np.inf, 0], [-np.inf] * 3], ids=str)
@pytest.mark.parametrize("name", CALIBRATORS)
def test_calibrators_give_no_label_to_a_row_that_has_none(name: str, bad: list[float]) -> None:
    model = getattr(cs, name)().fit(Z, Y)
    for method in (model.predict, model.predict_proba):
        with pytest.raises(ValueError, match=r"logits must be finite .* before and after calibration; got row 1: "):
            method(np.array([Z[0], bad]))


@pytest.mark.parametrize("name", CALIBRATORS)
def test_calibrators_predict_distributions_or_refuse(name: str) -> None:
    """Of logits up to the largest number, and of classes that cannot happen."""
    model = getattr(cs, name)().fit(Z, Y)
    most = np.finfo(float).max
    for row in ([most, -most, 0.0], [most] * 3, [-np.inf, 0.0, 1.0], [-np.inf, -np.inf, 0.0], [0.0, most, 1.0]):
        with contextlib.suppress(ValueError):
            probabilities = model.predict_proba(np.array([row]))[0]
            assert abs(probabilities.sum() - 1) < 1e-12
            best = np.flatnonzero(np.asarray(row) == max(row))
            assert len(best) > 1 or probabilities.argmax() in best


def test_a_certain_probability_is_a_certain_one() -> None:
    p = np.clip(RNG.uniform(0.05, 0.95, 60), 0, 1)
    model = TemperatureScaling(input="probabilities").fit(p, RNG.uniform(size=60) < p)
    np.testing.assert_array_equal(model.predict_proba(np.array([0.0, 1.0])), [[1.0, 0.0], [0.0, 1.0]])


class Foreign(ClassifierMixin, BaseEstimator):
    """A calibrator of another library, which lets everything pass."""

    def fit(self, logits: Any, y: Any, sample_weight: Any = None) -> Foreign:
        return self

    def predict_proba(self, logits: Any) -> Any:
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:overflow|invalid:RuntimeWarning")
@pytest.mark.parametrize("method", ["temperature", Foreign()], ids=["ours", "foreign"])
@pytest.mark.parametrize(
    "estimator", [SoftmaxRegression(C=1e4), LogisticRegression(C=1e4)], ids=["ours", "scikit-learn"]
)
def test_calibrated_classifiers_give_no_label_to_what_overflows(estimator: Any, method: Any) -> None:
    model = CalibratedClassifier(estimator, method=method, cv=3).fit(X, Y)
    rows = X.copy()
    rows[7] = np.finfo(float).max * np.array([1.0, -1.0])
    for call in (model.predict, model.predict_proba):
        with pytest.raises(ValueError, match="row 7"):
            call(rows)
