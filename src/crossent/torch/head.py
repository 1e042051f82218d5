"""The linear head in blocks of rows: the kernels or PyTorch's own operations compute losses and gradients at once.

Value and gradients come from one pass of three products, because the factor of each row is known before the first
block. With ``reduction="none"`` only backward knows the factors. It computes the logits again, which makes four
products. The weight's gradient is added up in float32 at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossent.kernels import registry
from crossent.numpy.arrays import quietly, widened
from crossent.numpy.evaluator import WORK_ELEMENTS, Evaluator
from crossent.numpy.options import Options
from crossent.numpy.statistics import Collector

from .accelerated import Launches
from .autograd import Saved
from .blocks import one_pass
from .problem import Problem
from .tensors import as_numpy, as_tensor, numpy_options, numpy_target, wide

__all__ = ["Head", "KernelRows", "ProblemRows"]

Found = tuple[tuple[Tensor, ...], Any]
_NOTHING = (False, False, False)


@dataclass(frozen=True)
class KernelRows:
    """The rows of a linear head on logits in ordinary memory, where the kernels compute their losses.

    Parameters
    ----------
    given : Evaluator
    is_narrow : bool
        Whether the logits are float16.
    """

    given: Evaluator
    is_narrow: bool

    @classmethod
    def of(
        cls,
        target: Any,
        options: Options,
        shape: tuple[int, ...],
        num_classes: int,
        dtype: torch.dtype,
        is_in_range: bool = False,
    ) -> KernelRows:
        """Encode a target of rows of the given shape, whose logits have the given dtype."""
        computed = np.dtype(np.float64 if dtype is torch.float64 else np.float32)
        arrays = numpy_target(target), numpy_options(options)
        evaluator = Evaluator.of(*arrays, shape, num_classes, computed, is_in_range=is_in_range)
        return cls(evaluator, dtype is torch.float16)

    @property
    def is_none(self) -> bool:
        """Whether the reduction is "none"."""
        return bool(self.given.reduction.kind == "none")

    @property
    def unit(self) -> float:
        """What the gradients are to be multiplied by in the end.

        float16 has a smallest number, and a row's part of a mean may be below it. So this is a power of two that brings
        the largest slope to about 1.
        """
        if not self.is_narrow:
            return 1.0
        largest = abs(self.given.scale)
        for weights in (self.given.weight, self.given.target.class_weight):
            if weights is not None and weights.size:
                largest *= float(np.abs(weights).max())
        return 2.0 ** math.frexp(largest)[1] if 0 < largest < math.inf else 1.0

    @property
    def silent(self) -> Tensor | None:
        """Which rows have no part in the gradients, bool (N,); None where all have."""
        silent = self.given.silent_rows
        return None if silent is None else torch.from_numpy(silent)

    def run(self, tensors: Sequence[Any], wanted: Sequence[bool], with_statistics: bool = False) -> Found:
        """Return the value and, where asked for, the five statistics; and the gradients that are wanted."""
        losses, entries, statistics, gradients = self.passed(tensors, wanted, with_statistics)
        given, dtype = self.given, torch.float64 if self.given.dtype == np.float64 else torch.float32
        if entries is not None:
            value = as_tensor(entries).reshape(*given.shape, given.target.num_classes)
        else:
            value = as_tensor(given.reduce(losses.numpy()))
        return (value.to(dtype), *statistics), gradients

    def passed(self, tensors: Sequence[Any], wanted: Sequence[bool], with_statistics: bool = False) -> Any:
        """Return the losses of rows, those of entries that are wanted or None, the statistics, and the gradients."""
        given, unit = self.given, self.unit
        evaluator = given if unit == 1.0 else given.with_scale(1 / unit)
        entries = np.empty((given.num_rows, given.target.num_classes)) if given.wants_entries else None
        collector: Collector | None = None
        if with_statistics:
            collector = Collector(given)

        @quietly
        def evaluate(logits: Tensor, rows: slice, with_gradient: bool) -> Tensor:
            array = as_numpy(logits)
            if collector is not None:
                step = max(1, WORK_ELEMENTS // array.shape[1])
                for start in range(0, len(array), step):
                    piece = array[start : start + step]
                    here = slice(rows.start + start, rows.start + start + len(piece))
                    collector.add(widened(piece, given.dtype), here)
            of_block = None if entries is None else entries[rows]
            return torch.from_numpy(evaluator.evaluate(array, rows, array if with_gradient else None, of_block))

        losses, gradients = one_pass(tensors, evaluate, wanted, self.silent)
        found: Sequence[Any] = ()
        if collector is not None:
            found = collector.result(given.dtype)
        return losses, entries, [as_tensor(column) for column in found], gradients

    @quietly
    def pull_back(self, logits: Tensor, rows: slice, upstream: Sequence[Any]) -> None:
        """Put the gradient of ``Σ upstream · statistic`` in the place of a block of logits."""
        array, given = as_numpy(logits), self.given
        signed = zip(("lse", "entropy", "nll"), (1.0, 1.0, -1.0), upstream, strict=True)  # log_prob is minus the nll
        partials = {name: sign * u[rows].double().numpy() for name, sign, u in signed if u is not None}
        target = given.target.rows(rows)._replace(class_weight=None, label_smoothing=0.0)
        if target.labels is not None:  # a row that does not count has a constant log-probability, but lse and entropy
            if "nll" in partials:
                partials["nll"] = np.where(target.labels < 0, 0.0, partials["nll"])
            target = target._replace(labels=target.counted_labels)
        step = max(1, WORK_ELEMENTS // array.shape[1])
        for start in range(0, len(array), step):
            part = slice(start, min(start + step, len(array)))
            raw = widened(array[part], given.dtype)
            here = slice(rows.start + part.start, rows.start + part.stop)
            mapped = raw if given.map.is_identity else given.mapped(raw, here)
            gradient = np.empty(mapped.shape, mapped.dtype)
            of_part = {name: np.ascontiguousarray(partial[part]) for name, partial in partials.items()}
            registry.find(mapped.dtype).pullback(mapped, target.rows(part), of_part, gradient)
            logits[part].copy_(torch.from_numpy(gradient * given.map.slope(raw.astype(np.float64))))

    def scaled(self, factor: Tensor) -> KernelRows:
        """Return the same rows with a factor on each one's loss."""
        return replace(self, given=self.given.with_factor(factor.double().numpy()))


@dataclass(frozen=True)
class ProblemRows:
    """The rows of a linear head on any device, where PyTorch's own operations or launches compute their losses.

    The methods are those of `KernelRows`.

    Parameters
    ----------
    problem : Problem
    factor : tensor
        Of the losses in what is differentiated: a number, or one a row or entry.
    unit : see `KernelRows.unit`
    launches : Launches, optional
        What computes the losses in the place of PyTorch's operations.
    """

    problem: Problem
    factor: Tensor
    unit: Any = 1.0
    launches: Launches | None = None

    @classmethod
    def of(cls, problem: Problem, dtype: torch.dtype, launches: Launches | None = None) -> ProblemRows:
        """Return the rows of a problem whose logits have the given dtype."""
        factor, _ = problem.scale()
        if dtype is not torch.float16:
            return cls(problem, factor, 1.0, launches)
        # The mean's factor comes at the end, because float16 slopes may be too small with it.
        unit = torch.where(factor == 0, 1.0, factor)
        return cls(problem, factor / unit, unit, launches)

    @property
    def is_none(self) -> bool:
        return self.problem.reduction.is_none

    @property
    def silent(self) -> Tensor | None:
        labels = getattr(self.problem, "labels", None)
        return None if labels is None or labels.is_meta else labels < 0

    def run(self, tensors: Sequence[Any], wanted: Sequence[bool], with_statistics: bool = False) -> Found:
        entries: list[Tensor] = []
        statistics: list[tuple[Tensor, ...]] = []

        def evaluate(logits: Tensor, rows: slice, with_gradient: bool) -> Tensor:
            part = self.problem.part(rows)
            if with_statistics:
                statistics.append(part.statistics(logits))
            factor = self.factor[rows] if self.factor.ndim else self.factor
            if self.launches is not None:
                return self.launches.block(logits, rows, factor if with_gradient else None)
            with torch.enable_grad():
                leaf = logits.detach().requires_grad_(with_gradient)
                losses = part.losses(leaf)
                if with_gradient:
                    logits.copy_(torch.autograd.grad((losses * factor).sum(), leaf)[0])
            losses = losses.detach()
            if losses.ndim == 1:
                return losses
            if self.is_none:
                entries.append(losses)
            return losses.sum(-1)

        losses, gradients = one_pass(tensors, evaluate, wanted, self.silent)
        value = self.problem.reduce(torch.cat(entries) if entries else losses)
        shape = self.problem.shape
        return (value, *(torch.cat(column).reshape(shape) for column in zip(*statistics, strict=True))), gradients

    def pull_back(self, logits: Tensor, rows: slice, upstream: Sequence[Any]) -> None:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            pairs = zip(self.problem.part(rows).statistics(leaf)[:3], upstream, strict=True)
            total = torch.stack([(column * u[rows]).sum() for column, u in pairs if u is not None]).sum()
            logits.copy_(torch.autograd.grad(total, leaf)[0])

    def scaled(self, factor: Tensor) -> ProblemRows:
        entries = self.problem.shape[1:] if "target" in vars(self.problem) else ()
        return replace(self, factor=factor.to(wide(factor.device)).reshape(-1, *entries), unit=1.0)


@dataclass(frozen=True)
class Head:
    """A linear head's loss and, where asked for, statistics of its rows: a `Work` of input, weight and bias.

    Attributes
    ----------
    composed : see `Work`
    """

    rows: KernelRows | ProblemRows
    composed: Callable[..., Any]
    with_statistics: bool

    def forward(self, tensors: Sequence[Any], wanted: Sequence[bool]) -> tuple[tuple[Tensor, ...], list[Any]]:
        outputs, gradients = self.rows.run(tensors, _NOTHING if self.rows.is_none else wanted, self.with_statistics)
        return outputs, [] if gradients is None else [gradients]

    def gradients(
        self, saved: Saved, kept: list[Any], upstream: Sequence[Any], wanted: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        tensors = saved()
        total: list[Any] = [None, None, None]
        if upstream[0] is not None:
            total = self._of_loss(tensors, kept, upstream[0], wanted)
        if any(gradient is not None for gradient in upstream[1:4]):
            more = self._of_statistics(tensors, upstream[1:4], wanted)
            total = [m if t is None else t + m for t, m in zip(total, more, strict=True)]
        return total

    def _of_loss(self, tensors: Sequence[Any], kept: list[Any], upstream: Tensor, wanted: Sequence[bool]) -> list[Any]:
        rows: Any = self.rows
        factor: Any = upstream
        if rows.is_none:
            rows = rows.scaled(upstream)
            factor = 1.0
        elif upstream.device.type == "cpu":  # another device is not worth waiting for
            factor = upstream.item()
        gradients = kept.pop() if kept else rows.run(tensors, wanted)[1]
        return _typed(_times(gradients, factor * rows.unit, wanted), tensors, wanted)

    def _of_statistics(self, tensors: Sequence[Any], upstream: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
        flat = [None if u is None else u.reshape(-1) for u in upstream]

        def pull_back(logits: Tensor, rows: slice, _: bool) -> Tensor:
            self.rows.pull_back(logits, rows, flat)
            return torch.zeros(len(logits), dtype=wide(logits.device), device=logits.device)

        silent = self.rows.silent
        if silent is not None:  # a row that does not count in the loss has statistics
            for column in flat:
                silent = silent if column is None else silent & (column == 0)
        return _typed(one_pass(tensors, pull_back, wanted, silent)[1], tensors, wanted)


def _times(gradients: Any, factor: Any, wanted: Sequence[bool]) -> Any:
    for gradient, want in zip(gradients, wanted, strict=True):
        if want and isinstance(factor, Tensor) and gradient.dtype is torch.float16:
            gradient.copy_(gradient.float() * factor)  # the factor itself may be beyond float16
        elif want and (isinstance(factor, Tensor) or factor != 1.0):
            gradient.mul_(factor)
    return gradients


def _typed(gradients: Any, tensors: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
    return [g.to(t.dtype) if want else None for g, t, want in zip(gradients, tensors, wanted, strict=True)]
