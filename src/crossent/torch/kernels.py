"""Dense losses in ordinary memory, by the NumPy front end's kernels: value and gradient in one pass.

The results have the bits of the NumPy front end's. What asks for more (a gradient of the gradient, a factor per row) is
computed again or by `composed`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossent.core.target import Target
from crossent.kernels import registry
from crossent.losses import DEFAULT_LOSS
from crossent.numpy.options import Options
from crossent.numpy.problem import make_problem

from .autograd import KnownGradient, WaitingGradient, at_once
from .tensors import PLAIN, as_numpy, as_tensor, is_readable, numpy_options, numpy_target, other_tensors

__all__ = ["dense", "mean_of_labels"]

Differentiable = Callable[[Tensor], Tensor]

MOST_ELEMENTS = 1 << 20
"""Above this the checks of the general way take less than a quarter of the time (measured: 0.3 ms of Python)."""


def _gradient_tensor(gradient: Any) -> Tensor | None:
    """Return the gradient as a tensor of the logits' dtype."""
    if gradient is None:
        return None
    if gradient.dtype.kind == "V":
        return torch.from_numpy(gradient.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(gradient)


def dense(input: Tensor, target: Any, options: Options, composed: Differentiable) -> Tensor:
    """Return the loss of logits in ordinary memory; `composed` is the same function of them for higher derivatives."""
    problem = make_problem(as_numpy(input), numpy_target(target), numpy_options(options))

    def solve(with_gradient: bool) -> tuple[Tensor, Any]:
        value, gradient = problem.solve(with_grad=with_gradient)
        return as_tensor(value), _gradient_tensor(gradient)

    def differentiate(upstream: Tensor) -> Tensor:
        is_none = problem.evaluator.reduction.kind == "none"
        scaled = problem.with_factor(upstream.double().numpy()) if is_none else problem.with_scale(upstream.item())
        return _gradient_tensor(scaled.solve(with_grad=True)[1])  # type: ignore[return-value]

    work: Any = KnownGradient(solve, composed)
    # A row's part of a mean may be too small for float16 before the factor of a scaled loss arrives.
    if problem.evaluator.reduction.kind == "none" or input.dtype is torch.float16:
        work = WaitingGradient(lambda: solve(False)[0], differentiate, composed)
    return at_once(work, (input,), other_tensors(target, options))


def _is_plain(tensor: Any) -> bool:
    return (
        type(tensor) in PLAIN
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
    )


def mean_of_labels(input: Any, target: Any, ignore_index: int, composed: Differentiable) -> Tensor | None:
    """Return the mean cross-entropy of a batch of logits (N, C) and int64 labels (N,); None if anything is unusual.

    It is the call that training loops make most. What `dense` decides (options, routes, maps, reduction) takes several
    times as long as a small batch's arithmetic. This way computes the same numbers by the same kernel.
    """
    if not (
        _is_plain(input)
        and _is_plain(target)
        and target.dtype is torch.int64
        and input.dtype in _ARRAYS
        and input.ndim == 2
        and target.shape == input.shape[:1]
        and 0 < input.numel() <= MOST_ELEMENTS
        and -(2**63) <= ignore_index < 2**63
        and is_readable()
    ):
        return None
    view, form = _ARRAYS[input.dtype]
    logits, labels = view(input.detach()), target.numpy()
    twin = registry.find("float64" if input.dtype is torch.float64 else "float32")
    if not (logits.flags.aligned and labels.flags.aligned):
        return None
    rows = np.empty_like(labels)
    bad, count, _ = twin.scan_labels(labels, logits.shape[1], ignore_index, None, None, rows)
    if bad >= 0 or count == 0:
        return None
    of_rows = Target(logits.shape[1], rows)
    if form is not None and form not in twin.forms(of_rows, DEFAULT_LOSS):
        return None
    result_dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
    scale = 1.0 / count

    def solve(with_gradient: bool) -> tuple[Tensor, Any]:
        gradient = torch.empty_like(input, requires_grad=False) if with_gradient else None
        out = None if gradient is None else view(gradient)
        with np.errstate(all="ignore"):
            losses = twin.row_losses(logits, of_rows, DEFAULT_LOSS, scale, None, out)
            value = float(np.add.reduce(losses)) * scale
        return torch.scalar_tensor(value, dtype=result_dtype), gradient

    return at_once(KnownGradient(solve, composed), (input,), [target])


def _numbers(tensor: Tensor) -> np.ndarray:
    return tensor.numpy()


def _bits(tensor: Tensor) -> np.ndarray:
    return tensor.view(torch.int16).numpy().view(np.uint16)


_ARRAYS = {torch.float32: (_numbers, None), torch.float64: (_numbers, None), torch.bfloat16: (_bits, "bfloat16")}
"""How the kernels read logits, and which of their forms that is, by dtype."""
