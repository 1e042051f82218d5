"""The reduction of losses that are tensors: `core.reduction`, where counts and the normalizer may be tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crossent.core.reduction import Reduction
from crossent.errors import check_number, refuse
from crossent.numpy.options import Options

from .tensors import describe, is_readable, wide

__all__ = ["TensorReduction", "number"]


def number(name: str, value: Any, like: Tensor, **bounds: Any) -> Any:
    """Return a number within bounds; a tensor of one stays a tensor, with its gradient.

    Raises
    ------
    ValueError
        If it is none, or lies outside the bounds and can be looked at.
    """
    if not isinstance(value, Tensor):
        return check_number(name, value, **bounds)
    if value.shape != () or value.is_complex() or value.dtype is torch.bool:
        raise ValueError(refuse(f"{name} must be a finite number", describe(value)))
    if value.device.type == "cpu" and is_readable():
        check_number(name, value.item(), **bounds)
    return value.to(like)


@dataclass(frozen=True)
class TensorReduction:
    """How the losses of rows become one tensor.

    Attributes
    ----------
    rule : Reduction
        What was asked for, without a normalizer that is a tensor.
    normalizer : tensor or None
        That normalizer.
    """

    rule: Reduction
    normalizer: Tensor | None = None

    @classmethod
    def of(cls, options: Options) -> TensorReduction:
        """Return the reduction that the options ask for.

        Raises
        ------
        ValueError
            If there is none.
        """
        is_tensor = isinstance(options.normalizer, Tensor)
        rule = Reduction(options.reduction, None if is_tensor else options.normalizer, options.on_empty)  # type: ignore[arg-type]
        return cls(rule, options.normalizer if is_tensor else None)

    @property
    def is_none(self) -> bool:
        return self.rule.kind == "none"

    def factor(self, counts: tuple[Any, Any], device: Any) -> tuple[Tensor, Tensor]:
        """Return the factor of a row's loss in the value, and whether the mean is empty (then the factor is 0).

        `counts` are the number of rows that count and their summed weights.
        """
        one = torch.ones((), dtype=wide(device), device=device)
        if self.rule.kind != "mean":
            return one, one == 0
        if self.normalizer is not None:
            total = number("normalizer (unless None or 'count')", self.normalizer, one, above=0)
            return torch.where(total > 0, 1.0 / total, math.nan), one == 0
        denominator = self.rule.denominator(*counts) * one
        is_empty = denominator == 0
        if self.rule.on_empty == "raise" and is_readable() and bool(is_empty):
            self.rule.resolve(0.0, 0.0)
        return torch.where(is_empty, 0.0, 1.0 / torch.where(is_empty, 1.0, denominator)), is_empty

    def value(self, total: Tensor, factor: Tensor | float, is_empty: Tensor) -> Tensor:
        """Return ``factor · total``, or what was asked for in the place of an empty mean."""
        empty = 0.0 if self.rule.on_empty == "zero" else math.nan
        return torch.where(is_empty, empty, torch.where(is_empty, 0.0, total) * factor)
