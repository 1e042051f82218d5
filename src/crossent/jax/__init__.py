"""The losses for JAX: ``crossent.jax.cross_entropy`` under jit, grad, vmap, jvp, hessian, scan and export.

The keywords are those of `crossent`, with ``axis=-1`` and ``where=``, a mask of the rows that count.
:mod:`crossent.jax.optax` has optax's names and its order of arguments.

On a CPU the compiled kernels of `crossent` compute softmax losses of 131072 logits and more, inside XLA's programs and
on XLA's own memory; :func:`crossent.jax.ffi.why_not` says why if they do not. On other devices, in exported programs,
for smaller arrays and for second derivatives XLA computes the same formulas.
"""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ModuleNotFoundError("crossent.jax needs JAX: pip install 'crossent[jax]'") from error

from crossent.core.target import TopK

from . import optax
from .functional import (
    Statistics,
    binary_cross_entropy_with_logits,
    cross_entropy,
    distillation_loss,
    focal_loss,
    statistics,
)
from .linear import linear_cross_entropy, linear_statistics

__all__ = [
    "Statistics",
    "TopK",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "distillation_loss",
    "focal_loss",
    "linear_cross_entropy",
    "linear_statistics",
    "optax",
    "statistics",
]
