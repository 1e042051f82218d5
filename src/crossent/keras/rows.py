"""The losses of rows of logits, differentiated by their own gradients: by the front end of the backend where there is
one, else by `crossent.core` on `keras.ops`."""

from __future__ import annotations

from typing import Any

from keras import ops

from crossent.core import composition
from crossent.core.reduction import is_silent
from crossent.core.target import Target
from crossent.losses import Loss

from .tensors import BACKEND

__all__ = ["of_core", "row_losses"]


def row_losses(logits: Any, target: Target, loss: Loss) -> Any:
    """Return the losses (N,) of logits (N, K), in nats; with the sigmoid link those of entries (N, 1)."""
    if BACKEND == "tensorflow":
        return of_core(logits, target, loss)
    if BACKEND == "jax":
        import crossent.jax as front_end
    else:
        import crossent.torch as front_end  # type: ignore[no-redef]
    given = {"loss": loss, "label_smoothing": target.label_smoothing, "reduction": "none"}
    if loss.needs_teacher:
        del given["label_smoothing"]
    found = next(part for part in (target.labels, target.soft, target.teacher) if part is not None)
    if target.link == "softmax":
        return front_end.cross_entropy(logits, found, weight=target.class_weight, **given)
    if target.class_weight is not None:  # (1 - alpha, alpha)
        given["alpha"] = target.class_weight[1, 0]
    return front_end.binary_cross_entropy_with_logits(logits, found, **given)


def of_core(logits: Any, target: Target, loss: Loss) -> Any:
    """Return :func:`row_losses` from the formulas of `crossent.core`, which differentiate themselves twice.

    A backend would differentiate the guards and the carried rounding errors of these formulas, and lose what they keep.
    The logits alone are differentiated.
    """
    is_sigmoid = target.link == "sigmoid"

    def counted(rows: Any, found: Any) -> Any:
        """Derivatives of each row in the logits' shape; 0 where a row contributes nothing."""
        silent = is_silent(rows.mass)[:, None]
        found = ops.where(silent, ops.zeros_like(found), found)
        return found[:, 1:] if is_sigmoid else found

    @ops.custom_gradient
    def losses(z: Any) -> Any:
        rows = composition.rows_of(z, target)
        found = composition.value(loss, rows)
        found = ops.where(is_silent(rows.mass), ops.zeros_like(found), found)

        def pull(*args: Any, upstream: Any = None) -> Any:
            upstream = args[0] if upstream is None else upstream
            return (upstream if is_sigmoid else upstream[:, None]) * gradients(z)

        return (found[:, None] if is_sigmoid else found), pull

    @ops.custom_gradient
    def gradients(z: Any) -> Any:
        rows = composition.rows_of(z, target)

        def pull(*args: Any, upstream: Any = None) -> Any:
            upstream = args[0] if upstream is None else upstream
            again = composition.rows_of(z, target)
            if is_sigmoid:
                return counted(again, composition.hessian_diagonal(loss, again)) * upstream
            return counted(again, composition.hessian_product(loss, again, upstream))

        return counted(rows, composition.gradient(loss, rows)), pull

    return losses(logits)
