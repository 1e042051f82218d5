"""Losses of distributed tensors (`DTensor`) whose rows are shared out among processes: data parallelism.

Every process computes the loss of its own rows; the sums and the mean's denominator are added up over the mesh, so that
the value is that of the whole batch on every process. Logits that are sharded along the classes are gathered first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from crossent.core.target import TopK
from crossent.errors import refuse
from crossent.numpy.options import Options

from .reduction import TensorReduction
from .sigmoid import SigmoidProblem
from .softmax import SoftmaxProblem
from .tensors import NUMBERS, describe, wide

__all__ = ["dense", "linear"]


class _Rows(NamedTuple):
    """How the rows of a loss are shared out.

    Attributes
    ----------
    mesh : DeviceMesh
    placements : of the rows; whatever else was split is gathered
    shape : of what reduction "none" returns, on all processes together
    class_axis : of a target that is a distribution
    """

    mesh: Any
    placements: list[Any]
    shape: tuple[int, ...]
    class_axis: int

    @property
    def partial(self) -> list[Any]:
        """The placements of sums over this process's rows."""
        return [Partial() if isinstance(p, Shard) else Replicate() for p in self.placements]

    @property
    def everywhere(self) -> list[Any]:
        return [Replicate()] * len(self.placements)

    def _distributed(self, tensor: Tensor) -> DTensor:
        """Return a distributed tensor; of an ordinary one every process holds the whole."""
        return tensor if isinstance(tensor, DTensor) else DTensor.from_local(tensor, self.mesh, self.everywhere)

    def local(self, tensor: Any) -> Any:
        """Return this process's part of a tensor whose first axis is that of the rows."""
        if not isinstance(tensor, Tensor):
            return tensor
        placed = self._distributed(tensor).redistribute(self.mesh, self.placements)
        return placed.to_local(grad_placements=self.placements)

    def whole(self, tensor: Any) -> Any:
        """Return a tensor whole, as every process needs it; the gradients of all processes are added up."""
        if not isinstance(tensor, Tensor) or not (isinstance(tensor, DTensor) or tensor.requires_grad):
            return tensor
        placed = self._distributed(tensor).redistribute(self.mesh, self.everywhere)
        return placed.to_local(grad_placements=self.partial)

    def broadcast(self, tensor: Any, ndim: int) -> Any:
        """Return this process's part of a tensor that is to be broadcast to `ndim` axes, the rows' axis first."""
        if isinstance(tensor, Tensor) and tensor.ndim == ndim > 0 and tensor.shape[0] == self.shape[0]:
            return self.local(tensor)
        return self.whole(tensor)

    def added(self, tensor: Tensor) -> Tensor:
        """Return the sum over the processes, on each of them."""
        return DTensor.from_local(tensor, self.mesh, self.partial).redistribute(self.mesh, self.everywhere).to_local()

    def options(self, options: Options) -> Options:
        """Return the options of this process's rows."""
        ndim = len(self.shape)
        is_sigmoid = options.kind == "sigmoid"
        entries = self.broadcast if is_sigmoid else lambda tensor, _: self.whole(tensor)
        rows = max(ndim - 1, 1) if is_sigmoid else ndim
        changed = {name: self.whole(getattr(options, name)) for name in ("prior", "margin", *NUMBERS)}
        if isinstance(options.normalizer, DTensor):  # it divides the sum over all processes
            changed["normalizer"] = options.normalizer.full_tensor()
        else:
            changed["normalizer"] = options.normalizer
        return options._replace(
            weight=entries(options.weight, ndim),
            pos_weight=entries(options.pos_weight, ndim),
            sample_weight=self.broadcast(options.sample_weight, rows),
            **changed,
        )


def _placements(tensor: DTensor, has_rows: bool) -> list[Any]:
    return [p if isinstance(p, Shard) and p.dim == 0 and has_rows else Replicate() for p in tensor.placements]


def _everywhere_or_nowhere(rows: _Rows, counts: Tensor, failure: Exception | None) -> Tensor:
    """Return the counts of all processes. If one process refuses its arguments, all raise, so that none waits.

    Only labels in this machine's memory are looked at.
    """
    flag = torch.as_tensor([0.0 if failure is None else 1.0], dtype=counts.dtype, device=counts.device)
    *total, failed = rows.added(torch.cat([counts, flag]))
    if failure is not None:
        raise failure
    if failed.device.type == "cpu" and failed > 0:
        raise ValueError(refuse("every process's rows must be right", "rows of another process that are refused"))
    return torch.stack(total)


def _counts(target: Tensor, options: Options, num_classes: int, class_axis: int) -> Tensor:
    """Return (count, weights) of the rows of a target that count: what a mean over them divides by."""
    like = target.new_empty((), dtype=torch.float32)
    if options.kind == "sigmoid":
        given = options._replace(weight=None, sample_weight=None, prior=None)
        counts = SigmoidProblem.of(target, given, tuple(target.shape), like).counts
    else:
        if target.is_floating_point():
            target = target.movedim(class_axis, -1)
        shape = tuple(target.shape[:-1] if target.is_floating_point() else target.shape)
        counts = SoftmaxProblem.of(target, options, shape, num_classes, like, native=True).counts
    return torch.stack([torch.as_tensor(n, dtype=wide(target.device), device=target.device) for n in counts])


def _reduced(
    of_rows: Callable[[Any, Options], Tensor], target: Any, options: Options, num_classes: int, rows: _Rows
) -> DTensor:
    """Return the loss of the whole batch from a function of (local target, local options)."""
    if isinstance(target, TopK):
        raise TypeError(refuse("a TopK teacher cannot be distributed", "TopK", "give its logits"))
    reduction = TensorReduction.of(options)
    target, options = rows.local(target), rows.options(options)
    failure, counts = None, torch.zeros(2, dtype=wide(target.device), device=target.device)
    try:
        value = of_rows(target, options if reduction.is_none else options._replace(reduction="sum"))
        if not reduction.is_none:
            counts = _counts(target, options, num_classes, rows.class_axis).to(value.device)
    except (TypeError, ValueError) as error:
        failure = error
    counts = _everywhere_or_nowhere(rows, counts, failure)
    if reduction.is_none:
        stride = torch.empty(rows.shape, device="meta").stride()
        return DTensor.from_local(value, rows.mesh, rows.placements, shape=torch.Size(rows.shape), stride=stride)
    total = rows.added(value)
    factor, is_empty = TensorReduction.of(options).factor((counts[0], counts[1]), total.device)
    reduced = reduction.value(total, factor, is_empty).to(total.dtype)
    return DTensor.from_local(reduced, rows.mesh, rows.everywhere)


def dense(
    input: Tensor, target: Any, options: Options, local_loss: Callable[[Tensor, Any, Options], Tensor]
) -> DTensor:
    """Return the loss of distributed logits; `local_loss` is the function for ordinary ones."""
    if not isinstance(input, DTensor):
        raise TypeError(refuse("with a distributed target or option the input must be, too", describe(input)))
    is_sigmoid, axis = options.kind == "sigmoid", min(1, input.ndim - 1)
    shape = tuple(input.shape) if is_sigmoid else (*input.shape[:axis], *input.shape[axis + 1 :])
    rows = _Rows(input.device_mesh, _placements(input, bool(shape)), shape, axis)
    logits = input.redistribute(rows.mesh, rows.placements).to_local(grad_placements=rows.placements)
    num_classes = input.shape[axis] if input.ndim else 1
    return _reduced(lambda t, o: local_loss(logits, t, o), target, options, num_classes, rows)


def linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Any,
    options: Options,
    local_loss: Callable[[Tensor, Tensor, Tensor | None, Any, Options], Tensor],
) -> DTensor:
    """Return the loss of a linear head on distributed input; weight and bias are whole in every process meanwhile."""
    if not isinstance(input, DTensor):
        raise TypeError(refuse("with a distributed weight, target or option the input must be, too", describe(input)))
    shape = (*input.shape[:-1], weight.shape[0]) if options.kind == "sigmoid" else tuple(input.shape[:-1])
    rows = _Rows(input.device_mesh, _placements(input, input.ndim > 1), shape, -1)
    source = input.redistribute(rows.mesh, rows.placements).to_local(grad_placements=rows.placements)
    matrix, offset = rows.whole(weight), rows.whole(bias)
    return _reduced(lambda t, o: local_loss(source, matrix, offset, t, o), target, options, weight.shape[0], rows)
