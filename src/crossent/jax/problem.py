"""A loss as one frozen record of arrays: its target, weights, maps and reduction, each encoded and refused once.

Around the losses of rows there are JAX's operations only, so JAX transforms and differentiates all of it. The record is
a pytree: it may be an argument of a compiled function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from crossent.core.logit_maps import LogitMap
from crossent.core.reduction import Reduction
from crossent.core.target import Asked, TopK, encode
from crossent.errors import describe, refuse
from crossent.losses import DEFAULT_LOSS, Distillation
from crossent.numpy.arrays import checked_axis
from crossent.numpy.options import Options

from .arrays import NUMBERS, as_array, as_mask, broadcast, floating, is_known, number, weights, wide
from .rows import Form, Given, row_losses
from .target import BAD, JaxTargets

__all__ = ["Problem", "dense", "options_of"]


def options_of(options: Any, **given: Any) -> Options:
    """Return the checked options of a call; numbers that are arrays stay as they are.

    Raises
    ------
    TypeError, ValueError
    """
    given = {**options, **given}
    numbers = {name: given.pop(name) for name in NUMBERS if isinstance(given.get(name), jax.Array)}
    smoothing = given.get("label_smoothing")
    if not is_known(smoothing):
        asked = "label_smoothing must be a number: it has no gradient"
        raise TypeError(refuse(asked, describe(smoothing), "make it static"))
    return Options(**given).checked()._replace(**numbers)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["given", "bad", "counted", "weight", "maps", "factor", "normalizer"],
    meta_fields=["form", "shape", "dtype", "reduction", "is_soft"],
)
@dataclass(frozen=True)
class Problem:
    """N rows of K logits and what was asked of them.

    Attributes
    ----------
    form, given : what the losses of rows are computed from
    shape : of what reduction "none" returns, the class axis last
    dtype : of the computation
    bad : boolean array or None
        Rows (with the sigmoid link, entries) whose label is out of range where nothing could raise.
    counted : boolean array or None
        Which rows (entries) count; None for all.
    weight : array or None
        Factors of the losses, (N,) or (N, K).
    maps : (softcap, temperature, offset, margin), each an array, a number or None
    factor : number or None
        Of the losses: a distillation's temperature squared, where that is an array.
    normalizer : array of one number, or None
    is_soft : whether the target is a distribution or a teacher, whose mean does not ask for the class weights
    """

    form: Form
    given: Given
    shape: tuple[int, ...]
    dtype: Any
    reduction: Reduction
    is_soft: bool
    bad: Any = None
    counted: Any = None
    weight: Any = None
    maps: tuple = (None, None, None, None)
    factor: Any = None
    normalizer: Any = None

    @classmethod
    def of(
        cls, target: Any, options: Options, where: Any, shape: tuple[int, ...], num_classes: int, dtype: Any
    ) -> Problem:
        """Encode what was asked of rows of the given shape, whose logits are of `num_classes` and `dtype`.

        Raises
        ------
        TypeError, ValueError
            If the target or an option does not fit.
        """
        dtype, link, loss = wide(dtype), options.kind, options.loss or DEFAULT_LOSS
        full, count = (*shape, num_classes), math.prod(shape)
        is_sigmoid = link == "sigmoid"
        is_array = isinstance(options.normalizer, jax.Array)
        reduction = Reduction(options.reduction, None if is_array else options.normalizer, options.on_empty)  # type: ignore[arg-type]
        mask = None if where is None else _mask(where, shape, full, is_sigmoid)
        weight = _class_weight(options, num_classes, dtype)
        asked = Asked(
            loss=loss,
            link=link,
            shape=shape,
            num_classes=num_classes,
            class_weight=weight,
            label_smoothing=options.label_smoothing,
            ignore_index=int(options.ignore_index),
            margin=options.margin,
        )
        found = encode(target, asked, JaxTargets(dtype, mask))
        labels, bad, counted, teacher = found.labels, None, mask, found.teacher
        if labels is not None:
            counted = labels != -1
            bad, labels = labels == BAD, jnp.where(labels == BAD, 0, labels)
        elif isinstance(target, TopK):
            bad = (teacher.indices == BAD).any(-1)  # type: ignore[union-attr]
        softcap, temperature, offset, margin = _maps(options, loss, num_classes, dtype)
        factor = None
        if isinstance(loss, Distillation) and isinstance(options.temperature, jax.Array):
            temperature, factor = options.temperature, options.temperature**2
        row_weight = weights("sample_weight", options.sample_weight, shape, "one weight a row", dtype)
        if row_weight is not None:
            row_weight = row_weight.reshape(count, 1) if is_sigmoid else row_weight.reshape(count)
        if is_sigmoid and options.weight is not None:
            own = weights("weight", options.weight, full, "a shape that broadcasts to the logits'", dtype)
            own = own.reshape(count, num_classes)  # type: ignore[union-attr]
            row_weight = own if row_weight is None else own * row_weight
        if mask is not None and labels is None:
            row_weight = mask.astype(dtype) if row_weight is None else jnp.where(mask, row_weight, 0)
        return cls(
            form=Form(loss, num_classes, options.label_smoothing, link),
            given=Given(labels, found.soft, weight, teacher),
            shape=full if is_sigmoid else shape,
            dtype=dtype,
            reduction=reduction,
            is_soft=labels is None,
            bad=bad,
            counted=counted,
            weight=row_weight,
            maps=(softcap, temperature, offset, margin),
            factor=factor,
            normalizer=number("normalizer (unless None or 'count')", options.normalizer, above=0) if is_array else None,
        )

    def mapped(self, logits: jax.Array) -> jax.Array:
        """Return what the maps make of logits (N, K), in the dtype of the computation.

        An infinite logit stays what it is, and has no part in the gradients of the maps' numbers.
        """
        logits = logits.astype(self.dtype)
        logit_map = LogitMap(*self.maps)
        if logit_map.is_identity:
            return logits
        is_finite = jnp.isfinite(logits)
        mapped = logit_map.forward(jnp.where(is_finite, logits, 0), self.given.labels)
        # An infinite logit stays, and its slope is the temperature's.
        temperature = 1 if self.maps[1] is None else jax.lax.stop_gradient(self.maps[1])
        return jnp.where(is_finite, mapped.astype(self.dtype), logits * jnp.asarray(1 / temperature, self.dtype))

    def losses(self, logits: jax.Array, factor: Any = None) -> jax.Array:
        """Return the weighted losses of logits (N, K), times a factor: (N,), or with the sigmoid link (N, K)."""
        given, shape = self.given, logits.shape if self.form.link == "sigmoid" else logits.shape[:1]
        weight = jnp.ones(shape, self.dtype)
        if self.weight is not None:  # what a row without weight holds, NaN included, reaches no gradient
            weight = jnp.broadcast_to(self.weight, shape)
            largest = logits if weight.ndim == 2 else logits.max(-1)
            void = (weight == 0) & (jnp.isnan(largest) if weight.ndim == 2 else ~jnp.isfinite(largest))
            logits = jnp.where(void if weight.ndim == 2 else void[:, None], 0, logits)
        if self.bad is not None:
            weight = jnp.where(self.bad & (weight != 0), math.nan, weight)
        for times in (self.factor, factor):
            weight = weight if times is None else weight * jnp.asarray(times, weight.dtype)
        z = self.mapped(logits)
        if self.factor is not None and given.teacher is not None:
            given = given._replace(teacher=_divided(given.teacher, self.maps[1]))
        return row_losses(self.form, z, given, weight)

    @property
    def counts(self) -> tuple[Any, Any]:
        """The number of rows (entries) that count, and their summed weights."""
        count: Any = math.prod(self.shape)
        count = float(count) if isinstance(count, int) else jnp.asarray(count, self.dtype)  # a length that is not known
        if self.counted is not None:
            count = self.counted.sum().astype(self.dtype)
        if self.form.link == "sigmoid":
            return count, count
        if self.is_soft:
            return count, count if self.weight is None else self.weight.sum()
        own = jnp.ones_like(self.counted, self.dtype) if self.weight is None else self.weight
        if self.given.weight is not None:
            own = own * self.given.weight[jnp.maximum(self.given.labels, 0)]
        return count, jnp.where(self.counted, own, 0).sum()

    def scale(self) -> tuple[Any, Any]:
        """Return (factor of the summed losses, what is added for an empty mean), as `Reduction.resolve` does.

        Raises
        ------
        ValueError
            If the mean is empty, `on_empty` is "raise", and the values can be looked at.
        """
        rule, one = self.reduction, jnp.ones((), self.dtype)
        if rule.kind != "mean":
            return one, 0.0
        if self.normalizer is not None:
            denominator = self.normalizer.astype(self.dtype)
            return jnp.where(denominator > 0, 1 / denominator, math.nan), 0.0
        denominator = rule.denominator(*self.counts) * one
        is_empty = denominator == 0
        if rule.on_empty == "raise" and is_known(is_empty) and bool(is_empty):
            rule.resolve(0.0, 0.0)
        factor = jnp.where(is_empty, 0, 1 / jnp.where(is_empty, 1, denominator))
        return factor, jnp.where(is_empty, 0.0 if rule.on_empty == "zero" else math.nan, 0.0).astype(self.dtype)


def _divided(teacher: Any, temperature: Any) -> Any:
    if isinstance(teacher, tuple):  # of a TopK the probabilities are at the temperature already
        return teacher
    return jnp.where(jnp.isfinite(teacher), jnp.where(jnp.isfinite(teacher), teacher, 0) / temperature, teacher)


def _mask(where: Any, shape: tuple[int, ...], full: tuple[int, ...], is_sigmoid: bool) -> jax.Array:
    """Return a mask of the rows, (N,), or with the sigmoid link of the entries, (N, K)."""
    mask = as_mask(where)
    if not is_sigmoid:
        return broadcast("where", mask, shape, "one entry a row").reshape(-1)
    if mask.ndim < len(full) and mask.shape == shape and mask.ndim:
        mask = mask[..., None]
    return broadcast("where", mask, full, "one entry a row or a logit").reshape(-1, full[-1])


def _class_weight(options: Options, num_classes: int, dtype: Any) -> Any:
    """Return the weights of the classes, (K,), or with the sigmoid link those of 0 and 1, (2, K)."""
    if options.kind == "softmax":
        return weights("weight", options.weight, (num_classes,), "one weight a class", dtype)
    if options.alpha is None and options.pos_weight is None:
        return None
    alpha = number("alpha", options.alpha, minimum=0, maximum=1)
    positive = weights("pos_weight", options.pos_weight, (num_classes,), "one weight a label", dtype)
    negative = jnp.ones(num_classes, dtype)
    positive = negative if positive is None else positive
    return jnp.stack([negative, positive] if alpha is None else [negative * (1 - alpha), positive * alpha])


def _maps(options: Options, loss: Any, num_classes: int, dtype: Any) -> tuple:
    """Return soft cap, temperature, offset and margin, each checked."""
    softcap = number("softcap", options.softcap, above=0)
    temperature = number("temperature", options.temperature, above=0)
    offset = margin = None
    if options.prior is not None:
        prior: Any = weights("prior", options.prior, (num_classes,), "one probability a class", dtype)
        strength = number("prior_strength", options.prior_strength)
        is_possible = prior > 0
        offset = jnp.where(is_possible, strength * jnp.log(jnp.where(is_possible, prior, 1)), -math.inf)
        if options.kind == "sigmoid":
            offset = offset - strength * jnp.log1p(-prior)
    if options.margin is not None:
        margin = options.margin
        if isinstance(margin, int | float) and not isinstance(margin, bool):
            margin = number("margin", margin)
        else:
            margin = floating(margin, "margin").astype(dtype)
            if margin.ndim:
                margin = broadcast("margin", margin, (num_classes,), "one number a class")
    if loss.needs_teacher:
        if temperature is not None and not isinstance(temperature, jax.Array):
            got = f"temperature={options.temperature!r}"
            raise TypeError(refuse("a distillation loss has its own temperature", got))
        if offset is not None and loss.parameter != 1:
            offset = offset * loss.parameter  # the loss divides by its temperature itself, and the prior comes behind
    return softcap, temperature, offset, margin


def rows_of(logits: jax.Array, target: Any, where: Any, options: Options) -> tuple[Problem, jax.Array, int]:
    """Return the problem of logits of any shape, the logits as rows (N, K), and their class axis.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    array = floating(logits, "logits")
    is_sigmoid = options.kind == "sigmoid"
    if array.ndim == 0 and not is_sigmoid:
        raise ValueError(refuse("logits must have a class axis", "a number"))
    shape = array.shape
    axis = checked_axis(options.axis, len(shape)) if shape else 0
    if is_sigmoid and len(shape) <= 1:  # every entry is a row of one label
        array = array[..., None]
        target = as_array(target, "target")[..., None]
        where = None if where is None else as_array(where, "where")[..., None]
        if options.weight is not None:
            options = options._replace(weight=as_array(options.weight, "weight")[..., None])
    elif axis != len(shape) - 1:
        array = jnp.moveaxis(array, axis, -1)
        if not isinstance(target, TopK) and jnp.ndim(target) == len(shape):
            target = jnp.moveaxis(as_array(target, "target"), axis, -1)
        if is_sigmoid and options.weight is not None:
            weight = broadcast("weight", as_array(options.weight, "weight"), shape, "a shape that broadcasts")
            options = options._replace(weight=jnp.moveaxis(weight, axis, -1))
        if is_sigmoid and where is not None and jnp.ndim(where) == len(shape):
            where = jnp.moveaxis(jnp.broadcast_to(as_array(where, "where"), shape), axis, -1)
    *rows, num_classes = array.shape
    if num_classes == 0:
        raise ValueError(refuse("logits must have at least one class", describe(array)))
    problem = Problem.of(target, options, where, tuple(rows), num_classes, array.dtype)
    if is_sigmoid:
        problem = replace(problem, shape=array.shape)
    return problem, array.reshape(-1, num_classes), axis


@jax.jit
def _value(problem: Problem, logits: jax.Array, factor: Any) -> jax.Array:
    if problem.reduction.kind == "none":
        return problem.losses(logits).reshape(problem.shape)
    return problem.losses(logits, factor).sum()


def dense(logits: Any, target: Any, where: Any, options: Options) -> jax.Array:
    """Return the loss of logits.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    problem, rows, axis = rows_of(logits, target, where, options)
    factor, added = problem.scale()
    value = _value(problem, rows, factor) + added
    if value.ndim and options.kind == "sigmoid":
        single = jnp.ndim(logits) <= 1
        return value[..., 0] if single else jnp.moveaxis(value, -1, axis)
    return value
