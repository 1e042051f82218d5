"""The one pair of forward and backward behind every loss that is computed at once, and gradients inside a backward.

A `Work` computes a loss. It computes value and gradient in one pass if the factor of each row is known before. Backward
then hands the gradient out. It does so once, because autograd may write into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["OfLogits", "Work", "at_once", "pull_back", "recomputed", "record"]

Function = Callable[..., Any]
Saved = Callable[[], tuple[Tensor, ...]]


class Work(Protocol):
    """A loss of a few tensors, and its gradients."""

    @property
    def composed(self) -> Function:
        """The same function of the tensors in operations that PyTorch differentiates, for gradients of gradients."""

    def forward(self, tensors: Sequence[Any], wanted: Sequence[bool]) -> tuple[tuple[Tensor, ...], list[Any]]:
        """Return what the loss returns, and what backward is to be given: `kept`."""

    def gradients(
        self, saved: Saved, kept: list[Any], upstream: Sequence[Any], wanted: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """Return the gradients of Σ upstream · output that are wanted, and None for others.

        `saved` returns the tensors, and raises if one was changed in place since. It must be called at most once: under
        checkpointing the first call computes the tensors again, and a second call finds nothing.
        """


class _Loss(torch.autograd.Function):
    """A loss that is computed already."""

    @staticmethod
    def forward(
        ctx: Any, work: Work, outputs: tuple[Tensor, ...], kept: list[Any], others: list[Tensor], *tensors: Any
    ) -> Any:
        ctx.save_for_backward(*tensors, *others)  # the work reads the others, too: autograd notices if they change
        ctx.work, ctx.kept, ctx.count = work, kept, len(tensors)
        if len(outputs) == 1:
            return outputs[0]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(output for output in outputs if not output.is_floating_point()))
        return outputs

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        if upstream[0] is None and all(gradient is None for gradient in upstream):
            return (None,) * (4 + ctx.count)
        if torch.is_grad_enabled():  # create_graph: the gradients must be differentiable themselves
            found: Any = pull_back(ctx.work.composed, ctx.saved_tensors[: ctx.count], upstream)
        else:
            wanted = ctx.needs_input_grad[4:]
            found = ctx.work.gradients(lambda: ctx.saved_tensors[: ctx.count], ctx.kept, upstream, wanted)
        return None, None, None, None, *found


record = _Loss.apply
"""Of a work, what its `forward` returned, the tensors that it reads beside those of the loss, and these: the loss."""


def at_once(work: Work, tensors: Sequence[Any], others: list[Tensor]) -> Any:
    """Return a loss, differentiable in the tensors (or None); `others` are those that the work reads beside them."""
    wanted = [tensor is not None and tensor.requires_grad and torch.is_grad_enabled() for tensor in tensors]
    outputs, kept = work.forward(tensors, wanted)
    if True in wanted:
        return record(work, outputs, kept, others, *tensors)
    return outputs if len(outputs) > 1 else outputs[0]


class OfLogits:
    """A loss of logits: a `Work` of one tensor.

    Parameters
    ----------
    solve : of whether the gradient is wanted
        It returns the value, and the gradient for the upstream factor 1, or None if the gradient must wait for the
        factor.
    differentiate : of the upstream gradient
        It returns the gradient, where `solve` returned none or autograd asks a second time.
    composed : see `Work`
    """

    def __init__(
        self, solve: Callable[[bool], tuple[Tensor, Any]], differentiate: Callable[[Tensor], Tensor], composed: Function
    ):
        self.solve, self.differentiate, self.composed = solve, differentiate, composed

    def forward(self, tensors: Sequence[Any], wanted: Sequence[bool]) -> tuple[tuple[Tensor, ...], list[Any]]:
        value, gradient = self.solve(wanted[0])
        return (value,), [] if gradient is None else [gradient]

    def gradients(
        self, saved: Saved, kept: list[Any], upstream: Sequence[Any], wanted: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        if not kept:
            saved()
            return [self.differentiate(upstream[0])]
        gradient, factor = kept.pop(), upstream[0].item()
        return [gradient if factor == 1.0 else gradient.mul_(factor)]


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
    upstream : one for each floating tensor that the function returns, or None for zeros; further ones are not read
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
    pairs = [(o, u) for o, u in zip(numbers, upstream, strict=False) if u is not None and o.requires_grad]
    found = torch.autograd.grad(
        [o for o, _ in pairs],
        list(aliases.values()),
        [u for _, u in pairs],
        create_graph=create_graph,
        allow_unused=True,
    )
    gradients = dict(zip(aliases, found, strict=True))
    return [gradients.get(index) for index in range(len(inputs))]


def _gradient_of(function: Function, count: int) -> Function:
    """The gradient of a function of `count` tensors, as a function of those and of the upstream gradients."""

    def gradient(*arguments: Tensor) -> tuple[Tensor, ...]:
        inputs, upstream = arguments[:count], arguments[count:]
        is_differentiated = torch.is_grad_enabled()
        if not is_differentiated:
            inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
        found = pull_back(function, inputs, upstream, create_graph=is_differentiated)
        return tuple(torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True))

    return gradient


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        outputs = function(*inputs)
        ctx.are_numbers = [tensor.is_floating_point() for tensor in outputs]
        ctx.mark_non_differentiable(
            *(o for o, is_number in zip(outputs, ctx.are_numbers, strict=True) if not is_number)
        )
        return outputs

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        inputs = ctx.saved_tensors
        upstream = tuple(g for g, is_number in zip(upstream, ctx.are_numbers, strict=True) if is_number)
        gradient = _gradient_of(ctx.function, len(inputs))
        if torch.is_grad_enabled():
            return None, *_Recomputed.apply(gradient, *inputs, *upstream)
        return None, *gradient(*inputs, *upstream)


def recomputed(function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return ``function(*inputs)``, a tuple of tensors. Backward computes what lies between again.

    `torch.utils.checkpoint` does this for the first derivative. But its gradient, if it is differentiated again, keeps
    all that the recomputation made. Here the gradient is such a function itself. Of the tensors that want a gradient
    the function must read its arguments only.
    """
    return _Recomputed.apply(function, *inputs)
