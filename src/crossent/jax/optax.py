"""optax's losses of classification under optax's names, with its order of arguments, unreduced.

``from crossent.jax import optax`` in the place of ``import optax`` is all that changes; `docs/from-optax.md` lists what
these losses do differently. They call :func:`crossent.jax.cross_entropy` and its kin with ``reduction="none"``.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from crossent.core.arrays import divergence_terms, guarded_product
from crossent.errors import refuse
from crossent.losses import CrossEntropy, Loss, Poly1

from .arrays import as_array, as_mask, floating, wide
from .functional import binary_cross_entropy_with_logits, cross_entropy, focal_loss

__all__ = [
    "generalized_kl_divergence",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]

Axis = int | tuple[int, ...] | None


def _last(array: jax.Array, axis: Axis) -> jax.Array:
    """Return the array with an axis, several (flattened) or all (None) of them as its last."""
    if axis is None:
        return array.reshape(-1)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if not all(isinstance(a, int) and -array.ndim <= a < array.ndim for a in axes):
        raise ValueError(refuse(f"axis must lie in -{array.ndim}..{array.ndim - 1}", repr(axis)))
    moved = jnp.moveaxis(array, axes, range(-len(axes), 0))
    return moved.reshape(*moved.shape[: moved.ndim - len(axes)], -1)


def _classes_and_rows(logits: jax.Array, axis: Axis, where: Any) -> tuple[jax.Array, Any, Any]:
    """Return logits with the class axis last, and masks of classes (..., K) and of rows (...), or None twice."""
    if where is None:
        return _last(logits, axis), None, None
    mask = as_mask(where)
    if mask.ndim != logits.ndim:
        mask = jnp.expand_dims(mask, axis)  # type: ignore[arg-type]
    mask = _last(jnp.broadcast_to(mask, logits.shape), axis)
    rows = mask.any(-1)
    # The logits of a row that does not count stay: one without any class would be NaN.
    logits = jnp.where(mask | ~rows[..., None], _last(logits, axis), -math.inf)
    return logits, mask, rows


def _of_distribution(logits: Any, labels: Any, axis: Axis, where: Any, loss: Loss) -> jax.Array:
    array = floating(logits, "logits")
    target = as_array(labels, "labels")
    target = jnp.broadcast_to(target, array.shape).astype(wide(target.dtype))
    array, mask, rows = _classes_and_rows(array, axis, where)
    target = _last(target, axis)
    if mask is not None:
        target = jnp.where(mask | ~rows[..., None], target, 0)
    return cross_entropy(array, target, where=rows, loss=loss, reduction="none")


def softmax_cross_entropy(logits: Any, labels: Any, axis: Axis = -1, where: Any = None) -> jax.Array:
    """Return ``-Σ_k t_k log softmax(logits)_k`` for each row, in nats.

    Parameters
    ----------
    logits : floating array
    labels : array that broadcasts to the logits
        Distributions, or one-hot integers.
    axis : int, tuple of int or None
        Of the classes.
    where : bool array, optional
        Of the logits' shape: the classes that there are, others are masked; or of the rows' shape. The loss of a row
        without any is 0.

    Returns
    -------
    array of the logits' shape without the axis; float64 for float64 logits, else float32

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> from crossent.jax import optax
    >>> optax.softmax_cross_entropy([[0.0, 0.0]], [[1.0, 0.0]]).round(4)
    Array([0.6931], dtype=float32)
    """
    return _of_distribution(logits, labels, axis, where, CrossEntropy())


def safe_softmax_cross_entropy(logits: Any, labels: Any) -> jax.Array:
    """Return :func:`softmax_cross_entropy`, which is safe: a masked class (a logit of -inf) of no target mass adds 0.

    Examples
    --------
    >>> from crossent.jax import optax
    >>> optax.safe_softmax_cross_entropy([[0.0, -float("inf")]], [[1.0, 0.0]])
    Array([0.], dtype=float32)
    """
    return softmax_cross_entropy(logits, labels)


def softmax_cross_entropy_with_integer_labels(
    logits: Any, labels: Any, axis: int | tuple[int, ...] = -1, where: Any = None
) -> jax.Array:
    """Return ``-log softmax(logits)_y`` for each row, in nats.

    Parameters
    ----------
    logits : floating array
    labels : integer array of the logits' shape without the axis
        Of several axes the label is the flat index.
    axis, where
        As in :func:`softmax_cross_entropy`. A label whose class is masked has the loss inf.

    Returns
    -------
    array

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or a label is out of range; under `jit` the loss of such a row is NaN. There is
        no label that is ignored.

    Examples
    --------
    >>> from crossent.jax import optax
    >>> optax.softmax_cross_entropy_with_integer_labels([[0.0, 0.0]], [1]).round(4)
    Array([0.6931], dtype=float32)
    """
    array, _, rows = _classes_and_rows(floating(logits, "logits"), axis, where)
    return cross_entropy(array, labels, where=rows, ignore_index=_NO_LABEL, reduction="none")


_NO_LABEL = -(2**62)  # out of every label's range


def sigmoid_binary_cross_entropy(logits: Any, labels: Any) -> jax.Array:
    """Return ``softplus(z) - t z`` for each entry, in nats.

    Parameters
    ----------
    logits, labels : arrays that broadcast to one shape
        Labels are 0, 1 or between.

    Returns
    -------
    array

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> from crossent.jax import optax
    >>> optax.sigmoid_binary_cross_entropy([0.0], [1]).round(4)
    Array([0.6931], dtype=float32)
    """
    return binary_cross_entropy_with_logits(*_entries(logits, labels), reduction="none")


def _entries(logits: Any, labels: Any) -> tuple[jax.Array, jax.Array]:
    array, target = jnp.broadcast_arrays(floating(logits, "logits"), as_array(labels, "labels"))
    return array, target.astype(wide(target.dtype))


def sigmoid_focal_loss(logits: Any, labels: Any, *, alpha: Any = None, gamma: float = 2.0) -> jax.Array:
    """Return ``(1 - p_t)^γ · nll`` for each entry, in nats, times alpha where t = 1 and 1 - alpha where t = 0.

    Parameters
    ----------
    logits, labels : arrays that broadcast to one shape
        Labels are 0, 1 or between.
    alpha : number or array, optional
    gamma : float ≥ 0

    Returns
    -------
    array

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> from crossent.jax import optax
    >>> optax.sigmoid_focal_loss([0.0], [1], gamma=1.0).round(4)
    Array([0.3466], dtype=float32)
    """
    array, target = _entries(logits, labels)
    losses = focal_loss(array, target, gamma=gamma, link="sigmoid", reduction="none")
    return losses if alpha is None else (alpha * target + (1 - alpha) * (1 - target)) * losses


def poly_loss_cross_entropy(
    logits: Any, labels: Any, *, epsilon: float = 2.0, axis: Axis = -1, where: Any = None
) -> jax.Array:
    """Return Poly-1, ``nll + epsilon · Σ_k t_k (1 - p_k)``, for each row, in nats.

    Parameters
    ----------
    logits, labels, axis, where
        As in :func:`softmax_cross_entropy`; labels sum to 1.
    epsilon : float

    Returns
    -------
    array

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> from crossent.jax import optax
    >>> optax.poly_loss_cross_entropy([[0.0, 0.0]], [[1.0, 0.0]]).round(4)
    Array([1.6931], dtype=float32)
    """
    return _of_distribution(logits, labels, axis, where, Poly1(epsilon))


def kl_divergence(log_predictions: Any, targets: Any, axis: Axis = -1, where: Any = None) -> jax.Array:
    """Return ``Σ_k t_k (log t_k - log p_k)``, in nats, with ``0 log 0 = 0``.

    Parameters
    ----------
    log_predictions, targets : floating arrays
        log p, and t.
    axis : int, tuple of int or None
    where : bool array, optional
        Entries that count.

    Returns
    -------
    array

    Raises
    ------
    TypeError
        If an argument is not as above.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossent.jax import optax
    >>> optax.kl_divergence(jnp.log(jnp.array([0.5, 0.5])), jnp.array([1.0, 0.0])).round(4)
    Array(0.6931, dtype=float32)
    """
    log_p, t = _wide(log_predictions, "log_predictions"), _wide(targets, "targets")
    surplus = jnp.log(jnp.where(t > 0, t, 1)) - log_p
    return jnp.sum(guarded_product(*jnp.broadcast_arrays(t, surplus)), axis=axis, where=where)


def kl_divergence_with_log_targets(
    log_predictions: Any, log_targets: Any, axis: Axis = -1, where: Any = None
) -> jax.Array:
    """Return :func:`kl_divergence` for targets that are given as ``log t``.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossent.jax import optax
    >>> optax.kl_divergence_with_log_targets(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, -jnp.inf])).round(4)
    Array(0.6931, dtype=float32)
    """
    log_p, log_t = _wide(log_predictions, "log_predictions"), _wide(log_targets, "log_targets")
    terms = guarded_product(*jnp.broadcast_arrays(jnp.exp(log_t), log_t - log_p))
    return jnp.sum(terms, axis=axis, where=where)


def generalized_kl_divergence(log_predictions: Any, targets: Any, axis: Axis = -1, where: Any = None) -> jax.Array:
    """Return ``Σ_k t_k (log t_k - log p_k) - t_k + p_k``, in nats: no term is negative, whatever p and t sum to.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from crossent.jax import optax
    >>> optax.generalized_kl_divergence(jnp.log(jnp.array([0.5, 0.5])), jnp.array([1.0, 0.0])).round(4)
    Array(0.6931, dtype=float32)
    """
    log_p, t = jnp.broadcast_arrays(_wide(log_predictions, "log_predictions"), _wide(targets, "targets"))
    ratio = log_p - jnp.log(jnp.where(t > 0, t, 1))
    return jnp.sum(divergence_terms(jnp, t, jnp.exp(log_p), ratio), axis=axis, where=where)


def _wide(value: Any, name: str) -> jax.Array:
    array = floating(value, name)
    return array.astype(wide(array.dtype))
