"""A loss as one frozen record of tensors: its target, weights, maps and reduction, each encoded and refused once.

The kernels (`rows`) or PyTorch's own operations (`operations`) compute the losses of rows. Everything around them is
PyTorch's operations, so PyTorch records, transforms and differentiates the whole loss, to any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from crossent.errors import refuse
from crossent.losses import DEFAULT_LOSS, Loss
from crossent.numpy.options import Options
from crossent.numpy.statistics import STATISTICS_NEED

from .reduction import TensorReduction, number
from .tensors import describe, wide

__all__ = ["Problem", "check_shape", "class_weights", "common", "row_weights", "weigh"]


def check_shape(what: str, tensor: Tensor, shape: tuple[int, ...], note: str = "") -> None:
    """Refuse a tensor of another shape.

    Raises
    ------
    ValueError
    """
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(refuse(f"{what} shape {tuple(shape)}{note}", describe(tensor)))


def row_weights(options: Options, shape: tuple[int, ...], device: Any) -> Tensor | None:
    """Return the rows' weights, (N,), or None.

    Raises
    ------
    ValueError
        If there is not one a row.
    """
    if options.sample_weight is None:
        return None
    weight = torch.as_tensor(options.sample_weight, device=device)
    try:
        return weight.expand(shape).reshape(-1)
    except RuntimeError:
        asked = f"sample_weight must have one weight a row, shape {tuple(shape)}"
        raise ValueError(refuse(asked, describe(weight))) from None


def class_weights(options: Options, num_classes: int, device: Any) -> Tensor | None:
    """Return the classes' weights, (K,), or None.

    Raises
    ------
    ValueError
        If there is not one a class.
    """
    if options.weight is None:
        return None
    weight = torch.as_tensor(options.weight, device=device)
    check_shape("weight must have one weight a class,", weight, (num_classes,))
    return weight


def common(options: Options, num_classes: int, logits: Tensor, native: bool) -> dict[str, Any]:
    """Return the fields of a problem that both links fill in the same way.

    Parameters
    ----------
    logits : any tensor of the logits' dtype and device
    native : bool
        Whether PyTorch's own operations compute the losses of rows.

    Raises
    ------
    ValueError
        If an option does not fit.
    """
    device = logits.device
    result_dtype = torch.float64 if logits.dtype is torch.float64 else torch.float32
    # In this machine's memory PyTorch's own operations run in double precision, because they lose digits in single.
    precision = torch.float64 if native and device.type == "cpu" else result_dtype
    like = torch.empty((), dtype=precision, device=device)
    found: dict[str, Any] = {
        "loss": options.loss or DEFAULT_LOSS,
        "num_classes": num_classes,
        "device": device,
        "precision": precision,
        "result_dtype": result_dtype,
        "reduction": TensorReduction.of(options),
    }
    for name in ("softcap", "temperature"):
        value = getattr(options, name)
        found[name] = None if value is None else number(name, value, like, above=0)
    found["offset"] = None
    if options.prior is not None:
        prior = torch.as_tensor(options.prior, device=device).to(wide(device))
        check_shape("prior must have one probability a class,", prior, (num_classes,))
        logs = prior.log() if options.kind == "softmax" else prior.log() - torch.log1p(-prior)
        found["offset"] = number("prior_strength", options.prior_strength, logs) * logs
    return found


def weigh(losses: Tensor, weight: Tensor | None) -> Tensor:
    return losses if weight is None else torch.where(weight == 0, 0.0, losses * weight)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What the losses of both links have in common.

    Every tensor that may want a gradient is a field of its own, where the blocks of a linear head find it.

    Attributes
    ----------
    shape : of what reduction "none" returns
    precision, result_dtype : of the computation and of the result
    softcap, temperature, offset : the maps of the logits, each a number, a tensor or None
    bad : bool tensor or None
        Rows or entries whose label is out of range where nothing can raise.
    """

    loss: Loss
    shape: tuple[int, ...]
    num_classes: int
    device: torch.device
    precision: torch.dtype
    result_dtype: torch.dtype
    reduction: TensorReduction
    softcap: Any
    temperature: Any
    offset: Tensor | None
    bad: Tensor | None = None

    def part(self, rows: slice) -> Self:
        """The problem of some of the rows."""
        raise NotImplementedError

    def losses(self, logits: Tensor) -> Tensor:
        """Return the weighted losses of logits (N, K), in the widest dtype."""
        raise NotImplementedError

    def statistics(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Return lse, entropy, log_prob, argmax and correct of each row.

        Raises
        ------
        TypeError
            If the target is neither labels nor distributions.
        """
        raise TypeError(refuse(STATISTICS_NEED, "another target"))

    @property
    def counts(self) -> tuple[Any, Any]:
        """The number of rows that count, and their summed weights."""
        raise NotImplementedError

    def mapped(self, logits: Tensor) -> Tensor:
        """Soft cap, temperature and prior, as in `crossent.core.logit_maps`."""
        if (cap := self.softcap) is not None:
            is_finite = logits.isfinite()
            finite = torch.where(is_finite, logits, 0.0) if isinstance(cap, Tensor) else logits
            logits = torch.where(is_finite, cap * torch.tanh(finite / cap), logits)
        if isinstance(self.temperature, Tensor):  # an infinite logit must not enter the temperature's gradient
            is_finite = logits.isfinite()
            logits = torch.where(is_finite, torch.where(is_finite, logits, 0.0) / self.temperature, logits)
        elif self.temperature is not None:
            logits = logits / self.temperature
        return logits if self.offset is None else logits + self.offset.to(logits)

    def scale(self) -> tuple[Tensor, Tensor]:
        """Return the factor of a row's loss in the value, and whether the mean is empty."""
        return self.reduction.factor(self.counts, self.device)

    def reduce(self, losses: Tensor) -> Tensor:
        """Return the value of the weighted losses of all rows."""
        if self.reduction.is_none:
            return losses.reshape(self.shape).to(self.result_dtype)
        return self.reduction.value(losses.sum(), *self.scale()).to(self.result_dtype)
