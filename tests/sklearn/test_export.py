"""ONNX graphs give what the model gives, as onnxruntime runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from regression_oracle import blobs
from sklearn.datasets import load_digits

from crossent.sklearn import SoftmaxRegression, to_onnx

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def run(model: Any, X: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    session = runtime.InferenceSession(to_onnx(model, dtype=dtype).SerializeToString())
    label, probabilities = session.run(["label", "probabilities"], {"X": X.astype(dtype)})
    return label, probabilities


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("names", [None, ["ant", "bee"]])
def test_two_classes(link: str, names: list[str] | None, dtype: str) -> None:
    X, y = blobs(200, 4, 2, seed=1)
    target = y if names is None else np.array(names)[y]
    model = SoftmaxRegression(link=link).fit(X, target)
    label, probabilities = run(model, X, dtype)
    np.testing.assert_array_equal(label, model.predict(X))
    np.testing.assert_allclose(probabilities, model.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize(
    ("tol", "scale", "error"), [(1e-4, 16.0, 1e-6), (1e-9, 16.0, 1e-6), (1e-4, 1.0, 1e-6), (1e-9, 1.0, 2e-6)]
)
def test_logits_are_small_enough_for_float32(tol: float, scale: float, error: float) -> None:
    """Of unscaled pixels they reach 43, where numbers in float32 are 3.8e-6 apart."""
    X, y = load_digits(return_X_y=True)
    model = SoftmaxRegression(tol=tol).fit(X / scale, y)
    label, probabilities = run(model, X / scale, "float32")
    np.testing.assert_array_equal(label, model.predict(X / scale))
    np.testing.assert_allclose(probabilities, model.predict_proba(X / scale), rtol=0, atol=error)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_a_class_without_weight_keeps_probability_0(link: str) -> None:
    X, y = blobs(200, 4, 3, seed=1)
    model = SoftmaxRegression(link=link).fit(X, y, (y != 1).astype(float))
    label, probabilities = run(model, X, "float32")
    np.testing.assert_array_equal(probabilities[:, 1], 0.0)
    np.testing.assert_array_equal(label, model.predict(X))
    np.testing.assert_allclose(probabilities, model.predict_proba(X), atol=1e-6)


def test_label_sets() -> None:
    X, y = blobs(200, 4, 3, seed=1)
    sets = np.stack([y == 0, y > 0, X[:, 0] > 0], axis=1).astype(int)
    model = SoftmaxRegression(link="sigmoid").fit(X, sets)
    label, probabilities = run(model, X, "float64")
    np.testing.assert_array_equal(label, model.predict(X))
    np.testing.assert_allclose(probabilities, model.predict_proba(X), atol=1e-12)


def test_what_onnx_cannot_hold_is_refused() -> None:
    X, y = blobs(60, 2, 2)
    with pytest.raises(ValueError, match="integers or strings"):
        to_onnx(SoftmaxRegression().fit(X, y.astype(float)))
    with pytest.raises(ValueError, match="dtype must be"):
        to_onnx(SoftmaxRegression().fit(X, y), dtype="float16")
