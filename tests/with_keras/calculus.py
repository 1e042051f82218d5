"""Gradients and compiled functions of the backend that Keras has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()

Function = Callable[[Any], Any]


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32") if _is_bfloat16(tensor) else tensor))


def _is_bfloat16(tensor: Any) -> bool:
    return keras.backend.standardize_dtype(tensor.dtype) == "bfloat16"


def with_gradient(function: Function, *, dtype: str = "float32", compiled: bool = False) -> Function:
    """Return a function of arrays that returns the value of `function` and the gradient of its sum, as arrays.

    `compiled` is `jax.jit` and, under TensorFlow, `tf.function(jit_compile=True)`; PyTorch stays as it is.
    """
    return lambda x: tuple(_numpy(part) for part in _pair(function, compiled)(ops.convert_to_tensor(x, dtype=dtype)))


def _pair(function: Function, compiled: bool) -> Function:
    if BACKEND == "jax":
        import jax

        def of_sum(x: Any) -> Any:
            value, pull = jax.vjp(function, x)
            return value, pull(ops.ones_like(value))[0]

        return jax.jit(of_sum) if compiled else of_sum
    if BACKEND == "torch":

        def by_backward(x: Any) -> Any:
            x = x.detach().requires_grad_(True)
            value = function(x)
            value.sum().backward()
            return value.detach(), x.grad

        return by_backward
    import tensorflow as tf

    def by_tape(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return value, tape.gradient(value, x)

    return tf.function(by_tape, jit_compile=True) if compiled else by_tape
