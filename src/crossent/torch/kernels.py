"""Dense losses in ordinary memory: the NumPy front end computes value and gradient in one pass.

The results have the same bits as NumPy's. A gradient of the gradient comes from `composed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossent.kernels import registry
from crossent.numpy.options import Options
from crossent.numpy.problem import make_problem

from .autograd import OfLogits, at_once, record
from .tensors import (
    PLAIN,
    as_numpy,
    as_tensor,
    is_readable,
    numpy_options,
    numpy_target,
)

__all__ = ["dense", "mean_of_labels"]

Differentiable = Callable[[Tensor], Tensor]


def _gradient_tensor(gradient: Any) -> Tensor:
    """Return the gradient as a tensor of the logits' dtype."""
    if gradient.dtype.kind == "V":
        return torch.from_numpy(gradient.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(gradient)


def dense(
    input: Tensor,
    target: Any,
    options: Options,
    others: list[Tensor],
    axis: int,
    is_in_range: bool,
    composed: Differentiable,
) -> Tensor:
    """Return the loss of logits in ordinary memory.

    Parameters
    ----------
    others : the tensors of target and options
    axis : int
        The class axis.
    is_in_range : bool
        Whether the values of a floating target are known to be allowed.
    composed : the same function of the logits, for higher derivatives
    """
    arrays = as_numpy(input), numpy_target(target), numpy_options(options)
    problem = make_problem(*arrays, axis, is_in_range=is_in_range)

    is_none = problem.evaluator.reduction.kind == "none"
    # A row's part of a mean may be too small for float16 before the factor of a scaled loss arrives.
    waits = is_none or input.dtype is torch.float16

    def solve(with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        value, gradient = problem.solve(with_grad=with_gradient and not waits)
        return as_tensor(value), None if gradient is None else _gradient_tensor(gradient)

    def differentiate(upstream: Tensor) -> Tensor:
        if not waits:  # the same roundings as those of a gradient that was handed out
            return _gradient_tensor(problem.solve(with_grad=True)[1]).mul_(upstream.item())
        scaled = problem.with_factor(upstream.double().numpy()) if is_none else problem.with_scale(upstream.item())
        return _gradient_tensor(scaled.solve(with_grad=True)[1])

    return at_once(OfLogits(solve, differentiate, composed), (input,), others)


_NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def mean_of_labels(input: Any, target: Any, ignore_index: int, composed: Differentiable) -> Tensor | None:
    """Return the mean cross-entropy of a small batch of logits (N, C) and labels (N,); None if anything is unusual.

    Training loops make this call most. For a small batch the decisions of `dense` take longer than the arithmetic, and
    so do views of memory as arrays. The kernel returns the same bits as `dense`.
    """
    if not (
        is_readable()
        and type(input) in PLAIN
        and type(target) in PLAIN
        and input.dtype in _NAMES
        and target.dtype is torch.int64
        and input.is_cpu
        and target.is_cpu
        and input.layout is target.layout is torch.strided
        and not input.is_neg()
    ):
        return None
    shape = input.shape
    if not (
        len(shape) == 2
        and target.shape == shape[:1]
        and 0 not in shape
        and input.is_contiguous()
        and target.is_contiguous()
        and -(2**63) <= ignore_index < 2**63
    ):
        return None
    name, logits, labels = _NAMES[input.dtype], input.data_ptr(), target.data_ptr()
    if (logits | labels) & 7:  # memory that is not aligned goes the general way
        return None
    dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
    twin = registry.find("float64" if dtype is torch.float64 else "float32")

    def solve(with_gradient: bool) -> tuple[Any, Tensor | None]:
        gradient = torch.empty_like(input) if with_gradient else None
        out = 0 if gradient is None else gradient.data_ptr()
        value = twin.mean_at(name, logits, labels, out, *shape, ignore_index)
        return None if value is None else torch.scalar_tensor(value, dtype=dtype), gradient

    is_differentiated = input.requires_grad and torch.is_grad_enabled()
    value, gradient = solve(is_differentiated)
    if value is None or not is_differentiated:
        return value

    def differentiate(upstream: Tensor) -> Tensor:
        return solve(True)[1].mul_(upstream.item())  # type: ignore[union-attr]

    return record(OfLogits(solve, differentiate, composed), (value,), [gradient], [target], input)
