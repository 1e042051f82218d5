"""Eager losses in ordinary memory: value and gradient by the NumPy front end's kernels, in one pass.

The gradient is computed with the value, because the factor of each row is known then; backward hands it out. What asks
for more (a second backward, a gradient of the gradient, a factor per row) is computed again or by `composed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossent.numpy.options import Options
from crossent.numpy.problem import Problem, make_problem

from .pullback import pull_back
from .tensors import as_numpy, as_tensor, numpy_options, numpy_target, other_tensors

Differentiable = Callable[[Tensor], Tensor]


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, problem: Problem, composed: Differentiable, others: list[Tensor]) -> Tensor:
        ctx.save_for_backward(input, *others)  # the problem reads the others' memory: autograd notices if they change
        ctx.problem, ctx.composed, ctx.gradient = problem, composed, None
        # A row's part of a mean may be too small for float16 before the factor of a scaled loss arrives.
        ctx.waits = problem.evaluator.reduction.kind == "none" or input.dtype is torch.float16
        if ctx.waits:
            return as_tensor(problem.solve(with_grad=False)[0])
        value, gradient = problem.solve(with_grad=True)
        ctx.gradient = gradient
        return as_tensor(value)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        if torch.is_grad_enabled():  # create_graph: the gradient must be differentiable itself
            return *pull_back(ctx.composed, ctx.saved_tensors[:1], [upstream]), None, None, None
        problem: Problem = ctx.problem
        if ctx.waits:
            _ = ctx.saved_tensors  # raises if an argument was changed in place since
            is_mean = problem.evaluator.reduction.kind != "none"
            scaled = problem.with_scale(upstream.item()) if is_mean else problem.with_factor(upstream.double().numpy())
            return _gradient_tensor(scaled.solve(with_grad=True)[1]), None, None, None
        gradient, ctx.gradient = ctx.gradient, None  # handed out once: autograd may write into it
        if gradient is None:
            _ = ctx.saved_tensors
            gradient = problem.solve(with_grad=True)[1]
        result = _gradient_tensor(gradient)
        factor = upstream.item()
        return result if factor == 1.0 else result.mul_(factor), None, None, None


def _gradient_tensor(gradient: Any) -> Tensor:
    """Return the gradient as a tensor of the logits' dtype."""
    if gradient.dtype.kind == "V":
        return torch.from_numpy(gradient.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(gradient)


def loss(input: Tensor, target: Any, options: Options, composed: Differentiable) -> Tensor:
    """Return the loss of logits in ordinary memory; `composed` is the same function of them for higher derivatives."""
    problem = make_problem(as_numpy(input), numpy_target(target), numpy_options(options))
    if input.requires_grad and torch.is_grad_enabled():
        return _FusedLoss.apply(input, problem, composed, other_tensors(target, options))
    return as_tensor(problem.solve(with_grad=False)[0])
