"""The losses of rows of logits as a function that JAX differentiates, to any order, transforms and exports.

Values, gradients and Hessians are those of `crossent.core`, on JAX's arrays: the derivative of the losses is
`composition.gradient`, whose own derivative is `composition.hessian_product`. JAX would differentiate the guards and
the carried rounding errors of these formulas, and lose what they keep. In all that is not the logits it differentiates
the formulas themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from crossent.core import composition
from crossent.core.arrays import guarded_product
from crossent.core.reduction import is_silent
from crossent.core.statistics import Rows
from crossent.core.target import Link, Target
from crossent.losses import Loss, is_member

from . import ffi

__all__ = ["Form", "Given", "LogSumExp", "leaves_like", "moves_at_all", "row_losses"]


@dataclass(frozen=True)
class LogSumExp(Loss):
    """The log-sum-exp of a row, in the place of a loss: it is differentiated like one."""

    @property
    def terms(self) -> tuple:
        return ()

    def of(self, s: Any) -> Any:
        return s.lse


@dataclass(frozen=True)
class Form:
    """What is the same for all rows and no array."""

    loss: Loss
    num_classes: int
    label_smoothing: float = 0.0
    link: Link = "softmax"
    in_place: bool = False
    """Whether the kernels may write the gradient over the logits. XLA copies logits that are read again."""

    def rows(self, logits: jax.Array, given: Given) -> Rows:
        """Return the statistics of rows (N, K); with the sigmoid link, of N·K rows."""
        target = Target(
            self.num_classes,
            labels=given.labels,
            soft=given.soft,
            teacher=given.teacher,
            class_weight=given.weight,
            label_smoothing=self.label_smoothing,
            temperature=self.loss.parameter if self.loss.needs_teacher else 1.0,
            link=self.link,
        )
        return composition.rows_of(logits, target)

    def of_logits(self, rows: Rows, found: jax.Array, logits: jax.Array) -> jax.Array:
        """Return derivatives of each row in the logits' shape; 0 where a row contributes nothing."""
        found = jnp.where(is_silent(rows.mass, rows.target.labels)[:, None], 0, found)
        return found[:, 1].reshape(logits.shape) if self.link == "sigmoid" else found

    def along(self, products: jax.Array) -> jax.Array:
        """Return the derivatives of the losses from the products of gradient and direction."""
        return products if self.link == "sigmoid" else products.sum(-1)


class Given(NamedTuple):
    """The arrays of a target, as `crossent.core.target.Target` has them."""

    labels: Any = None
    soft: Any = None
    weight: Any = None
    teacher: Any = None


def _values(form: Form, logits: jax.Array, given: Given) -> jax.Array:
    rows = form.rows(logits, given)
    if "miss" in form.loss.reads and not rows.target.is_hard:
        # A power below 1 has no slope in the target at 0; a bound gives its limit in every use, 0.
        rows.__dict__["miss"] = jnp.maximum(rows.miss, jnp.finfo(logits.dtype).tiny)
    silent = is_silent(rows.mass, rows.target.labels)
    losses = jnp.where(silent, 0, composition.value(form.loss, rows))
    return losses.reshape(logits.shape) if form.link == "sigmoid" else losses


def _slopes(form: Form, logits: jax.Array, given: Given) -> jax.Array:
    rows = form.rows(logits, given)
    return form.of_logits(rows, composition.gradient(form.loss, rows), logits)


def _curvatures(form: Form, logits: jax.Array, given: Given, direction: jax.Array) -> jax.Array:
    rows = form.rows(logits, given)
    if form.link == "sigmoid":
        return form.of_logits(rows, composition.hessian_diagonal(form.loss, rows), logits) * direction
    return form.of_logits(rows, composition.hessian_product(form.loss, rows, direction), logits)


def moves_at_all(tangent: Any) -> bool:
    """Whether a tangent is that of a number which is differentiated."""
    return not isinstance(tangent, SymbolicZero) and tangent.dtype != jax.dtypes.float0


def leaves_like(structure: Any, tree: Any) -> list[Any]:
    """Return what a tree has in the places of the leaves of a structure."""
    return structure.flatten_up_to(tree)


def _along(function: Any, primals: Any, tangents: Any) -> Any:
    """Return the derivative of a function of a tree of arrays along what moves in it; None if nothing does."""
    leaves, structure = jax.tree.flatten(primals)
    moves = leaves_like(structure, tangents)
    places = [i for i, move in enumerate(moves) if moves_at_all(move)]
    if not places:
        return None

    def of_moving(*moving: jax.Array) -> jax.Array:
        changed = list(leaves)
        for i, leaf in zip(places, moving, strict=True):
            changed[i] = leaf
        return function(jax.tree.unflatten(structure, changed))

    return jax.jvp(of_moving, [leaves[i] for i in places], [moves[i] for i in places])[1]


def _sum(*parts: Any) -> Any:
    present = [part for part in parts if part is not None]
    return sum(present[1:], start=present[0])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def row_losses(form: Form, logits: jax.Array, given: Given, weight: jax.Array) -> jax.Array:
    """Return ``weight · losses`` of logits (N, K), in nats: (N,), or with the sigmoid link (N, K), as the weights are.

    The weights are inside, so that the gradient is formed with them and not multiplied afterwards.
    """
    return guarded_product(weight, _computed(form, False, logits, given, weight)[0])


@partial(row_losses.defjvp, symbolic_zeros=True)
def _(form: Form, primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    (logits, given, weight), (direction, *moves) = primals, tangents
    of_logits = None
    if moves_at_all(direction):
        losses, slopes = _computed(form, True, logits, given, weight)
        of_logits = form.along(slopes * direction)
    else:
        losses = _computed(form, False, logits, given, weight)[0]
    of_given = _along(lambda given: guarded_product(weight, _values(form, logits, given)), given, moves[0])
    of_weight = _along(lambda weight: guarded_product(weight, losses), weight, moves[1])
    value = guarded_product(weight, losses)
    return value, _sum(of_logits, of_given, of_weight, jnp.zeros_like(value))


def _computed(form: Form, slopes: bool, logits: jax.Array, given: Given, weight: jax.Array) -> tuple[jax.Array, ...]:
    """Return the losses and, where `slopes` is true, the weighted gradient, by the kernels if they may serve.

    The derivatives of both are those of JAX's operations.
    """
    name = next((name for name in ("labels", "soft", "teacher") if getattr(given, name) is not None), "")
    may_serve = form.link == "softmax" and is_member(form.loss) and not isinstance(given.teacher, tuple)
    is_large = all(isinstance(n, int) for n in logits.shape) and logits.size >= ffi.LEAST_ELEMENTS
    if not (may_serve and name and is_large):
        return _plainly(form, slopes, logits, given, weight)
    operands: list[jax.Array] = [logits, weight, getattr(given, name)]
    names: tuple[str, ...] = (name,)
    if given.weight is not None:
        operands, names = [*operands, given.weight], (name, "weight")
    return tuple(ffi.losses_and_slopes(_in_jax, form, slopes, operands, names))


def _in_jax(form: Form, slopes: bool, names: tuple[str, ...], logits: Any, weight: Any, *arrays: Any) -> Any:
    return _plainly(form, slopes, logits, Given(**dict(zip(names, arrays, strict=True))), weight)


def _plainly(form: Form, slopes: bool, logits: jax.Array, given: Given, weight: jax.Array) -> tuple[jax.Array, ...]:
    losses = _losses(form, logits, given)
    if not slopes:
        return (losses,)
    factor = weight if form.link == "sigmoid" else weight[:, None]
    return losses, factor * _gradients(form, logits, given)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _losses(form: Form, logits: jax.Array, given: Given) -> jax.Array:
    return _values(form, logits, given)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _gradients(form: Form, logits: jax.Array, given: Given) -> jax.Array:
    return _slopes(form, logits, given)


@partial(_losses.defjvp, symbolic_zeros=True)
def _(form: Form, primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    (logits, given), (direction, moves) = primals, tangents
    losses = _losses(form, logits, given)
    of_logits = None
    if moves_at_all(direction):
        of_logits = form.along(_gradients(form, logits, given) * direction)
    of_given = _along(lambda given: _values(form, logits, given), given, moves)
    return losses, _sum(of_logits, of_given, jnp.zeros_like(losses))


@partial(_gradients.defjvp, symbolic_zeros=True)
def _(form: Form, primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    (logits, given), (direction, moves) = primals, tangents
    gradients = _gradients(form, logits, given)
    of_logits = None
    if moves_at_all(direction):
        of_logits = _curvatures(form, logits, given, direction)
    of_given = _along(lambda given: _slopes(form, logits, given), given, moves)
    return gradients, _sum(of_logits, of_given, jnp.zeros_like(gradients))
