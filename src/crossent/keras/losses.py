"""Keras' cross-entropies by their names, with its arguments: each says which loss of the family it is."""

from __future__ import annotations

from typing import Any

from crossent.errors import check_number
from crossent.losses import CrossEntropy, Focal

from .loss import MEAN, Loss, register

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "SparseCategoricalCrossentropy",
    "SparseCategoricalFocalCrossentropy",
]


@register
class CategoricalCrossentropy(Loss):
    """Cross-entropy of one-hot or soft targets, ``-Σ_k t_k log p_k`` a row, in nats.

    Parameters
    ----------
    from_logits, label_smoothing, axis, reduction, name, dtype
        As in :class:`Loss`.

    Examples
    --------
    >>> from crossent.keras import CategoricalCrossentropy
    >>> round(float(CategoricalCrossentropy(from_logits=True)([[1.0, 0.0]], [[0.0, 1.0]])), 6)
    1.313262
    """

    takes = "distributions"
    parameters = ("label_smoothing",)

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(CrossEntropy(), "softmax", from_logits, label_smoothing, None, axis, reduction, name, dtype)


@register
class SparseCategoricalCrossentropy(Loss):
    """Cross-entropy of labels, ``-log p_y`` a row, in nats.

    Parameters
    ----------
    from_logits, ignore_class, reduction, axis, name, dtype
        As in :class:`Loss`.

    Examples
    --------
    >>> from crossent.keras import SparseCategoricalCrossentropy
    >>> float(SparseCategoricalCrossentropy(from_logits=True)([0], [[20.0, 1.0, 2.0, 3.0]])) < 6.3e-8
    True
    >>> float(SparseCategoricalCrossentropy()([1], [[1.0, 0.0]]))
    inf
    """

    takes = "labels"
    parameters = ("ignore_class",)

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = MEAN,
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(CrossEntropy(), "softmax", from_logits, 0.0, ignore_class, axis, reduction, name, dtype)


@register
class BinaryCrossentropy(Loss):
    """Binary cross-entropy, ``-t log p - (1-t) log(1-p)`` an entry, its mean over `axis`, in nats.

    Parameters
    ----------
    from_logits, label_smoothing, axis, reduction, name, dtype
        As in :class:`Loss`.

    Examples
    --------
    >>> from crossent.keras import BinaryCrossentropy
    >>> round(float(BinaryCrossentropy(from_logits=True)([[1.0, 0.0]], [[0.0, 2.0]])), 6)
    1.410038
    """

    parameters = ("label_smoothing",)

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(CrossEntropy(), "sigmoid", from_logits, label_smoothing, None, axis, reduction, name, dtype)


class _SoftmaxFocal(Loss):
    """The focal loss times alpha, a number or one a class."""

    def __init__(self, alpha: Any, gamma: float, *arguments: Any):
        self.alpha, self.gamma = alpha, gamma
        loss, weight = Focal(gamma), None
        if isinstance(alpha, int | float):
            loss = check_number("alpha", alpha, minimum=0) * loss  # type: ignore[assignment]
        else:
            weight = [check_number("each alpha", value, minimum=0) for value in alpha]
            self.alpha = weight
        super().__init__(loss, "softmax", *arguments)
        self.class_weight = weight


@register
class CategoricalFocalCrossentropy(_SoftmaxFocal):
    """Focal loss of one-hot or soft targets, ``α_y (1 - p_y)^γ · nll`` a row (Lin et al. 2017), in nats.

    With soft or smoothed targets ``1 - p_y`` is ``Σ_k (1 - t_k) p_k``.

    Parameters
    ----------
    alpha : number, or list of K of them
        Factor of all classes, or of each.
    gamma : float ≥ 0
    from_logits, label_smoothing, axis, reduction, name, dtype
        As in :class:`Loss`.

    Examples
    --------
    >>> from crossent.keras import CategoricalFocalCrossentropy
    >>> loss = CategoricalFocalCrossentropy(alpha=1.0, from_logits=True)
    >>> round(float(loss([[1.0, 0.0, 0.0]], [[3.0, 0.0, 0.0]])), 9)
    0.000778422
    """

    takes = "distributions"
    parameters = ("alpha", "gamma", "label_smoothing")

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = "categorical_focal_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(alpha, gamma, from_logits, label_smoothing, None, axis, reduction, name, dtype)


@register
class SparseCategoricalFocalCrossentropy(_SoftmaxFocal):
    """Focal loss of labels, ``α_y (1 - p_y)^γ · nll`` a row (Lin et al. 2017), in nats; Keras has none.

    Parameters
    ----------
    alpha, gamma
        As in :class:`CategoricalFocalCrossentropy`.
    from_logits, ignore_class, reduction, axis, name, dtype
        As in :class:`Loss`.

    Examples
    --------
    >>> from crossent.keras import SparseCategoricalFocalCrossentropy
    >>> loss = SparseCategoricalFocalCrossentropy(alpha=[1.0, 2.0, 2.0], from_logits=True)
    >>> round(float(loss([0], [[3.0, 0.0, 0.0]])), 9)
    0.000778422
    """

    takes = "labels"
    parameters = ("alpha", "gamma", "ignore_class")

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = MEAN,
        axis: int = -1,
        name: str | None = "sparse_categorical_focal_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(alpha, gamma, from_logits, 0.0, ignore_class, axis, reduction, name, dtype)


@register
class BinaryFocalCrossentropy(Loss):
    """Focal loss of entries, ``(1 - p_t)^γ · nll``, its mean over `axis` (Lin et al. 2017), in nats.

    Parameters
    ----------
    apply_class_balancing : bool
        Whether positives weigh alpha and negatives 1 - alpha.
    alpha : float in [0, 1]
    gamma : float ≥ 0
    from_logits, label_smoothing, axis, reduction, name, dtype
        As in :class:`Loss`.

    Examples
    --------
    >>> from crossent.keras import BinaryFocalCrossentropy
    >>> round(float(BinaryFocalCrossentropy(gamma=1.0, from_logits=True)([[1.0]], [[0.0]])), 4)
    0.3466
    """

    parameters = ("apply_class_balancing", "alpha", "gamma", "label_smoothing")

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = "binary_focal_crossentropy",
        dtype: Any = None,
    ):
        self.apply_class_balancing, self.gamma = bool(apply_class_balancing), gamma
        self.alpha = check_number("alpha", alpha, minimum=0, maximum=1)
        super().__init__(Focal(gamma), "sigmoid", from_logits, label_smoothing, None, axis, reduction, name, dtype)
        if apply_class_balancing:
            self.class_weight = [[1 - self.alpha], [self.alpha]]
