"""The JAX front end as a twin of the laws, in float64: every call is made of JAX's own transformations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from laws.twins import Twin

import crossent as ce
import crossent.jax as cej


def _numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


class JaxTwin(Twin):
    """Calls `crossent.jax`, and takes gradients and Hessians by `jax.vjp` and `jax.jvp`."""

    def __call__(self, function: str, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(cej, function) and not hasattr(self, f"_{function}"):
            return getattr(ce, function)(*args, **kwargs)
        with jax.enable_x64(True), jax.disable_jit():
            arrays = [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
            return _numpy(getattr(self, f"_{function}", getattr(cej, function, None))(*arrays, **kwargs))

    def _of_logits(self, target: Any, link: str = "softmax", **options: Any) -> Any:
        function = cej.cross_entropy if link == "softmax" else cej.binary_cross_entropy_with_logits
        return lambda z: function(z, target, **options)

    def _value_and_grad(self, logits: Any, target: Any, **options: Any) -> Any:
        value, pull = jax.vjp(self._of_logits(target, **options), logits)
        return value, pull(jnp.ones_like(value))[0]

    def _value_grad_hess(self, logits: Any, target: Any, **options: Any) -> Any:
        value, gradient = self._value_and_grad(logits, target, **options)
        columns = []
        for k in range(logits.shape[1]):
            unit = jnp.zeros_like(logits).at[:, k].set(1)
            columns.append(self._hessian_vector_product(logits, target, unit, **options)[:, k])
        return value, gradient, jnp.stack(columns, axis=1)

    def _hessian_vector_product(self, logits: Any, target: Any, vector: Any, **options: Any) -> Any:
        return jax.jvp(lambda z: self._value_and_grad(z, target, **options)[1], (logits,), (jnp.asarray(vector),))[1]
