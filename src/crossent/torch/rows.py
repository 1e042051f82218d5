"""The losses of rows of logits as functions that PyTorch differentiates, to any order and in either mode.

The kernels compute the value and the gradient of a row. `crossent.core` computes the Hessian, in operations that
PyTorch differentiates further. In a recorded program (`torch.compile`, `torch.export`) value and gradient are
registered operators. PyTorch's function transforms cannot use these: a registered operator's forward derivative is
silently 0. So elsewhere value and gradient are an `autograd.Function` with rules for both modes and for `vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossent.core import composition
from crossent.core.target import Target
from crossent.kernels import registry
from crossent.losses import Loss, from_table

from .tensors import is_traced

__all__ = ["row_losses"]

# A registered operator takes tensors and numbers only. So the smoothing of the targets and the terms of the loss travel
# as a list of numbers. For a distillation loss `soft` holds the teacher's logits.


def _loss_of(numbers: Sequence[float]) -> Loss:
    return from_table(np.array(numbers[1:]).reshape(-1, 3))


def _array(tensor: Tensor | None, dtype: Any = None) -> Any:
    return None if tensor is None else np.ascontiguousarray(tensor.detach().resolve_neg().numpy(), dtype)


def _target(num_classes: int, loss: Loss, smoothing: float, tensors: Sequence[Any]) -> Target:
    labels, soft, class_weight = tensors
    if loss.needs_teacher:
        return Target(num_classes, teacher=soft, temperature=loss.parameter)
    return Target(num_classes, labels, soft, class_weight=class_weight, label_smoothing=smoothing)


def _evaluate(tensors: Sequence[Any], numbers: Sequence[float], row_weight: Any, out: np.ndarray | None) -> Tensor:
    """Return the losses of rows; fill `out` with the rows' weights times their gradients."""
    logits, labels, soft, class_weight = tensors
    array, loss = _array(logits), _loss_of(numbers)
    arrays = _array(labels, np.int64), _array(soft), _array(class_weight, np.float64)
    target = _target(array.shape[1], loss, numbers[0], arrays)
    with np.errstate(all="ignore"):
        weight = _array(row_weight, np.float64)
        return torch.from_numpy(registry.find(array.dtype).row_losses(array, target, loss, 1.0, weight, out))


def _values(*arguments: Any) -> Tensor:
    *tensors, numbers = arguments
    return _evaluate(tensors, numbers, None, None)


def _gradient(*arguments: Any) -> Tensor:
    row_weight, *tensors, numbers = arguments
    out = torch.empty(tensors[0].shape, dtype=tensors[0].dtype)
    _evaluate(tensors, numbers, row_weight, out.numpy())
    return out


def _curvature(tensors: Sequence[Any], vector: Tensor, numbers: Sequence[float]) -> Tensor:
    """``∇²loss · vector`` of each row, in operations that PyTorch can differentiate."""
    logits, labels, soft, class_weight = tensors
    weight, loss = None if class_weight is None else class_weight.double(), _loss_of(numbers)
    target = _target(logits.shape[-1], loss, numbers[0], (labels, soft, weight))
    rows = composition.rows_of(logits.double(), target)
    product = composition.hessian_product(loss, rows, vector.double())
    silent = rows.mass == 0 if labels is None else (rows.mass == 0) | (labels < 0)
    return torch.where(silent[:, None], 0.0, product).to(logits.dtype)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.numbers = inputs
    ctx.set_materialize_grads(False)  # a missing derivative is None then, and not zeros
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _backward_of_losses(gradient: Callable[..., Tensor]) -> Callable[..., Any]:
    """The backward pass of the losses, by a function that differentiates them."""

    def backward(ctx: Any, upstream: Tensor | None) -> Any:
        found = None if upstream is None else gradient(upstream, *ctx.saved_tensors, ctx.numbers)
        return found, None, None, None, None

    return backward


def _backward_of_gradient(gradient: Callable[..., Tensor]) -> Callable[..., Any]:
    """The backward pass of the losses' gradient."""

    def backward(ctx: Any, upstream: Tensor | None) -> Any:
        of_weight = of_logits = None
        if upstream is not None:
            row_weight, *tensors = ctx.saved_tensors
            if ctx.needs_input_grad[0]:
                found = gradient(torch.ones_like(row_weight), *tensors, ctx.numbers)
                of_weight = (upstream.double() * found.double()).sum(-1)
            if ctx.needs_input_grad[1]:
                curvature = _curvature(tensors, upstream, ctx.numbers)
                of_logits = row_weight.to(curvature.dtype)[:, None] * curvature
        return of_weight, of_logits, None, None, None, None

    return backward


def _refuse_tangents(others: Any) -> None:
    """Refuse derivatives in other tensors than the logits, which would silently be 0."""
    if any(tangent is not None for tangent in others):
        raise NotImplementedError("forward derivatives in a target or class weights are for PyTorch's own operations")


def _flattened(info: Any, in_dims: Any, tensors: Sequence[Any]) -> list[Any]:
    """Return the arguments of a batch of problems as those of one; an argument without the batch is repeated."""
    if in_dims[len(tensors)] is not None:
        raise NotImplementedError("vmap over class weights: call the loss once for each")
    flat: list[Any] = []
    for tensor, dim in zip(tensors, in_dims, strict=False):
        if tensor is None:
            flat.append(None)
            continue
        tensor = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        flat.append(tensor.reshape(-1, *tensor.shape[2:]))
    return flat


class _RowLoss(torch.autograd.Function):
    """Losses (N,) in float64 of logits (N, K)."""

    setup_context = staticmethod(_keep)

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        return _values(*arguments)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> Any:
        return _backward_of_losses(_RowGradient.apply)(ctx, upstream)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *others: Any) -> Tensor:
        _refuse_tangents(others)
        ones = torch.ones(len(ctx.saved_tensors[0]), dtype=torch.float64)
        gradient = _RowGradient.apply(ones, *ctx.saved_tensors, ctx.numbers)
        return (gradient.double() * tangent.double()).sum(-1)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        *tensors, class_weight, numbers = arguments
        losses = _RowLoss.apply(*_flattened(info, in_dims, tensors), class_weight, numbers)
        return losses.reshape(info.batch_size, -1), 0


class _RowGradient(torch.autograd.Function):
    """``row_weight_i · ∂loss_i/∂z``, (N, K) in the logits' dtype."""

    setup_context = staticmethod(_keep)

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        return _gradient(*arguments)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> Any:
        return _backward_of_gradient(_RowGradient.apply)(ctx, upstream)

    @staticmethod
    def jvp(ctx: Any, weight_tangent: Any, logits_tangent: Any, *others: Any) -> Tensor:
        _refuse_tangents(others)
        row_weight, *tensors = ctx.saved_tensors
        total = torch.zeros_like(tensors[0])
        if logits_tangent is not None:
            curvature = _curvature(tensors, logits_tangent, ctx.numbers)
            total = total + row_weight.to(curvature.dtype)[:, None] * curvature
        if weight_tangent is not None:
            total = total + _RowGradient.apply(weight_tangent, *tensors, ctx.numbers)
        return total

    @staticmethod
    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        *tensors, class_weight, numbers = arguments
        gradient = _RowGradient.apply(*_flattened(info, in_dims, tensors), class_weight, numbers)
        return gradient.reshape(info.batch_size, -1, gradient.shape[-1]), 0


@torch.library.custom_op("crossent::row_loss", mutates_args=())
def _row_loss(
    logits: Tensor, labels: Tensor | None, soft: Tensor | None, class_weight: Tensor | None, numbers: list[float]
) -> Tensor:
    return _values(logits, labels, soft, class_weight, numbers)


@torch.library.custom_op("crossent::row_loss_gradient", mutates_args=())
def _row_loss_gradient(
    row_weight: Tensor,
    logits: Tensor,
    labels: Tensor | None,
    soft: Tensor | None,
    class_weight: Tensor | None,
    numbers: list[float],
) -> Tensor:
    return _gradient(row_weight, logits, labels, soft, class_weight, numbers)


@_row_loss.register_fake
def _(logits: Tensor, *others: Any) -> Tensor:
    return logits.new_empty((logits.shape[0],), dtype=torch.float64)


@_row_loss_gradient.register_fake
def _(row_weight: Tensor, logits: Tensor, *others: Any) -> Tensor:
    return logits.new_empty(logits.shape)


_row_loss.register_autograd(_backward_of_losses(_row_loss_gradient), setup_context=_keep)
_row_loss_gradient.register_autograd(_backward_of_gradient(_row_loss_gradient), setup_context=_keep)


def row_losses(
    logits: Tensor,
    labels: Tensor | None,
    soft: Tensor | None,
    class_weight: Tensor | None,
    loss: Loss,
    label_smoothing: float,
) -> Tensor:
    """Return the losses (N,), float64, of float32 or float64 logits (N, K) on the CPU.

    Parameters
    ----------
    labels : (N,) int64, -1 for rows without loss and gradient; or None
    soft : (N, K) in the logits' dtype, or None; the teacher's logits, float32 or float64, of a distillation loss
    class_weight : (K,) float64, or None
    """
    numbers = [float(label_smoothing), *(number for row in loss.table() for number in row)]
    losses = _row_loss if is_traced() else _RowLoss.apply
    return losses(logits, labels, soft, class_weight, numbers)
