"""How `crossent.core.target.encode` looks at the values of a target in tensors.

A label out of range raises in this machine's memory. Elsewhere (a recorded or transformed program, another device) it
becomes `BAD`, and its loss NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from crossent.core.target import Asked, Target, Teacher, encode
from crossent.errors import refuse
from crossent.losses import DEFAULT_LOSS
from crossent.numpy.options import Options

from .tensors import describe, int64_labels, is_readable

__all__ = ["encoded", "good"]

BAD = -2
"""The label of a row or entry that is out of range. A row or entry that does not count has the label -1."""


@dataclass(frozen=True)
class TorchTargets:
    """The library of tensors.

    Parameters
    ----------
    precision : torch.dtype
        Of the computation, and so of floating targets.
    """

    precision: torch.dtype

    def array(self, value: Any, name: str) -> Tensor:
        if not isinstance(value, Tensor):
            raise TypeError(refuse(f"{name} must be a tensor", describe(value)))
        return value

    def kind(self, array: Tensor) -> Literal["integer", "bool", "floating"]:
        if array.dtype is torch.bool:
            return "bool"
        return "floating" if array.is_floating_point() else "integer"

    def describe(self, value: Any) -> str:
        return describe(value)

    def labels(self, target: Tensor, asked: Asked) -> tuple[Tensor, None]:
        given = target.reshape(-1)
        labels = int64_labels(given, asked.ignore_index)
        ignored = labels == asked.ignore_index
        bad = ~ignored & ((labels < 0) | (labels >= asked.num_classes))
        if _can_raise(labels) and bool(bad.any()):
            row = int(bad.long().argmax())
            asked_for = f"labels must lie in 0..{asked.num_classes - 1} or equal ignore_index={asked.ignore_index}"
            raise ValueError(refuse(asked_for, f"{given[row].item()} in row {row}"))
        return torch.where(ignored, -1, torch.where(bad, BAD, labels)), None

    def distributions(self, target: Tensor, asked: Asked) -> Tensor:
        if asked.loss.needs_unit_mass and _can_raise(target):
            off = (target.detach().double().sum(-1) - 1).abs().max() if target.numel() else 0
            if not off <= 1e-2:
                raise ValueError(refuse(f"{asked.loss!r} needs targets that sum to 1", f"a sum off by {off:g}"))
        return target.reshape(-1, asked.num_classes).to(self.precision)

    def entry_labels(self, target: Tensor, asked: Asked) -> Tensor:
        labels = int64_labels(target, asked.ignore_index)
        ignored = labels == asked.ignore_index
        bad = ~ignored & (labels != 0) & (labels != 1)
        if _can_raise(labels) and bool(bad.any()):
            index = tuple(int(i) for i in bad.nonzero()[0])
            asked_for = f"integer targets must be 0, 1 or ignore_index={asked.ignore_index}"
            raise ValueError(refuse(asked_for, f"{target[index].item()} at index {index}"))
        return torch.where(ignored, -1, torch.where(bad, BAD, labels))

    def probabilities(self, target: Tensor, asked: Asked) -> Tensor:
        return target.to(self.precision)

    def teacher(self, logits: Tensor, asked: Asked) -> Tensor:
        return logits.reshape(-1, asked.num_classes).to(torch.promote_types(logits.dtype, self.precision))

    def top_k(self, indices: Tensor, probabilities: Tensor, asked: Asked) -> Teacher:
        k = indices.shape[-1]
        indices, listed = indices.reshape(-1, k).long(), probabilities.reshape(-1, k)
        ordered = indices.sort(-1).values
        bad = (ordered[:, 0] < 0) | (ordered[:, -1] >= asked.num_classes) | (ordered.diff(dim=-1) == 0).any(-1)
        if _can_raise(indices) and bool(bad.any()):
            row = int(bad.long().argmax())
            asked_for = f"TopK indices must be distinct classes in 0..{asked.num_classes - 1}"
            raise ValueError(refuse(asked_for, f"{indices[row].tolist()} in row {row}"))
        rest = 1 - listed.sum(-1)
        rounding = 4 * k * torch.finfo(listed.dtype).eps
        remainder = torch.where((rest > rounding) & (k < asked.num_classes), rest, 0.0)
        return Teacher(torch.where(bad[:, None], BAD, indices), listed, remainder)


def _can_raise(tensor: Tensor) -> bool:
    """Return whether wrong values raise. On another device they do not, as nothing waits for it."""
    return is_readable() and tensor.device.type == "cpu"


def encoded(target: Any, options: Options, shape: tuple[int, ...], num_classes: int, precision: torch.dtype) -> Target:
    """Return the target of rows of the given shape, without its weights.

    Raises
    ------
    TypeError, ValueError
        If it does not fit.
    """
    loss = options.loss or DEFAULT_LOSS
    is_softmax = options.kind == "softmax"
    asked = Asked(
        loss=loss,
        link=options.kind,
        shape=shape,
        num_classes=num_classes,
        class_weight=options.weight if is_softmax and loss.needs_teacher else None,  # which is refused
        label_smoothing=options.label_smoothing,
        ignore_index=int(options.ignore_index),
        margin=options.margin,
    )
    return encode(target, asked, TorchTargets(precision))


def good(labels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return labels with class 0 in the place of bad ones, and which are bad (None if bad ones have raised)."""
    if _can_raise(labels):
        return labels, None
    bad = labels == BAD
    return torch.where(bad, 0, labels), bad
