"""The linear head ``z = X Wᵀ + b`` and a loss on z, a block of rows at a time: N·K logits are never held.

Value and gradients come from one pass of three products, because the factor of each row is known before the first
block; backward hands the gradients out. With ``reduction="none"`` the factors are known in backward only, which then
computes the logits again: four products. The weight's gradient is added up in float32 at least.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crossent.errors import refuse
from crossent.numpy.options import Options

from . import accelerated, recorded
from .blocks import STATISTICS_NEED, KernelRows, NativeRows, Rows, one_pass
from .composed import SigmoidProblem, SoftmaxProblem
from .pullback import pull_back
from .recomputed import losses_in_blocks
from .tensors import NUMBERS, describe, int64_labels, is_traced, is_transformed, other_tensors, wants_gradients, wide

__all__ = ["LinearStatistics", "LinearValue", "loss"]


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


_NOTHING = (False, False, False)


def _outputs(
    input: Tensor, weight: Tensor, bias: Any, rows: Rows, wanted: Any, with_statistics: bool
) -> tuple[tuple[Tensor, ...], Any]:
    """Return (value, lse, entropy, log_prob, argmax, correct), or (value,); and the gradients that are wanted."""
    losses, gradients = one_pass(input, weight, bias, rows.evaluate, wanted, rows.is_silent)
    return (rows.reduce(losses), *(rows.statistics() if with_statistics else ())), gradients


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Any,
        rows: Rows,
        composed: Any,
        with_statistics: bool,
        others: list[Tensor],
    ) -> Any:
        ctx.save_for_backward(input, weight, bias, *others)  # the rows read the others: autograd notices if they change
        ctx.set_materialize_grads(False)
        ctx.rows, ctx.composed = rows, composed
        wanted = _NOTHING if rows.kind == "none" else ctx.needs_input_grad[:3]
        outputs, ctx.gradients = _outputs(input, weight, bias, rows, wanted, with_statistics)
        ctx.mark_non_differentiable(*outputs[4:])
        return outputs if with_statistics else outputs[0]

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *of_statistics: Any) -> Any:
        saved = ctx.saved_tensors[:3]  # once: checkpointing recomputes them only once
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # create_graph: the gradients must be differentiable themselves
            return (*pull_back(ctx.composed, saved, (upstream, *of_statistics[:3])), None, None, None, None)
        total: list[Any] = [None, None, None]
        if upstream is not None:
            total = _loss_gradients(ctx, saved, upstream, needed)
        if any(g is not None for g in of_statistics[:3]):
            more = _statistics_gradients(ctx.rows, saved, of_statistics[:3], needed)
            total = [m if t is None else t + m for t, m in zip(total, more, strict=True)]
        return (*total, None, None, None, None)


def _times(gradients: Any, factor: Any, needed: Any) -> Any:
    for gradient, need in zip(gradients, needed, strict=True):
        if need and isinstance(factor, Tensor) and gradient.dtype is torch.float16:
            gradient.copy_(gradient.float() * factor)  # the factor itself may be beyond float16
        elif need and (isinstance(factor, Tensor) or factor != 1.0):
            gradient.mul_(factor)
    return gradients


def _typed(gradients: Any, tensors: Any, needed: Any) -> list[Any]:
    return [g.to(t.dtype) if n else None for g, t, n in zip(gradients or (None,) * 3, tensors, needed, strict=True)]


def _loss_gradients(ctx: Any, saved: Any, upstream: Tensor, needed: Any) -> list[Any]:
    input, weight, bias = saved
    rows: Rows = ctx.rows
    if rows.kind == "none":
        scaled = rows.with_factor(upstream)
        gradients = one_pass(input, weight, bias, scaled.evaluate, needed, rows.is_silent)[1]
        return _typed(_times(gradients, scaled.unit, needed), (input, weight, bias), needed)
    gradients, ctx.gradients = ctx.gradients, None  # handed out once: autograd may write into them
    if gradients is None:
        gradients = one_pass(input, weight, bias, rows.evaluate, needed, rows.is_silent)[1]
    factor = upstream.item() if upstream.device.type == "cpu" else upstream  # which is not worth waiting for
    return _typed(_times(gradients, factor * rows.unit, needed), (input, weight, bias), needed)


def _statistics_gradients(rows: Rows, saved: Any, upstream: Any, needed: Any) -> list[Any]:
    input, weight, bias = saved
    flat = [None if u is None else u.reshape(-1) for u in upstream]

    def pull_back(logits: Tensor, here: slice, _: bool) -> Tensor:
        rows.pull_back(logits, here, flat)
        return torch.zeros(len(logits), dtype=wide(logits.device), device=logits.device)

    silent = rows.is_silent
    if silent is not None:  # a row that does not count in the loss has statistics
        for column in flat:
            silent = silent if column is None else silent & (column == 0)
    gradients = one_pass(input, weight, bias, pull_back, needed, silent)[1]
    return _typed(gradients, (input, weight, bias), needed)


def loss(
    input: Tensor, weight: Tensor, bias: Tensor | None, target: Any, options: Options, way: str, with_statistics: bool
) -> Any:
    """Return the loss of a linear head, in blocks of rows; with statistics, a LinearValue.

    Parameters
    ----------
    input : (..., D), weight : (C, D), bias : (C,) or None
    way : "kernels", "composed" or "native"
        See `functional`; "composed" holds the logits.
    """
    shape, num_classes, native = tuple(input.shape[:-1]), weight.shape[0], way == "native"

    def softmax_problem() -> SoftmaxProblem:
        return SoftmaxProblem(
            target, options, shape, num_classes, dtype=input.dtype, device=input.device, native=native
        )

    def sigmoid_problem() -> SigmoidProblem:
        full = (math.prod(shape), num_classes)
        if not isinstance(target, Tensor) or tuple(target.shape) != (*shape, num_classes):
            asked = f"with the sigmoid link target must have the logits' shape {(*shape, num_classes)}"
            raise ValueError(refuse(asked, describe(target)))
        flat = replace(options, sample_weight=_flat(options.sample_weight, shape), weight=_flat(options.weight, ()))
        return SigmoidProblem(target.reshape(full), flat, full, dtype=input.dtype, device=input.device)

    def composed(flat: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        """The same in operations that PyTorch differentiates, to any order and in either mode.

        Recorded or transformed it holds the logits.
        """
        problem = softmax_problem() if options.kind == "softmax" else sigmoid_problem()
        takes_statistics = isinstance(problem, SoftmaxProblem) and problem.teacher is None
        if with_statistics and not takes_statistics:
            raise TypeError(refuse(STATISTICS_NEED, "another target"))
        statistics: Any = ()
        if is_traced() or is_transformed():
            logits = F.linear(flat, weight, bias)
            losses = problem.losses(logits, slice(0, len(logits)))
            if with_statistics:
                statistics = problem.statistics(logits, slice(0, len(logits)))  # type: ignore[union-attr]
        else:
            losses, *statistics = losses_in_blocks(flat, weight, bias, problem, with_statistics)
        value = problem.reduce(losses)
        if options.kind == "sigmoid" and options.reduction == "none":
            value = value.reshape(*shape, num_classes)
        if not with_statistics:
            return value
        return value, *(s.reshape(shape) for s in statistics)

    flat = input.reshape(-1, input.shape[-1])
    result: Any
    others = other_tensors(target, options)
    if wants_gradients(others) or is_traced() or is_transformed():
        # The operators' own numbers are constants; a tensor among them stays differentiable outside.
        has_tensors = any(isinstance(getattr(options, name), Tensor) for name in NUMBERS[:3])
        is_constant = not has_tensors and not wants_gradients(others)
        in_blocks = way == "composed" and not is_transformed() and not with_statistics and is_constant
        if in_blocks and options.kind == "softmax" and isinstance(target, Tensor):
            result = recorded.loss(flat, weight, bias, softmax_problem())
        else:
            result = composed(flat, weight, bias)
    else:
        rows: Rows
        if native:
            problem = softmax_problem() if options.kind == "softmax" else sigmoid_problem()
            launches = _launches(flat, target, options, shape, num_classes)
            rows = NativeRows(problem, launches, is_narrow=input.dtype is torch.float16)
        else:
            rows = KernelRows(target, options, shape, num_classes, input.dtype)
        if with_statistics:
            rows.collect()
        tensors = [flat, weight] if bias is None else [flat, weight, bias]
        if wants_gradients(tensors):
            result = _LinearLoss.apply(flat, weight, bias, rows, composed, with_statistics, others)
        else:
            outputs, _ = _outputs(flat, weight, bias, rows, _NOTHING, with_statistics)
            result = outputs if with_statistics else outputs[0]
        if native and options.kind == "sigmoid" and options.reduction == "none":
            result = result.reshape(*shape, num_classes)
    if not with_statistics:
        return result
    value, *statistics = result
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


def _launches(
    flat: Tensor, target: Any, options: Options, shape: tuple[int, ...], num_classes: int
) -> accelerated.Rows | None:
    """Return the kernels of another device for rows of (N, K) logits, if they serve this loss."""
    if not accelerated.serves(flat, target, options):
        return None
    classes = (num_classes,) if target.is_floating_point() else ()
    options = replace(options, sample_weight=_flat(options.sample_weight, shape))
    return accelerated.Rows(target.reshape(-1, *classes), options, (len(flat), num_classes))


def _flat(weight: Any, shape: tuple[int, ...]) -> Any:
    """Row weights (...) as (N,), and weights of entries, which broadcast to (..., C), as they are if they still do."""
    if weight is None or not shape:
        return weight
    return torch.as_tensor(weight).expand(shape).reshape(-1)
