"""Every loss but distillation on a GPU in two launches, where Triton serves the device: statistics, then gradient.

The first launch keeps the statistics of each row that the loss reads. The loss's one line and the jets of
`crossent.core` turn these (N,) numbers into losses and slopes. The second launch computes the gradient from them.
Cross-entropy needs no step between the two. PyTorch's own operations compute what these launches do not serve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from crossent.core import composition
from crossent.core.arrays import array_namespace, guarded_product
from crossent.errors import refuse
from crossent.losses import DEFAULT_LOSS, Loss
from crossent.numpy.options import Options

from .autograd import Saved, at_once
from .problem import check_shape, class_weights, row_weights
from .reduction import TensorReduction
from .tensors import PLAIN, describe, int64_labels, is_readable, wide

__all__ = ["Launches", "dense", "serves"]

_SINGLE = (torch.float16, torch.bfloat16, torch.float32)


@cache
def _kernels() -> Any:
    """The kernels, or None where Triton is not installed."""
    try:
        from crossent.kernels import triton
    except ModuleNotFoundError:
        return None
    return triton


def serves(inputs: Sequence[Tensor], target: Any, options: Options) -> bool:
    """Whether the kernels compute this loss of logits, or of a linear head's input, weight and bias."""
    input = inputs[0]
    normalizer = options.normalizer if isinstance(options.normalizer, Tensor) else None
    return (
        is_served_device(input)
        and all(type(tensor) in PLAIN for tensor in inputs)
        and input.dtype in _SINGLE
        and input.numel() > 0
        and options.kind == "softmax"
        and not (options.loss or DEFAULT_LOSS).needs_teacher
        and options.temperature is options.prior is options.margin is options.softcap is None
        and isinstance(target, Tensor)
        and _lie_on(input.device, target, options.weight, options.sample_weight, normalizer)
        and is_readable()
    )


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


def _matrix(tensor: Tensor, *, has_classes: bool) -> Any:
    """Read (N, C, d1, …) as (N, C, d1 · …); labels (N, d1, …) as (N, d1 · …)."""
    shape, strides = tensor.shape, tensor.stride()
    first = 2 if has_classes else 1
    classes = strides[1] if has_classes else 0
    for axis in range(len(shape) - 2, first - 1, -1):  # the inner axes must be one run of memory
        if strides[axis] != strides[axis + 1] * shape[axis + 1]:
            return _matrix(tensor.contiguous(), has_classes=has_classes)
    return _kernels().Matrix(tensor, strides[0], classes, 0 if len(shape) == first else strides[-1])


class _Statistics:
    """The statistics that a launch kept, as `crossent.core`'s composition reads them; (N,) each."""

    def __init__(self, found: Tensor, is_hard: bool):
        self.xp = array_namespace(found)
        self.target = SimpleNamespace(is_hard=is_hard)
        peak, tail, self.mass, nll, self.miss = found[2:7]
        log1p_tail = torch.log1p(tail)
        self.lse = peak + log1p_tail
        self.nll_plain = nll
        self.nll = guarded_product(self.mass, nll) if is_hard else nll
        if len(found) > 7:
            self.entropy, self.brier = log1p_tail + found[8], found[9]

    def lost_likelihood(self, q: float) -> Tensor:
        return -torch.expm1(-q * self.nll_plain)

    def likelihood_power(self, q: float) -> Tensor:
        return torch.exp(-q * self.nll_plain)


@dataclass(frozen=True)
class Launches:
    """Target, weights and reduction of rows, and the two launches on their logits (N, C, d1, …).

    Attributes
    ----------
    target : as the kernels read it
    is_soft : bool
        Whether it holds distributions.
    row_shape : of what reduction "none" returns
    size : of the problem, as the kernels read it
    """

    loss: Loss
    target: Any
    is_soft: bool
    reduction: TensorReduction
    row_shape: tuple[int, ...]
    size: Any

    @classmethod
    def of(cls, target: Tensor, options: Options, shape: tuple[int, ...]) -> Launches:
        """Read a target beside logits of the given shape.

        Raises
        ------
        ValueError
            If a shape does not fit.
        """
        row_shape, is_soft, loss = (shape[0], *shape[2:]), target.is_floating_point(), options.loss or DEFAULT_LOSS
        if not is_soft:
            check_shape("labels must have", target, row_shape)
        elif tuple(target.shape) != shape:
            raise ValueError(refuse(f"a floating target must have the logits' shape {shape}", describe(target)))
        elif loss.needs_hard_target:
            raise ValueError(refuse(f"{loss!r} needs integer labels", describe(target)))
        if target.dtype is torch.uint64:  # the kernels read labels as int64
            target = int64_labels(target, options.ignore_index)
        weight, row_weight = class_weights(options, shape[1], target.device), row_weights(options, row_shape, None)
        read = _kernels().Target(
            *_matrix(target.detach(), has_classes=is_soft),
            None if weight is None else weight.detach().contiguous(),
            None if row_weight is None else row_weight.detach().contiguous(),
            options.ignore_index,
            float(options.label_smoothing) or None,
        )
        size = _kernels().Size(math.prod(row_shape), math.prod(shape[2:]), shape[1])
        return cls(loss, read, is_soft, TensorReduction.of(options), row_shape, size)

    @classmethod
    def of_head(cls, target: Tensor, options: Options, shape: tuple[int, ...], num_classes: int) -> Launches:
        """Read a target of rows of the given shape, whose logits are computed in blocks (n, C)."""
        classes = (num_classes,) if target.is_floating_point() else ()
        flat = options._replace(sample_weight=row_weights(options, shape, None))
        return cls.of(target.reshape(-1, *classes), flat, (math.prod(shape), num_classes))

    @property
    def _is_hard(self) -> bool:
        return not self.is_soft and self.target.smoothing is None

    def losses(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted losses of the rows, and what the launch found: see `kernels.triton.forward`."""
        reads = self.loss.reads
        more = "entropy" in reads or "brier" in reads or ("miss" in reads and not self._is_hard)
        numbers = _kernels().MORE_NUMBERS if more else _kernels().NUMBERS
        found = torch.empty((numbers, self.size.rows), dtype=torch.float32, device=logits.device)
        z = _matrix(logits, has_classes=True)
        count = isinstance(self.reduction.rule.normalizer, str)
        self._launch(_kernels().forward, z, found, SOFT=self.is_soft, COUNT=count, MORE=more)
        if self.loss.is_cross_entropy:
            return found[0], found
        losses, mass = composition.value(self.loss, _Statistics(found, self._is_hard)), found[4]  # type: ignore[arg-type]
        if self.target.row_weight is not None:
            losses = losses * self.target.row_weight.to(losses.dtype)
        return torch.where(mass == 0, 0.0, torch.where(mass.isnan(), mass, losses)), found

    def gradient(
        self, logits: Tensor, found: Tensor, upstream: Tensor, denominator: Tensor | None, out: Tensor
    ) -> Tensor:
        """Write into `out`, which may be the logits, the gradient of Σ upstream · loss / denominator."""
        slopes = None
        if not self.loss.is_cross_entropy:
            statistics: Any = _Statistics(found, self._is_hard)
            first = composition.derivatives(self.loss, statistics, order=1).first
            columns = {
                name.removesuffix("_plain"): torch.as_tensor(slope, dtype=torch.float32, device=found.device)
                for name, slope in first.items()
            }
            expanded = {name: column.expand(self.size.rows).contiguous() for name, column in columns.items()}
            slopes = _kernels().Slopes(**expanded)
        stride = 0 if upstream.ndim == 0 else upstream.stride(0)
        scale = _kernels().Scale(upstream, stride, denominator)
        z, gradient = _matrix(logits, has_classes=True), _matrix(out, has_classes=True)
        self._launch(_kernels().backward, z, gradient, self.target, found, slopes, scale, SOFT=self.is_soft)
        return out

    def block(self, logits: Tensor, rows: slice, factor: Tensor | None) -> Tensor:
        """Return the losses of a block (n, C) of rows; with a factor, put their gradient in the logits' place."""
        row_weight = self.target.row_weight
        target = self.target._replace(
            at=self.target.at[rows], row_weight=None if row_weight is None else row_weight[rows]
        )
        part = replace(self, target=target, size=self.size._replace(rows=rows.stop - rows.start))
        losses, found = part.losses(logits)
        if factor is not None:
            part.gradient(logits, found, factor, None, logits)
        return losses.to(wide(logits.device))

    def _launch(self, kernel: Any, z: Any, *others: Any, **flags: bool) -> None:
        rows, classes, warps = _kernels().blocks(self.size.classes, z.classes != 1)
        with _current(z.at):
            arguments = others if kernel is _kernels().backward else (self.target, *others)
            kernel[(-(-self.size.rows // rows),)](
                z, *arguments, self.size, **flags, BLOCK_ROWS=rows, BLOCK_CLASSES=classes, num_warps=warps
            )

    def reduce(self, losses: Tensor, counted: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the value, and what the sum of the losses was divided by, if by anything.

        `counted` are the rows' parts of a mean's denominator.
        """
        rule, has_number = self.reduction.rule, self.reduction.normalizer is not None
        if rule.kind == "none":
            return losses.reshape(self.row_shape), None
        total = losses.sum(dtype=torch.float64)
        if rule.kind == "sum":
            return total.float(), None
        count = counted.sum(dtype=torch.float64)
        if rule.on_empty == "nan" and not has_number and rule.normalizer in (None, "count"):
            return (total / count).float(), count  # an empty mean is 0 / 0; each operation more is a launch
        factor, is_empty = self.reduction.factor((count, count), losses.device)
        return self.reduction.value(total, factor, is_empty).float(), torch.where(is_empty, 0.0, 1.0 / factor)


def _current(tensor: Tensor) -> AbstractContextManager[Any]:
    """Launch on the tensor's device, whichever is the current one."""
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


@dataclass(frozen=True)
class _Dense:
    """The loss of logits (N, C, d1, …): a `Work` whose gradient is a launch of its own."""

    launches: Launches
    composed: Callable[..., Any]

    def forward(self, tensors: Sequence[Any], wanted: Sequence[bool]) -> tuple[tuple[Tensor, ...], list[Any]]:
        losses, found = self.launches.losses(tensors[0].detach())
        value, denominator = self.launches.reduce(losses, found[1])
        return (value,), [found, denominator]

    def gradients(
        self, saved: Saved, kept: list[Any], upstream: Sequence[Any], wanted: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        (input,), (found, denominator) = saved(), kept
        factor = upstream[0] if upstream[0].ndim == 0 else upstream[0].reshape(-1)
        return [self.launches.gradient(input, found, factor, denominator, torch.empty_like(input))]


def dense(
    input: Tensor, target: Tensor, options: Options, others: list[Tensor], composed: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the loss of logits (N, C, d1, …) or (C,) on a GPU; `composed` is the same for higher derivatives."""
    if input.ndim == 1:
        batch = (1,) if options.reduction == "none" else ()
        value = dense(input[None], target[None], options, others, lambda z: composed(z[0]).reshape(batch))
        return value if options.reduction != "none" else value[0]
    launches = Launches.of(target, options, tuple(input.shape))
    return at_once(_Dense(launches, composed), (input,), others)
