"""Losses of distributed tensors (`DTensor`) whose rows are shared out among processes: data parallelism.

Every process computes the loss of its own rows; the sums and the mean's denominator are added up over the mesh, so that
the value is that of the whole batch on every process. Logits that are sharded along the classes are gathered first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from crossent.core.reduction import Reduction
from crossent.errors import refuse
from crossent.numpy.heads import TopK
from crossent.numpy.options import Options

from .composed import counts_of, factor_of
from .tensors import describe

__all__ = ["dense", "linear"]


def _row_placements(tensor: DTensor) -> list[Any]:
    """Rows stay where they are; whatever else is split is gathered."""
    return [p if isinstance(p, Shard) and p.dim == 0 else Replicate() for p in tensor.placements]


def _local(tensor: Any, mesh: Any, placements: list[Any]) -> Any:
    """This process's part of a tensor that has one entry or row for each of the logits' rows."""
    if not isinstance(tensor, Tensor):
        return tensor
    if not isinstance(tensor, DTensor):
        tensor = distribute_tensor(tensor, mesh, placements, src_data_rank=None)  # every process holds the whole
    return tensor.redistribute(mesh, placements).to_local(grad_placements=placements)


def _whole(tensor: Any, partial: list[Any]) -> Any:
    """A tensor that every process needs whole; its gradients are added up."""
    if not isinstance(tensor, DTensor):
        return tensor
    return tensor.redistribute(placements=[Replicate()] * len(partial)).to_local(grad_placements=partial)


def _reduced(
    of_rows: Callable[[Any, Options], Tensor],
    target: Any,
    options: Options,
    num_classes: int,
    mesh: Any,
    rows: list[Any],
) -> DTensor:
    """Return the loss of the whole batch from a function of (local target, local options)."""
    if isinstance(target, TopK):
        raise TypeError(refuse("a TopK teacher cannot be distributed", "TopK", "give its logits"))
    target = _local(target, mesh, rows)
    options = replace(options, sample_weight=_local(options.sample_weight, mesh, rows))
    if options.reduction == "none":
        return DTensor.from_local(of_rows(target, options), mesh, rows)
    partial = [Partial() if isinstance(p, Shard) else Replicate() for p in rows]
    everywhere = [Replicate()] * len(rows)
    total = of_rows(target, replace(options, reduction="sum"))
    total = DTensor.from_local(total, mesh, partial).redistribute(mesh, everywhere).to_local()
    Reduction(options.reduction, options.normalizer, options.on_empty)  # type: ignore[arg-type]
    counts = counts_of(target, options, num_classes).to(total.device)
    counts = DTensor.from_local(counts, mesh, partial).redistribute(mesh, everywhere).to_local()
    factor, is_empty = factor_of((counts[0], counts[1]), options, total.device)
    empty = 0.0 if options.on_empty == "zero" else float("nan")
    return DTensor.from_local(torch.where(is_empty, empty, total * factor).to(total.dtype), mesh, everywhere)


def dense(
    input: Tensor, target: Any, options: Options, local_loss: Callable[[Tensor, Any, Options], Tensor]
) -> DTensor:
    """Return the loss of distributed logits; `local_loss` is the function for ordinary ones."""
    if not isinstance(input, DTensor):
        raise TypeError(refuse("with a distributed target the input must be distributed, too", describe(input)))
    mesh, rows = input.device_mesh, _row_placements(input)
    logits = input.redistribute(mesh, rows).to_local(grad_placements=rows)
    num_classes = input.shape[min(1, input.ndim - 1)]
    return _reduced(lambda t, o: local_loss(logits, t, o), target, options, num_classes, mesh, rows)


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
        raise TypeError(
            refuse("with a distributed weight or target the input must be distributed, too", describe(input))
        )
    mesh, rows = input.device_mesh, _row_placements(input)
    partial = [Partial() if isinstance(p, Shard) else Replicate() for p in rows]
    source = input.redistribute(mesh, rows).to_local(grad_placements=rows)
    matrix, offset = _whole(weight, partial), _whole(bias, partial)
    num_classes = weight.shape[0]
    return _reduced(lambda t, o: local_loss(source, matrix, offset, t, o), target, options, num_classes, mesh, rows)
