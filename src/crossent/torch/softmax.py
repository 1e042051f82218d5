"""The problem of the softmax link: rows of K logits with a label, a distribution or a teacher each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from crossent.core.target import TopK
from crossent.errors import refuse
from crossent.losses import DEFAULT_LOSS
from crossent.numpy.options import Options

from . import operations, rows
from .problem import Problem, check_shape, class_weights, common, row_weights, weigh
from .tensors import describe, int64_labels, is_readable, wide

__all__ = ["SoftmaxProblem"]


@dataclass(frozen=True, kw_only=True)
class SoftmaxProblem(Problem):
    """Rows of K logits with a label, a distribution or a teacher each.

    Attributes
    ----------
    labels : (N,) int64, -1 for rows that do not count; or None
    soft : (N, K) distributions or a teacher's logits, or (N, k) probabilities of a top-k teacher; or None
    listed : (N, k) classes of a top-k teacher, or None
    margin : what is taken off the true class's logit, a number or (K,); or None
    native : bool
        Whether PyTorch's own operations compute the losses of rows.
    """

    labels: Tensor | None = None
    soft: Tensor | None = None
    listed: Tensor | None = None
    class_weight: Tensor | None = None
    row_weight: Tensor | None = None
    label_smoothing: float = 0.0
    margin: Tensor | None = None
    native: bool = False

    OF_ROWS: ClassVar[tuple[str, ...]] = ("labels", "soft", "listed", "bad", "row_weight")

    @classmethod
    def of(
        cls, target: Any, options: Options, shape: tuple[int, ...], num_classes: int, logits: Tensor, native: bool
    ) -> SoftmaxProblem:
        """Encode a target of rows of the given shape; `logits` are any tensor of the logits' dtype and device.

        Raises
        ------
        TypeError, ValueError
            If the target or an option does not fit.
        """
        device = logits.device
        fields = common(options, num_classes, logits, native)
        if fields["loss"].needs_teacher:
            _check_distillation(options)
            if fields["offset"] is not None:
                # The loss divides by its temperature itself, and the prior comes behind that.
                fields["offset"] = fields["offset"] * fields["loss"].parameter
        encoded = _encoded(target, options, shape, num_classes, fields["precision"])
        weight, row_weight = class_weights(options, num_classes, device), row_weights(options, shape, device)
        margin = None
        if options.margin is not None:
            if "labels" not in encoded:
                raise ValueError(refuse("margin needs integer labels", "a floating target"))
            margin = torch.as_tensor(options.margin, dtype=fields["precision"], device=device)
        return cls(
            shape=shape,
            label_smoothing=options.label_smoothing,
            class_weight=None if weight is None else weight.to(wide(device)),
            row_weight=None if row_weight is None else row_weight.to(wide(device)),
            margin=margin,
            native=native,
            **fields,
            **encoded,
        )

    def part(self, rows: slice) -> SoftmaxProblem:
        parts = {name: value[rows] for name in self.OF_ROWS if (value := getattr(self, name)) is not None}
        return replace(self, shape=(rows.stop - rows.start,), **parts)

    def mapped(self, logits: Tensor) -> Tensor:
        """Soft cap, temperature, prior and margin, as in `crossent.core.logit_maps`."""
        logits = super().mapped(logits)
        if self.margin is None or self.labels is None:
            return logits
        is_true = F.one_hot(self.labels.clamp(min=0), logits.shape[-1]).bool()
        return logits - torch.where(is_true, self.margin, torch.zeros_like(logits))

    def losses(self, logits: Tensor) -> Tensor:
        z = self.mapped(logits.to(self.precision))
        if self.listed is not None:
            losses = operations.top_k_losses(z, self.listed, self.soft, self.loss.parameter)  # type: ignore[arg-type]
        else:
            weight = self.class_weight
            if self.native and weight is not None:
                weight = weight.to(self.precision)
            compute = operations.row_losses if self.native else rows.row_losses
            losses = compute(z, self.labels, self.soft, weight, self.loss, self.label_smoothing)
        return self.weighted(losses.to(wide(self.device)))

    def weighted(self, losses: Tensor) -> Tensor:
        """Return the losses of rows times their weights; NaN where a label is out of range."""
        if self.bad is not None:
            losses = losses * torch.where(self.bad, math.nan, 1.0)
        return weigh(losses, self.row_weight)

    def statistics(self, logits: Tensor) -> tuple[Tensor, ...]:
        if self.loss.needs_teacher:
            return super().statistics(logits)
        precision = torch.float64 if logits.device.type == "cpu" else self.precision
        soft = None if self.soft is None else self.soft.to(precision)
        z = self.mapped(logits.to(precision))
        found = operations.NativeRows(z, self.labels, soft, None, 0.0)
        argmax = z.argmax(-1)
        if self.labels is None:
            log_prob, correct = -found.nll, argmax == found.distribution.argmax(-1)
        else:
            log_prob, correct = torch.where(self.labels < 0, 0.0, -found.nll_plain), argmax == self.labels
        numbers = (column.to(self.result_dtype) for column in (found.lse, found.entropy, log_prob))
        return (*numbers, argmax, correct & ~found.lse.isnan())

    @property
    def counts(self) -> tuple[Any, Any]:
        if self.labels is None:
            count = math.prod(self.shape)
            return count, count if self.row_weight is None else self.row_weight.sum()
        counted = self.labels >= 0
        own = counted.to(wide(self.device)) if self.row_weight is None else torch.where(counted, self.row_weight, 0.0)
        if self.class_weight is not None:
            own = own * self.class_weight[self.labels.clamp(min=0)]
        return counted.sum().to(own.dtype), own.sum()


def _check_distillation(options: Options) -> None:
    for name in ("weight", "margin"):
        if getattr(options, name) is not None:
            raise TypeError(refuse(f"{name} does not apply to distillation", repr(getattr(options, name))))
    if options.label_smoothing:
        raise TypeError(refuse("label_smoothing does not apply to distillation", options.label_smoothing))
    if options.temperature is not None:
        raise TypeError(refuse("a distillation loss has its own temperature", f"temperature={options.temperature!r}"))


def _encoded(
    target: Any, options: Options, shape: tuple[int, ...], num_classes: int, precision: torch.dtype
) -> dict[str, Any]:
    """Return the fields of a softmax problem that its target fills."""
    loss, full = options.loss or DEFAULT_LOSS, (*shape, num_classes)
    is_distilled = loss.needs_teacher
    if isinstance(target, TopK):
        if not is_distilled:
            raise TypeError(refuse("a TopK target needs a distillation loss", repr(loss)))
        k = target.indices.shape[-1]
        listed, bad = _distinct(target.indices.reshape(-1, k).long(), num_classes)
        return {"soft": target.probabilities.reshape(-1, k), "listed": listed, "bad": bad}
    if is_distilled:
        if tuple(target.shape) != full:
            raise ValueError(refuse(f"a teacher must be logits of the student's shape {full}", describe(target)))
        return {"soft": target.reshape(-1, num_classes).to(torch.promote_types(target.dtype, precision))}
    if not target.is_floating_point():
        check_shape("labels must have", target, shape, ", one a row")
        labels, bad = _counted_labels(target, num_classes, options)
        return {"labels": labels, "bad": bad}
    if tuple(target.shape) != full:
        raise ValueError(refuse(f"a floating target must have the logits' shape {full}", describe(target)))
    if loss.needs_hard_target:
        raise ValueError(refuse(f"{loss!r} needs integer labels", describe(target)))
    if loss.needs_unit_mass and target.device.type == "cpu" and is_readable():
        off = (target.detach().double().sum(-1) - 1).abs().max() if target.numel() else 0
        if not off <= 1e-2:
            raise ValueError(refuse(f"{loss!r} needs targets that sum to 1", f"a sum off by {off:g}"))
    return {"soft": target.reshape(-1, num_classes).to(precision)}


def _counted_labels(target: Tensor, num_classes: int, options: Options) -> tuple[Tensor, Tensor | None]:
    """Return labels, -1 where ignored; and which are out of range, where that cannot raise."""
    given = target.reshape(-1)
    labels = int64_labels(given, options.ignore_index)
    ignored = labels == int(options.ignore_index)
    bad = ~ignored & ((labels < 0) | (labels >= num_classes))
    if not is_readable() or labels.device.type != "cpu":  # a device is not worth waiting for: such rows become NaN
        return torch.where(ignored, -1, torch.where(bad, 0, labels)), bad
    if bool(bad.any()):
        row = int(bad.long().argmax())
        asked = f"labels must lie in 0..{num_classes - 1} or equal ignore_index={options.ignore_index}"
        raise ValueError(refuse(asked, f"{given[row].item()} in row {row}"))
    return torch.where(ignored, -1, labels), None


def _distinct(indices: Tensor, num_classes: int) -> tuple[Tensor, Tensor | None]:
    """Return a teacher's classes; and the rows whose classes are none, where that cannot raise."""
    ordered = indices.sort(-1).values
    bad = (ordered[:, 0] < 0) | (ordered[:, -1] >= num_classes) | (ordered.diff(dim=-1) == 0).any(-1)
    if not is_readable() or indices.device.type != "cpu":
        return torch.where(bad[:, None], 0, indices), bad
    if bool(bad.any()):
        row = int(bad.long().argmax())
        asked = f"TopK indices must be distinct classes in 0..{num_classes - 1}"
        raise ValueError(refuse(asked, f"{indices[row].tolist()} in row {row}"))
    return indices, None
