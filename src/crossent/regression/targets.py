"""What the estimators are fitted to: labels, distributions or label sets, with their class weights.

Every target is read as two non-negative arrays. For the softmax link ``u_i = w ∘ t'_i`` (class weights w, smoothed
target t') and its mass ``τ_i = Σ_k u_ik``; the loss of a row is ``τ_i LSE(z_i) - <u_i, z_i>``. For the sigmoid
link, entry by entry, ``u = w₁ t'`` and ``τ = w₁ t' + w₀ (1 - t')``; the loss is ``τ softplus(z) - u z``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from crossent.core.target import Target
from crossent.errors import describe, refuse
from crossent.imbalance.weights import SCHEMES, scheme_weights
from crossent.masked import refuse_masked

PIECE = 1 << 18
"""Labels that are encoded at a time."""


@dataclass(frozen=True)
class EncodedTarget:
    """Targets as the kernels read them: labels or soft targets (one of them is None), N rows.

    Softmax: `labels` (N,) in the least unsigned type, `soft` (N, K), `class_weight` (K,). Sigmoid: `labels` (N, K) in
    int8, `soft` (N, K), `class_weight` (2, K), the weights of 0 and of 1.
    """

    link: str
    classes: NDArray[Any]
    num_outputs: int
    labels: NDArray[Any] | None
    soft: NDArray[Any] | None
    class_weight: NDArray[np.float64] | None = None
    label_smoothing: float = 0.0
    multilabel: bool = False

    @property
    def is_one_against_rest(self) -> bool:
        """Whether each of more than two exclusive classes is a yes or no of its own."""
        return self.link == "sigmoid" and self.num_outputs > 1 and not self.multilabel

    @property
    def hard(self) -> bool:
        return self.labels is not None and self.label_smoothing == 0

    @property
    def values(self) -> NDArray[Any]:
        """The soft targets, or else the labels."""
        values = self.labels if self.soft is None else self.soft
        assert values is not None
        return values

    def weighted(self, class_weight: NDArray[np.float64] | None) -> EncodedTarget:
        """Return the target with class weights."""
        return replace(self, class_weight=class_weight)

    def normalised(self) -> tuple[EncodedTarget, float]:
        """Return the target with class weights of at most 1, and what they were divided by: their size must not decide
        which products leave float64's range."""
        largest = 1.0 if self.class_weight is None else float(self.class_weight.max())
        if self.class_weight is None or largest in (0.0, 1.0):
            return self, 1.0
        return self.weighted(self.class_weight / largest), largest

    def counts(self, row_weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``Σ c_i t_i`` (K,) of targets before smoothing and class weights."""
        if self.soft is None and self.link == "softmax":
            return np.bincount(self.values, weights=row_weight, minlength=self.num_outputs).astype(np.float64)
        return np.asarray(row_weight @ self.values, dtype=np.float64)

    def total_mass(self, row_weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any]:
        """Return ``Σ c_i u_i`` (K,) and ``Σ c_i τ_i``, a number or for the sigmoid link (K,)."""
        return self._parts(self.counts(row_weight), float(row_weight.sum()))

    def dense(self, rows: slice | NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return u (n, K) and τ, (n,) or for the sigmoid link (n, K), of a block of rows."""
        if self.soft is None and self.link == "softmax":
            labels = self.values[rows]
            target = np.zeros((len(labels), self.num_outputs))
            target[np.arange(len(labels)), labels] = 1.0
        else:
            target = self.values[rows].astype(np.float64)
        return self._parts(target, 1.0)

    def _parts(self, target: NDArray[np.float64], total: float) -> tuple[NDArray[np.float64], Any]:
        """Return u and τ of targets (..., K) before smoothing and class weights; each has so much mass in total."""
        outcomes = 2 if self.link == "sigmoid" else self.num_outputs
        target = (1 - self.label_smoothing) * target + self.label_smoothing * total / outcomes
        if self.link == "sigmoid":
            zero, one = (1.0, 1.0) if self.class_weight is None else self.class_weight
            return one * target, one * target + zero * (total - target)
        if self.class_weight is not None:
            target *= self.class_weight
        return target, target.sum(axis=-1)

    def take(self, rows: Any) -> EncodedTarget:
        """Return the target of some rows (a slice, or an index array)."""
        return replace(
            self,
            labels=None if self.labels is None else self.labels[rows],
            soft=None if self.soft is None else self.soft[rows],
        )

    def for_kernels(self, dtype: Any, rows: slice = slice(None)) -> Target:
        """Return the target of some rows as kernels take it beside logits in a dtype."""
        labels = None if self.labels is None else self.labels[rows]
        if labels is not None and self.link == "softmax":  # held in the least type; the softmax kernels read int64
            labels = labels.astype(np.int64, copy=False)
        soft = None if self.soft is None else self.soft[rows].astype(dtype, copy=False)
        options = {"class_weight": self.class_weight, "label_smoothing": self.label_smoothing, "link": self.link}
        return Target(self.num_outputs, labels, soft, **options)  # type: ignore[arg-type]

    def restrict(self, outputs: NDArray[np.intp], one_logit: bool = False) -> EncodedTarget:
        """Return the problem without the other outputs, which hold no mass; labels of two classes as one yes or no."""
        if one_logit:
            weight = None if self.class_weight is None else self.class_weight[outputs][:, None]
            labels = (self.labels == outputs[1]).astype(np.int8)[:, None]
            return replace(self, link="sigmoid", num_outputs=1, labels=labels, class_weight=weight)
        if len(outputs) == self.num_outputs:
            return self
        weight = None if self.class_weight is None else np.ascontiguousarray(self.class_weight[..., outputs])
        labels, soft = self.labels, self.soft
        if labels is not None and self.link == "softmax":
            position = np.zeros(self.num_outputs, dtype=labels.dtype)
            position[outputs] = np.arange(len(outputs))
            labels = position[labels]
        elif labels is not None:
            labels = np.ascontiguousarray(labels[:, outputs])
        if soft is not None:
            soft = np.ascontiguousarray(soft[:, outputs])
        return replace(self, num_outputs=len(outputs), labels=labels, soft=soft, class_weight=weight)


def encode_target(y: Any, link: str, label_smoothing: float = 0.0) -> EncodedTarget:
    """Read `y`: labels (N,); (N, K) floats whose rows sum to 1; or, for the sigmoid link, label sets (N, K).

    Raises
    ------
    ValueError
        If `y` is none of these for the link, or holds one class only.
    """
    array = np.asarray(y)
    if array.ndim == 2 and array.shape[1] > 1:
        kind = type_of_target(y, input_name="y")
        encoded = _encode_label_sets(array, kind) if link == "sigmoid" else _encode_distributions(array, kind)
    else:
        encoded = _encode_labels(y, link)
    return replace(encoded, label_smoothing=label_smoothing)


def _encode_labels(y: Any, link: str) -> EncodedTarget:
    labels = y if isinstance(y, np.ndarray) and y.ndim == 1 else column_or_1d(y, warn=True)
    check_classification_targets(labels)
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(refuse("y must hold at least two classes", f"one class, {classes[0]}"))
    codes = class_codes(labels, classes)
    if link == "softmax":
        return EncodedTarget(link, classes, len(classes), codes, None)
    if len(classes) > 2:
        one_hot = np.zeros((len(codes), len(classes)), np.int8)
        one_hot[np.arange(len(codes)), codes] = 1
        return EncodedTarget(link, classes, len(classes), one_hot, None)
    return EncodedTarget(link, classes, 1, codes.astype(np.int8)[:, None], None)


def class_codes(labels: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Return the place of each label in the sorted classes, in the least unsigned type, without larger temporaries.

    Examples
    --------
    >>> class_codes(np.array(["b", "a", "b"]), np.array(["a", "b"]))
    array([1, 0, 1], dtype=uint8)
    """
    codes = np.empty(len(labels), np.min_scalar_type(len(classes) - 1))
    for start in range(0, len(labels), PIECE):
        codes[start : start + PIECE] = np.searchsorted(classes, labels[start : start + PIECE])
    return codes


def _encode_label_sets(array: NDArray[Any], kind: str) -> EncodedTarget:
    classes = np.arange(array.shape[1])
    if kind == "multilabel-indicator":
        return EncodedTarget(
            "sigmoid", classes, len(classes), np.ascontiguousarray(array, dtype=np.int8), None, multilabel=True
        )
    soft = _floating(array, kind, "label sets must be 0 and 1, or probabilities between them")
    if not ((soft >= 0) & (soft <= 1)).all():
        raise ValueError(refuse("label probabilities must lie in [0, 1]", f"{soft.min():g} to {soft.max():g}"))
    return EncodedTarget("sigmoid", classes, len(classes), None, soft, multilabel=True)


def _encode_distributions(array: NDArray[Any], kind: str) -> EncodedTarget:
    soft = _floating(
        array, kind, "with link='softmax', y must be labels (N,) or a floating (N, K) array whose rows sum to 1"
    )
    if not (soft >= 0).all():
        raise ValueError(refuse("target distributions must not be negative", f"a least entry of {soft.min():g}"))
    sums = soft.sum(axis=1, dtype=np.float64)
    wrong = np.abs(sums - 1) > 64 * np.finfo(soft.dtype).eps * np.sqrt(soft.shape[1])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            refuse(
                "each row of a floating y must sum to 1",
                f"a sum of {sums[row]:.9g} in row {row}",
                "for label sets, whose labels do not exclude each other, use link='sigmoid'",
            )
        )
    return EncodedTarget("softmax", np.arange(soft.shape[1]), soft.shape[1], None, soft)


def _floating(array: NDArray[Any], kind: str, asked: str) -> NDArray[Any]:
    if array.dtype.kind != "f" or kind not in (
        "continuous-multioutput",
        "multilabel-indicator",
        "multiclass-multioutput",
    ):
        raise ValueError(refuse(asked, f"{describe(array)} (target type {kind!r})"))
    if not np.isfinite(array).all():
        raise ValueError(refuse("y must be finite", "NaN or infinity"))
    dtype = np.float32 if array.dtype == np.float32 else np.float64
    return np.ascontiguousarray(array, dtype=dtype)


def class_weights(
    target: EncodedTarget, class_weight: Any, row_weight: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the class weights as the kernels read them: (K,), or (2, K) for the sigmoid link.

    None for one against the rest, where a class weighs rows and not the yes and no of a class: see `weighted_rows`.

    A name is a scheme of `crossent.imbalance.class_weights`, with ``n_k = Σ_i s_i t_ik`` rows of class k; for the
    sigmoid link per label, of two classes.

    Raises
    ------
    ValueError
        If `class_weight` is no dict or scheme, names unknown classes or leaves some out, or holds a
        negative weight.
    """
    if class_weight is None or target.is_one_against_rest:
        return None
    return _class_weights(target, class_weight, row_weight)


def weighted_rows(target: EncodedTarget, class_weight: Any, row_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of the rows, for one against the rest times those of their classes.

    Raises
    ------
    ValueError
        As `class_weights`.
    """
    if class_weight is None or not target.is_one_against_rest:
        return row_weight
    exclusive = replace(target, link="softmax", labels=target.values.argmax(axis=1))
    return np.asarray(row_weight * _class_weights(exclusive, class_weight, row_weight)[exclusive.values])


def _class_weights(target: EncodedTarget, class_weight: Any, row_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    refuse_masked(class_weight, "class_weight")
    if isinstance(class_weight, dict):
        weight = _weights_by_name(target, class_weight)
    elif isinstance(class_weight, str) and class_weight in SCHEMES:
        weight = _weights_by_scheme(target, class_weight, row_weight)
    else:
        asked = f"class_weight must be None, a dict or one of {', '.join(map(repr, SCHEMES))}"
        raise ValueError(refuse(asked, repr(class_weight)))
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError(refuse("class weights must be finite and not negative", class_weight))
    return np.ascontiguousarray(weight)


def _weights_by_name(target: EncodedTarget, class_weight: dict[Any, float]) -> NDArray[np.float64]:
    if not target.multilabel:
        weight = compute_class_weight(class_weight, classes=target.classes, y=target.classes).astype(np.float64)
        return weight if target.link == "softmax" else weight[:, None]
    unknown = [key for key in class_weight if key not in (0, 1)]
    if unknown:
        raise ValueError(refuse("for label sets class_weight has the keys 0 and 1", f"the key {unknown[0]!r}"))
    pair = [[float(class_weight.get(key, 1.0))] for key in (0, 1)]
    return np.repeat(pair, target.num_outputs, axis=1)


def _weights_by_scheme(target: EncodedTarget, scheme: str, row_weight: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = target.counts(row_weight)
    if target.link == "softmax":
        return scheme_weights(counts, scheme)
    pairs = np.stack([row_weight.sum() - counts, counts], axis=1)
    return np.stack([scheme_weights(np.maximum(pair, 0), scheme) for pair in pairs], axis=1)
