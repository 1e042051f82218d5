"""The linear head as a registered operator: a recorded program computes it in blocks and never holds N·K logits.

Given the factors of the rows, the operator returns the weighted sum of the losses and its three gradients, from one
pass of three products. Without factors it returns the rows' losses. Their gradient is the operator itself, with the
upstream gradient as factors, which computes the logits once more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossent.errors import refuse
from crossent.losses import from_table
from crossent.numpy.options import Options

from .head import KernelRows
from .softmax import SoftmaxProblem

__all__ = ["linear"]

_NUMBERS = 4
"""Numbers of an operator before the loss's terms: smoothing, prior's strength, softcap, temperature (NaN for None)."""


def _rows(tensors: Sequence[Any], numbers: list[float]) -> KernelRows:
    """The rows of an operator's arguments."""
    input, weight, _, target, class_weight, prior, margin = tensors
    label_smoothing, prior_strength, softcap, temperature = numbers[:_NUMBERS]
    options = Options(
        loss=from_table(np.array(numbers[_NUMBERS:]).reshape(-1, 3)),
        weight=class_weight,
        label_smoothing=label_smoothing,
        ignore_index=-100 if target.is_floating_point() else -1,
        reduction="sum",
        temperature=None if math.isnan(temperature) else temperature,
        prior=prior,
        prior_strength=prior_strength,
        margin=margin,
        softcap=None if math.isnan(softcap) else softcap,
    )
    return KernelRows.of(target, options, (len(input),), len(weight), input.dtype)


def _held_in(tensor: Tensor) -> torch.dtype:
    """Return the dtype of a gradient until the upstream factor is known: it may be too small for float16 before."""
    return torch.float32 if tensor.dtype is torch.float16 else tensor.dtype


@torch.library.custom_op("crossent::linear_loss", mutates_args=())
def _linear_loss(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    prior: Tensor | None,
    margin: Tensor | None,
    factor: Tensor | None,
    numbers: list[float],
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = _rows((input, weight, bias, target, class_weight, prior, margin), numbers)
    if factor is not None:
        rows = rows.scaled(factor)
    losses, _, _, gradients = rows.passed((input, weight, bias), wanted)
    found = []
    for tensor, gradient, want in zip((input, weight, bias), gradients or (None,) * 3, wanted, strict=True):
        if want and tensor is not None and gradient is not None:
            found.append(gradient.to(_held_in(tensor)).mul_(rows.unit))
        else:
            found.append(input.new_empty(0))
    return (losses if factor is None else losses.sum(), *found)


@_linear_loss.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    input, *_, factor, _, wanted = arguments
    shape = (input.shape[0],) if factor is None else ()
    gradients = (
        torch.empty_like(t, dtype=_held_in(t)) if want and t is not None else input.new_empty(0)
        for t, want in zip(arguments[:3], wanted, strict=True)
    )
    return (input.new_empty(shape, dtype=torch.float64), *gradients)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, factor, ctx.numbers, ctx.wanted = inputs
    ctx.is_summed = factor is not None
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in tensors[:3]]
    ctx.save_for_backward(*(output[1:] if ctx.is_summed else tensors))


def _backward(ctx: Any, upstream: Tensor, *_: Any) -> Any:
    if torch.is_grad_enabled():  # the gradients have no graph: they would silently be constants
        asked = "a linear head recorded as an operator has first derivatives only"
        works = "call it outside of the dispatch mode, or cross_entropy on the logits"
        raise RuntimeError(refuse(asked, "create_graph=True", works))
    if ctx.is_summed:
        wanted = ctx.wanted
        gradients = [g * upstream.to(g.dtype) for g in ctx.saved_tensors]
    else:
        wanted = list(ctx.needs_input_grad[:3])
        gradients = _linear_loss(*ctx.saved_tensors, upstream, ctx.numbers, wanted)[1:]
    triples = zip(gradients, ctx.dtypes, wanted, strict=True)
    return (*(gradient.to(dtype) if want else None for gradient, dtype, want in triples), *(None,) * 7)


_linear_loss.register_autograd(_backward, setup_context=_keep)


def linear(tensors: Sequence[Any], options: Options, problem: SoftmaxProblem) -> Tensor:
    """Return the loss of a linear head whose target is labels, distributions or a teacher's logits.

    Parameters
    ----------
    tensors : input (N, D), weight (K, D), bias (K,) or None
    """
    numbers = [float(options.label_smoothing), float(options.prior_strength)]
    numbers += [math.nan if n is None else float(n) for n in (options.softcap, options.temperature)]
    numbers += [number for row in problem.loss.table() for number in row]
    target = problem.soft if problem.labels is None else problem.labels
    prior, margin = (
        None if value is None else torch.as_tensor(value, dtype=torch.float64)
        for value in (options.prior, options.margin)
    )
    arguments = (*tensors, target, problem.class_weight, prior, margin)
    if problem.reduction.is_none:
        return problem.reduce(problem.weighted(_linear_loss(*arguments, None, numbers, [False] * 3)[0]))
    factor, is_empty = problem.scale()
    ones = torch.ones(tensors[0].shape[0], dtype=torch.float64)
    wanted = [t is not None and t.requires_grad and torch.is_grad_enabled() for t in tensors]
    total = _linear_loss(*arguments, factor * problem.weighted(ones), numbers, wanted)[0]
    return problem.reduction.value(total, 1.0, is_empty).to(problem.result_dtype)
