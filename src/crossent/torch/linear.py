"""The linear head ``z = X Wᵀ + b`` and a loss on z: PyTorch's parameters, then the options of the family."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from crossent.errors import refuse
from crossent.numpy.options import Keywords, Options, takes_options
from crossent.numpy.statistics import WITHOUT

from . import accelerated, composed, recorded
from .autograd import at_once
from .door import dense, options_of, way_of
from .head import Head, KernelRows, ProblemRows
from .problem import Problem
from .sigmoid import SigmoidProblem
from .softmax import SoftmaxProblem
from .tensors import NUMBERS, describe, floating, int64_labels, is_transformed, other_tensors, wants_gradients

__all__ = ["LinearStatistics", "LinearValue", "linear_cross_entropy", "linear_statistics"]


class LinearStatistics(NamedTuple):
    """What is known of each row beside its loss, in nats; the first three are differentiable."""

    lse: Tensor
    entropy: Tensor
    log_prob: Tensor
    argmax: Tensor
    correct: Tensor


class LinearValue(NamedTuple):
    """A loss with the statistics of its rows; accuracy is the share of rows that count whose argmax is their label."""

    loss: Tensor
    lse: Tensor
    entropy: Tensor
    log_prob: Tensor
    argmax: Tensor
    correct: Tensor
    accuracy: Tensor


def _linear_arguments(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the arguments in one dtype: autocast's, where that is on, else the widest of theirs."""
    floating(input, "input")
    floating(weight, "linear_weight")
    if input.ndim == 0 or weight.ndim < 2 or input.shape[-1] != weight.shape[-1]:
        asked = "input must have shape (..., D) and linear_weight (C, D)"
        raise ValueError(refuse(asked, f"{describe(input)} and {describe(weight)}"))
    if weight.shape[0] == 0:
        raise ValueError(refuse("linear_weight must have at least one class", describe(weight)))
    if bias is not None and floating(bias, "linear_bias").shape != weight.shape[:-1]:
        raise ValueError(refuse(f"linear_bias must have shape {tuple(weight.shape[:-1])}", describe(bias)))
    device = input.device.type
    if (
        torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
        and input.dtype is not torch.float64
    ):
        dtype = torch.get_autocast_dtype(device)
    else:
        dtype = torch.promote_types(input.dtype, weight.dtype)
    return input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


@takes_options(without=("axis",))
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Any,
    *,
    linear_bias: Tensor | None = None,
    options: Any = None,
    link: str = "softmax",
    return_statistics: bool = False,
    **keywords: Unpack[Keywords],
) -> Any:
    """Return the loss of the linear head ``z = input @ linear_weight.T + linear_bias``, never holding N·C logits.

    ``torch.nn.functional.linear_cross_entropy`` with every loss and option. Value and gradients take three matrix
    products; with ``reduction="none"`` four, as the upstream gradient is known in backward only. The weight's gradient
    is added up in float32 at least. Half-precision logits are those of PyTorch's own product, rounded to their dtype.

    Parameters
    ----------
    input : tensor (..., D)
    linear_weight : tensor (C, D)
        (C, d1, ..., D) asks for PyTorch's K-dimensional loss, which does hold its logits.
    target : integer tensor (...) or floating tensor (..., C); a teacher with ``loss=ce.Distillation(T)``
    linear_bias : tensor (C,), optional
    options
        PyTorch's chunking options; taken and not needed.
    link : {"softmax", "sigmoid"}
        With "sigmoid" the target is that of :func:`binary_cross_entropy_with_logits`.
    return_statistics : bool
        Return also what is known of each row, from the same pass: a :class:`LinearValue`.
    others
        As in :func:`cross_entropy`.

    Returns
    -------
    tensor or LinearValue (loss, lse, entropy, log_prob, argmax, correct, accuracy)
        lse, entropy and log_prob are differentiable.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> x, w = torch.eye(2), torch.eye(2, requires_grad=True)
    >>> loss = cet.linear_cross_entropy(x, w, torch.tensor([0, 1]))
    >>> loss.backward()
    >>> round(loss.item(), 6), w.grad.shape
    (0.313262, torch.Size([2, 2]))
    """
    given = options_of(target, None, None, keywords, link=link)
    input, matrix, bias = _linear_arguments(input, linear_weight, linear_bias)
    if matrix.ndim == 2:
        return _head(input, matrix, bias, target, given, return_statistics)
    if return_statistics or link == "sigmoid":
        raise ValueError(refuse("a K-dimensional loss has no sigmoid link and no statistics", describe(matrix)))
    if input.ndim != 2:
        raise ValueError(refuse("a K-dimensional loss needs input of shape (N, D)", describe(input)))
    flat = F.linear(input, matrix.flatten(0, -2), None if bias is None else bias.flatten())
    return dense(flat.unflatten(-1, matrix.shape[:-1]), target, given)


@takes_options(without=(*WITHOUT, "axis"))
def linear_statistics(
    input: Tensor, linear_weight: Tensor, target: Any, *, linear_bias: Tensor | None = None, **options: Unpack[Keywords]
) -> LinearStatistics:
    """Return log-sum-exp, entropy, log-probability of the target, argmax and correctness of each row of a linear head.

    ``lse = log Σ e^{z_k}``, ``entropy = -Σ p_k log p_k``, ``log_prob = Σ t_k log p_k``, in nats, without N·C logits.

    Parameters
    ----------
    input, linear_weight, target, linear_bias, ignore_index, temperature, prior, prior_strength, softcap
        As in :func:`linear_cross_entropy`; the statistics are those of the mapped logits.

    Returns
    -------
    LinearStatistics
        Tensors (...). The first three are differentiable, at the price of the logits computed once more in backward.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> cet.linear_statistics(torch.eye(2), torch.eye(2), torch.tensor([0, 0])).argmax
    tensor([0, 1])
    """
    options["reduction"] = "none"
    value = linear_cross_entropy(
        input, linear_weight, target, linear_bias=linear_bias, return_statistics=True, **options
    )
    return LinearStatistics(*value[1:6])


def _head(
    input: Tensor, matrix: Tensor, bias: Tensor | None, target: Any, options: Options, with_statistics: bool = False
) -> Any:
    """Return the loss of a linear head of one dtype; with statistics, a LinearValue."""
    inputs = [input, matrix] if bias is None else [input, matrix, bias]
    others = other_tensors(target, options)
    way = way_of(inputs, target, options, others, matrix.shape[0])
    if way.rows == "shards":
        from . import sharded

        if with_statistics:
            raise TypeError(refuse("statistics need tensors that are not distributed", describe(input)))
        return sharded.linear(input, matrix, bias, target, options, _head)
    *shape, width = input.shape
    rows_shape, num_classes = tuple(shape), matrix.shape[0]
    tensors = (input.reshape(-1, width), matrix, bias)

    def problem() -> Problem:
        if options.kind == "softmax":
            return SoftmaxProblem.of(target, options, rows_shape, num_classes, input, way.rows != "kernels")
        return _entries(target, options, (*shape, num_classes), input)

    def by_operations(*tensors: Any) -> tuple[Tensor, ...]:
        return composed.linear(tensors, problem(), with_statistics)

    found: Any
    if way.at_once:
        rows: Any
        if way.rows == "kernels":
            rows = KernelRows.of(target, options, rows_shape, num_classes, input.dtype, way.is_in_range)
        else:
            launches = None
            if way.rows == "launches":
                launches = accelerated.Launches.of_head(target, options, rows_shape, num_classes)
            rows = ProblemRows.of(problem(), input.dtype, launches)
        found = at_once(Head(rows, by_operations, with_statistics), tensors, others)
    elif _is_recorded(target, options, way.rows, others) and not with_statistics:
        found = recorded.linear(tensors, options, problem())  # type: ignore[arg-type]
    else:
        found = by_operations(*tensors)
    value, *statistics = found if isinstance(found, tuple) else (found,)
    if options.kind == "sigmoid" and options.reduction == "none":
        value = value.reshape(*shape, num_classes)
    if not with_statistics:
        return value
    return _with_accuracy(value, [column.reshape(rows_shape) for column in statistics], target, options)


def _is_recorded(target: Any, options: Options, rows: str, others: list[Tensor]) -> bool:
    """Return whether the head becomes an operator of a recorded program, whose numbers are constants."""
    has_tensors = any(isinstance(getattr(options, name), Tensor) for name in NUMBERS[:3])
    is_softmax = options.kind == "softmax" and isinstance(target, Tensor)
    return rows == "kernels" and is_softmax and not (has_tensors or is_transformed() or wants_gradients(others))


def _entries(target: Any, options: Options, full: tuple[int, ...], input: Tensor) -> SigmoidProblem:
    """Return the problem of a head's entries (N, C), whatever axes the rows had."""
    if not isinstance(target, Tensor) or tuple(target.shape) != full:
        asked = f"with the sigmoid link target must have the logits' shape {full}"
        raise ValueError(refuse(asked, describe(target)))
    *shape, num_classes = full
    sample_weight = options.sample_weight
    if sample_weight is not None and shape:
        sample_weight = torch.as_tensor(sample_weight).expand(tuple(shape)).reshape(-1)
    flat = (math.prod(shape), num_classes)
    return SigmoidProblem.of(target.reshape(flat), options._replace(sample_weight=sample_weight), flat, input)


def _with_accuracy(value: Tensor, statistics: list[Tensor], target: Tensor, options: Options) -> LinearValue:
    found = LinearStatistics(*statistics)
    if target.is_floating_point():
        counted = torch.ones_like(found.correct)
    else:
        counted = int64_labels(target, options.ignore_index) != options.ignore_index
    count = counted.sum()
    accuracy = (found.correct & counted).sum() / count
    if options.on_empty == "zero":
        accuracy = torch.where(count == 0, 0.0, accuracy)
    return LinearValue(value, *found, accuracy)
