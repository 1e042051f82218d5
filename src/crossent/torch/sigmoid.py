"""The problem of the sigmoid link: entries of logits, each a yes-or-no question of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from crossent.errors import refuse
from crossent.numpy.options import Options

from . import operations
from .problem import Problem, common, weigh
from .reduction import number
from .target import encoded, good
from .tensors import describe, wide

__all__ = ["SigmoidProblem"]


@dataclass(frozen=True, kw_only=True)
class SigmoidProblem(Problem):
    """Entries of logits of any shape, each a yes-or-no question of its own.

    Attributes
    ----------
    target : the logits' shape, in [0, 1]
    counted : bool tensor of entries that are not ignored, or None
    negative, positive : factors of the two terms, which broadcast to the shape
    factor : of each entry, or None
    """

    target: Tensor
    negative: Tensor
    positive: Tensor
    counted: Tensor | None = None
    factor: Tensor | None = None

    @classmethod
    def of(cls, target: Any, options: Options, shape: tuple[int, ...], logits: Tensor) -> SigmoidProblem:
        """Encode a target of entries of the given shape; `logits` are any tensor of the logits' dtype and device.

        Raises
        ------
        TypeError, ValueError
            If the target or an option does not fit.
        """
        fields = common(options, shape[-1] if shape else 1, logits, native=True)
        device = logits.device
        one = torch.ones((), dtype=fields["precision"], device=device)
        *rows, num_classes = shape or (1,)
        given = target[None] if not shape and isinstance(target, Tensor) else target
        found = encoded(given, options, tuple(rows), num_classes, one.dtype)
        counted = bad = None
        if found.labels is not None:
            counted = (found.labels != -1).reshape(shape)
            labels, bad = good(found.labels.reshape(shape))
            target = labels.clamp(min=0).to(one.dtype)
        else:
            target = found.soft.reshape(shape)  # type: ignore[union-attr]
        if options.label_smoothing:
            target = (1 - options.label_smoothing) * target + options.label_smoothing / 2
        negative, positive = one, one
        if options.alpha is not None:
            alpha = number("alpha", options.alpha, one, minimum=0, maximum=1)
            negative, positive = one * (1 - alpha), one * alpha
        if options.pos_weight is not None:
            positive = positive * torch.as_tensor(options.pos_weight, dtype=one.dtype, device=device)
        return cls(
            shape=shape,
            bad=bad,
            target=target,
            negative=negative,
            positive=positive,
            counted=counted,
            factor=_factor(options, shape, device),
            **fields,
        )

    def part(self, rows: slice) -> SigmoidProblem:
        names = ("target", "counted", "bad", "factor", "negative", "positive")
        found = {name: getattr(self, name) for name in names}
        parts = {
            name: value[rows]
            for name, value in found.items()
            if value is not None and value.ndim == len(self.shape) > 0 and value.shape[0] == self.shape[0]
        }
        return replace(self, shape=(rows.stop - rows.start, *self.shape[1:]), **parts)

    def losses(self, logits: Tensor) -> Tensor:
        z = self.mapped(logits.to(self.precision))
        losses = operations.entry_losses(z, self.target, self.negative, self.positive, self.loss).to(wide(self.device))
        if self.counted is not None:
            losses = torch.where(self.counted, losses, 0.0)
        if self.bad is not None:
            losses = losses * torch.where(self.bad, math.nan, 1.0)
        return weigh(losses, self.factor)

    @property
    def counts(self) -> tuple[Any, Any]:
        count = float(math.prod(self.shape)) if self.counted is None else self.counted.sum().to(wide(self.device))
        return count, count


def _factor(options: Options, shape: tuple[int, ...], device: Any) -> Tensor | None:
    """Return the factor of each entry: its weight times its row's."""
    factor: Tensor | None = None
    for name, value in (("weight", options.weight), ("sample_weight", options.sample_weight)):
        if value is None:
            continue
        weight = torch.as_tensor(value, device=device).to(wide(device))
        if name == "sample_weight" and len(shape) > 1:
            weight = weight[..., None]
        try:
            weight = weight.expand(shape)
        except RuntimeError:
            raise ValueError(refuse(f"{name} must broadcast to shape {shape}", describe(weight))) from None
        factor = weight if factor is None else factor * weight
    return factor
