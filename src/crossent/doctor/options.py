"""What the arguments of a call say: which loss Keras compiles, what a loss reads and how it reduces, sizes."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from .names import ACTIVATIONS, FUNCTIONS, KERAS_LOSSES, LOSSES, Loss
from .records import Argument, Layer
from .values import Value

__all__ = [
    "activation_named",
    "compiled_loss",
    "has_outputs",
    "is_difference",
    "is_true",
    "is_unbounded",
    "parts_of",
    "reads_of",
    "reduction_of",
]

_BOUNDED = frozenset(
    {"abs", "arange", "clamp", "clip", "linspace", "log", "log_softmax", "logsigmoid", "min", "minimum", "tanh"}
)


def activation_named(argument: Argument | None) -> str:
    """Return what the `activation` of a Keras layer computes, ``linear`` if it was left out."""
    if argument is None or (argument.value.kind == "constant" and argument.value.payload is None):
        return "linear"
    if argument.value.kind == "constant":
        return ACTIVATIONS.get(str(argument.value.payload), "unknown")
    if argument.value.kind == "name":
        return FUNCTIONS.get(argument.value.payload, "unknown")
    return "unknown"


def compiled_loss(value: Value) -> tuple[Loss | None, Mapping[str, Argument]]:
    if value.kind == "constant":
        return KERAS_LOSSES.get(str(value.payload)), {}
    if value.kind == "name":
        loss = LOSSES.get(value.payload)
        return (loss, {}) if loss is not None and loss.library == "keras" and not loss.options else (None, {})
    if value.kind == "criterion" and value.payload.is_complete:
        return value.payload.loss, value.payload.options
    return None, {}


def parts_of(value: Value) -> tuple[Value, ...] | None:
    """Return the layers of a list of layers or of (name, layer) pairs."""
    if value.kind == "dict":
        return tuple(part for _, part in value.payload)
    if value.kind != "tuple":
        return None
    pairs = [part.payload[1] for part in value.payload if part.kind == "tuple" and len(part.payload) == 2]
    return tuple(pairs) if len(pairs) == len(value.payload) and pairs else value.payload


def has_outputs(layer: Layer, number: int) -> bool:
    """Return whether a layer is known to have that many outputs."""
    if layer.arguments is None or not isinstance(layer.node, ast.Call):
        return False
    is_dense = ast.unparse(layer.node.func).endswith("Dense")
    names = ("units", "features", "out_features", "out_channels")
    given = next((layer.arguments.get(name) for name in names if layer.arguments.get(name) is not None), None)
    given = given or layer.arguments.get("units", 0 if is_dense else 1)
    return given is not None and given.value.kind == "constant" and given.value.payload == number


def reads_of(loss: Loss, options: Mapping[str, Argument], is_complete: bool) -> str:
    if not loss.has_from_logits:
        return loss.reads
    given = options.get("from_logits")
    if given is None:
        return "probabilities" if is_complete else "unknown"
    if given.value.kind != "constant":
        return "unknown"
    return "logits" if given.value.payload else "probabilities"


def reduction_of(loss: Loss, options: Mapping[str, Argument], is_complete: bool) -> str | None:
    if loss.library in ("optax", "tensorflow") or (loss.library == "keras" and not loss.options):
        return "none"
    given = options.get("reduction")
    if given is not None:
        return str(given.value.payload) if given.value.kind == "constant" else None
    if "reduce" in options or "size_average" in options or not is_complete:
        return None
    return "mean"


def is_true(argument: Argument | None) -> bool:
    return argument is not None and argument.value.kind == "constant" and argument.value.payload is True


def is_difference(node: ast.expr) -> bool:
    """Return whether an exponent is written with a minus."""
    return any(isinstance(part, ast.Sub | ast.USub) for part in ast.walk(node))


def is_unbounded(node: ast.expr) -> bool:
    """Return whether nothing in an exponent keeps it small: no bound, no choice, no imaginary unit."""
    for part in ast.walk(node):
        if isinstance(part, ast.IfExp) or (isinstance(part, ast.Constant) and isinstance(part.value, complex)):
            return False
        if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Name):
            return False  # rows that a mask chose
        if isinstance(part, ast.Call) and ast.unparse(part.func).rpartition(".")[2] in _BOUNDED:
            return False
    return not isinstance(node, ast.Constant)
