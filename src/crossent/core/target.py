"""The target of rows of logits: labels, distributions or a teacher, with class weights and label smoothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from crossent.core.arrays import Array, array_namespace, one_hot

Link = Literal["softmax", "sigmoid"]


class TopK(NamedTuple):
    """A teacher known on its k most likely classes: the target of a distillation loss.

    Attributes
    ----------
    indices : (..., k) integer array
        Distinct classes of each row.
    probabilities : (..., k) floating array
        The teacher's probabilities of these classes (at the temperature of the loss), with row sums ≤ 1. What is
        missing to 1 is one bucket, compared with the student's summed probability of all other classes.
    """

    indices: Any
    probabilities: Any


class Teacher(NamedTuple):
    """A :class:`TopK` as it is computed with: (N, k), (N, k), and the mass that is left for the bucket, (N,)."""

    indices: Array
    probabilities: Array
    remainder: Array


@dataclass(frozen=True, eq=False)
class Target:
    """What N rows of K logits are compared with.

    At most one of labels, soft and teacher is given; none of them where only the prediction is looked at.

    Parameters
    ----------
    num_classes : int
        K.
    labels : (N,) integer array, optional
        In 0..K-1, or negative for a row that does not count. With the sigmoid link (N, K), in 0, 1 or negative.
    soft : (N, K) array, optional
        Distributions or, with the sigmoid link, probabilities.
    teacher : (N, K) array of logits, or Teacher, optional
        Of a distillation at `temperature`.
    class_weight : (K,) array, optional
        With the sigmoid link (2, K), the weights of 0 and of 1.
    label_smoothing : float in [0, 1]
        ε: the target becomes ``(1-ε) t + ε/K`` (ε/2 with the sigmoid link).
    temperature : float > 0
    link : {"softmax", "sigmoid"}
        Whether a row is one question with K answers, or K questions of yes or no.
    soft_complement : (N, K) array, optional
        1 - soft, where it is known with more digits than the subtraction leaves.
    """

    num_classes: int
    labels: Array | None = None
    soft: Array | None = None
    teacher: Array | Teacher | None = None
    class_weight: Array | None = None
    label_smoothing: float = 0.0
    temperature: float = 1.0
    link: Link = "softmax"
    soft_complement: Array | None = None

    @property
    def is_hard(self) -> bool:
        """Whether every row's target is one class, so that every target statistic is a function of ``nll_plain``."""
        return self.labels is not None and self.label_smoothing == 0

    @property
    def is_plain(self) -> bool:
        """Whether labels or distributions are compared with as they are: no class weights, no smoothing."""
        return self.class_weight is None and self.label_smoothing == 0

    def rows(self, rows: Any) -> Target:
        """Return the target of some rows, a slice or an index array."""
        teacher = self.teacher
        if isinstance(teacher, Teacher):
            teacher = Teacher(*(part[rows] for part in teacher))
        elif teacher is not None:
            teacher = teacher[rows]
        return replace(
            self,
            labels=None if self.labels is None else self.labels[rows],
            soft=None if self.soft is None else self.soft[rows],
            teacher=teacher,
            soft_complement=None if self.soft_complement is None else self.soft_complement[rows],
        )

    @cached_property
    def counted_labels(self) -> Array:
        """The labels, with class 0 in the place of those that do not count."""
        assert self.labels is not None
        xp = array_namespace(self.labels)
        return xp.where(self.labels < 0, xp.zeros_like(self.labels), self.labels)

    @cached_property
    def is_true_class(self) -> Array:
        return one_hot(self.counted_labels, self.num_classes)

    def distribution(self, like: Array) -> Array:
        """Return t', (N, K), in the dtype of `like`."""
        xp = array_namespace(like)
        distribution = xp.astype(self.is_true_class if self.soft is None else self.soft, like.dtype)
        if self.label_smoothing:
            distribution = (1 - self.label_smoothing) * distribution + self.label_smoothing / self.num_classes
        return distribution

    def complement(self, like: Array) -> Array:
        """Return 1 - t', (N, K), without the rounding of t': ``(1-ε)(1-t) + ε (1 - 1/K)``."""
        xp = array_namespace(like)
        if self.soft is None:
            complement = xp.astype(~self.is_true_class, like.dtype)
        elif self.soft_complement is None:
            complement = 1 - xp.astype(self.soft, like.dtype)
        else:
            complement = self.soft_complement
        if self.label_smoothing:
            kept, share = 1 - self.label_smoothing, self.label_smoothing / self.num_classes
            complement = kept * complement + (self.label_smoothing - share)
        return complement

    def as_two_classes(self, like: Array) -> Target:
        """Return the entries of a target with the sigmoid link as N·K rows of two classes, for logits like these."""
        xp = array_namespace(like)
        labels = soft = complement = weight = None
        if self.labels is not None:
            labels = xp.reshape(xp.astype(self.labels, xp.int64), (-1,))
        if self.soft is not None:
            positive = xp.reshape(xp.astype(self.soft, like.dtype), (-1,))
            soft, complement = (
                xp.stack(pair, axis=-1) for pair in ((1 - positive, positive), (positive, 1 - positive))
            )
        if self.class_weight is not None:
            weight = xp.reshape(xp.broadcast_to(self.class_weight.T, (*like.shape, 2)), (-1, 2))
        return Target(
            2,
            labels=labels,
            soft=soft,
            class_weight=weight,
            label_smoothing=self.label_smoothing,
            soft_complement=complement,
        )
