"""What a tensor was made by: autograd's graph, followed from the tensor back through what only moves its numbers.

Tensors that the graph saved are not read, for reading them sets off the recomputation of a checkpointed block.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["origin"]

_MADE_BY = {
    "Softmax": "softmax",
    "SafeSoftmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "LogSigmoid": "log_sigmoid",
    "Addmm": "linear",
    "Mm": "linear",
    "Convolution": "linear",
}
_MOVES = re.compile(
    "_DDPSink|Alias|AsStrided|Cat|Clone|Copy|Expand|FusedDropout|Index(Select)?|NativeDropout|Permute|ReshapeAlias|Select"
    "|Slice|(Unsafe)?Split(WithSizes)?|(Un)?[Ss]queeze|Stack|T|ToCopy|Transpose|Unbind|(Unsafe)?View"
)
_BOUNDS = frozenset({"Clamp", "ClampMin", "ClampMax"})
_PICKS = frozenset({"Gather", "Index", "Select"})  # one class of each row, or some of the rows
_NAME = re.compile(r"(?P<name>\w+?)Backward(?:s|\d*)$")
_MOST_STEPS = 64


def origin(tensor: Any) -> str | None:
    """Return what made a tensor: ``softmax``, ``log_softmax``, ``sigmoid``, ``log_sigmoid``, ``linear`` or None.

    ``entry`` is a softmax of which one class, or some rows, were picked. Dropout on a CPU is a product with a mask; it
    is seen through if the tensor has zeros and nothing below.
    """
    node = tensor.grad_fn
    return None if node is None else _made_by(node, bool((tensor == 0).any() and (tensor >= 0).all()), 0)


def _made_by(node: Any, is_masked: bool, steps: int) -> str | None:
    found = _NAME.match(node.name())
    name = "" if found is None else found["name"]
    if name in _MADE_BY:
        return _MADE_BY[name]
    before = [one for one, _ in node.next_functions if one is not None]
    is_dropout = name == "Mul" and is_masked and len(before) == 1
    is_passed = is_dropout or name in _BOUNDS | _PICKS | {"Exp", "Log"} or _MOVES.fullmatch(name) is not None
    if not before or not is_passed or steps >= _MOST_STEPS:
        return None
    kinds = {_made_by(one, is_masked, steps + 1) for one in before}
    kind = kinds.pop() if len(kinds) == 1 else None
    if name == "Exp":
        return {"log_softmax": "softmax", "log_sigmoid": "sigmoid"}.get(kind or "")
    if name == "Log":
        return {"softmax": "log_softmax", "sigmoid": "log_sigmoid"}.get(kind or "")
    if kind == "linear" and name in _BOUNDS | {"Mul"}:
        return None
    return "entry" if kind == "softmax" and name in _PICKS else kind
