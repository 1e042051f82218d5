"""The losses of rows of logits as functions that PyTorch differentiates, to any order and in either mode.

On a CPU the value and the gradient of a row come from the kernels and the Hessian from `crossent.core`, whose
operations PyTorch differentiates further. Where a program is recorded (`torch.compile`, `torch.export`) the two are
registered operators; PyTorch's function transforms know nothing of those (a registered operator's forward derivative is
silently 0), so there and for higher derivatives they are `autograd.Function` with rules for both modes and for `vmap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossent.core import composition
from crossent.core.statistics import Rows
from crossent.core.target import Target
from crossent.kernels import registry
from crossent.losses import Loss, from_table

from .tensors import is_traced

__all__ = ["row_losses"]


@dataclass(frozen=True)
class Form:
    """What is the same for all rows: the loss and the smoothing of its targets."""

    loss: Loss
    label_smoothing: float

    def target(self, num_classes: int, labels: Any, soft: Any, class_weight: Any) -> Target:
        """Return the target of rows; `soft` are the teacher's logits of a distillation loss."""
        if self.loss.needs_teacher:
            return Target(num_classes, teacher=soft, temperature=self.loss.parameter)
        return Target(num_classes, labels, soft, class_weight=class_weight, label_smoothing=self.label_smoothing)


def _array(tensor: Tensor | None, dtype: Any = None) -> Any:
    return None if tensor is None else np.ascontiguousarray(tensor.detach().resolve_neg().numpy(), dtype)


def _evaluate(
    logits: Tensor,
    labels: Tensor | None,
    soft: Tensor | None,
    class_weight: Tensor | None,
    form: Form,
    row_weight: Tensor | None,
    out: Tensor | None,
) -> np.ndarray:
    array = _array(logits)
    target = form.target(array.shape[1], _array(labels, np.int64), _array(soft), _array(class_weight, np.float64))
    weight, grad = _array(row_weight, np.float64), None if out is None else out.numpy()
    with np.errstate(all="ignore"):
        return registry.find(array.dtype).row_losses(array, target, form.loss, 1.0, weight, grad)


def _values(logits: Tensor, labels: Any, soft: Any, class_weight: Any, form: Form) -> Tensor:
    return torch.from_numpy(_evaluate(logits, labels, soft, class_weight, form, None, None))


def _gradient(row_weight: Tensor, logits: Tensor, labels: Any, soft: Any, class_weight: Any, form: Form) -> Tensor:
    out = torch.empty(logits.shape, dtype=logits.dtype)
    _evaluate(logits, labels, soft, class_weight, form, row_weight, out)
    return out


def _silent(labels: Tensor | None, rows: Rows) -> Tensor:
    silent = rows.mass == 0
    return silent if labels is None else silent | (labels < 0)


def _curvature(logits: Tensor, vector: Tensor, targets: Any, form: Form) -> Tensor:
    """``∇²loss · vector`` of each row, in operations that PyTorch can differentiate."""
    labels, soft, class_weight = targets
    weight = None if class_weight is None else class_weight.double()
    target = form.target(logits.shape[-1], labels, soft, weight)
    rows = composition.rows_of(logits.double(), target)
    product = composition.hessian_product(form.loss, rows, vector.double())
    return torch.where(_silent(labels, rows)[:, None], 0.0, product).to(logits.dtype)


def _flattened(info: Any, in_dims: Any, tensors: tuple[Any, ...]) -> list[Any]:
    """The row arguments of a batch as the rows of one problem; an argument that is not batched is repeated."""
    flat: list[Any] = []
    for tensor, dim in zip(tensors, in_dims, strict=True):
        if tensor is None:
            flat.append(None)
            continue
        tensor = tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        flat.append(tensor.reshape(-1, *tensor.shape[2:]))
    return flat


def _refuse_tangents(others: Any) -> None:
    """The rows' losses are differentiated in the logits alone: any other derivative would silently be 0."""
    if any(tangent is not None for tangent in others):
        raise NotImplementedError("forward derivatives in a target or class weights are for PyTorch's own operations")


class _RowLoss(torch.autograd.Function):
    """Losses (N,) in float64 of logits (N, K)."""

    @staticmethod
    def forward(logits: Tensor, labels: Any, soft: Any, class_weight: Any, form: Form) -> Tensor:
        return _values(logits, labels, soft, class_weight, form)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.form = inputs
        ctx.set_materialize_grads(False)  # so that a tangent that is there can be told from zeros
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> Any:
        if upstream is None:
            return (None,) * 5
        return _RowGradient.apply(upstream, *ctx.saved_tensors, ctx.form), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *others: Any) -> Tensor:
        _refuse_tangents(others)
        logits = ctx.saved_tensors[0]
        ones = torch.ones(len(logits), dtype=torch.float64)
        gradient = _RowGradient.apply(ones, *ctx.saved_tensors, ctx.form)
        return (gradient.double() * tangent.double()).sum(-1)

    @staticmethod
    def vmap(info: Any, in_dims: Any, logits: Any, labels: Any, soft: Any, class_weight: Any, form: Form) -> Any:
        if in_dims[3] is not None:
            raise NotImplementedError("vmap over class weights: call the loss once for each")
        flat = _flattened(info, in_dims[:3], (logits, labels, soft))
        losses = _RowLoss.apply(*flat, class_weight, form)
        return losses.reshape(info.batch_size, -1), 0


class _RowGradient(torch.autograd.Function):
    """``row_weight_i · ∂loss_i/∂z``, (N, K) in the logits' dtype."""

    @staticmethod
    def forward(row_weight: Tensor, logits: Tensor, labels: Any, soft: Any, class_weight: Any, form: Form) -> Tensor:
        return _gradient(row_weight, logits, labels, soft, class_weight, form)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.form = inputs
        ctx.set_materialize_grads(False)  # so that a tangent that is there can be told from zeros
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None) -> Any:
        if upstream is None:
            return (None,) * 6
        row_weight, logits, *target = ctx.saved_tensors
        weight_gradient = logits_gradient = None
        if ctx.needs_input_grad[0]:
            ones = torch.ones_like(row_weight)
            gradient = _RowGradient.apply(ones, logits, *target, ctx.form)
            weight_gradient = (upstream.double() * gradient.double()).sum(-1)
        if ctx.needs_input_grad[1]:
            curvature = _curvature(logits, upstream, target, ctx.form)
            logits_gradient = row_weight.to(logits.dtype)[:, None] * curvature
        return weight_gradient, logits_gradient, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, weight_tangent: Any, logits_tangent: Any, *others: Any) -> Tensor:
        _refuse_tangents(others)
        row_weight, logits, *target = ctx.saved_tensors
        total = torch.zeros_like(logits)
        if logits_tangent is not None:
            curvature = _curvature(logits, logits_tangent, target, ctx.form)
            total = total + row_weight.to(logits.dtype)[:, None] * curvature
        if weight_tangent is not None:
            total = total + _RowGradient.apply(weight_tangent, logits, *target, ctx.form)
        return total

    @staticmethod
    def vmap(
        info: Any, in_dims: Any, row_weight: Any, logits: Any, labels: Any, soft: Any, class_weight: Any, form: Form
    ) -> Any:
        if in_dims[4] is not None:
            raise NotImplementedError("vmap over class weights: call the loss once for each")
        flat = _flattened(info, in_dims[:4], (row_weight, logits, labels, soft))
        gradient = _RowGradient.apply(*flat, class_weight, form)
        return gradient.reshape(info.batch_size, -1, gradient.shape[-1]), 0


def _form(terms: list[float], label_smoothing: float) -> Form:
    return Form(from_table(np.array(terms).reshape(-1, 3)), label_smoothing)


@torch.library.custom_op("crossent::row_loss", mutates_args=())
def _row_loss(
    logits: Tensor,
    labels: Tensor | None,
    soft: Tensor | None,
    class_weight: Tensor | None,
    label_smoothing: float,
    terms: list[float],
) -> Tensor:
    return _values(logits, labels, soft, class_weight, _form(terms, label_smoothing))


@_row_loss.register_fake
def _(logits: Tensor, labels: Any, soft: Any, class_weight: Any, label_smoothing: float, terms: Any) -> Tensor:
    return logits.new_empty((logits.shape[0],), dtype=torch.float64)


@torch.library.custom_op("crossent::row_loss_gradient", mutates_args=())
def _row_loss_gradient(
    row_weight: Tensor,
    logits: Tensor,
    labels: Tensor | None,
    soft: Tensor | None,
    class_weight: Tensor | None,
    label_smoothing: float,
    terms: list[float],
) -> Tensor:
    return _gradient(row_weight, logits, labels, soft, class_weight, _form(terms, label_smoothing))


@_row_loss_gradient.register_fake
def _(row_weight: Tensor, logits: Tensor, labels: Any, soft: Any, cw: Any, smoothing: float, terms: Any) -> Tensor:
    return logits.new_empty(logits.shape)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    *tensors, ctx.label_smoothing, ctx.terms = inputs
    ctx.save_for_backward(*tensors)


def _row_loss_backward(ctx: Any, upstream: Tensor) -> Any:
    gradient = _row_loss_gradient(upstream, *ctx.saved_tensors, ctx.label_smoothing, ctx.terms)
    return gradient, None, None, None, None, None


def _row_loss_gradient_backward(ctx: Any, upstream: Tensor) -> Any:
    row_weight, logits, *target = ctx.saved_tensors
    gradient = _row_loss_gradient(torch.ones_like(row_weight), logits, *target, ctx.label_smoothing, ctx.terms)
    curvature = _curvature(logits, upstream, target, _form(ctx.terms, ctx.label_smoothing))
    weight_gradient = (upstream.double() * gradient.double()).sum(-1)
    return weight_gradient, row_weight.to(logits.dtype)[:, None] * curvature, None, None, None, None, None


_row_loss.register_autograd(_row_loss_backward, setup_context=_keep)
_row_loss_gradient.register_autograd(_row_loss_gradient_backward, setup_context=_keep)


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
    if is_traced():
        terms = [number for row in loss.table() for number in row]
        return _row_loss(logits, labels, soft, class_weight, label_smoothing, terms)
    return _RowLoss.apply(logits, labels, soft, class_weight, Form(loss, label_smoothing))
