"""The short way for the call that training loops make most: a mean over labels, every option at its default.

What the general way decides (options, routes, heads, maps, reduction) takes longer than a small batch's arithmetic.
This one computes the same numbers by the same kernels, or declines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crossent.kernels import registry
from crossent.losses import DEFAULT_LOSS

from .pullback import pull_back
from .tensors import PLAIN, is_traced, is_transformed

__all__ = ["mean_cross_entropy"]

_NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}

Function = Callable[[Tensor, Tensor, int], Tensor]


def _evaluate(input: Tensor, target: Tensor, ignore_index: int, gradient: Tensor | None) -> Tensor | None:
    """Return the mean and fill the gradient, or None."""
    dtype = input.dtype
    name = _NAMES[dtype]
    twin = registry.find("float64" if dtype is torch.float64 else "float32")
    logits, labels = input.data_ptr(), target.data_ptr()
    if (logits | labels) & 7:  # memory that is not aligned goes the general way
        return None
    out = 0 if gradient is None else gradient.data_ptr()
    shape = input.shape
    value = twin.mean_at(name, logits, labels, out, shape[0], shape[1], ignore_index, DEFAULT_LOSS)
    if value is None:
        return None
    return torch.scalar_tensor(value, dtype=torch.float64 if dtype is torch.float64 else torch.float32)


class _MeanCrossEntropy(torch.autograd.Function):
    """A value and a gradient that are known already."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, target: Tensor, ignore_index: int, found: list[Tensor], general: Function
    ) -> Tensor:
        ctx.save_for_backward(input, target)
        value, *ctx.gradient = found
        ctx.ignore_index, ctx.general = ignore_index, general
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        if torch.is_grad_enabled():  # create_graph: the gradient must be differentiable itself
            input, target = ctx.saved_tensors
            found = pull_back(lambda z: ctx.general(z, target, ctx.ignore_index), [input], [upstream])
            return *found, None, None, None, None
        if ctx.gradient:
            gradient = ctx.gradient.pop()  # handed out once: autograd may write into it
        else:
            input, target = ctx.saved_tensors
            gradient = torch.empty_like(input)
            _evaluate(input, target, ctx.ignore_index, gradient)
        factor = upstream.item()
        return gradient if factor == 1.0 else gradient.mul_(factor), None, None, None, None


def mean_cross_entropy(input: Any, target: Any, ignore_index: int, general: Function) -> Tensor | None:
    """Return the mean cross-entropy of logits (N, C) and labels (N,) on the CPU; None if anything is unusual.

    `general` is the same function of the three for higher derivatives.
    """
    if (
        type(input) not in PLAIN
        or type(target) not in PLAIN
        or input.dtype not in _NAMES
        or target.dtype is not torch.int64
        or not (input.is_cpu and target.is_cpu)
        or input.layout is not torch.strided
        or target.layout is not torch.strided
    ):
        return None
    shape = input.shape
    if (
        len(shape) != 2
        or target.shape != shape[:1]
        or input.numel() == 0
        or not (input.is_contiguous() and target.is_contiguous())
        or input.is_neg()
        or not -(2**63) <= ignore_index < 2**63
        or is_traced()
        or is_transformed()
    ):
        return None
    if not (input.requires_grad and torch.is_grad_enabled()):
        return _evaluate(input, target, ignore_index, None)
    gradient = torch.empty_like(input, requires_grad=False)
    value = _evaluate(input, target, ignore_index, gradient)
    if value is None:
        return None
    return _MeanCrossEntropy.apply(input, target, ignore_index, [value, gradient], general)
