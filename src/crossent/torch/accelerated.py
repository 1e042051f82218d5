"""Cross-entropy on a GPU in two launches, where Triton serves the device: value, then gradient, nothing in between.

It takes cross-entropy with labels or distributions, class and row weights and smoothing, on logits in half or single
precision. Everything else on other devices is in PyTorch's own operations (`native`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from crossent.errors import refuse
from crossent.numpy.options import Options

from .composed import reduction_of
from .pullback import pull_back
from .tensors import PLAIN, describe, int64_labels, is_traced, is_transformed, other_tensors

__all__ = ["Rows", "loss", "serves"]

_SINGLE = (torch.float16, torch.bfloat16, torch.float32)


@cache
def _kernels() -> Any:
    """The kernels, or None where Triton is not installed."""
    try:
        from crossent.kernels import triton
    except ModuleNotFoundError:
        return None
    return triton


def serves(input: Tensor, target: Any, options: Options) -> bool:
    """Whether the kernels compute this loss."""
    return (
        is_served_device(input)
        and type(input) in PLAIN
        and input.dtype in _SINGLE
        and input.numel() > 0
        and options.kind == "softmax"
        and (options.loss is None or options.loss.is_cross_entropy)
        and options.temperature is None
        and options.prior is None
        and options.margin is None
        and options.softcap is None
        and isinstance(target, Tensor)
        and _lie_on(input.device, target, options.weight, options.sample_weight, _tensor(options.normalizer))
        and not is_traced()
        and not is_transformed()
    )


def _tensor(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


def is_served_device(tensor: Tensor) -> bool:
    """Whether Triton compiles for the tensor's device, and is installed."""
    return tensor.is_cuda and _kernels() is not None


def _lie_on(device: torch.device, *tensors: Any) -> bool:
    """Whether all are plain tensors there that ask for no gradient."""
    for tensor in tensors:
        if tensor is None:
            continue
        if type(tensor) not in PLAIN or tensor.device != device or (tensor.requires_grad and torch.is_grad_enabled()):
            return False
    return True


class _Layout(NamedTuple):
    """Rows (outer × inner) of a tensor whose class axis is any: strides of the outer axis, the classes, the inner."""

    tensor: Tensor
    strides: tuple[int, int, int]

    @classmethod
    def of(cls, tensor: Tensor, *, has_classes: bool) -> _Layout:
        """Read (N, C, d1, …) as (N, C, d1 · …); labels (N, d1, …) as (N, d1 · …)."""
        shape, strides = tensor.shape, tensor.stride()
        first = 2 if has_classes else 1
        if len(shape) == first:
            return cls(tensor, (strides[0], strides[1] if has_classes else 0, 0))
        for axis in range(len(shape) - 1, first - 1, -1):  # the inner axes must be one run of memory
            if axis < len(shape) - 1 and strides[axis] != strides[axis + 1] * shape[axis + 1]:
                return cls.of(tensor.contiguous(), has_classes=has_classes)
        return cls(tensor, (strides[0], strides[1] if has_classes else 0, strides[-1]))


class Rows:
    """Target, weights and denominators of rows, and the two launches on their logits (N, C, d1, …).

    Raises
    ------
    ValueError
        If a shape does not fit.
    """

    def __init__(self, target: Tensor, options: Options, shape: tuple[int, ...]):
        self.options = options
        self.reduction = reduction_of(options)
        self.num_classes = shape[1]
        self.row_shape = (shape[0], *shape[2:])
        self.num_rows, self.num_inner = math.prod(self.row_shape), math.prod(shape[2:])
        self.is_soft = target.is_floating_point()
        asked = shape if self.is_soft else self.row_shape
        if tuple(target.shape) != tuple(asked):
            what = "a floating target must have the logits' shape" if self.is_soft else "labels must have shape"
            raise ValueError(refuse(f"{what} {tuple(asked)}", describe(target)))
        if target.dtype is torch.uint64:  # the kernels read labels as int64
            target = int64_labels(target, options.ignore_index)
        self.target = _Layout.of(target.detach(), has_classes=self.is_soft)
        self.weight = None if options.weight is None else options.weight.detach().contiguous()
        if self.weight is not None and tuple(self.weight.shape) != (self.num_classes,):
            asked_weight = f"weight must have one weight a class, shape ({self.num_classes},)"
            raise ValueError(refuse(asked_weight, describe(self.weight)))
        self.row_weight = self._rows_of(options.sample_weight)

    def _rows_of(self, weight: Tensor | None) -> Tensor | None:
        if weight is None:
            return None
        try:
            return weight.detach().expand(self.row_shape).reshape(-1).contiguous()
        except RuntimeError:
            asked = f"sample_weight must have one weight a row, shape {tuple(self.row_shape)}"
            raise ValueError(refuse(asked, describe(weight))) from None

    def forward(self, logits: Tensor, rows: slice | None = None) -> Tensor:
        """Return (6, rows) float32: weighted losses, parts of the mean's denominator, and what backward reads.

        With `rows` the logits are a block (n, C) of them.
        """
        part = self if rows is None else self._part(rows)
        found = torch.empty((6, part.num_rows), dtype=torch.float32, device=logits.device)
        z = _Layout.of(logits, has_classes=True)
        by_name = isinstance(self.options.normalizer, str)
        with _current(found):
            part._launch(_kernels().forward, z, (z.tensor, *z.strides), (found,), COUNT=by_name)
        return found

    def backward(
        self,
        logits: Tensor,
        found: Tensor,
        upstream: Tensor,
        denominator: Tensor | float,
        out: Tensor,
        rows: slice | None = None,
    ) -> Tensor:
        """Write into `out`, which may be the logits, the gradient of Σ upstream · loss / denominator.

        `denominator` is a number, or the sums (losses, denominator) over all rows.
        """
        part = self if rows is None else self._part(rows)
        z, g = _Layout.of(logits, has_classes=True), _Layout.of(out, has_classes=True)
        divided = isinstance(denominator, Tensor)
        stride = 0 if upstream.ndim == 0 else upstream.stride(0)
        numbers = (found, upstream, stride, denominator if divided else upstream, 1.0 if divided else denominator)
        with _current(found):
            part._launch(_kernels().backward, z, (z.tensor, *z.strides, g.tensor, *g.strides), numbers, DIVIDED=divided)
        return out

    def _launch(
        self, kernel: Any, z: _Layout, logits: tuple[Any, ...], numbers: tuple[Any, ...], **flags: bool
    ) -> None:
        block_rows, block_classes, warps = _kernels().blocks(self.num_classes, z.strides[1] != 1)
        target, unread = self.target, self.target.tensor  # a kernel wants some address for what it does not read
        args = (
            *logits,
            target.tensor,
            *target.strides,
            unread if self.weight is None else self.weight,
            unread if self.row_weight is None else self.row_weight,
            *numbers,
            self.num_rows,
            self.num_inner,
            self.num_classes,
            self.options.ignore_index,
            float(self.options.label_smoothing),
        )
        flags = {
            "SOFT": self.is_soft,
            "WEIGHTED": self.weight is not None,
            "ROW_WEIGHTED": self.row_weight is not None,
            "SMOOTHED": self.options.label_smoothing != 0.0,
            **flags,
            "BLOCK_ROWS": block_rows,
            "BLOCK_CLASSES": block_classes,
        }
        _kernels().launch(kernel, -(-self.num_rows // block_rows), args, flags, warps)

    def _part(self, rows: slice) -> Rows:
        part = object.__new__(Rows)
        part.__dict__ |= self.__dict__
        part.target = _Layout(self.target.tensor[rows], self.target.strides)
        part.row_weight = None if self.row_weight is None else self.row_weight[rows]
        part.num_rows = rows.stop - rows.start
        return part

    def reduce(self, found: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return the value, and for `backward` what the sum of the losses was divided by."""
        if self.reduction.kind == "none":
            return found[0].reshape(self.row_shape), 1.0
        if self._is_reduced_at_once:
            return self._reduce_at_once(found)
        if self.reduction.kind == "sum":
            return found[0].sum(dtype=torch.float64).float(), 1.0
        sums = found[:2].sum(1, dtype=torch.float64)
        normalizer = self.options.normalizer
        if isinstance(normalizer, Tensor):  # its value may still be on the way
            sums[1] = torch.where(normalizer > 0, normalizer, math.nan).reshape(())
            return (sums[0] / sums[1]).float(), sums
        if normalizer is not None and not isinstance(normalizer, str):
            return (sums[0] / float(normalizer)).float(), float(normalizer)
        denominator = sums[1]
        value = (sums[0] / denominator).float()
        if self.options.on_empty == "raise":
            self.reduction.resolve(float(denominator), float(denominator))
        if self.options.on_empty == "zero":
            value = torch.where(denominator == 0, 0.0, value)
        return value, sums

    @property
    def _is_reduced_at_once(self) -> bool:
        """Whether one launch makes the value of the rows' losses."""
        waits = isinstance(self.options.normalizer, Tensor) or self.options.on_empty == "raise"
        return not waits and self.num_rows <= _kernels().REDUCED_ROWS

    def _reduce_at_once(self, found: Tensor) -> tuple[Tensor, Tensor | float]:
        normalizer = self.options.normalizer
        divided = self.reduction.kind == "mean" and (normalizer is None or isinstance(normalizer, str))
        denominator = 1.0 if divided or self.reduction.kind == "sum" else float(normalizer)
        value = torch.empty((), dtype=torch.float32, device=found.device)
        sums = torch.empty(2, dtype=torch.float64, device=found.device) if divided else found
        flags = {"DIVIDED": divided, "EMPTY_IS_ZERO": self.options.on_empty == "zero"}
        block = min(_kernels().REDUCED_BLOCK, _kernels().next_power_of_2(self.num_rows))
        with _current(found):
            args = (found, value, sums, self.num_rows, denominator)
            _kernels().launch(_kernels().reduce, 1, args, {**flags, "BLOCK": block}, 4 if block <= 1024 else 16)
        return value, sums if divided else denominator


def _current(tensor: Tensor) -> AbstractContextManager[Any]:
    """Launch on the tensor's device, whichever is the current one."""
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return _NOTHING
    return torch.cuda.device(tensor.device)


_NOTHING = nullcontext()


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, rows: Rows, composed: Callable[[Tensor], Tensor]) -> Tensor:
        found = rows.forward(input)
        value, denominator = rows.reduce(found)
        others = other_tensors(rows.target.tensor, rows.options)
        ctx.save_for_backward(input, found, *others)  # autograd notices if they change
        ctx.rows, ctx.composed, ctx.denominator = rows, composed, denominator
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        input, found, *_ = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the gradient must be differentiable itself
            return *pull_back(ctx.composed, [input], [upstream]), None, None
        per_row = upstream if upstream.ndim == 0 else upstream.reshape(-1)
        return ctx.rows.backward(input, found, per_row, ctx.denominator, torch.empty_like(input)), None, None


def loss(input: Tensor, target: Tensor, options: Options, composed: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the loss of logits (N, C, d1, …) or (C,) on a GPU; `composed` is the same for higher derivatives."""
    if input.ndim == 1:
        batch = loss(input[None], target[None], options, lambda z: composed(z[0]).reshape(_batched(options)))
        return batch if options.reduction != "none" else batch[0]
    rows = Rows(target, options, tuple(input.shape))
    if input.requires_grad and torch.is_grad_enabled():
        return _Loss.apply(input, rows, composed)
    return rows.reduce(rows.forward(input))[0]


def _batched(options: Options) -> tuple[int, ...]:
    return (1,) if options.reduction == "none" else ()
