"""The linear head ``z = X Wᵀ + b`` and a loss on z: a scan over blocks of rows, which never holds N·K logits.

The sum of the losses of all rows is one function with a derivative of its own: it forms the gradients in the pass that
computes the losses, so that value and gradients take three matrix products. Losses of rows (reduction "none") and
derivatives of gradients go through the same blocks, whose logits are computed again where they are needed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from crossent.core.linear import rows_per_block
from crossent.core.target import TopK
from crossent.errors import describe, refuse
from crossent.numpy.options import takes_options
from crossent.numpy.statistics import STATISTICS_NEED

from .arrays import floating, wide
from .functional import OF_LOSSES, Statistics, statistics_of_rows
from .problem import Problem, options_of
from .rows import leaves_like, moves_at_all

__all__ = ["linear_cross_entropy", "linear_statistics"]

BLOCK_BYTES = 24 << 20
"""The size of a block of logits. The kernels need one at a time, XLA alone a few; smaller products are slower."""
TILE_BYTES = 8 << 20
"""The size of a part of the weight's gradient that is added at a time: the whole product would be as large as it."""

Head = tuple[jax.Array, jax.Array, Any]
"""Input (N, D), weight (K, D), bias (K,) or None."""


def _head(input: Any, weight: Any, bias: Any, transposed: bool) -> tuple[Head, tuple[int, ...]]:
    """Return the arguments of a head in one dtype, its rows flattened, and the shape of the rows.

    Raises
    ------
    TypeError, ValueError
        If they do not fit.
    """
    x, w = floating(input, "input"), floating(weight, "linear_weight")
    axis = 0 if transposed else 1
    if x.ndim == 0 or w.ndim != 2 or x.shape[-1] != w.shape[axis]:
        asked = f"input must have shape (..., D) and linear_weight {'(D, K)' if transposed else '(K, D)'}"
        works = "transposed=True takes a weight (D, K)" if w.ndim == 2 and x.shape[-1:] == w.shape[:1] else ""
        raise ValueError(refuse(asked, f"{describe(x)} and {describe(w)}", works))
    if w.shape[1 - axis] == 0:
        raise ValueError(refuse("linear_weight must have at least one class", describe(w)))
    b = None if bias is None else floating(bias, "linear_bias")
    if b is not None and b.shape != (w.shape[1 - axis],):
        raise ValueError(refuse(f"linear_bias must have shape ({w.shape[1 - axis]},)", describe(b)))
    dtype = jnp.promote_types(x.dtype, w.dtype)
    x, w = x.astype(dtype), (w.T if transposed else w).astype(dtype)
    return (x.reshape(-1, x.shape[-1]), w, None if b is None else b.astype(dtype)), x.shape[:-1]


def _product(a: jax.Array, b: jax.Array, axis: int, dtype: Any) -> jax.Array:
    """Return the product summed over an axis of both; a transposed weight might be kept beside the weight."""
    return jax.lax.dot_general(a, b, (((axis,), (axis,)), ((), ())), preferred_element_type=dtype)


def _logits(x: jax.Array, w: jax.Array, b: Any) -> jax.Array:
    """Return x wᵀ + b, added up in float32 at least."""
    z = _product(x, w, 1, wide(x.dtype))
    return z if b is None else z + b


_OF_TARGET = ("labels", "soft", "teacher")
_OF_PROBLEM = ("bad", "counted", "weight")


def _split(problem: Problem, num_rows: int) -> tuple[dict[str, Any], Problem]:
    """Return the arrays of a problem that have one entry a row, and the problem without them."""
    of_rows = {name: getattr(problem.given, name) for name in _OF_TARGET}
    of_rows |= {name: getattr(problem, name) for name in _OF_PROBLEM}
    if of_rows["labels"] is None and of_rows["weight"] is None:  # rows that fill up a block must not count
        shape = (num_rows, 1) if problem.form.link == "sigmoid" else (num_rows,)
        of_rows["weight"] = jnp.ones(shape, problem.dtype)
    nothing: dict[str, Any] = dict.fromkeys(_OF_PROBLEM)
    form = replace(problem.form, in_place=True)
    return of_rows, replace(problem, form=form, given=problem.given._replace(**dict.fromkeys(_OF_TARGET)), **nothing)


def _joined(of_rows: dict[str, Any], bare: Problem) -> Problem:
    given = bare.given._replace(**{name: of_rows[name] for name in _OF_TARGET})
    return replace(bare, given=given, **{name: of_rows[name] for name in _OF_PROBLEM})


def _blocks(rows: dict[str, Any], num_rows: int, num_classes: int) -> dict[str, Any]:
    """Return arrays of rows as arrays of blocks (B, n, ...), filled up with rows that do not count."""
    step = rows_per_block(num_rows, num_classes, 4, BLOCK_BYTES)
    count = max(1, -(-num_rows // step))

    def blocked(array: jax.Array, fill: int) -> jax.Array:
        missing = [(0, count * step - num_rows)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, missing, constant_values=fill).reshape(count, step, *array.shape[1:])

    fills = {name: -1 if name == "labels" else 0 for name in rows}
    return {name: jax.tree.map(partial(blocked, fill=fills[name]), rows[name]) for name in rows}


def _counted(x: jax.Array, of_rows: dict[str, Any]) -> jax.Array:
    """Return rows of the input with zeros in the place of those that do not count, whatever they hold."""
    labels, weight = of_rows["labels"], of_rows["weight"]
    silent = jnp.zeros(len(x), bool)
    if labels is not None:
        silent = silent | (labels.reshape(len(x), -1) == -1).all(-1)
    if weight is not None:
        silent = silent | (weight.reshape(len(x), -1) == 0).all(-1)
    return jnp.where(silent[:, None], 0, x)


@jax.custom_jvp
def _total(head: Head, of_rows: dict[str, Any], bare: Problem, factor: Any) -> jax.Array:
    """Return the sum of the weighted losses of all rows, times a factor.

    The factor is inside, so that nothing is left to multiply the gradients by: that would be another copy of them.
    """
    x, w, b = head

    def step(total: jax.Array, block: dict[str, Any]) -> tuple[jax.Array, None]:
        logits = _logits(_counted(block["x"], block), w, b)
        return total + _joined(block, bare).losses(logits, factor).sum(), None

    return jax.lax.scan(step, jnp.zeros((), bare.dtype), _blocks({"x": x, **of_rows}, len(x), len(w)))[0]


@partial(_total.defjvp, symbolic_zeros=True)
def _(primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
    structure = jax.tree.structure(primals)
    moves = leaves_like(structure, tangents)
    moving = [moves_at_all(move) for move in moves]
    value, gradients = _total_and_gradients(primals, jax.tree.unflatten(structure, moving))
    products = [
        jnp.sum(gradient * move.astype(gradient.dtype))
        for gradient, move, is_moving in zip(leaves_like(structure, gradients), moves, moving, strict=True)
        if is_moving
    ]
    return value, sum(products, start=jnp.zeros_like(value)).astype(value.dtype)


def _total_and_gradients(primals: Any, moving: Any) -> tuple[jax.Array, Any]:
    """Return the sum of the losses and its gradients in those arrays that move; anything in the place of others."""
    (x, w, b), of_rows, *shared = primals
    (x_moves, w_moves, b_moves), rows_move, *shared_moves = moving
    dtype = wide(x.dtype)

    # The leaves that move, by their places: integers and constants are no business of `jax.vjp`.
    def parted(tree: Any, moves: Any) -> tuple[list[Any], Any]:
        leaves, structure = jax.tree.flatten(tree)
        places = [i for i, move in enumerate(leaves_like(structure, moves)) if move]

        def rebuilt(tree: Any, changed: list[Any]) -> Any:
            again = jax.tree.leaves(tree)
            for i, leaf in zip(places, changed, strict=True):
                again[i] = leaf
            return jax.tree.unflatten(structure, again)

        return [leaves[i] for i in places], rebuilt

    shared_leaves, with_shared = parted(shared, shared_moves)

    @jax.checkpoint
    def step(carry: Any, block: dict[str, Any]) -> tuple[Any, Any]:
        total, d_weight, d_bias, d_shared = carry
        block = dict(block)
        rows = _counted(block.pop("x"), block)
        row_leaves, with_rows = parted(block, rows_move)

        def loss(logits: jax.Array, row_leaves: list[Any], shared_leaves: list[Any]) -> jax.Array:
            bare, factor = with_shared(shared, shared_leaves)
            return _joined(with_rows(block, row_leaves), bare).losses(logits, factor).sum()

        value, pull = jax.vjp(loss, _logits(rows, w, b), row_leaves, shared_leaves)
        slope, of_rows, of_shared = pull(jnp.ones_like(value))
        narrow = slope.astype(x.dtype)
        if w_moves:
            d_weight = _add_product(d_weight, narrow, rows)
        if b_moves:
            d_bias = d_bias + slope.sum(0)
        of_input = jnp.matmul(narrow, w, preferred_element_type=dtype).astype(x.dtype) if x_moves else None
        d_shared = [a + g for a, g in zip(d_shared, of_shared, strict=True)]
        return (total + value, d_weight, d_bias, d_shared), (of_input, of_rows)

    start = (
        jnp.zeros((), shared[0].dtype),
        jnp.zeros(w.shape, dtype) if w_moves else None,
        jnp.zeros(len(w), dtype) if b_moves else None,
        [jnp.zeros_like(leaf) for leaf in shared_leaves],
    )
    carry, of_blocks = jax.lax.scan(step, start, _blocks({"x": x, **of_rows}, len(x), len(w)))
    total, d_weight, d_bias, d_shared = carry

    def unblocked(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(-1, *leaf.shape[2:])[: len(x)]

    d_input, d_rows = jax.tree.map(unblocked, of_blocks)
    _, with_rows = parted(of_rows, rows_move)
    return total, ((d_input, d_weight, d_bias), with_rows(of_rows, d_rows), *with_shared(shared, d_shared))


def _add_product(total: jax.Array, slope: jax.Array, rows: jax.Array) -> jax.Array:
    """Return ``total + slopeᵀ rows``, a tile of classes at a time: the whole product is as large as the weight."""
    num_classes, width = total.shape
    count = max(1, -(-num_classes * width * total.dtype.itemsize // TILE_BYTES))
    size = -(-num_classes // count)
    starts = jnp.minimum(jnp.arange(count) * size, num_classes - size)
    first_new = jnp.arange(count) * size - starts  # the last tile begins earlier, and adds no class twice

    def add(i: Any, total: jax.Array) -> jax.Array:
        part = jax.lax.dynamic_slice_in_dim(slope, starts[i], size, axis=1)
        part = jnp.where(jnp.arange(size) >= first_new[i], part, 0)
        product = _product(part, rows, 0, total.dtype)
        tile = jax.lax.dynamic_slice_in_dim(total, starts[i], size, axis=0)
        return jax.lax.dynamic_update_slice_in_dim(total, tile + product, starts[i], axis=0)

    return jax.lax.fori_loop(0, count, add, total)


def _each_block(function: Any, head: Head, problem: Problem) -> Any:
    """Return what a function makes of the problem, the input and the logits of each block, for all rows."""
    x, w, b = head
    of_rows, bare = _split(problem, len(x))
    matrix = w.astype(wide(w.dtype))  # in which its gradient is added up

    @jax.checkpoint
    def step(_: None, block: dict[str, Any]) -> tuple[None, Any]:
        block = dict(block)
        return None, function(_joined(block, bare), block.pop("x"), (matrix.astype(w.dtype), b))

    _, found = jax.lax.scan(step, None, _blocks({"x": x, **of_rows}, len(x), len(w)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[: len(x)], found)


def _losses_of_block(part: Problem, rows: jax.Array, head: tuple[jax.Array, Any]) -> jax.Array:
    return part.losses(_logits(_counted(rows, _split(part, len(rows))[0]), *head))


@jax.jit
def _value_of_head(head: Head, problem: Problem, factor: Any) -> jax.Array:
    if problem.reduction.kind != "none":
        return _total(head, *_split(problem, len(head[0])), factor)
    if problem.form.link == "sigmoid":  # N·K numbers by definition
        return problem.losses(_logits(*head)).reshape(problem.shape)
    return _each_block(_losses_of_block, head, problem).reshape(problem.shape)


@takes_options(without=("axis",))
def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    transposed: bool = False,
    where: Any = None,
    **options: Any,
) -> jax.Array:
    """Return the loss of the linear head ``z = input @ linear_weight.T + linear_bias``, never holding N·K logits.

    Value and gradients take three matrix products, whatever is differentiated; with ``reduction="none"`` four, as the
    upstream gradient is known too late. Products of half-precision arrays are added up in float32, and so is the
    weight's gradient.

    Parameters
    ----------
    input : floating array (..., D)
    linear_weight : floating array (K, D), or (D, K) with ``transposed=True``, as flax keeps it
    target : integer array (...) or floating array (..., K); a teacher with ``loss=ce.Distillation(T)``
    linear_bias : array (K,), optional
    transposed : bool
    where : bool array (...), optional
    options
        ``link`` and the keywords of :func:`crossent.jax.cross_entropy` or, with ``link="sigmoid"``, of
        :func:`crossent.jax.binary_cross_entropy_with_logits`, without axis.

    Returns
    -------
    array, a number or (...) with reduction "none"; with the sigmoid link (..., K), which holds N·K numbers

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, crossent.jax as cej
    >>> value, grad = jax.value_and_grad(cej.linear_cross_entropy, argnums=1)(jnp.eye(2), jnp.eye(2), jnp.array([0, 1]))
    >>> round(float(value), 6), grad.shape
    (0.313262, (2, 2))
    """
    given = options_of(options)
    head, shape = _head(input, linear_weight, linear_bias, transposed)
    problem = Problem.of(target, given, where, shape, len(head[1]), head[0].dtype)
    factor, added = problem.scale()
    return _value_of_head(head, problem, factor) + added


@jax.jit
def _statistics_of_head(head: Head, problem: Problem) -> Statistics:
    return _each_block(lambda part, rows, head: statistics_of_rows(part, _logits(rows, *head)), head, problem)


@takes_options(without=(*OF_LOSSES, "axis"))
def linear_statistics(
    input: Any, linear_weight: Any, target: Any, *, linear_bias: Any = None, transposed: bool = False, **options: Any
) -> Statistics:
    """Return the statistics of the rows of a linear head, never holding N·K logits.

    Parameters
    ----------
    input, linear_weight, linear_bias, transposed
        As in :func:`linear_cross_entropy`.
    target : integer array (...) or floating array (..., K)
    options
        As in :func:`crossent.jax.statistics`, without axis.

    Returns
    -------
    Statistics

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import jax.numpy as jnp, crossent.jax as cej
    >>> cej.linear_statistics(jnp.eye(2), jnp.eye(2), jnp.array([0, 0])).argmax
    Array([0, 1], dtype=int32)
    """
    if isinstance(target, TopK):
        raise TypeError(refuse(STATISTICS_NEED, "a TopK"))
    given = options_of(options)
    head, shape = _head(input, linear_weight, linear_bias, transposed)
    problem = Problem.of(target, given, None, shape, len(head[1]), head[0].dtype)
    found = _statistics_of_head(head, problem)
    return Statistics(*(column.reshape(shape) for column in found))
