"""Losses composed of PyTorch's operations around the losses of rows: PyTorch differentiates them to any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crossent.core.linear import rows_per_block
from crossent.numpy.options import Options

from .autograd import recomputed
from .blocks import products_of
from .problem import Problem
from .sigmoid import SigmoidProblem
from .softmax import SoftmaxProblem
from .tensors import is_readable

__all__ = ["dense", "linear"]


def dense(input: Tensor, target: Any, options: Options, native: bool) -> Tensor:
    """Return the loss of logits, class axis 1, as operations that PyTorch differentiates in every tensor.

    Parameters
    ----------
    native : bool
        Whether PyTorch's own operations compute the losses of rows. They must on other devices, and where the target or
        weights want a gradient.
    """
    if options.kind == "sigmoid":
        entries = SigmoidProblem.of(target, options, tuple(input.shape), input)
        return entries.reduce(entries.losses(input))
    axis = 0 if input.ndim == 1 else 1
    logits = input.movedim(axis, -1)
    if isinstance(target, Tensor) and target.ndim == input.ndim:
        target = target.movedim(axis, -1)
    *shape, num_classes = logits.shape
    problem = SoftmaxProblem.of(target, options, tuple(shape), num_classes, input, native)
    return problem.reduce(problem.losses(logits.reshape(-1, num_classes)))


def linear(tensors: Sequence[Any], problem: Problem, with_statistics: bool) -> tuple[Tensor, ...]:
    """Return the loss of a linear head and, where asked for, the statistics of its rows (N,).

    The losses are computed in blocks of rows. Backward, and what differentiates it, computes the logits of a block
    again. A recorded or transformed program holds all logits.

    Parameters
    ----------
    tensors : input (N, D), weight (K, D), bias (K,) or None
    """
    input, weight, bias = tensors
    if not is_readable():
        columns = _losses(F.linear(input, weight, bias), problem, with_statistics)
    else:
        # The gradients of the blocks are added up in the matrix's dtype.
        matrix = weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight
        itemsize = input.dtype.itemsize
        most = products_of(input).block_bytes(len(weight) * itemsize)
        step = rows_per_block(len(input), len(weight), itemsize, most)
        found, first = [], 0
        for block in input.split(step):
            part = problem.part(slice(first, first + len(block)))
            found.append(_block((block, matrix, bias), part, weight.dtype, with_statistics))
            first += len(block)
        columns = tuple(torch.cat(column) for column in zip(*found, strict=True))
    return problem.reduce(columns[0]), *columns[1:]


def _losses(logits: Tensor, problem: Problem, with_statistics: bool) -> tuple[Tensor, ...]:
    losses = problem.losses(logits)
    if losses.ndim > 1 and not problem.reduction.is_none:
        losses = losses.sum(-1)
    return losses, *(problem.statistics(logits) if with_statistics else ())


def _block(tensors: Sequence[Any], part: Problem, dtype: torch.dtype, with_statistics: bool) -> tuple[Tensor, ...]:
    given = {"input": tensors[0], "matrix": tensors[1], "bias": tensors[2]}
    own = {field.name: getattr(part, field.name) for field in fields(part)}
    names = [name for name, v in (given | own).items() if isinstance(v, Tensor) and v.requires_grad]

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        changed: dict[str, Any] = dict(zip(names, leaves, strict=True))
        input, matrix, bias = (changed.pop(name, tensor) for name, tensor in given.items())
        return _losses(F.linear(input, matrix.to(dtype), bias), replace(part, **changed), with_statistics)

    return recomputed(function, *((given | own)[name] for name in names)) if names else function()
