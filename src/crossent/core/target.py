"""The target of rows of logits: labels, distributions or a teacher, with class weights and label smoothing.

`encode` makes one of what a user gives. It decides what kind of target that is and refuses what does not fit the loss,
the link or the shape; a `Library` looks at the values of an array.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

from crossent.core.arrays import Array, array_namespace, one_hot
from crossent.errors import refuse
from crossent.losses import Loss

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


class Target(NamedTuple):
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
    num_counted : int, optional
        How many labels are not negative, where that is known.
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
    num_counted: int | None = None

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
        return self._replace(
            labels=None if self.labels is None else self.labels[rows],
            soft=None if self.soft is None else self.soft[rows],
            teacher=teacher,
            num_counted=None,
            soft_complement=None if self.soft_complement is None else self.soft_complement[rows],
        )

    @property
    def counted_labels(self) -> Array:
        """The labels, with class 0 in the place of those that do not count."""
        assert self.labels is not None
        xp = array_namespace(self.labels)
        return xp.where(self.labels < 0, xp.zeros_like(self.labels), self.labels)

    @property
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
            labels = self.labels if self.labels.dtype != xp.int8 else xp.astype(self.labels, xp.int64)
            labels = xp.reshape(labels, (-1,))
        if self.soft is not None:
            positive = xp.reshape(xp.astype(self.soft, like.dtype), (-1,))
            soft, complement = (
                xp.stack(pair, axis=-1) for pair in ((1 - positive, positive), (positive, 1 - positive))
            )
        if self.class_weight is not None:
            negative, positive = (xp.zeros_like(like) + self.class_weight[i] for i in (0, 1))
            weight = xp.reshape(xp.stack([negative, positive], axis=-1), (-1, 2))
        return Target(
            2,
            labels=labels,
            soft=soft,
            class_weight=weight,
            label_smoothing=self.label_smoothing,
            soft_complement=complement,
        )


NO_INDEX = -100
"""The default of ignore_index, which floating targets cannot have."""


class Asked(NamedTuple):
    """What a target is encoded for.

    Attributes
    ----------
    loss : Loss
    link : {"softmax", "sigmoid"}
    shape : tuple of int
        Of the rows, before they are flattened.
    num_classes : int
    class_weight : array, optional
        As `Target` has it.
    label_smoothing : float
    ignore_index : int
    margin : object
        What the logits' map takes off the true class, which labels alone have; None for nothing.
    """

    loss: Loss
    link: Link
    shape: tuple[int, ...]
    num_classes: int
    class_weight: Array | None = None
    label_smoothing: float = 0.0
    ignore_index: int = NO_INDEX
    margin: Any = None

    @property
    def full_shape(self) -> tuple[int, ...]:
        return (*self.shape, self.num_classes)

    def target(self, **given: Any) -> Target:
        """Return the target of this form that holds what is given."""
        return Target(
            self.num_classes,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            link=self.link,
            **given,
        )


class Library(Protocol):
    """How an array library looks at targets. Each method refuses values that are wrong, by the first of them."""

    def array(self, value: Any, name: str) -> Array:
        """Return the value as an array of the library."""

    def kind(self, array: Array) -> Literal["integer", "bool", "floating"]:
        """Return what an array holds."""

    def describe(self, value: Any) -> str:
        """Return shape and dtype in words."""

    def labels(self, target: Array, asked: Asked) -> tuple[Array, int | None]:
        """Return labels of the rows' shape as `Target` has them, and how many count if that is known."""

    def distributions(self, target: Array, asked: Asked) -> Array:
        """Return floating targets of the full shape as rows (N, K)."""

    def entry_labels(self, target: Array, asked: Asked) -> Array:
        """Return integers or bools of the full shape as the labels of entries (N, K)."""

    def probabilities(self, target: Array, asked: Asked) -> Array:
        """Return floating targets of entries as (N, K)."""

    def teacher(self, logits: Array, asked: Asked) -> Array:
        """Return a teacher's logits as (N, K)."""

    def top_k(self, indices: Array, probabilities: Array, asked: Asked) -> Teacher:
        """Return a teacher of k classes."""


def encode(target: Any, asked: Asked, library: Library) -> Target:
    """Return what a user gave as a target.

    Raises
    ------
    TypeError, ValueError
        If it does not fit what is asked.
    """
    if asked.link == "sigmoid":
        return _encode_entries(target, asked, library)
    if asked.loss.needs_teacher:
        return _encode_teacher(target, asked, library)
    if isinstance(target, TopK):
        raise TypeError(refuse("a TopK target needs a distillation loss", repr(asked.loss), "use distillation_loss"))
    target = library.array(target, "target")
    kind = library.kind(target)
    if kind == "integer":
        _check_shape_of_labels(target, asked, library)
        labels, count = library.labels(target, asked)
        return asked.target(labels=labels, num_counted=count)
    if kind == "bool":
        asked_for = "target must be integer labels or floating distributions"
        raise TypeError(refuse(asked_for, library.describe(target)))
    if tuple(target.shape) != asked.full_shape:
        works = "class labels must be integers" if tuple(target.shape) == asked.shape else ""
        asked_for = f"a floating target must have the logits' shape {asked.full_shape}"
        raise ValueError(refuse(asked_for, library.describe(target), works))
    if asked.loss.needs_hard_target:
        raise ValueError(refuse(f"{asked.loss!r} needs integer labels", library.describe(target)))
    if asked.ignore_index != NO_INDEX:
        works = "use sample_weight with soft targets"
        raise ValueError(refuse("ignore_index applies to integer labels", library.describe(target), works))
    if asked.margin is not None:
        raise ValueError(refuse("margin needs integer labels", library.describe(target)))
    return asked.target(soft=library.distributions(target, asked))


def _check_shape_of_labels(target: Array, asked: Asked, library: Library) -> None:
    if tuple(target.shape) == asked.shape:
        return
    is_one_hot = tuple(target.shape) == asked.full_shape
    works = "integers are class indices: give one-hot targets as floats" if is_one_hot else ""
    raise ValueError(refuse(f"labels must have shape {asked.shape}, one a row", library.describe(target), works))


def _encode_entries(target: Any, asked: Asked, library: Library) -> Target:
    if asked.loss.needs_teacher:
        raise TypeError(refuse("distillation needs the softmax link", 'link="sigmoid"'))
    target = library.array(target, "target")
    if tuple(target.shape) != asked.full_shape:
        asked_for = f"with the sigmoid link target must have the logits' shape {asked.full_shape}"
        raise ValueError(refuse(asked_for, library.describe(target)))
    if library.kind(target) != "floating":
        return asked.target(labels=library.entry_labels(target, asked))
    if asked.loss.needs_hard_target:
        raise ValueError(refuse(f"{asked.loss!r} needs integer or bool targets", library.describe(target)))
    if asked.ignore_index != NO_INDEX:
        works = "use weight with floating targets"
        raise ValueError(refuse("ignore_index applies to integer targets", library.describe(target), works))
    return asked.target(soft=library.probabilities(target, asked))


def _encode_teacher(teacher: Any, asked: Asked, library: Library) -> Target:
    if asked.class_weight is not None:
        raise TypeError(refuse("weight does not apply to distillation", repr(asked.class_weight)))
    if asked.margin is not None:
        raise TypeError(refuse("margin does not apply to distillation", repr(asked.margin)))
    if asked.label_smoothing:
        raise TypeError(refuse("label_smoothing does not apply to distillation", asked.label_smoothing))
    if isinstance(teacher, TopK):
        return asked.target(teacher=_encode_top_k(teacher, asked, library), temperature=asked.loss.parameter)
    logits = library.array(teacher, "teacher")
    if library.kind(logits) != "floating" or tuple(logits.shape) != asked.full_shape:
        asked_for = f"a teacher must be floating logits of the student's shape {asked.full_shape}"
        raise ValueError(refuse(asked_for, library.describe(logits), "or a TopK(indices, probabilities)"))
    return asked.target(teacher=library.teacher(logits, asked), temperature=asked.loss.parameter)


def _encode_top_k(teacher: TopK, asked: Asked, library: Library) -> Teacher:
    indices = library.array(teacher.indices, "indices")
    probabilities = library.array(teacher.probabilities, "probabilities")
    kinds = library.kind(indices), library.kind(probabilities)
    shape = tuple(indices.shape)
    is_list = len(shape) > 0 and shape[-1] > 0 and kinds[0] == "integer"
    if not is_list or shape != tuple(probabilities.shape) or shape[:-1] != asked.shape:
        full = (*asked.shape, "k")
        raise ValueError(
            refuse(
                f"TopK needs integer indices and floating probabilities, both of shape {full}, k ≥ 1",
                f"{library.describe(indices)} and {library.describe(probabilities)}",
                "indices come first, though torch.topk returns them second" if kinds == ("floating", "integer") else "",
            )
        )
    return library.top_k(indices, probabilities, asked)
