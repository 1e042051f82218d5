"""The linear head ``z = X Wᵀ + b`` and a loss on z, a block of rows at a time: N·K logits are never held.

Value and gradients come from one pass of three products, because the factor of each row is known before the first
block; backward hands the gradients out. With ``reduction="none"`` the factors are known in backward only, which then
computes the logits again: four products. The weight's gradient is added up in float32 at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crossent.core import linear as driver
from crossent.errors import refuse
from crossent.kernels import registry
from crossent.numpy.arrays import quietly, widened
from crossent.numpy.heads import SoftmaxHead, make_head
from crossent.numpy.options import Options
from crossent.numpy.problem import WORK_ELEMENTS, Evaluator, make_map, with_teacher_temperature
from crossent.numpy.statistics import Collector

from .composed import SigmoidProblem, SoftmaxProblem
from .tensors import (
    as_numpy,
    as_tensor,
    describe,
    is_traced,
    is_transformed,
    numpy_options,
    numpy_target,
    other_tensors,
    wants_gradients,
)

__all__ = ["LinearStatistics", "LinearValue", "loss"]

_STATISTICS_NEED = "statistics need the softmax link and labels or distributions"
_HALF = (torch.float16, torch.bfloat16)


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


class _Products(driver.Products):
    """PyTorch's products, written and added in place where its types allow."""

    def write(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        return torch.mm(a, b, out=out)

    def add(self, a: Tensor, b: Tensor, total: Tensor, tile: int) -> None:
        if total.dtype == a.dtype:
            total.addmm_(a, b)
        else:
            super().add(a, b, total, tile)

    def column_sums(self, a: Tensor) -> Tensor:
        # A sum into another type makes a copy in it; a product with ones accumulates in float32 and makes none.
        return a.sum(0, dtype=torch.float32) if a.dtype in _HALF else a.sum(0)


_PRODUCTS = _Products()


class _KernelRows:
    """Rows whose losses the kernels compute, on logits in ordinary memory."""

    def __init__(self, target: Any, options: Options, shape: tuple[int, ...], num_classes: int, dtype: torch.dtype):
        options = with_teacher_temperature(numpy_options(options))
        computed = np.dtype(np.float64 if dtype is torch.float64 else np.float32)
        self.head = make_head(numpy_target(target), options, shape, num_classes, computed)
        self.evaluator = Evaluator(self.head, make_map(options, num_classes))
        self.kind = self.head.reduction.kind
        self.result_dtype = torch.float64 if dtype is torch.float64 else torch.float32
        self.full_shape = (*shape, num_classes)
        self.entries: np.ndarray | None = None
        if self.kind == "none" and options.kind == "sigmoid":
            self.entries = np.empty((self.head.num_rows, num_classes))
        self.collector: Collector | None = None

    @property
    def is_silent(self) -> Tensor | None:
        silent = self.head.silent_rows
        return None if silent is None else torch.from_numpy(silent)

    def collect(self) -> None:
        """From now on, keep the statistics of the rows that are evaluated."""
        if not isinstance(self.head, SoftmaxHead) or self.head.top_k is not None:
            raise TypeError(refuse(_STATISTICS_NEED, "another target"))
        self.collector = Collector(self.head, self.evaluator)

    def statistics(self) -> tuple[Tensor, ...]:
        assert self.collector is not None
        found = self.collector.result(np.float64 if self.result_dtype is torch.float64 else np.float32)
        return tuple(as_tensor(column) for column in found)

    @quietly
    def evaluate(self, logits: Tensor, rows: slice, with_gradient: bool) -> Tensor:
        """Return the rows' weighted losses; with a gradient, put it in the logits' place."""
        array = as_numpy(logits)
        if self.collector is not None:
            step = max(1, WORK_ELEMENTS // array.shape[1])
            for start in range(0, len(array), step):
                piece = array[start : start + step]
                here = slice(rows.start + start, rows.start + start + len(piece))
                self.collector.add(widened(piece, self.head.dtype), here)
        entries = None if self.entries is None else self.entries[rows]
        return torch.from_numpy(self.evaluator.evaluate(array, rows, array if with_gradient else None, entries))

    def reduce(self, losses: Tensor) -> Tensor:
        if self.entries is not None:
            return as_tensor(self.entries).reshape(self.full_shape).to(self.result_dtype)
        return as_tensor(self.head.reduce(losses.numpy())).to(self.result_dtype)

    def with_factor(self, factor: Tensor) -> _KernelRows:
        """The same rows with a factor on each one's loss."""
        scaled = object.__new__(_KernelRows)
        scaled.__dict__ |= self.__dict__
        scaled.collector = scaled.entries = None
        scaled.evaluator = self.evaluator.with_factor(factor.double().numpy())
        scaled.head = scaled.evaluator.head
        return scaled

    @quietly
    def pull_back(self, logits: Tensor, rows: slice, upstream: list[Tensor | None]) -> None:
        """Put the gradient of the statistics, each row's times the upstream one, in the place of a block of logits."""
        array, logit_map, head = as_numpy(logits), self.evaluator.map, self.head
        signed = zip(("lse", "entropy", "nll"), (1.0, 1.0, -1.0), upstream, strict=True)  # log_prob is minus the nll
        partials = {name: sign * u.double().numpy() for name, sign, u in signed if u is not None}
        step = max(1, WORK_ELEMENTS // array.shape[1])
        for start in range(0, len(array), step):
            piece = array[start : start + step]
            here = slice(rows.start + start, rows.start + start + len(piece))
            raw = widened(piece, head.dtype)
            mapped = raw if logit_map.is_identity else self.evaluator.mapped(raw, here)
            gradient = np.empty(mapped.shape, mapped.dtype)
            registry.find(mapped.dtype).softmax_pullback(
                mapped,
                None if head.labels is None else head.labels[here],
                None if head.soft is None else head.soft[here],  # type: ignore[attr-defined]
                None,
                0.0,
                {},
                {name: partial[here] for name, partial in partials.items()},
                gradient,
            )
            slope = logit_map.slope(raw.astype(np.float64))
            logits[start : start + step].copy_(torch.from_numpy(gradient * slope))


class _NativeRows:
    """Rows whose losses PyTorch's own operations compute, on any device."""

    def __init__(self, problem: SoftmaxProblem | SigmoidProblem):
        self.problem, self.kind = problem, problem.options.reduction
        self.scale = problem.scale
        self.factor: Tensor | None = None
        self.kept: list[Tensor] = []
        self.collected: list[tuple[Tensor, ...]] | None = None

    def collect(self) -> None:
        """From now on, keep the statistics of the rows that are evaluated."""
        self.collected = []

    def _statistics(self, logits: Tensor, rows: slice) -> tuple[Tensor, ...]:
        if not isinstance(self.problem, SoftmaxProblem) or self.problem.teacher is not None:
            raise TypeError(refuse(_STATISTICS_NEED, "another target"))
        return self.problem.statistics(logits, rows)

    def statistics(self) -> tuple[Tensor, ...]:
        columns = zip(*self.collected, strict=True)  # type: ignore[misc]
        return tuple(torch.cat(column).reshape(self.problem.shape) for column in columns)

    def pull_back(self, logits: Tensor, rows: slice, upstream: list[Tensor | None]) -> None:
        """Put the gradient of the statistics, each row's times the upstream one, in the place of a block of logits."""
        with torch.enable_grad():
            leaf = logits.detach().clone().requires_grad_()
            columns = self._statistics(leaf, rows)[:3]
            total = sum((c * u[rows]).sum() for c, u in zip(columns, upstream, strict=True) if u is not None)
            logits.copy_(torch.autograd.grad(total, leaf)[0])  # type: ignore[arg-type]

    @property
    def is_silent(self) -> Tensor | None:
        labels = getattr(self.problem, "labels", None)
        return None if labels is None else labels < 0

    def evaluate(self, logits: Tensor, rows: slice, with_gradient: bool) -> Tensor:
        if self.collected is not None:
            self.collected.append(self._statistics(logits, rows))
        with torch.enable_grad():
            leaf = logits.detach().clone().requires_grad_(with_gradient)
            losses = self.problem.losses(leaf, rows)
            if with_gradient:
                factor = self.scale if self.factor is None else self.factor[rows]
                logits.copy_(torch.autograd.grad((losses * factor).sum(), leaf)[0])
        losses = losses.detach()
        if losses.ndim == 1:
            return losses
        if self.kind == "none":
            self.kept.append(losses)
        return losses.sum(-1)

    def reduce(self, losses: Tensor) -> Tensor:
        if self.kept:
            losses = torch.cat(self.kept)
        return self.problem.reduce(losses)

    def with_factor(self, factor: Tensor) -> _NativeRows:
        scaled = _NativeRows(self.problem)
        entries = (factor.shape[-1],) if isinstance(self.problem, SigmoidProblem) else ()
        scaled.factor = factor.double().reshape(-1, *entries)
        return scaled


_Rows = _KernelRows | _NativeRows


def _pass(
    input: Tensor, weight: Tensor, bias: Tensor | None, evaluate: Callable[..., Tensor], wanted: Any, silent: Any
) -> tuple[Tensor, Any]:
    """One pass over the blocks: row losses and, where wanted, the gradients in input, weight and bias."""

    def evaluate_block(logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        return evaluate(logits, rows, any(wanted)), logits

    with torch.no_grad(), torch.autocast(input.device.type, enabled=False):
        losses, gradients = driver.evaluate(
            input.detach(),
            weight.detach(),
            None if bias is None else bias.detach(),
            evaluate_block,
            with_gradients=any(wanted),
            is_silent=silent,
            wanted=wanted[:2],
            accumulate_in=torch.float32 if weight.dtype in _HALF else None,
            products=_PRODUCTS,
        )
    return losses, gradients


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Any, rows: _Rows, composed: Any, with_statistics: bool
    ) -> Any:
        ctx.save_for_backward(input, weight, bias)
        ctx.set_materialize_grads(False)
        ctx.rows, ctx.composed, ctx.gradients = rows, composed, None
        wanted = ctx.needs_input_grad[:3] if rows.kind != "none" else (False, False, False)
        losses, gradients = _pass(input, weight, bias, rows.evaluate, wanted, rows.is_silent)
        ctx.gradients = gradients
        value = rows.reduce(losses)
        if not with_statistics:
            return value
        statistics = rows.statistics()
        ctx.mark_non_differentiable(*statistics[3:])
        return value, *statistics

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *of_statistics: Any) -> Any:
        input, weight, bias = ctx.saved_tensors
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # create_graph: the gradients must be differentiable themselves
            outputs = ctx.composed(input, weight, bias)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            pairs = [(o, g) for o, g in zip(outputs, (upstream, *of_statistics), strict=False) if g is not None]
            leaves = [t for t, n in zip((input, weight, bias), needed, strict=True) if n]
            found = iter(torch.autograd.grad([o for o, _ in pairs], leaves, [g for _, g in pairs], create_graph=True))
            return (*(next(found) if n else None for n in needed), None, None, None)
        total: list[Any] = [None, None, None]
        if upstream is not None:
            total = _loss_gradients(ctx, upstream, needed)
        if any(g is not None for g in of_statistics[:3]):
            more = _statistics_gradients(ctx, of_statistics[:3], needed)
            total = [m if t is None else t + m for t, m in zip(total, more, strict=True)]
        return (*total, None, None, None)


def _typed(gradients: Any, tensors: Any, needed: Any) -> list[Any]:
    return [g.to(t.dtype) if n else None for g, t, n in zip(gradients or (None,) * 3, tensors, needed, strict=True)]


def _loss_gradients(ctx: Any, upstream: Tensor, needed: Any) -> list[Any]:
    input, weight, bias = ctx.saved_tensors
    rows: _Rows = ctx.rows
    if rows.kind == "none":
        scaled = rows.with_factor(upstream)
        gradients = _pass(input, weight, bias, scaled.evaluate, needed, rows.is_silent)[1]
        return _typed(gradients, (input, weight, bias), needed)
    gradients, ctx.gradients = ctx.gradients, None  # handed out once: autograd may write into them
    if gradients is None:
        gradients = _pass(input, weight, bias, rows.evaluate, needed, rows.is_silent)[1]
    for gradient, need in zip(gradients, needed, strict=True):
        if need and (upstream.device.type != "cpu" or upstream.item() != 1.0):
            gradient.mul_(upstream)
    return _typed(gradients, (input, weight, bias), needed)


def _statistics_gradients(ctx: Any, upstream: Any, needed: Any) -> list[Any]:
    input, weight, bias = ctx.saved_tensors
    rows = ctx.rows
    flat = [None if u is None else u.reshape(-1) for u in upstream]

    def pull_back(logits: Tensor, here: slice, _: bool) -> Tensor:
        rows.pull_back(logits, here, flat)
        return torch.zeros(len(logits), dtype=torch.float64, device=logits.device)

    gradients = _pass(input, weight, bias, pull_back, needed, rows.is_silent)[1]
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
        """The same in operations that PyTorch differentiates, to any order and in either mode; it holds the logits."""
        logits = F.linear(flat, weight, bias)
        problem = softmax_problem() if options.kind == "softmax" else sigmoid_problem()
        value = problem.reduce(problem.losses(logits, slice(0, len(logits))))
        if options.kind == "sigmoid" and options.reduction == "none":
            value = value.reshape(*shape, num_classes)
        if not with_statistics:
            return value
        if not isinstance(problem, SoftmaxProblem) or problem.teacher is not None:
            raise TypeError(refuse(_STATISTICS_NEED, "another target"))
        return value, *(s.reshape(shape) for s in problem.statistics(logits, slice(0, len(logits))))

    flat = input.reshape(-1, input.shape[-1])
    if wants_gradients(other_tensors(target, options)) or is_traced() or is_transformed():
        result = composed(flat, weight, bias)
    else:
        rows: _Rows
        if native:
            rows = _NativeRows(softmax_problem() if options.kind == "softmax" else sigmoid_problem())
        else:
            rows = _KernelRows(target, options, shape, num_classes, input.dtype)
        if with_statistics:
            rows.collect()
        result = _LinearLoss.apply(flat, weight, bias, rows, composed, with_statistics)
        if native and options.kind == "sigmoid" and options.reduction == "none":
            result = result.reshape(*shape, num_classes)
    if not with_statistics:
        return result
    value, *statistics = result
    found = LinearStatistics(*statistics)
    counted = torch.ones_like(found.correct) if target.is_floating_point() else target != options.ignore_index
    return LinearValue(value, *found, (found.correct & counted).sum() / counted.sum())


def _flat(weight: Any, shape: tuple[int, ...]) -> Any:
    """Row weights (...) as (N,), and weights of entries, which broadcast to (..., C), as they are if they still do."""
    if weight is None or not shape:
        return weight
    return torch.as_tensor(weight).expand(shape).reshape(-1)
