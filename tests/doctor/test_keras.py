"""`crossent.doctor.KerasCallback`, where Keras 3 is installed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from crossent.doctor import Diary

keras = pytest.importorskip("keras", reason="Keras 3 is not installed: pip install keras")
pytestmark = pytest.mark.filterwarnings("ignore")

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = np.arange(64) % 3
HOT = np.eye(3, dtype="float32")[Y]
SPARSE, CATEGORICAL, BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"


def codes(diary: Diary) -> list[str]:
    return [entry.symptom.code for entry in diary.entries]


def fitted(last: list[Any], loss: Any, y: Any = Y, *, rows: bool = False, epochs: int = 1) -> tuple[Any, Any, str]:
    from crossent.doctor import KerasCallback

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="relu"), *last], name="net")
    model.compile(optimizer="adam", loss=loss)
    file = io.StringIO()
    callback = KerasCallback(*((X, y) if rows else ()), file=file)
    model.fit(X, y, epochs=epochs, verbose=0, callbacks=[callback])
    return model, callback.diary, file.getvalue()


def dense(activation: str | None = None) -> list[Any]:
    return [keras.layers.Dense(3, activation=activation)]


@pytest.mark.parametrize(
    ("activation", "loss", "target", "code"),
    [
        ("softmax", (SPARSE, True), Y, "XE501"),
        ("sigmoid", (BINARY, True), HOT, "XE501"),
        ("softmax", (BINARY, True), HOT, "XE501"),
        (None, SPARSE, Y, "XE502"),
        (None, (CATEGORICAL, False), HOT, "XE502"),
        ("sigmoid", SPARSE, Y, "XE104"),
        ("softmax", BINARY, HOT, "XE105"),
        ("softmax", SPARSE, Y, None),
        (None, (SPARSE, True), Y, None),
        ("sigmoid", BINARY, HOT, None),
        ("relu", (SPARSE, True), Y, None),
        (None, "mse", HOT, None),
    ],
)
def test_the_last_layer_and_the_loss(activation: str | None, loss: Any, target: Any, code: str | None) -> None:
    if isinstance(loss, tuple):
        names = {SPARSE: "SparseCategorical", CATEGORICAL: "Categorical", BINARY: "Binary"}
        loss = getattr(keras.losses, f"{names[loss[0]]}Crossentropy")(from_logits=loss[1])
    _, diary, text = fitted(dense(activation), loss, target)
    assert codes(diary) == ([] if code is None else [code])
    assert "Silence is not approval" in text.splitlines()[-1]
    assert len(text.splitlines()) == len(codes(diary)) + 1


def test_layers_that_only_move_numbers_are_seen_through() -> None:
    last = [*dense(), keras.layers.Softmax(), keras.layers.Dropout(0.1), keras.layers.Reshape((3,))]
    _, diary, _ = fitted(last, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert codes(diary) == ["XE501"]


def test_the_outputs_are_looked_at() -> None:
    last = [*dense(), keras.layers.Lambda(lambda z: keras.ops.exp(z) / keras.ops.sum(keras.ops.exp(z), -1, True))]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    _, diary, text = fitted(last, loss, rows=True, epochs=5)
    assert codes(diary) == ["XE802"]
    assert "looked at 3 of 5 epochs of SparseCategoricalCrossentropy (model net)" in text


def test_a_loss_of_nan() -> None:
    last = [*dense(), keras.layers.Lambda(lambda z: z * float("nan"))]
    _, diary, _ = fitted(last, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert codes(diary) == ["XE801"]


def test_no_number_changes() -> None:
    last = [*dense(), keras.layers.Dropout(0.3)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    watched, diary, _ = fitted(last, loss, rows=True, epochs=3)
    assert diary.problems == []
    keras.utils.set_random_seed(0)
    alone = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="relu"), *dense(), keras.layers.Dropout(0.3)]
    )
    alone.compile(optimizer="adam", loss=loss)
    alone.fit(X, Y, epochs=3, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(alone.get_weights(), watched.get_weights(), strict=True))
