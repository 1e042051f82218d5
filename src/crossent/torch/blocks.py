"""Blocks of rows of a linear head: their losses and gradients, by the kernels or by PyTorch's own operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossent.core import linear as driver
from crossent.errors import refuse
from crossent.kernels import registry
from crossent.numpy.arrays import quietly, widened
from crossent.numpy.evaluator import WORK_ELEMENTS, Evaluator
from crossent.numpy.links import make_evaluator
from crossent.numpy.options import Options
from crossent.numpy.statistics import Collector

from . import accelerated
from .composed import SigmoidProblem, SoftmaxProblem
from .tensors import as_numpy, as_tensor, numpy_options, numpy_target, wide

__all__ = ["STATISTICS_NEED", "KernelRows", "NativeRows", "Rows", "one_pass", "products_of"]

STATISTICS_NEED = "statistics need the softmax link and labels or distributions"
_HALF = (torch.float16, torch.bfloat16)
_ADDS_IN_FLOAT32 = "dtype_out" in torch.ops.aten.addmm.overloads()  # half-precision factors, float32 sum: PyTorch 2.8
DEVICE_BLOCK_BYTES = 512 << 20
HALF_BLOCK_ROWS = 1024


class _Products(driver.Products):
    """PyTorch's products in ordinary memory, written and added in place where its types allow.

    Half-precision products are computed in float32, a tile of their factors at a time, on processors that have no
    instructions for them: PyTorch's own took nine times as long, and would be rounded before they are added up.
    """

    def write(self, a: Tensor, b: Tensor, out: Tensor) -> Tensor:
        if _multiplies_quickly(a):
            return torch.mm(a, b, out=out)
        if b.shape[1] > b.shape[0]:  # logits: a tile of the classes
            wide = a.float()
            for part in _tiles(*b.T.shape):
                out[:, part] = wide @ b[:, part].float()
            return out
        total = torch.zeros(out.shape, dtype=torch.float32, device=out.device)
        for part in _tiles(*b.shape):
            total.addmm_(a[:, part].float(), b[part].float())
        return out.copy_(total)

    def add(self, a: Tensor, b: Tensor, total: Tensor, tile: int) -> None:
        if total.dtype == a.dtype:
            total.addmm_(a, b)
        elif _multiplies_quickly(a) and a.dtype is not torch.float16:
            super().add(a, b, total, tile)
        elif a.is_cuda and "dtype" in torch.ops.aten.mm.overloads():
            for part in _tiles(a.shape[0], max(b.shape)):
                total[part] += torch.mm(a[part], b, out_dtype=torch.float32)
        else:  # a product of float16 may be beyond its range
            wide = b.float()
            for part in _tiles(a.shape[0], max(b.shape)):
                total[part].addmm_(a[part].float(), wide)

    def widest(self, a: Tensor) -> torch.dtype:
        return wide(a.device)

    def column_sums(self, a: Tensor) -> Tensor:
        # A sum into another type makes a copy in it; a product with ones accumulates in float32 and makes none.
        return a.sum(0, dtype=torch.float32) if a.dtype in _HALF else a.sum(0)


def _tiles(length: int, width: int) -> Iterator[slice]:
    """Slices of `length` rows of `width` numbers in float32."""
    step = max(1, driver.TILE_BYTES // max(1, 4 * width))
    return (slice(first, min(first + step, length)) for first in range(0, length, step))


@cache
def _has_instructions(dtype: torch.dtype) -> bool:
    """Whether this machine's processor multiplies half-precision numbers itself."""
    names = ("avx512_bf16", "amx_tile") if dtype is torch.bfloat16 else ("amx_fp16",)
    return any(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in names)


def _multiplies_quickly(a: Tensor) -> bool:
    return a.dtype not in _HALF or not a.is_cpu or _has_instructions(a.dtype)


class _DeviceProducts(_Products):
    """PyTorch's products on another device. Nothing waits for it, and blocks are as large as its many cores want."""

    def block_bytes(self, bytes_of_a_row: int, bytes_later: int = 0) -> int:
        return DEVICE_BLOCK_BYTES

    def add(self, a: Tensor, b: Tensor, total: Tensor, tile: int) -> None:
        if total.is_cuda and total.dtype is torch.float32 and a.dtype in _HALF and _ADDS_IN_FLOAT32:
            torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
        else:
            super().add(a, b, total, len(total))

    def without(self, rows: Tensor, is_silent: Tensor) -> Tensor:
        return rows.masked_fill(is_silent[:, None], 0)


class _HalfProducts(_Products):
    """PyTorch's products of half-precision numbers in ordinary memory."""

    def block_bytes(self, bytes_of_a_row: int, bytes_later: int = 0) -> int:
        # Each block reads the weight, and adds to a float32 sum of twice its size: of few rows that takes most time.
        wanted = max(driver.BLOCK_BYTES, HALF_BLOCK_ROWS * bytes_of_a_row)
        return min(wanted, 2 * driver.BLOCK_BYTES + bytes_later)


_PRODUCTS, _HALF_PRODUCTS, _DEVICE_PRODUCTS = _Products(), _HalfProducts(), _DeviceProducts()


def products_of(input: Tensor) -> driver.Products:
    """Return how a linear head multiplies such tensors."""
    if input.device.type != "cpu":
        return _DEVICE_PRODUCTS
    return _HALF_PRODUCTS if input.dtype in _HALF else _PRODUCTS


class KernelRows:
    """Rows whose losses the kernels compute, on logits in ordinary memory."""

    def __init__(self, target: Any, options: Options, shape: tuple[int, ...], num_classes: int, dtype: torch.dtype):
        options = numpy_options(options)
        computed = np.dtype(np.float64 if dtype is torch.float64 else np.float32)
        self.evaluator = make_evaluator(numpy_target(target), options, shape, num_classes, computed)
        self.kind = self.evaluator.reduction.kind
        self.result_dtype = torch.float64 if dtype is torch.float64 else torch.float32
        self.full_shape = (*shape, num_classes)
        self.entries: np.ndarray | None = None
        if self.evaluator.wants_entries:
            self.entries = np.empty((self.evaluator.num_rows, num_classes))
        self.collector: Collector | None = None
        self.is_narrow = dtype is torch.float16
        self.unit = 1.0
        self._fit()

    def _fit(self) -> None:
        """Scale float16 slopes by a power of two, so that the largest are about 1; `unit` takes it back."""
        if self.is_narrow:
            self.unit = _largest_factor(self.evaluator)
            self.evaluator = self.evaluator.with_scale(1 / self.unit)

    @property
    def is_silent(self) -> Tensor | None:
        silent = self.evaluator.silent_rows
        return None if silent is None else torch.from_numpy(silent)

    def collect(self) -> None:
        """From now on, keep the statistics of the rows that are evaluated."""
        if self.evaluator.is_binary or self.evaluator.target.teacher is not None:
            raise TypeError(refuse(STATISTICS_NEED, "another target"))
        self.collector = Collector(self.evaluator)

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
                self.collector.add(widened(piece, self.evaluator.dtype), here)
        entries = None if self.entries is None else self.entries[rows]
        return torch.from_numpy(self.evaluator.evaluate(array, rows, array if with_gradient else None, entries))

    def reduce(self, losses: Tensor) -> Tensor:
        if self.entries is not None:
            return as_tensor(self.entries).reshape(self.full_shape).to(self.result_dtype)
        return as_tensor(self.evaluator.reduce(losses.numpy())).to(self.result_dtype)

    def with_factor(self, factor: Tensor) -> KernelRows:
        """The same rows with a factor on each one's loss."""
        scaled = object.__new__(KernelRows)
        scaled.__dict__ |= self.__dict__
        scaled.collector = scaled.entries = None
        scaled.evaluator = self.evaluator.with_scale(self.unit).with_factor(factor.double().numpy())
        scaled._fit()
        return scaled

    @quietly
    def pull_back(self, logits: Tensor, rows: slice, upstream: list[Tensor | None]) -> None:
        """Put the gradient of the statistics, each row's times the upstream one, in the place of a block of logits."""
        array, logit_map, target = as_numpy(logits), self.evaluator.map, self.evaluator.target
        signed = zip(("lse", "entropy", "nll"), (1.0, 1.0, -1.0), upstream, strict=True)  # log_prob is minus the nll
        partials = {name: sign * u.double().numpy() for name, sign, u in signed if u is not None}
        labels = target.labels
        if labels is not None:  # of a row that does not count the log-probability is a constant, the rest is not
            if "nll" in partials:
                partials["nll"] = np.where(labels < 0, 0.0, partials["nll"])
            labels = np.maximum(labels, 0)
        target = replace(target, labels=labels, class_weight=None, label_smoothing=0.0)
        step = max(1, WORK_ELEMENTS // array.shape[1])
        for start in range(0, len(array), step):
            piece = array[start : start + step]
            here = slice(rows.start + start, rows.start + start + len(piece))
            raw = widened(piece, self.evaluator.dtype)
            mapped = raw if logit_map.is_identity else self.evaluator.mapped(raw, here)
            gradient = np.empty(mapped.shape, mapped.dtype)
            here_partials = {name: partial[here] for name, partial in partials.items()}
            registry.find(mapped.dtype).pullback(mapped, target.rows(here), here_partials, gradient)
            slope = logit_map.slope(raw.astype(np.float64))
            logits[start : start + step].copy_(torch.from_numpy(gradient * slope))


def _largest_factor(evaluator: Evaluator) -> float:
    """The largest factor of a row's or entry's slope, as a power of two."""
    largest = abs(evaluator.scale)
    for weights in (evaluator.weight, evaluator.target.class_weight):
        if weights is not None and weights.size:
            largest *= float(np.abs(weights).max())
    return 2.0 ** math.frexp(largest)[1] if 0 < largest < math.inf else 1.0


class NativeRows:
    """Rows whose losses PyTorch's own operations compute, on any device; or `launches`, where it serves them."""

    def __init__(
        self,
        problem: SoftmaxProblem | SigmoidProblem,
        launches: accelerated.Rows | None = None,
        is_narrow: bool = False,
    ):
        self.problem, self.kind, self.launches = problem, problem.options.reduction, launches
        self.scale = problem.scale
        self.factor: Tensor | None = None
        # Of float16 slopes: the mean's factor is left for the end, as they may be too small with it.
        self.unit: Any = 1.0
        if is_narrow:
            self.unit = torch.where(self.scale == 0, 1.0, self.scale)
            self.scale = self.scale / self.unit
        self.kept: list[Tensor] = []
        self.collected: list[tuple[Tensor, ...]] | None = None

    def collect(self) -> None:
        """From now on, keep the statistics of the rows that are evaluated."""
        self.collected = []

    def _statistics(self, logits: Tensor, rows: slice) -> tuple[Tensor, ...]:
        if not isinstance(self.problem, SoftmaxProblem) or self.problem.teacher is not None:
            raise TypeError(refuse(STATISTICS_NEED, "another target"))
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
        if labels is None or labels.is_meta:  # which has no values to look at
            return None
        return labels < 0

    def evaluate(self, logits: Tensor, rows: slice, with_gradient: bool) -> Tensor:
        if self.collected is not None:
            self.collected.append(self._statistics(logits, rows))
        factor = self.scale if self.factor is None else self.factor[rows]
        if self.launches is not None:
            found = self.launches.forward(logits, rows)
            if with_gradient:
                self.launches.backward(logits, found, factor, 1.0, logits, rows)
            return found[0].to(wide(logits.device))
        with torch.enable_grad():
            leaf = logits.detach().clone().requires_grad_(with_gradient)
            losses = self.problem.losses(leaf, rows)
            if with_gradient:
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

    def with_factor(self, factor: Tensor) -> NativeRows:
        scaled = NativeRows(self.problem, self.launches)
        entries = (factor.shape[-1],) if isinstance(self.problem, SigmoidProblem) else ()
        scaled.factor = factor.to(wide(factor.device)).reshape(-1, *entries)
        return scaled


Rows = KernelRows | NativeRows


def one_pass(
    input: Tensor, weight: Tensor, bias: Tensor | None, evaluate: Callable[..., Tensor], wanted: Any, silent: Any
) -> tuple[Tensor, Any]:
    """One pass over the blocks: row losses and, where wanted, the gradients in input, weight and bias."""

    def evaluate_block(logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        return evaluate(logits, rows, any(wanted)), logits

    kind = input.device.type
    plain = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
    if bias is not None and bias.dtype is torch.float16:
        bias = bias.float()  # and its gradient: a sum over the rows
    with torch.no_grad(), plain:
        losses, gradients = driver.evaluate(
            input.detach(),
            weight.detach(),
            None if bias is None else bias.detach(),
            evaluate_block,
            with_gradients=any(wanted),
            is_silent=silent,
            wanted=wanted[:2],
            accumulate_in=torch.float32 if weight.dtype in _HALF else None,
            products=products_of(input),
        )
    return losses, gradients
