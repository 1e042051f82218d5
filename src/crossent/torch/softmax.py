"""The problem of the softmax link: rows of K logits with a label, a distribution or a teacher each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from crossent.core.target import Teacher
from crossent.errors import refuse
from crossent.numpy.options import Options

from . import operations, rows
from .problem import Problem, class_weights, common, row_weights, weigh
from .target import encoded, good
from .tensors import wide

__all__ = ["SoftmaxProblem"]


@dataclass(frozen=True, kw_only=True)
class SoftmaxProblem(Problem):
    """Rows of K logits with a label, a distribution or a teacher each.

    Attributes
    ----------
    labels : (N,) int64, -1 for rows that do not count; or None
    soft : (N, K) distributions or a teacher's logits, or (N, k) probabilities of a top-k teacher; or None
    listed, remainder : (N, k) classes of a top-k teacher, and the mass (N,) that it leaves over; or None
    margin : what is taken off the true class's logit, a number or (K,); or None
    native : bool
        Whether PyTorch's own operations compute the losses of rows.
    """

    labels: Tensor | None = None
    soft: Tensor | None = None
    listed: Tensor | None = None
    remainder: Tensor | None = None
    class_weight: Tensor | None = None
    row_weight: Tensor | None = None
    label_smoothing: float = 0.0
    margin: Tensor | None = None
    native: bool = False

    OF_ROWS: ClassVar[tuple[str, ...]] = ("labels", "soft", "listed", "remainder", "bad", "row_weight")

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
        loss = fields["loss"]
        if loss.needs_teacher:
            if options.temperature is not None:
                got = f"temperature={options.temperature!r}"
                raise TypeError(refuse("a distillation loss has its own temperature", got))
            if fields["offset"] is not None:
                # The loss divides by its temperature itself, and the prior comes behind that.
                fields["offset"] = fields["offset"] * loss.parameter
        given = encoded(target, options, shape, num_classes, fields["precision"])
        soft, labels = given.soft, given.labels
        listed = remainder = bad = margin = None
        if labels is not None:
            labels, bad = good(labels)
        elif isinstance(given.teacher, Teacher):
            listed, soft, remainder = given.teacher
            listed, bad = good(listed)
            bad = None if bad is None else bad.any(-1)
        elif given.teacher is not None:
            soft = given.teacher
        weight, row_weight = class_weights(options, num_classes, device), row_weights(options, shape, device)
        if options.margin is not None:
            margin = torch.as_tensor(options.margin, dtype=fields["precision"], device=device)
        return cls(
            shape=shape,
            label_smoothing=options.label_smoothing,
            class_weight=None if weight is None else weight.to(wide(device)),
            row_weight=None if row_weight is None else row_weight.to(wide(device)),
            margin=margin,
            labels=labels,
            soft=soft,
            listed=listed,
            remainder=remainder,
            bad=bad,
            native=native,
            **fields,
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
            teacher = Teacher(self.listed, self.soft, self.remainder)
            losses = operations.top_k_losses(z, teacher, self.loss.parameter)
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
