"""The door of every loss: its options are checked, and the way to compute it is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import _reduction as legacy

from crossent.core.target import NO_INDEX, TopK
from crossent.errors import refuse
from crossent.numpy.arrays import lies_within
from crossent.numpy.options import Options

from . import accelerated, composed, kernels
from .tensors import (
    NUMBERS,
    PLAIN,
    as_numpy,
    describe,
    floating,
    is_distributed,
    is_readable,
    of_each_class,
    other_tensors,
    varies,
    wants_gradients,
)

__all__ = ["Way", "dense", "options_of", "way_of"]


def options_of(target: Any, size_average: Any, reduce: Any, options: Any, **given: Any) -> Options:
    """Return the checked options of a loss with this target.

    Raises
    ------
    TypeError, ValueError
        If one is not as the public functions say, or the target is of no kind that they take.
    """
    given.update(options)
    if given.get("ignore_index", NO_INDEX) is None:
        given["ignore_index"] = NO_INDEX
    if size_average is not None or reduce is not None:
        given["reduction"] = legacy.legacy_get_string(size_average, reduce)
    numbers: dict[str, Any] = {n: v for n, v in given.items() if isinstance(v, Tensor) and n in NUMBERS}
    for name in numbers:
        del given[name]
    smoothing = given.get("label_smoothing")
    if isinstance(smoothing, Tensor) and (smoothing.requires_grad or not is_readable()):
        asked = "label_smoothing must be a number: it has no gradient"
        raise TypeError(refuse(asked, describe(smoothing), "float(label_smoothing)"))
    checked = Options(**given).checked()
    if not isinstance(target, Tensor | TopK):
        raise TypeError(refuse("target must be a tensor or a TopK", describe(target)))
    if isinstance(target, Tensor):
        if target.is_complex() or (target.dtype is torch.bool and checked.kind == "softmax"):
            asked = "target must hold integer labels or floating distributions"
            raise TypeError(refuse(asked, describe(target)))
        if target.is_floating_point() and checked.ignore_index != NO_INDEX:
            if checked.ignore_index >= 0:
                asked = "ignore_index applies to integer targets"
                raise ValueError(refuse(asked, checked.ignore_index, "use sample_weight with floating targets"))
            numbers["ignore_index"] = NO_INDEX  # PyTorch's rule: a negative one has no effect
    return checked._replace(**numbers) if numbers else checked


class Way(NamedTuple):
    """How a loss is computed.

    Attributes
    ----------
    rows : who computes the losses of rows
        The compiled "kernels", PyTorch's own "operations", a GPU's "launches"; or each of several processes, of its
        "shards".
    at_once : bool
        Whether nothing but the logits (or the linear head) is differentiated, and no program is recorded or
        transformed, so that value and gradient may come from one pass.
    is_in_range : bool
        Whether the values of a floating target are known to be those that the NumPy front end accepts.
    """

    rows: Literal["kernels", "operations", "launches", "shards"]
    at_once: bool
    is_in_range: bool = False


def way_of(
    inputs: Sequence[Tensor], target: Any, options: Options, others: Sequence[Tensor], num_labels: int | None
) -> Way:
    """Choose the way from what the tensors are and what is being done with them; the only place that does.

    Parameters
    ----------
    inputs : the logits, or a linear head's input, weight and, if there is one, bias
    others : the tensors of the target and the options
    num_labels : the length of the class axis, if there is one
    """
    if accelerated.serves(inputs, target, options):
        return Way("launches", True)
    at_once = is_readable() and not wants_gradients(others)
    is_plain = True
    for tensor in (*inputs, *others):
        if type(tensor) not in PLAIN or tensor.layout is not torch.strided:
            if is_distributed(tensor):
                return Way("shards", False)
            is_plain = False
        elif not tensor.is_cpu:
            return Way("operations", at_once)
    if any(varies(tensor) for tensor in of_each_class(target, options)):
        return Way("operations", at_once)
    if not at_once:
        return Way("kernels", False)
    if not is_plain:
        return Way("operations", True)
    if len(others) == 1 and not others[0].is_floating_point():  # labels alone
        return Way("kernels", True)
    if not _options_in_range(options, num_labels):
        return Way("operations", True)
    is_teacher = options.loss is not None and options.loss.needs_teacher
    if is_teacher or not (isinstance(target, Tensor) and target.is_floating_point()):
        return Way("kernels", True)
    if not _in_range(target, 1.0 if options.kind == "sigmoid" else math.inf):
        return Way("operations", True)
    return Way("kernels", True, is_in_range=True)


def _in_range(tensor: Any, most: float = math.inf) -> bool:
    """Whether NumPy's front end accepts the values: finite, from 0 to `most`. PyTorch's functions take others too."""
    # Not by PyTorch: its threads would spin for a while on the processors that the kernels need next.
    return not isinstance(tensor, Tensor) or lies_within(as_numpy(tensor), most)


def _options_in_range(options: Options, num_labels: int | None) -> bool:
    """Whether NumPy's front end accepts the values of the weights."""
    pos_weight = options.pos_weight
    if isinstance(pos_weight, Tensor) and pos_weight.numel() != 1 and tuple(pos_weight.shape) != (num_labels,):
        return False  # PyTorch broadcasts it in any way
    return _in_range(options.weight) and _in_range(pos_weight) and _in_range(options.sample_weight)


def _check_class_axis(input: Tensor, labels: Tensor) -> None:
    """Labels of logits whose classes are in the last axis are a frequent mistake: name it."""
    expected = (input.shape[0], *input.shape[2:])
    if tuple(labels.shape) != expected and labels.shape == input.shape[:-1]:
        works = "the class axis is 1: give input.movedim(-1, 1), or flatten the rows"
        raise ValueError(refuse(f"labels must have shape {expected}, one a row", describe(labels), works))


def dense(input: Any, target: Any, options: Options) -> Tensor:
    """Return the loss of logits, class axis 1 (0 for one row).

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit.
    """
    input, is_softmax = floating(input, "input"), options.kind == "softmax"
    if input.ndim == 0 and is_softmax:
        raise ValueError(refuse("input must have a class axis", "a number"))
    if isinstance(target, Tensor) and 3 <= input.ndim == target.ndim + 1 and is_softmax:
        _check_class_axis(input, target)
    others = other_tensors(target, options)
    way = way_of([input], target, options, others, input.shape[-1] if input.ndim > 1 else None)
    if way.rows == "shards":
        from . import sharded

        return sharded.dense(input, target, options, dense)

    def by_operations(logits: Tensor) -> Tensor:
        return composed.dense(logits, target, options, native=way.rows != "kernels")

    if way.rows == "launches":
        return accelerated.dense(input, target, options, others, by_operations)
    if way.rows == "kernels" and way.at_once:
        axis = min(1, input.ndim - 1) if is_softmax else -1
        return kernels.dense(input, target, options, others, axis, way.is_in_range, by_operations)
    return by_operations(input)
