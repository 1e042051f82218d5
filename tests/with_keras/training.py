"""Train one small network for 50 steps, by Keras and by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import crossent as ce

STEPS, RATE = 50, 0.5


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(96) % 3
    return (rng.normal(size=(96, 5)) + 1.5 * np.eye(3, 5)[y]).astype("float32"), y


def weights() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = (5, 8), (8,), (8, 3), (3,)
    return [(0.4 * rng.normal(size=shape)).astype("float32") for shape in shapes]


def by_keras(loss: Any, *, policy: str = "float32", **compiled: Any) -> list[float]:
    """Return the loss before each of the steps, all rows a step."""
    keras.config.set_dtype_policy(policy)
    try:
        x, y = data()
        layers = [keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((5,)), *layers])
        model.set_weights(weights())
        model.compile(optimizer=keras.optimizers.SGD(RATE), loss=loss, **compiled)
        return [
            float(v) for v in model.fit(x, y, batch_size=96, epochs=STEPS, shuffle=False, verbose=0).history["loss"]
        ]
    finally:
        keras.config.set_dtype_policy("float32")


def by_hand(loss: ce.Loss) -> list[float]:
    """The same in NumPy and float64."""
    x, y = data()
    a, b, c, d = (w.astype("float64") for w in weights())
    history = []
    for _ in range(STEPS):
        hidden = np.tanh(x @ a + b)
        value, slope = ce.value_and_grad(hidden @ c + d, y, loss=loss)
        back = (slope @ c.T) * (1 - hidden**2)
        steps = x.T @ back, back.sum(0), hidden.T @ slope, slope.sum(0)
        a, b, c, d = (w - RATE * step for w, step in zip((a, b, c, d), steps, strict=True))
        history.append(float(value))
    return history
