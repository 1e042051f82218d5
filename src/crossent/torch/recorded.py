"""The linear head as registered operators, for programs that are recorded: in blocks there, too, and never N·K logits.

``linear_loss`` is the weighted sum of the row losses with its three gradients, from one pass of three products: the
factors of the rows are known before. ``linear_losses`` are the rows' losses; its gradient is the other operator's, with
the upstream gradient as the factors, and computes the logits once more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossent.errors import refuse
from crossent.losses import from_table
from crossent.numpy.options import Options

from .blocks import KernelRows, one_pass
from .composed import SoftmaxProblem, factor_of

__all__ = ["loss"]


def _rows(
    input: Tensor,
    weight: Tensor,
    target: Tensor,
    class_weight: Tensor | None,
    prior: Tensor | None,
    margin: Tensor | None,
    numbers: list[float],
    terms: list[float],
) -> KernelRows:
    """The rows of an operator's arguments; `numbers` are those that `_arguments` packs, NaN for None."""
    label_smoothing, prior_strength, softcap, temperature = numbers
    options = Options(
        loss=from_table(np.array(terms).reshape(-1, 3)),
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
    return KernelRows(target, options, (len(input),), len(weight), input.dtype)


def _held_in(tensor: Tensor) -> torch.dtype:
    """The dtype of a gradient until the upstream factor is known: without it float16 may have no such number."""
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
    factor: Tensor,
    numbers: list[float],
    terms: list[float],
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = _rows(input, weight, target, class_weight, prior, margin, numbers, terms)
    rows = rows.with_factor(factor)
    losses, gradients = one_pass(input, weight, bias, rows.evaluate, tuple(wanted), rows.is_silent)
    found = []
    for tensor, gradient, want in zip((input, weight, bias), gradients or (None,) * 3, wanted, strict=True):
        if not want:
            found.append(input.new_empty(0))
        else:
            assert tensor is not None
            assert gradient is not None
            found.append(gradient.to(_held_in(tensor)).mul_(rows.unit))
    return (losses.sum(), *found)  # type: ignore[return-value]


@_linear_loss.register_fake
def _(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Any,
    prior: Any,
    margin: Any,
    factor: Tensor,
    numbers: Any,
    terms: Any,
    wanted: list[bool],
) -> tuple[Tensor, ...]:
    pairs = zip((input, weight, bias), wanted, strict=True)
    gradients = (
        torch.empty_like(t, dtype=_held_in(t)) if want and t is not None else input.new_empty(0) for t, want in pairs
    )
    return (input.new_empty((), dtype=torch.float64), *gradients)


@torch.library.custom_op("crossent::linear_losses", mutates_args=())
def _linear_losses(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    class_weight: Tensor | None,
    prior: Tensor | None,
    margin: Tensor | None,
    numbers: list[float],
    terms: list[float],
) -> Tensor:
    rows = _rows(input, weight, target, class_weight, prior, margin, numbers, terms)
    return one_pass(input, weight, bias, rows.evaluate, (False, False, False), rows.is_silent)[0]


@_linear_losses.register_fake
def _(
    input: Tensor,
    weight: Any,
    bias: Any,
    target: Any,
    class_weight: Any,
    prior: Any,
    margin: Any,
    numbers: Any,
    terms: Any,
) -> Tensor:
    return input.new_empty((input.shape[0],), dtype=torch.float64)


def _keep_gradients(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.wanted = inputs[-1]
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs[:3]]
    ctx.save_for_backward(*output[1:])


def _refuse_second_derivatives() -> None:
    """The operators' gradients are numbers without a graph: differentiated again they would silently be constants."""
    if torch.is_grad_enabled():
        asked = "a linear head recorded as an operator has first derivatives only"
        works = "call it outside of the dispatch mode, or cross_entropy on the logits"
        raise RuntimeError(refuse(asked, "create_graph=True", works))


def _hand_out(ctx: Any, upstream: Tensor, *_: Any) -> Any:
    _refuse_second_derivatives()
    gradients = [
        (gradient * upstream.to(gradient.dtype)).to(dtype) if want else None
        for gradient, dtype, want in zip(ctx.saved_tensors, ctx.dtypes, ctx.wanted, strict=True)
    ]
    return (*gradients, *(None,) * 8)


def _keep_arguments(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.numbers, ctx.terms = inputs
    ctx.save_for_backward(*tensors)


def _compute_gradients(ctx: Any, upstream: Tensor) -> Any:
    _refuse_second_derivatives()
    wanted = list(ctx.needs_input_grad[:3])
    gradients = _linear_loss(*ctx.saved_tensors, upstream, ctx.numbers, ctx.terms, wanted)[1:]
    pairs = zip(gradients, ctx.saved_tensors[:3], wanted, strict=True)
    return (*(g.to(t.dtype) if want else None for g, t, want in pairs), *(None,) * 6)


_linear_loss.register_autograd(_hand_out, setup_context=_keep_gradients)
_linear_losses.register_autograd(_compute_gradients, setup_context=_keep_arguments)


def loss(input: Tensor, weight: Tensor, bias: Tensor | None, problem: SoftmaxProblem) -> Tensor:
    """Return the loss of a linear head of input (N, D) whose target is labels, distributions or a teacher's logits."""
    options = problem.options
    target = next(t for t in (problem.labels, problem.soft, problem.teacher) if t is not None)
    missing = math.nan
    numbers = [
        float(options.label_smoothing),
        float(options.prior_strength),
        missing if options.softcap is None else float(options.softcap),
        missing if options.temperature is None else float(options.temperature),
    ]
    terms = [number for row in problem.loss.table() for number in row]
    prior, margin = (
        None if value is None else torch.as_tensor(value, dtype=torch.float64)
        for value in (options.prior, options.margin)
    )
    arguments = (input, weight, bias, target, problem.weight, prior, margin)
    if options.reduction == "none":
        losses = _linear_losses(*arguments, numbers, terms)
        return problem.reduce(problem.weighted(losses, slice(None)))
    factor, is_empty = factor_of(problem.counts, options, input.device)
    factors = factor * problem.weighted(input.new_ones(input.shape[0], dtype=torch.float64), slice(None))
    wanted = [t is not None and t.requires_grad and torch.is_grad_enabled() for t in (input, weight, bias)]
    total = _linear_loss(*arguments, factors, numbers, terms, wanted)[0]
    empty = 0.0 if options.on_empty == "zero" else math.nan
    return torch.where(is_empty, empty, total).to(problem.result_dtype)
