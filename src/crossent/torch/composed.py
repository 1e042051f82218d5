"""The losses composed of PyTorch operations around the losses of rows: maps, targets, weights, reduction.

This is the path that traces, transforms and differentiates to any order. The losses of rows come from the kernels
(`rows`) or from PyTorch's own operations (`native`).
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crossent.core.reduction import Reduction
from crossent.core.target import TopK
from crossent.errors import check_number, refuse
from crossent.losses import DEFAULT_LOSS
from crossent.numpy.options import Options

from .native import NativeEntries, NativeRows, distillation_losses, softmax_losses, top_k_losses
from .rows import row_losses
from .tensors import describe, int64_labels, is_traced, is_transformed, wide

__all__ = ["SigmoidProblem", "SoftmaxProblem", "counts_of", "factor_of", "loss", "reduction_of"]


def _is_readable() -> bool:
    """Whether the values of tensors can be looked at, so that bad ones raise."""
    return not is_traced() and not is_transformed()


def _number(name: str, value: Any, like: Tensor, **bounds: Any) -> Any:
    """Return a number within bounds; a tensor of one stays a tensor, with its gradient."""
    if not isinstance(value, Tensor):
        return check_number(name, value, **bounds)
    if value.shape != () or value.is_complex() or value.dtype is torch.bool:
        raise ValueError(refuse(f"{name} must be a finite number", describe(value)))
    if value.device.type == "cpu" and _is_readable():
        check_number(name, value.item(), **bounds)
    return value.to(like)


def _mapped(logits: Tensor, labels: Tensor | None, options: Options, offset: Tensor | None) -> Tensor:
    """Soft cap, temperature, prior and margin, as in `crossent.core.logit_maps`."""
    if options.softcap is not None:
        cap = _number("softcap", options.softcap, logits, above=0)
        is_finite = logits.isfinite()
        finite = torch.where(is_finite, logits, 0.0) if isinstance(cap, Tensor) else logits
        logits = torch.where(is_finite, cap * torch.tanh(finite / cap), logits)
    if options.temperature is not None:
        divisor = _number("temperature", options.temperature, logits, above=0)
        if isinstance(divisor, Tensor):  # an infinite logit has no part in the divisor's gradient
            is_finite = logits.isfinite()
            logits = torch.where(is_finite, torch.where(is_finite, logits, 0.0) / divisor, logits)
        else:
            logits = logits / divisor
    if offset is not None:
        logits = logits + offset.to(logits)
    if options.margin is not None:
        if labels is None:
            raise ValueError(refuse("margin needs integer labels", "a floating target"))
        margin = torch.as_tensor(options.margin, dtype=logits.dtype, device=logits.device)
        is_true = F.one_hot(labels.clamp(min=0), logits.shape[-1]).bool()
        logits = logits - torch.where(is_true, margin, torch.zeros_like(logits))
    return logits


def _log_prior(options: Options, num_classes: int, device: Any) -> Tensor | None:
    if options.prior is None:
        return None
    prior = torch.as_tensor(options.prior, device=device).to(wide(device))
    if prior.shape != (num_classes,):
        raise ValueError(refuse(f"prior must have one probability a class, shape ({num_classes},)", describe(prior)))
    logs = prior.log() if options.kind == "softmax" else prior.log() - torch.log1p(-prior)
    return _number("prior_strength", options.prior_strength, logs) * logs


def reduction_of(options: Options) -> Reduction:
    """Return the checked reduction; a normalizer that is a tensor is for `factor_of`."""
    normalizer = None if isinstance(options.normalizer, Tensor) else options.normalizer
    return Reduction(options.reduction, normalizer, options.on_empty)  # type: ignore[arg-type]


def factor_of(counts: tuple[Any, Any], options: Options, device: Any) -> tuple[Tensor, Tensor]:
    """Return the factor of a row's loss in the reduced value, and whether the mean is empty (then the factor is 0)."""
    reduction = reduction_of(options)
    one = torch.ones((), dtype=wide(device), device=device)
    if reduction.kind != "mean":
        return one, one == 0
    if isinstance(options.normalizer, Tensor):
        total = _number("normalizer (unless None or 'count')", options.normalizer, one, above=0)
        return torch.where(total > 0, 1.0 / total, math.nan), one == 0
    denominator = reduction.denominator(*counts) * one
    is_empty = denominator == 0
    if options.on_empty == "raise" and _is_readable() and bool(is_empty):
        reduction.resolve(0.0, 0.0)
    return torch.where(is_empty, 0.0, 1.0 / torch.where(is_empty, 1.0, denominator)), is_empty


def _reduced(losses: Tensor, counts: tuple[Any, Any], options: Options) -> Tensor:
    """Return the sum or mean of weighted losses, in float64; `counts` are what a mean may divide by."""
    factor, is_empty = factor_of(counts, options, losses.device)
    total = losses.sum()
    empty = 0.0 if options.on_empty == "zero" else math.nan
    return torch.where(is_empty, empty, torch.where(is_empty, 0.0, total) * factor)


def _counted_labels(target: Tensor, num_classes: int, options: Options) -> tuple[Tensor, Tensor | None]:
    """Return labels, -1 where ignored; and which are out of range, where that cannot raise."""
    given = target.reshape(-1)
    target = int64_labels(given, options.ignore_index)
    ignored = target == int(options.ignore_index)
    bad = ~ignored & ((target < 0) | (target >= num_classes))
    if not _is_readable():
        return torch.where(ignored, -1, torch.where(bad, 0, target)), bad
    if target.device.type != "cpu":  # not worth waiting for the device: such rows become NaN
        return torch.where(ignored, -1, torch.where(bad, 0, target)), bad
    if bool(bad.any()):
        row = int(bad.long().argmax())
        raise ValueError(
            refuse(
                f"labels must lie in 0..{num_classes - 1} or equal ignore_index={options.ignore_index}",
                f"{given[row].item()} in row {row}",
            )
        )
    return torch.where(ignored, -1, target), None


def _weigh(losses: Tensor, sample_weight: Tensor | None) -> Tensor:
    if sample_weight is None:
        return losses
    return torch.where(sample_weight == 0, 0.0, losses * sample_weight)


def _row_weights(options: Options, shape: Any, device: Any) -> Tensor | None:
    if options.sample_weight is None:
        return None
    weight = torch.as_tensor(options.sample_weight, device=device)
    try:
        return weight.expand(shape).reshape(-1).to(wide(device))
    except RuntimeError:
        raise ValueError(
            refuse(f"sample_weight must have one weight a row, shape {tuple(shape)}", describe(weight))
        ) from None


def _part(problem: Any, rows: slice, names: Any) -> Any:
    part = copy.copy(problem)
    for name in names:
        value = getattr(problem, name)
        if isinstance(value, TopK):
            setattr(part, name, TopK(value.indices[rows], value.probabilities[rows]))
        elif value is not None:
            setattr(part, name, value[rows])
    return part


class SoftmaxProblem:
    """Target, weights and reduction of rows of logits; `losses` may be asked for blocks of them.

    Parameters
    ----------
    target : labels of `shape`, distributions or a teacher's logits (*shape, K), or a TopK
    shape : of the rows
    dtype : of the logits as they came
    native : bool
        Whether PyTorch's own operations compute the losses of rows.
    """

    def __init__(
        self,
        target: Any,
        options: Options,
        shape: tuple[int, ...],
        num_classes: int,
        dtype: Any,
        device: Any,
        native: bool,
    ):
        self.shape, self.num_classes, self.native, self.device = shape, num_classes, native, device
        self.result_dtype = torch.float64 if dtype is torch.float64 else torch.float32
        # In this machine's memory PyTorch's own operations run in double precision: they lose digits in any other.
        self.precision = torch.float64 if native and device.type == "cpu" else self.result_dtype
        self.num_rows = math.prod(shape)
        self.loss = options.loss or DEFAULT_LOSS
        if self.loss.needs_teacher:
            _check_distillation(options)
        self.options = options
        self.labels: Tensor | None = None
        self.soft: Tensor | None = None
        self.bad: Tensor | None = None
        self.weight: Tensor | None = None
        self.teacher: Tensor | TopK | None = None
        self._take_target(target)
        self.offset = _log_prior(options, num_classes, device)
        if self.offset is not None and self.loss.needs_teacher:
            # The loss divides by its temperature itself, and the prior comes behind that.
            self.offset = self.offset * self.loss.parameter
        if options.weight is not None:
            self.weight = torch.as_tensor(options.weight, device=device).to(wide(device))
            if self.weight.shape != (num_classes,):
                asked = f"weight must have one weight a class, shape ({num_classes},)"
                raise ValueError(refuse(asked, describe(self.weight)))
        self.row_weight = _row_weights(options, shape, device)

    def _take_target(self, target: Any) -> None:
        full = (*self.shape, self.num_classes)
        if self.loss.needs_teacher:
            self._take_teacher(target, full)
        elif isinstance(target, TopK):
            raise TypeError(refuse("a TopK target needs a distillation loss", repr(self.loss)))
        elif not target.is_floating_point():
            if tuple(target.shape) != tuple(self.shape):
                raise ValueError(refuse(f"labels must have shape {tuple(self.shape)}, one a row", describe(target)))
            self.labels, self.bad = _counted_labels(target, self.num_classes, self.options)
        else:
            if tuple(target.shape) != full:
                raise ValueError(refuse(f"a floating target must have the logits' shape {full}", describe(target)))
            if self.loss.needs_hard_target:
                raise ValueError(refuse(f"{self.loss!r} needs integer labels", describe(target)))
            if self.loss.needs_unit_mass and target.device.type == "cpu" and _is_readable():
                off = (target.detach().double().sum(-1) - 1).abs().max() if target.numel() else 0
                if not off <= 1e-2:
                    raise ValueError(refuse(f"{self.loss!r} needs targets that sum to 1", f"a sum off by {off:g}"))
            self.soft = target.reshape(-1, self.num_classes).to(self.precision)

    def part(self, rows: slice) -> SoftmaxProblem:
        """The problem of some of the rows."""
        return _part(self, rows, ("labels", "soft", "bad", "row_weight", "teacher"))

    def _take_teacher(self, teacher: Any, full: tuple[int, ...]) -> None:
        if isinstance(teacher, TopK):
            k = teacher.indices.shape[-1]
            indices = teacher.indices.reshape(-1, k).long()
            self.teacher = TopK(self._distinct(indices), teacher.probabilities.reshape(-1, k))
            return
        if tuple(teacher.shape) != full:
            raise ValueError(refuse(f"a teacher must be logits of the student's shape {full}", describe(teacher)))
        dtype = torch.promote_types(teacher.dtype, self.precision)
        self.teacher = teacher.reshape(-1, self.num_classes).to(dtype)

    def _distinct(self, indices: Tensor) -> Tensor:
        """Return a teacher's classes; where nothing can raise, rows whose classes are none become NaN."""
        ordered = indices.sort(-1).values
        bad = (ordered[:, 0] < 0) | (ordered[:, -1] >= self.num_classes) | (ordered.diff(dim=-1) == 0).any(-1)
        if not _is_readable() or indices.device.type != "cpu":
            self.bad = bad
            return torch.where(bad[:, None], 0, indices)
        if bool(bad.any()):
            row = int(bad.long().argmax())
            asked = f"TopK indices must be distinct classes in 0..{self.num_classes - 1}"
            raise ValueError(refuse(asked, f"{indices[row].tolist()} in row {row}"))
        return indices

    def losses(self, logits: Tensor, rows: slice) -> Tensor:
        """Return the weighted losses, float64, of a block of logits (n, K)."""

        def part(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        labels, soft = part(self.labels), part(self.soft)
        mapped = _mapped(logits.to(self.precision), labels, self.options, self.offset)
        if isinstance(self.teacher, TopK):
            teacher = TopK(self.teacher.indices[rows], self.teacher.probabilities[rows])
            losses = top_k_losses(mapped, teacher, self.loss.parameter)
        elif self.teacher is not None and self.native:
            losses = distillation_losses(mapped, self.teacher[rows], self.loss.parameter)
        elif self.teacher is not None:
            losses = row_losses(mapped, None, self.teacher[rows], None, self.loss, 0.0)
        elif self.native:
            weight = None if self.weight is None else self.weight.to(self.precision)
            losses = softmax_losses(mapped, labels, soft, weight, self.loss, self.options.label_smoothing)
        else:
            losses = row_losses(mapped, labels, soft, self.weight, self.loss, self.options.label_smoothing)
        losses = losses.to(wide(self.device))
        return self.weighted(losses, rows)

    def weighted(self, losses: Tensor, rows: slice) -> Tensor:
        """Return the losses of rows times their weights; NaN where a label is out of range."""
        if self.bad is not None:
            losses = losses * torch.where(self.bad[rows], math.nan, 1.0)
        return _weigh(losses, None if self.row_weight is None else self.row_weight[rows])

    def statistics(self, logits: Tensor, rows: slice) -> tuple[Tensor, ...]:
        """Return lse, entropy, log_prob, argmax and correct of a block of logits."""
        labels = None if self.labels is None else self.labels[rows]
        soft = None if self.soft is None else self.soft[rows]
        precision = torch.float64 if logits.device.type == "cpu" else self.precision
        mapped = _mapped(logits.to(precision), labels, self.options, self.offset)
        found = NativeRows(mapped, labels, None if soft is None else soft.to(precision), None, 0.0)
        argmax = mapped.argmax(-1)
        if labels is None:
            log_prob, correct = -found.nll, argmax == found.distribution.argmax(-1)
        else:
            log_prob, correct = torch.where(labels < 0, 0.0, -found.nll_plain), argmax == labels
        numbers = (column.to(self.result_dtype) for column in (found.lse, found.entropy, log_prob))
        return (*numbers, argmax, correct & ~found.lse.isnan())

    @property
    def counts(self) -> tuple[Any, Any]:
        """The number of rows that count, and the weights of those."""
        weighted: Any = self.num_rows if self.row_weight is None else self.row_weight.sum()
        if self.labels is None:
            return self.num_rows, weighted
        return _label_counts(self.labels, self.row_weight, self.weight)

    @property
    def scale(self) -> Tensor:
        """The factor of a row's loss in the reduced value; 0 for an empty mean."""
        return factor_of(self.counts, self.options, self.device)[0]

    def reduce(self, losses: Tensor) -> Tensor:
        if self.options.reduction == "none":
            reduction_of(self.options)
            return losses.reshape(self.shape).to(self.result_dtype)
        return _reduced(losses, self.counts, self.options).to(self.result_dtype)


def counts_of(target: Tensor, options: Options, num_classes: int, class_axis: int) -> Tensor:
    """Return (count, weights) of the rows of a target that count: what a mean over them divides by, float64."""
    if options.kind == "sigmoid":
        labels = None if target.is_floating_point() else int64_labels(target, options.ignore_index)
        counted = target.numel() if labels is None else (labels != int(options.ignore_index)).sum()
        return torch.as_tensor([counted, counted], dtype=wide(target.device))
    shape = list(target.shape)
    if target.is_floating_point():
        shape.pop(class_axis)
    rows = _row_weights(options, shape, target.device)
    if target.is_floating_point():
        count = math.prod(shape)
        return torch.as_tensor([count, count if rows is None else rows.sum()], dtype=wide(target.device))
    labels, _ = _counted_labels(target, num_classes, options)
    weight = None if options.weight is None else torch.as_tensor(options.weight).to(wide(target.device))
    return torch.stack(_label_counts(labels, rows, weight))


def _label_counts(labels: Tensor, row_weight: Tensor | None, class_weight: Tensor | None) -> tuple[Tensor, Tensor]:
    counted = labels >= 0
    own = counted.to(wide(labels.device)) if row_weight is None else torch.where(counted, row_weight, 0.0)
    if class_weight is not None:
        own = own * class_weight[labels.clamp(min=0)]
    return counted.sum().to(own.dtype), own.sum()


def _check_distillation(options: Options) -> None:
    for name in ("weight", "margin"):
        if getattr(options, name) is not None:
            raise TypeError(refuse(f"{name} does not apply to distillation", repr(getattr(options, name))))
    if options.label_smoothing:
        raise TypeError(refuse("label_smoothing does not apply to distillation", options.label_smoothing))
    if options.temperature is not None:
        raise TypeError(refuse("a distillation loss has its own temperature", f"temperature={options.temperature!r}"))


def _softmax_loss(input: Tensor, target: Any, options: Options, native: bool) -> Tensor:
    axis = 0 if input.ndim == 1 else 1
    logits = input.movedim(axis, -1)
    if isinstance(target, Tensor) and target.ndim == input.ndim:
        target = target.movedim(axis, -1)
    *shape, num_classes = logits.shape
    problem = SoftmaxProblem(
        target, options, tuple(shape), num_classes, dtype=input.dtype, device=input.device, native=native
    )
    losses = problem.losses(logits.reshape(-1, num_classes), slice(0, problem.num_rows))
    return problem.reduce(losses)


class SigmoidProblem:
    """Target, weights and reduction of entries of logits of any shape; `losses` may be asked for blocks of rows."""

    def __init__(
        self, target: Any, options: Options, shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device
    ):
        self.shape, self.options, self.device = shape, options, device
        self.result_dtype = torch.float64 if dtype is torch.float64 else torch.float32
        self.precision = torch.float64 if device.type == "cpu" else self.result_dtype
        self.loss = options.loss or DEFAULT_LOSS
        self.counted: Tensor | None = None
        self.bad: Tensor | None = None
        if self.loss.needs_teacher:
            raise TypeError(refuse("distillation needs the softmax link", 'link="sigmoid"'))
        if not isinstance(target, Tensor) or tuple(target.shape) != shape:
            asked = f"with the sigmoid link target must have the logits' shape {shape}"
            raise ValueError(refuse(asked, describe(target)))
        if target.is_floating_point():
            if self.loss.needs_hard_target:
                raise ValueError(refuse(f"{self.loss!r} needs integer or bool targets", describe(target)))
        else:
            target = self._counted(target)
        t = target.to(self.precision)
        if options.label_smoothing:
            t = (1 - options.label_smoothing) * t + options.label_smoothing / 2
        self.target = t
        one = torch.ones((), dtype=self.precision, device=device)
        self.negative, self.positive = one, one
        if options.alpha is not None:
            alpha = _number("alpha", options.alpha, one, minimum=0, maximum=1)
            self.negative, self.positive = one * (1 - alpha), one * alpha
        if options.pos_weight is not None:
            self.positive = self.positive * torch.as_tensor(options.pos_weight, dtype=self.precision, device=device)
        self.offset = _log_prior(options, shape[-1] if shape else 1, device)
        self.factor = None if options.weight is None else self._expanded(options.weight, "weight")
        if options.sample_weight is not None:
            weight = torch.as_tensor(options.sample_weight, device=device)
            rows = self._expanded(weight if len(shape) <= 1 else weight[..., None], "sample_weight")
            self.factor = rows if self.factor is None else self.factor * rows

    def _is_of_rows(self, factor: Tensor) -> bool:
        return factor.ndim == len(self.shape) > 0 and factor.shape[0] == self.shape[0]

    def part(self, rows: slice) -> SigmoidProblem:
        """The problem of some of the rows."""
        names = ["target", "counted", "bad", "factor"]
        names += [name for name in ("negative", "positive") if self._is_of_rows(getattr(self, name))]
        return _part(self, rows, names)

    def _counted(self, given: Tensor) -> Tensor:
        target = int64_labels(given, self.options.ignore_index)
        counted = target != int(self.options.ignore_index)
        bad = counted & (target != 0) & (target != 1)
        if _is_readable() and target.device.type == "cpu" and bool(bad.any()):
            index = tuple(int(i) for i in bad.nonzero()[0])
            asked = f"integer targets must be 0, 1 or ignore_index={self.options.ignore_index}"
            raise ValueError(refuse(asked, f"{given[index].item()} at index {index}"))
        self.counted, self.bad = counted, bad
        return torch.where(counted, target, 0)

    def _expanded(self, weight: Any, name: str) -> Tensor:
        weight = torch.as_tensor(weight, device=self.device).to(wide(self.device))
        try:
            return weight.expand(self.shape)
        except RuntimeError:
            raise ValueError(refuse(f"{name} must broadcast to shape {self.shape}", describe(weight))) from None

    def losses(self, logits: Tensor, rows: slice) -> Tensor:
        """Return the weighted losses, float64, of a block of the logits' rows."""
        mapped = _mapped(logits.to(self.precision), None, self.options, self.offset)
        target = self.target[rows] if self.shape else self.target
        negative, positive = (
            factor[rows] if self._is_of_rows(factor) else factor for factor in (self.negative, self.positive)
        )
        entries = NativeEntries(mapped, target, negative, positive)
        losses = torch.where(entries.mass == 0, 0.0, self.loss.of(entries)).to(wide(self.device))
        if self.counted is not None and self.bad is not None:
            losses = torch.where(self.counted[rows], losses, 0.0) * torch.where(self.bad[rows], math.nan, 1.0)
        return _weigh(losses, self.factor[rows] if self.factor is not None and self.shape else self.factor)

    @property
    def counts(self) -> tuple[Any, Any]:
        count = float(math.prod(self.shape)) if self.counted is None else self.counted.sum().to(wide(self.device))
        return count, count

    @property
    def scale(self) -> Tensor:
        """The factor of an entry's loss in the reduced value; 0 for an empty mean."""
        return factor_of(self.counts, self.options, self.device)[0]

    def reduce(self, losses: Tensor) -> Tensor:
        if self.options.reduction == "none":
            reduction_of(self.options)
            return losses.to(self.result_dtype)
        return _reduced(losses, self.counts, self.options).to(self.result_dtype)


def _sigmoid_loss(input: Tensor, target: Any, options: Options) -> Tensor:
    problem = SigmoidProblem(target, options, tuple(input.shape), dtype=input.dtype, device=input.device)
    return problem.reduce(problem.losses(input, slice(None)))


def loss(input: Tensor, target: Any, options: Options, native: bool) -> Tensor:
    """Return the loss of logits, class axis 1, differentiable in whatever PyTorch differentiates.

    Parameters
    ----------
    native : bool
        Whether PyTorch's own operations compute the losses of rows, as they must on other devices and where target or
        weights want a gradient.
    """
    if options.kind == "sigmoid":
        return _sigmoid_loss(input, target, options)
    return _softmax_loss(input, target, options, native)
