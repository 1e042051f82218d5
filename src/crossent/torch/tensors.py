"""Tensors as the NumPy front end sees them, and what kind of computation PyTorch is asking for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from crossent.errors import refuse
from crossent.numpy.arrays import BFLOAT16_BITS
from crossent.numpy.heads import TopK
from crossent.numpy.options import Options

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_PLAIN = (Tensor, torch.nn.Parameter)


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


def tensors_of(*values: Any) -> list[Tensor]:
    """Return the tensors among the values, those of a TopK included."""
    found = [value for value in values if isinstance(value, Tensor)]
    for value in values:
        if type(value) is TopK:
            found += tensors_of(*value)
    return found


def other_tensors(target: Any, options: Options) -> list[Tensor]:
    """Return the tensors of a loss beside its logits."""
    return tensors_of(target, options.weight, options.pos_weight, options.sample_weight, options.prior, options.margin)


def wants_gradients(tensors: list[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def is_traced() -> bool:
    """Whether a program is being recorded, so that no value can be looked at."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


def is_transformed() -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_plain(tensors: list[Tensor]) -> bool:
    """Whether all are ordinary dense tensors, whose memory NumPy can see if it is this machine's."""
    return all(type(tensor) in _PLAIN and tensor.layout is torch.strided for tensor in tensors)


def is_distributed(*values: Any) -> bool:
    """Whether one is a DTensor. Asked by name: importing its module takes a second, and few programs need it."""
    return any(type(value).__name__ == "DTensor" for value in values)


def as_numpy(tensor: Tensor) -> np.ndarray:
    """Return the tensor's memory as an array; bfloat16 as its bits."""
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16_BITS)
    return tensor.numpy()


def _numbers(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    return (value.double() if value.is_floating_point() else value).numpy()


def numpy_target(target: Any) -> Any:
    """Return a target for the NumPy front end: labels as they are, half-precision distributions in float32."""
    if isinstance(target, TopK):
        return TopK(_numbers(target.indices), _numbers(target.probabilities))
    if isinstance(target, Tensor):
        target = target.detach()
        return (target.float() if target.dtype in (torch.float16, torch.bfloat16) else target).numpy()
    return target


_ARRAYS = ("weight", "pos_weight", "alpha", "sample_weight", "prior", "margin", "normalizer")


def numpy_options(options: Options) -> Options:
    """Return the options with arrays in place of tensors."""
    changed = {name: _numbers(v) for name in _ARRAYS if isinstance(v := getattr(options, name), Tensor)}
    return replace(options, **changed) if changed else options


def as_tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.asarray(value))
