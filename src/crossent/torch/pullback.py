"""The gradient of a function inside a backward pass, where its arguments have a history of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["pull_back"]


def pull_back(
    function: Callable[..., Any],
    inputs: Sequence[Tensor | None],
    upstream: Sequence[Tensor | None],
    *,
    create_graph: bool = True,
) -> list[Tensor | None]:
    """Return the gradients of ``Σ upstream · function(*inputs)`` in each input that requires one, and None for others.

    The inputs are tensors that a backward pass kept. One of them may be computed from another, be the same tensor as
    another, or carry hooks. Autograd follows all of that after this function returns. If `torch.autograd.grad` were
    given the tensors themselves, it would follow the same history a first time here, and the sums would count it twice.
    So each input is differentiated at an alias, which nothing leads to but the function.

    Parameters
    ----------
    function : of the inputs; returns a tensor or a tuple of tensors
    inputs : tensors or None
    upstream : one for each floating tensor that the function returns, or None for zeros
    create_graph : bool
        Whether the gradients are to be differentiated again, in the inputs and in `upstream`.
    """
    aliases: dict[int, Tensor] = {}
    with torch.enable_grad():
        for index, tensor in enumerate(inputs):
            if tensor is not None and tensor.requires_grad:
                aliases[index] = tensor.view_as(tensor)
        outputs = function(*(aliases.get(index, tensor) for index, tensor in enumerate(inputs)))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    numbers = [output for output in outputs if output.is_floating_point()]
    pairs = [(o, u) for o, u in zip(numbers, upstream, strict=True) if u is not None and o.requires_grad]
    found = torch.autograd.grad(
        [o for o, _ in pairs],
        list(aliases.values()),
        [u for _, u in pairs],
        create_graph=create_graph,
        allow_unused=True,
    )
    gradients = dict(zip(aliases, found, strict=True))
    return [gradients.get(index) for index in range(len(inputs))]
