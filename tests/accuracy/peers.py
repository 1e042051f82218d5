"""Cross-entropy with hard labels in other libraries: the value of each row and the gradient of their sum."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import crossent as ce

ValueAndGradient = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Peer:
    """A library's name and version, and its loss."""

    name: str
    version: str
    value_and_gradient: ValueAndGradient


def _crossent() -> ValueAndGradient:
    return lambda z, y: tuple(ce.value_and_grad(z, y, reduction="none"))  # type: ignore[return-value]


def _torch() -> ValueAndGradient:
    import torch
    from torch.nn.functional import cross_entropy

    def run(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = torch.tensor(z, requires_grad=True)
        value = cross_entropy(logits, torch.tensor(y), reduction="none")
        value.sum().backward()
        return value.detach().numpy(), logits.grad.numpy()

    return run


def _scipy() -> ValueAndGradient:
    from scipy.special import log_softmax, softmax

    def run(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(len(y))
        gradient = softmax(z, axis=1)
        gradient[rows, y] -= 1
        return -log_softmax(z, axis=1)[rows, y], gradient

    return run


def _sklearn() -> ValueAndGradient:
    from sklearn._loss import HalfMultinomialLoss

    def run(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loss = HalfMultinomialLoss(n_classes=max(3, z.shape[1]))
        return loss.loss_gradient(y.astype(z.dtype), np.ascontiguousarray(z))  # type: ignore[no-any-return]

    return run


def _with_jax(rows: Callable[[Any, Any], Any]) -> ValueAndGradient:
    import jax

    jax.config.update("jax_enable_x64", True)
    gradient = jax.grad(lambda z, y: rows(z, y).sum())
    return lambda z, y: (np.asarray(rows(z, y)), np.asarray(gradient(z, y)))


def _optax() -> ValueAndGradient:
    import optax

    return _with_jax(optax.softmax_cross_entropy_with_integer_labels)


def _keras() -> ValueAndGradient:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    return _with_jax(lambda z, y: keras.ops.sparse_categorical_crossentropy(y, z, from_logits=True))


_MAKERS = {
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
            function = make()
        except ImportError:
            continue
        yield Peer(name, importlib.import_module(module).__version__, function)
