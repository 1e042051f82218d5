"""Any loss of the family as a loss of Keras: what Keras hands over is encoded once, and Keras reduces the losses."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import keras
from keras import ops
from keras.src.backend import get_keras_mask, set_keras_mask

from crossent.core.target import Asked, Link, Target, encode
from crossent.errors import check_number, refuse
from crossent.losses import FAMILY, Elementary, is_member
from crossent.losses import Loss as Member

from . import probabilities
from .rows import row_losses
from .target import BAD, KerasTargets, refuse_half_labels
from .tensors import describe, like_static, nan_where

__all__ = ["MEAN", "Loss", "register"]

_BY_NAME: dict[str, type[Elementary]] = {kind.__name__: kind for kind in FAMILY}
register = keras.saving.register_keras_serializable(package="crossent")
MEAN = "sum_over_batch_size"


def _written(loss: Member) -> list[dict[str, Any]]:
    """Return a loss as its terms: name, factor and parameters."""
    return [{"name": type(part).__name__, "factor": factor, **vars(part)} for factor, part in loss.terms]


def _read(terms: Any) -> Member:
    """Return the loss that `_written` wrote."""
    parts = []
    for term in terms:
        name, factor = term["name"], term["factor"]
        part = _BY_NAME[name](**{key: value for key, value in term.items() if key not in ("name", "factor")})
        parts.append(part if factor == 1 else factor * part)
    return sum(parts[1:], start=parts[0])


@register
class Loss(keras.losses.Loss):
    """Any loss of the family as a loss of Keras: ``compile(loss=Loss(ce.Focal(2.0), from_logits=True))``.

    Rows are weighted, masked and reduced by Keras' own rules. A row of weight 0, or that a mask leaves out, has no loss
    and no gradient, whatever it holds.

    Parameters
    ----------
    loss : crossent.Loss
        Such as ``ce.Focal(2.0) + ce.ZPenalty(1e-4)``. The target of ``ce.Distillation`` is the teacher's logits.
    link : {"softmax", "sigmoid"}
        One class among K; or a yes or no for each entry, of which the mean over `axis` is taken.
    from_logits : bool
        Whether `y_pred` is logits. Otherwise it is probabilities, and the loss of them is exact at 0 (``inf``) and 1:
        nothing is clipped, so that the gradient at a true class of probability 0 is infinite. Logits are better.
    label_smoothing : float in [0, 1]
        ε: the target becomes ``(1-ε) t + ε/K`` (ε/2 with the sigmoid link).
    ignore_class : int, optional
        Rows with this label do not count.
    axis : int
        The class axis.
    reduction : {"sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None}
    name : str, optional
    dtype : str or keras.DTypePolicy, optional
        "float64" computes in float64; all else in float32, whatever the policy.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above. When called: if the target does not fit, or a label is out of range. In a
        compiled step, where nothing can raise, the loss and the gradient of such a row are NaN.

    Examples
    --------
    >>> import crossent as ce
    >>> from crossent.keras import Loss
    >>> loss = Loss(ce.Focal(2.0) + ce.ZPenalty(1e-4), from_logits=True)
    >>> round(float(loss([0], [[3.0, 0.0, 0.0]])), 6)
    0.001736
    >>> Loss.from_config(loss.get_config()).loss
    Focal(gamma=2.0) + ZPenalty(coefficient=0.0001)
    """

    takes: ClassVar[Literal["labels", "distributions"] | None] = None
    """Which targets the class takes; None for both, which are told apart by their shape."""
    parameters: ClassVar[tuple[str, ...]] = ("loss", "link", "label_smoothing", "ignore_class")
    """The arguments beside from_logits, axis and those of every Keras loss."""
    class_weight: Any = None
    """Factors of the classes, (K,), or of 0 and 1, (2, 1): a focal loss's alpha."""

    def __init__(
        self,
        loss: Any,
        link: Link = "softmax",
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
        dtype: Any = None,
    ):
        # Keras reads labels and predictions in this type, and sums in it.
        asked = keras.dtype_policies.get(dtype or keras.backend.floatx()).compute_dtype
        super().__init__(name=name, reduction=reduction, dtype="float64" if asked == "float64" else "float32")
        self.loss = _read(loss) if isinstance(loss, list | tuple) else loss
        self.link, self.from_logits, self.axis = link, bool(from_logits), axis
        self.ignore_class = ignore_class
        if not is_member(self.loss):
            raise TypeError(refuse("loss must be a loss such as crossent.Focal(2.0)", repr(loss)))
        if link not in ("softmax", "sigmoid"):
            raise ValueError(refuse('link must be "softmax" or "sigmoid"', repr(link)))
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise ValueError(refuse("axis must be an integer", repr(axis)))
        if ignore_class is not None and (isinstance(ignore_class, bool) or not isinstance(ignore_class, int)):
            raise TypeError(refuse("ignore_class must be an integer", repr(ignore_class)))
        if ignore_class is not None and link == "sigmoid":
            raise ValueError(refuse("ignore_class applies to the softmax link", ignore_class, "use sample_weight"))
        self.label_smoothing = check_number("label_smoothing", label_smoothing, minimum=0, maximum=1)
        if self.label_smoothing and self.loss.needs_hard_target:
            raise ValueError(refuse(f"{self.loss!r} takes unsmoothed labels", f"{label_smoothing=}"))
        if not from_logits and (self.loss.needs_teacher or "lse" in self.loss.reads):
            raise ValueError(
                refuse(f"{self.loss!r} reads logits", f"{from_logits=}", "give logits and from_logits=True")
            )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments; the loss as a list of names, factors and parameters."""
        own = {name: getattr(self, name) for name in (*self.parameters, "from_logits", "axis")}
        if "loss" in own:
            own["loss"] = _written(self.loss)
        return {**super().get_config(), "dtype": self.dtype, **own}

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the reduced loss of a batch, weighted by `sample_weight` and a mask that `y_pred` carries."""
        mask = get_keras_mask(y_pred)
        y_pred = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        rank = len(y_pred.shape)
        if not -rank <= self.axis < rank:
            raise ValueError(refuse(f"axis must lie in the {rank} axes of y_pred", self.axis))
        if self._takes_labels(y_true, y_pred):
            refuse_half_labels(y_true, y_pred.shape[self.axis])
        y_true = ops.convert_to_tensor(y_true, dtype=self.dtype)
        for given in (mask, sample_weight):
            if given is not None:
                y_true, y_pred = self._without_void(y_true, y_pred, ops.convert_to_tensor(given))
        if mask is not None:
            set_keras_mask(y_pred, mask)
        return super().__call__(y_true, y_pred, sample_weight)

    def _takes_labels(self, y_true: Any, y_pred: Any) -> bool:
        """Whether a target is labels, one a row: as its shape says, where the class takes both."""
        if self.link == "sigmoid":
            return self.loss.needs_hard_target
        if self.takes is not None:
            return self.takes == "labels"
        rank = len(getattr(y_true, "shape", None) or ops.shape(ops.convert_to_tensor(y_true)))
        if rank != len(y_pred.shape):
            return True
        return y_true.shape[self.axis] == 1 != y_pred.shape[self.axis]

    def _without_void(self, y_true: Any, y_pred: Any, weight: Any) -> tuple[Any, Any]:
        """Return target and prediction with any valid row in the place of those that weigh nothing."""
        rank = len(y_pred.shape) - 1
        if len(weight.shape) == rank + 1 and weight.shape[-1] == 1:
            weight = ops.squeeze(weight, -1)
        if len(weight.shape) != rank or rank == 0:
            return y_true, y_pred  # Keras broadcasts it, or refuses it
        void = ops.expand_dims(ops.cast(weight, self.dtype) == 0, self.axis)
        fill = 0.5 if self.link == "sigmoid" else 1 / y_pred.shape[self.axis]
        is_label = self._takes_labels(y_true, y_pred)
        if len(y_true.shape) == rank:
            y_true = ops.where(ops.squeeze(void, self.axis), ops.zeros_like(y_true), y_true)
        else:
            y_true = ops.where(void, ops.full_like(y_true, 0.0 if is_label else fill), y_true)
        return y_true, ops.where(void, ops.full_like(y_pred, 0.0 if self.from_logits else fill), y_pred)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row, in nats, without weights."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred, dtype=self.dtype)
        rank, axis = len(y_pred.shape), self.axis
        takes_labels = self._takes_labels(y_true, y_pred)
        if self.link == "sigmoid":
            y_true = _of_rank(y_true, y_pred)
            return ops.mean(self._rows(y_true[..., None], y_pred[..., None], takes_labels), axis=axis)
        if takes_labels and len(y_true.shape) == rank and y_true.shape[axis] == 1:
            y_true = ops.squeeze(y_true, axis)
        elif not takes_labels and len(y_true.shape) != rank:
            asked = f"{type(self).__name__} takes distributions (one-hot rows), of y_pred's shape"
            raise ValueError(refuse(asked, describe(y_true), f"Sparse{type(self).__name__} takes labels"))
        elif not takes_labels:
            y_true = ops.moveaxis(y_true, axis, -1)
        return self._rows(y_true, ops.moveaxis(y_pred, axis, -1), takes_labels)

    def _rows(self, y_true: Any, y_pred: Any, takes_labels: bool) -> Any:
        """Return the losses (...) of predictions (..., K), with the rows that count as their mask."""
        rows, num_classes = len(y_pred.shape) - 1, y_pred.shape[-1]
        if not num_classes:
            raise ValueError(refuse("y_pred must have a known number of classes, at least one", describe(y_pred)))
        y_true, y_pred = like_static(y_true, y_pred, rows), like_static(y_pred, y_true, rows)
        weight = self.class_weight
        if weight is not None:
            weight = ops.convert_to_tensor(weight, dtype=self.dtype)
            if weight.shape[-1] != num_classes:
                raise ValueError(refuse(f"alpha must be a number or {num_classes} of them", self.class_weight))
        shape = tuple(y_pred.shape[:-1])
        asked = Asked(self.loss, self.link, shape, num_classes, weight, self.label_smoothing)
        target = encode(y_true, asked, KerasTargets(self.dtype, takes_labels, self.ignore_class))
        losses, counted = self._counted(ops.reshape(y_pred, (-1, num_classes)), target)
        shape = ops.shape(y_pred)[:-1]
        losses = ops.reshape(losses, shape)
        if counted is not None:
            set_keras_mask(losses, ops.reshape(counted, shape))
        return losses

    def _counted(self, y_pred: Any, target: Target) -> tuple[Any, Any]:
        """Return the losses of rows (N, K), 0 where they do not count; and which ones do, None for all."""
        of_rows = row_losses if self.from_logits else probabilities.row_losses
        labels = target.labels
        if labels is None:
            return of_rows(y_pred, target, self.loss), None
        ignored, bad, counted = labels == -1, labels == BAD, None
        target = target._replace(labels=ops.where(labels < 0, ops.zeros_like(labels), labels))
        if self.ignore_class is not None:
            valid = ops.full_like(y_pred, 0.0 if self.from_logits else 1 / y_pred.shape[-1])
            y_pred, counted = ops.where(ignored[:, None], valid, y_pred), ~ignored
        losses = of_rows(y_pred, target, self.loss)
        if counted is not None:
            losses = ops.where(counted, losses, ops.zeros_like(losses))
        return nan_where(bad, losses), counted


def _of_rank(y_true: Any, y_pred: Any) -> Any:
    """Return a target with or without a last axis of one label, as the prediction has it."""
    rank = len(y_pred.shape)
    if len(y_true.shape) == rank - 1 and y_pred.shape[-1] == 1:
        return ops.expand_dims(y_true, -1)
    if len(y_true.shape) == rank + 1 and y_true.shape[-1] == 1:
        return ops.squeeze(y_true, -1)
    lengths = zip(y_true.shape, y_pred.shape, strict=False)
    if len(y_true.shape) != rank or any(a != b and None not in (a, b) for a, b in lengths):
        raise ValueError(refuse(f"y_true must have y_pred's shape {tuple(y_pred.shape)}", describe(y_true)))
    return y_true
