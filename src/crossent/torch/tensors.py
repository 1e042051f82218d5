"""Tensors as the NumPy front end sees them, and what kind of computation PyTorch is asking for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from crossent.core.target import TopK
from crossent.errors import refuse
from crossent.numpy.arrays import BFLOAT16_BITS
from crossent.numpy.options import Options

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PLAIN = (Tensor, torch.nn.Parameter)
"""Ordinary tensors; a subclass may be anything."""


def describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}, dtype {value.dtype}, on {value.device}"
    return f"{type(value).__name__} {value!r}"[:100]


def floating(value: Any, name: str) -> Tensor:
    """Return value if it is a tensor of a floating dtype that can be computed with.

    Raises
    ------
    TypeError
    """
    if isinstance(value, Tensor) and value.dtype in FLOATING:
        return value
    asked = f"{name} must be a tensor of float16, bfloat16, float32 or float64"
    raise TypeError(refuse(asked, describe(value)))


NUMBERS = ("temperature", "softcap", "prior_strength", "alpha", "normalizer")
"""Options that are numbers, or tensors of one number, which may want a gradient."""


def tensors_of(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among the values."""
    return [value for value in values if value is not None and isinstance(value, Tensor)]


def _of_target(target: Any) -> list[Tensor]:
    return tensors_of(target if isinstance(target, TopK) else (target,))


def other_tensors(target: Any, options: Options) -> list[Tensor]:
    """Return the tensors of a loss beside its logits."""
    return _of_target(target) + tensors_of(options)


def of_each_class(target: Any, options: Options) -> list[Tensor]:
    """Return the tensors that the losses of rows read; all others are applied before or after."""
    found = tensors_of((options.weight, options.pos_weight))
    is_soft = isinstance(target, TopK) or (isinstance(target, Tensor) and target.is_floating_point())
    return _of_target(target) + found if is_soft else found


def wants_gradients(tensors: Iterable[Any]) -> bool:
    """Whether any of the tensors (or None) is differentiated."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def is_traced() -> bool:
    """Whether a program is being recorded, so that no value can be looked at."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def is_transformed() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_readable() -> bool:
    """Whether the values of tensors can be looked at, so that bad ones raise."""
    return not is_traced() and not is_transformed()


def varies(tensor: Tensor) -> bool:
    """Whether a derivative of any kind is asked for in the tensor, or `vmap` runs over it."""
    if tensor.requires_grad and torch.is_grad_enabled():
        return True
    if not is_transformed():
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def wide(device: torch.device) -> torch.dtype:
    """Return the dtype in which sums over rows run on a device; Metal has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def int64_labels(labels: Tensor, ignore_index: Any) -> Tensor:
    """Return integer labels as int64, so that comparing them with `ignore_index` never wraps.

    A uint64 label beyond int64 becomes a negative number other than `ignore_index`. It stays out of range.
    """
    found = labels.long()
    if labels.dtype is not torch.uint64:
        return found
    return torch.where(found < 0, -2 if ignore_index == -1 else -1, found)


def is_distributed(tensor: Tensor) -> bool:
    """Return whether it is a DTensor, by its name: importing the class takes a second, and few programs need it."""
    return type(tensor).__name__ == "DTensor"


def as_numpy(tensor: Tensor) -> np.ndarray:
    """Return the tensor's memory as an array; bfloat16 as its bits."""
    tensor = (tensor.detach() if tensor.requires_grad else tensor).resolve_neg()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16_BITS)
    return tensor.numpy()


def _numbers(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().resolve_neg()
    return (value.double() if value.is_floating_point() else value).numpy()


def numpy_target(target: Any) -> Any:
    """Return a target for the NumPy front end."""
    if isinstance(target, TopK):
        return TopK(_numbers(target.indices), _numbers(target.probabilities))
    if isinstance(target, Tensor):
        return as_numpy(target)
    return target


def numpy_options(options: Options) -> Options:
    """Return the options with arrays in place of tensors."""
    if not tensors_of(options):
        return options
    return Options(*(_numbers(value) for value in options))


def as_tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.asarray(value))
