"""The losses of other libraries: the value of each row (or entry) and the gradient of their sum.

A peer is asked only for what it has: class weights are optax' and Keras' users' own multiplication, smoothing and
distributions do not exist in scikit-learn's losses.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import crossent as ce

ValueAndGradient = Callable[..., tuple[np.ndarray, np.ndarray]]
"""From logits, target and the options of the call (``weight``, ``label_smoothing``)."""

GAMMA = 2.0
LABELS, SMOOTHED, WEIGHTED, DISTRIBUTIONS, BINARY, BINARY_FOCAL = (
    "cross-entropy",
    "label smoothing",
    "class weights",
    "distributions",
    "binary, on logits",
    "binary focal, γ = 2",
)


@dataclass(frozen=True)
class Peer:
    """A library's name and version, and those of the losses that it has."""

    name: str
    version: str
    functions: Mapping[str, ValueAndGradient]


def _smooth(y: np.ndarray, epsilon: float, z: np.ndarray) -> np.ndarray:
    """The smoothed labels in the logits' dtype, as one would write them."""
    one_hot = np.eye(z.shape[1], dtype=z.dtype)[y]
    return one_hot * z.dtype.type(1 - epsilon) + z.dtype.type(epsilon / z.shape[1])


def _crossent() -> dict[str, ValueAndGradient]:
    def softmax(z: np.ndarray, target: np.ndarray, **options: Any) -> Any:
        return tuple(ce.value_and_grad(z, target, reduction="none", **options))

    def sigmoid(z: np.ndarray, target: np.ndarray, loss: Any = None) -> Any:
        return tuple(ce.value_and_grad(z, target, link="sigmoid", loss=loss, reduction="none"))

    focal = lambda z, t: sigmoid(z, t, ce.Focal(GAMMA))  # noqa: E731
    return dict.fromkeys((LABELS, SMOOTHED, WEIGHTED, DISTRIBUTIONS), softmax) | {BINARY: sigmoid, BINARY_FOCAL: focal}


def _torch() -> dict[str, ValueAndGradient]:
    import torch
    from torch.nn import functional

    def differentiated(z: np.ndarray, loss: Callable[[Any], Any]) -> tuple[np.ndarray, np.ndarray]:
        logits = torch.tensor(z, requires_grad=True)
        value = loss(logits)
        value.sum().backward()
        return value.detach().numpy(), logits.grad.numpy()

    def softmax(z: np.ndarray, target: np.ndarray, weight: Any = None, label_smoothing: float = 0.0) -> Any:
        given = {"weight": None if weight is None else torch.tensor(weight), "label_smoothing": label_smoothing}
        t = torch.tensor(target)
        return differentiated(z, lambda logits: functional.cross_entropy(logits, t, reduction="none", **given))

    def binary(z: np.ndarray, target: np.ndarray) -> Any:
        t = torch.tensor(target)
        loss = functional.binary_cross_entropy_with_logits
        return differentiated(z, lambda logits: loss(logits, t, reduction="none"))

    return dict.fromkeys((LABELS, SMOOTHED, WEIGHTED, DISTRIBUTIONS), softmax) | {BINARY: binary}


def _scipy() -> dict[str, ValueAndGradient]:
    from scipy import special

    def labels(z: np.ndarray, y: np.ndarray, weight: Any = None) -> Any:
        rows = np.arange(len(y))
        gradient = special.softmax(z, axis=1)
        gradient[rows, y] -= 1
        value = -special.log_softmax(z, axis=1)[rows, y]
        return (value, gradient) if weight is None else (weight[y] * value, weight[y, None] * gradient)

    def distributions(z: np.ndarray, t: np.ndarray) -> Any:
        gradient = t.sum(axis=1, keepdims=True) * special.softmax(z, axis=1) - t
        return -(t * special.log_softmax(z, axis=1)).sum(axis=1), gradient

    def smoothed(z: np.ndarray, y: np.ndarray, label_smoothing: float) -> Any:
        return distributions(z, _smooth(y, label_smoothing, z))

    def binary(z: np.ndarray, t: np.ndarray) -> Any:
        return -(t * special.log_expit(z) + (1 - t) * special.log_expit(-z)), special.expit(z) - t

    return {LABELS: labels, WEIGHTED: labels, DISTRIBUTIONS: distributions, SMOOTHED: smoothed, BINARY: binary}


def _sklearn() -> dict[str, ValueAndGradient]:
    from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss

    def labels(z: np.ndarray, y: np.ndarray, weight: Any = None) -> Any:
        loss = HalfMultinomialLoss(n_classes=max(3, z.shape[1]))
        sample_weight = None if weight is None else weight[y]
        return loss.loss_gradient(y.astype(z.dtype), np.ascontiguousarray(z), sample_weight)

    return {LABELS: labels, WEIGHTED: labels, BINARY: lambda z, t: HalfBinomialLoss().loss_gradient(t, z)}


def _with_jax(rows: Callable[..., Any]) -> ValueAndGradient:
    import jax

    jax.config.update("jax_enable_x64", True)
    gradient = jax.grad(lambda z, t, **options: rows(z, t, **options).sum())
    return lambda z, t, **options: (np.asarray(rows(z, t, **options)), np.asarray(gradient(z, t, **options)))


def _optax() -> dict[str, ValueAndGradient]:
    import optax

    def smoothed(z: Any, y: Any, label_smoothing: float) -> Any:
        one_hot = np.eye(z.shape[1], dtype=z.dtype)[y]
        return optax.softmax_cross_entropy(z, optax.smooth_labels(one_hot, label_smoothing))

    return {
        LABELS: _with_jax(optax.softmax_cross_entropy_with_integer_labels),
        SMOOTHED: _with_jax(smoothed),
        DISTRIBUTIONS: _with_jax(optax.softmax_cross_entropy),
        BINARY: _with_jax(optax.sigmoid_binary_cross_entropy),
        BINARY_FOCAL: _with_jax(lambda z, t: optax.sigmoid_focal_loss(z, t, gamma=GAMMA)),
    }


def _keras() -> dict[str, ValueAndGradient]:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    def distributions(z: Any, t: Any, label_smoothing: float = 0.0) -> Any:
        return keras.losses.categorical_crossentropy(t, z, from_logits=True, label_smoothing=label_smoothing)

    def smoothed(z: Any, y: Any, label_smoothing: float) -> Any:
        return distributions(z, np.eye(z.shape[1], dtype=z.dtype)[y], label_smoothing)

    def focal(z: Any, t: Any) -> Any:
        loss = keras.losses.binary_focal_crossentropy  # takes the mean over the last axis
        return loss(t[..., None], z[..., None], gamma=GAMMA, from_logits=True)

    return {
        LABELS: _with_jax(lambda z, y: keras.ops.sparse_categorical_crossentropy(y, z, from_logits=True)),
        SMOOTHED: _with_jax(smoothed),
        DISTRIBUTIONS: _with_jax(distributions),
        BINARY: _with_jax(lambda z, t: keras.ops.binary_crossentropy(t, z, from_logits=True)),
        BINARY_FOCAL: _with_jax(focal),
    }


_MAKERS: dict[str, tuple[str, Callable[[], dict[str, ValueAndGradient]]]] = {
    "crossent": ("crossent", _crossent),
    "PyTorch": ("torch", _torch),
    "SciPy": ("scipy", _scipy),
    "scikit-learn": ("sklearn", _sklearn),
    "optax": ("optax", _optax),
    "Keras": ("keras", _keras),
}


def available() -> Iterator[Peer]:
    """The libraries that are installed, crossent first."""
    for name, (module, make) in _MAKERS.items():
        try:
            functions = make()
        except ImportError:
            continue
        yield Peer(name, importlib.import_module(module).__version__, functions)
