"""A function whose intermediate results are not kept but computed again, for derivatives of every order.

`torch.utils.checkpoint` does this for the first derivative; a gradient that is to be differentiated again keeps all
that the recomputation made. Here the gradient is such a function itself.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crossent.core.linear import rows_per_block

from .blocks import products_of
from .composed import SigmoidProblem, SoftmaxProblem
from .pullback import pull_back

__all__ = ["losses_in_blocks", "recomputed"]

Function = Callable[..., tuple[Tensor, ...]]


def _gradient_of(function: Function, count: int) -> Function:
    """The gradient of a function of `count` tensors, as a function of those and of the upstream gradients."""

    def gradient(*arguments: Tensor) -> tuple[Tensor, ...]:
        inputs, upstream = arguments[:count], arguments[count:]
        is_differentiated = torch.is_grad_enabled()
        if not is_differentiated:
            inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
        found = pull_back(function, inputs, upstream, create_graph=is_differentiated)
        return tuple(torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True))

    return gradient


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        outputs = function(*inputs)
        ctx.are_numbers = [tensor.is_floating_point() for tensor in outputs]
        ctx.mark_non_differentiable(
            *(o for o, is_number in zip(outputs, ctx.are_numbers, strict=True) if not is_number)
        )
        return outputs

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        inputs = ctx.saved_tensors
        upstream = tuple(g for g, is_number in zip(upstream, ctx.are_numbers, strict=True) if is_number)
        gradient = _gradient_of(ctx.function, len(inputs))
        if torch.is_grad_enabled():
            return None, *_Recomputed.apply(gradient, *inputs, *upstream)
        return None, *gradient(*inputs, *upstream)


def recomputed(function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return ``function(*inputs)``, a tuple of tensors; what it computes on the way is not kept.

    The function reads no tensor that wants a gradient but its arguments.
    """
    return _Recomputed.apply(function, *inputs)


def losses_in_blocks(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    problem: SoftmaxProblem | SigmoidProblem,
    with_statistics: bool,
) -> tuple[Tensor, ...]:
    """Return the losses of the rows of a linear head and their statistics, differentiable to any order.

    They are those of blocks of rows, whose logits are computed again in backward and in what differentiates that.
    Losses of entries are summed over each row unless the reduction is "none".
    """
    matrix = weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight  # to add gradients up in
    itemsize = input.dtype.itemsize
    most = products_of(input).block_bytes(len(weight) * itemsize)
    step = rows_per_block(len(input), len(weight), itemsize, most)
    first, columns = 0, []
    for block in input.split(step):
        part = problem.part(slice(first, first + len(block)))
        columns.append(_block(block, matrix, bias, part, weight.dtype, with_statistics))
        first += len(block)
    return tuple(torch.cat(column) for column in zip(*columns, strict=True))


def _block(input: Tensor, matrix: Tensor, bias: Tensor | None, part: Any, dtype: Any, with_statistics: bool) -> Any:
    head = {"input": input, "matrix": matrix, "bias": bias}
    options = {field.name: getattr(part.options, field.name) for field in fields(part.options)}
    owners: tuple[dict[str, Any], ...] = (head, vars(part), options)
    places = [
        (index, name)
        for index, owner in enumerate(owners)
        for name, value in owner.items()
        if isinstance(value, Tensor) and value.requires_grad
    ]

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        changed: list[dict[str, Any]] = [{}, {}, {}]
        for (index, name), tensor in zip(places, tensors, strict=True):
            changed[index][name] = tensor
        arguments, here = head | changed[0], copy.copy(part)
        vars(here).update(changed[1])
        here.options = replace(part.options, **changed[2])
        logits = F.linear(arguments["input"], arguments["matrix"].to(dtype), arguments["bias"])
        losses = here.losses(logits, slice(None))
        if losses.ndim > 1 and here.options.reduction != "none":
            losses = losses.sum(-1)
        return losses, *(here.statistics(logits, slice(None)) if with_statistics else ())

    if not places:
        return function()
    return recomputed(function, *(owners[index][name] for index, name in places))
