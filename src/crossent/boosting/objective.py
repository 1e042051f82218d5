"""A loss as an objective of gradient boosting: its gradient and a diagonal Hessian, in the order each library wants."""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.core.composition import derivatives
from crossent.core.statistics import Rows
from crossent.core.target import Target
from crossent.errors import check_number, describe, refuse
from crossent.losses import DEFAULT_LOSS, Loss
from crossent.numpy.dense import binary_cross_entropy_with_logits, cross_entropy, value_and_grad, value_grad_hess
from crossent.numpy.elementwise import sigmoid, softmax
from crossent.numpy.evaluator import make_map
from crossent.numpy.options import Options

__all__ = ["Objective", "RowLosses"]

HESSIANS = ("diagonal", "upper", "gradient")
NOT_OF_LABELS = frozenset({"lse", "entropy", "brier"})
BLOCK = 1 << 15


class LabelRows(Rows):
    """What a loss of labels reads of rows: the negative log-likelihoods of their labels, and their weights."""

    def __init__(self, nll: NDArray[np.float64], mass: NDArray[np.float64]):
        self.xp, self.target = np, Target(1, labels=np.zeros(nll.shape, np.int64))
        vars(self).update(nll_plain=nll, mass=mass)

    def likelihood_power(self, q: float) -> NDArray[np.float64]:
        """Return ``p_y^q``."""
        return np.asarray(np.exp(-q * self.nll_plain))


@dataclass(frozen=True, eq=False)
class RowLosses:
    """The loss of rows of raw predictions: what an objective and a metric share."""

    loss: Loss = DEFAULT_LOSS
    _: KW_ONLY
    link: str = "softmax"
    weight: Any = None
    pos_weight: Any = None
    label_smoothing: float = 0.0
    temperature: float | None = None
    prior: Any = None
    prior_strength: float = 1.0
    target: Any = None
    _jited = True  # CatBoost would try to compile the methods with Numba, and warn that it cannot

    def __post_init__(self) -> None:
        if self.link not in ("softmax", "sigmoid"):
            raise ValueError(refuse("link must be softmax or sigmoid", repr(self.link)))
        Options(self.link, self.loss, pos_weight=self.pos_weight, label_smoothing=self.label_smoothing).checked()
        if self.temperature is not None:
            check_number("temperature", self.temperature, above=0)
        if self.loss.needs_teacher:
            raise ValueError(refuse("boosting takes a loss of labels", repr(self.loss), "pass soft targets instead"))
        if self.weight is not None and self.link == "sigmoid":
            raise ValueError(refuse("weight holds the factors of exclusive classes", 'link="sigmoid"', "pos_weight=…"))

    def options(self) -> dict[str, Any]:
        """Return the keywords of `crossent.value_and_grad` that stand for this object."""
        names = ("loss", "link", "weight", "pos_weight", "label_smoothing", "temperature", "prior", "prior_strength")
        return {name: getattr(self, name) for name in names} | {"reduction": "sum"}

    def rows(self, raw: Any, label: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return raw predictions and targets as the losses take them.

        Raises
        ------
        ValueError
            If a label is no class, NaN or of another shape, or a prediction is not finite.
        """
        z, y = _on_cpu(raw), _on_cpu(label if self.target is None else self.target)
        if z.dtype not in (np.float32, np.float64):
            z = z.astype(np.float64)
        columns = z.shape[1] if z.ndim == 2 else 1
        if self.link == "softmax" and columns == 1:
            got = f"one column of predictions, {describe(z)}"
            raise ValueError(refuse("the softmax link needs a prediction for each class", got, 'take link="sigmoid"'))
        if y.ndim == 1 and y.size == z.size and self.link == "sigmoid":
            y = y.reshape(z.shape)  # some libraries hand a matrix of labels out flat
        elif y.ndim == 1 and y.size == z.size and y.size != len(z):
            y = y.reshape(z.shape)
        if len(y) != len(z) or (y.ndim == 2 and y.shape != z.shape and y.shape != (len(z), 1)):
            asked = f"targets must be labels or one number for each of the {z.shape} predictions"
            works = "for targets that the library cannot hold pass target=, in the order of the training rows"
            raise ValueError(refuse(asked, describe(y), works))
        return z, self._labels(y, z)

    def _labels(self, y: NDArray[Any], z: NDArray[Any]) -> NDArray[Any]:
        if y.dtype.kind not in "iub":
            y = y if y.dtype.kind == "f" else y.astype(np.float64)
            if not np.isfinite(y).all():
                row = int(np.argmin(np.isfinite(y).reshape(len(y), -1).all(axis=1)))
                raise ValueError(refuse("labels must be numbers", f"{y[row]} in row {row}"))
        if self.link == "sigmoid":
            y = y.reshape(z.shape)
            return y.astype(np.int8) if ((y == 0) | (y == 1)).all() else y.astype(np.float64)
        if y.ndim == 2 and y.shape[1] > 1:
            return y.astype(np.float64)
        y = y.reshape(-1)
        last = z.shape[1] - 1
        with np.errstate(invalid="ignore"):  # of numbers that no integer holds
            labels = y.astype(np.int64)
        bad = (labels != y) | (labels < 0) | (labels > last)
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(refuse(f"labels must be whole numbers in 0..{last}", f"{y[row]} in row {row}"))
        return labels


@dataclass(frozen=True, eq=False)
class Objective(RowLosses):
    """A loss of the family as the custom objective of XGBoost, LightGBM and CatBoost.

    The gradient of a row's loss in its raw predictions z is exact (for cross-entropy ``w (p - t)``, p = softmax(z)),
    times the row's weight, once. The Hessian is a diagonal, as boosting of trees takes it.

    Parameters
    ----------
    loss : Loss, default CrossEntropy()
        Any member of the family but distillation, such as ``Focal(2.0) + ZPenalty(1e-4)``.
    link : {"softmax", "sigmoid"}
        "softmax": exclusive classes, one column of predictions each. "sigmoid": two classes with one prediction a row,
        or label sets with one prediction a label.
    weight : array (K,), optional
        Class weights ≥ 0 of the softmax link.
    pos_weight : float or array (K,), optional
        Factor of the positive class's term, sigmoid link.
    label_smoothing, temperature, prior, prior_strength
        As in :func:`crossent.cross_entropy`.
    target : array, optional
        Distributions (N, K) or probabilities, in the order of the training rows, in the place of the library's labels.
        LightGBM holds one number a row and no distribution.
    hessian : {"upper", "diagonal", "gradient"}
        "diagonal": ``∂²ℓ/∂z_k²``, for cross-entropy ``p_k (1 - p_k)``. A loss that is not convex has negative ones,
        which become 0. "upper" bounds the diagonal from above. It is ``f' p_k (1 - p_k) + max(f'', 0) (p_k - t_k)²`` of
        a loss of labels that is an increasing function f of the negative log-likelihood, and then positive. The softmax
        link doubles it: twice the diagonal bounds the whole Hessian of cross-entropy. "gradient": ``|∂ℓ/∂z_k|``, for
        cross-entropy ``|p_k - t_k|``.

        "upper" is the default. On 10 real data sets no choice was better than the others once the learning rate was
        tuned; at the defaults of XGBoost and LightGBM "upper" had the lowest held-out loss on most with several
        classes, because the trees of all classes move a row's logits at once and "diagonal" takes twice the step. Of
        two classes and cross-entropy "upper" and "diagonal" are the same. docs/boosting.md has the measurements.

    Raises
    ------
    TypeError, ValueError
        If an option is not as above; on a call, if labels are not 0..K-1 or a weight is negative.

    Notes
    -----
    XGBoost's own `multi:softprob` uses ``2 p (1 - p)``, which is "upper" (xgboost#12537, merged after 3.2, changes it
    to ``|p - y|``, which is "gradient"); LightGBM's `multiclass` uses ``K/(K-1) p (1 - p)``. CatBoost's own Newton step
    for classes is another one; its gradient step is this. Labels that come from XGBoost are float32. CatBoost takes
    label sets from a class that is derived from this one and its `MultiTargetCustomObjective`.

    An array on a GPU (cupy) is copied to this machine's memory, with a warning.

    References
    ----------
    Friedman, Greedy function approximation (2001); Chen & Guestrin, XGBoost (2016), section 2.2; Böhning & Lindsay,
    Monotonicity of quadratic-approximation algorithms (1988), for bounds on Hessians.

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.boosting import Objective
    >>> grad, hess = Objective()(np.array([1]), np.array([[0.0, 0.0]]))
    >>> grad, hess
    (array([[ 0.5, -0.5]]), array([[0.5, 0.5]]))
    """

    hessian: str = "upper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hessian not in HESSIANS:
            raise ValueError(refuse(f"hessian must be one of {', '.join(HESSIANS)}", repr(self.hessian)))

    def _derivatives(self, raw: Any, label: Any, sample_weight: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the gradient and the Hessian, both of the predictions' shape."""
        z, y = self.rows(raw, label)
        options = self.options() | {"sample_weight": _weights(sample_weight, z)}
        hess = None
        is_of_labels = y.dtype.kind in "iu" and not self.label_smoothing and NOT_OF_LABELS.isdisjoint(self.loss.reads)
        if is_of_labels or self.hessian == "gradient":
            value, grad = value_and_grad(z, y, **options)
        else:
            value, grad, hess = value_grad_hess(z, y, **options)
        if not np.isfinite(value):
            bad = ~np.isfinite(z).reshape(len(z), -1).all(axis=1)
            got = f"{z[np.argmax(bad)]} in row {int(np.argmax(bad))}" if bad.any() else f"a loss of {value}"
            raise ValueError(refuse("raw predictions must be finite", got))
        if self.hessian == "gradient":
            return grad, np.abs(grad)
        if hess is None:
            return grad, self._of_labels(grad, z, y, options["sample_weight"])
        least = self._tangent(z, y, grad) if self.hessian == "upper" and not self.loss.is_convex else 0
        np.maximum(hess, least, out=hess)
        return grad, 2 * hess if self._is_doubled else hess

    @property
    def _is_doubled(self) -> bool:
        """Whether the bound is one of the whole Hessian of a row, whose classes' trees are grown at once."""
        return self.hessian == "upper" and self.link == "softmax"

    def _of_labels(self, grad: NDArray[Any], z: NDArray[Any], y: NDArray[Any], weight: Any) -> NDArray[Any]:
        """Return ``f' r (1 - r) + f'' r²``, r = |p - t|, of a loss f of labels' negative log-likelihood.

        The gradient is f' (p - t), so r is known from it, and only f' and f'' are computed: two numbers a row.
        """
        first, second = self._slopes(z, y)
        second = np.maximum(second, 0) if self.hessian == "upper" else second
        slope = 1.0 if self.temperature is None else 1 / self.temperature
        factor = np.asarray(slope if weight is None else slope * np.asarray(weight, np.float64))
        columns = (1,) if self.link == "softmax" else (1,) * (z.ndim - 1)
        factor, first, second = (
            np.reshape(a, (len(z), *columns)) if np.shape(a) == (len(z),) else np.asarray(a)
            for a in (factor, first, second)
        )
        divisor = factor * first
        known = np.abs(divisor) > np.finfo(grad.dtype).tiny  # where it is not, a row is certain and r is 0
        divisor = np.where(known, divisor, np.inf).astype(grad.dtype)
        bend = np.where(known, slope * factor * second, 0).astype(grad.dtype)
        hess = np.empty_like(grad)
        step = max(1, BLOCK * len(grad) // max(1, grad.size))
        for start in range(0, len(grad), step):  # in cache
            part = slice(start, start + step)
            of_rows, c = (x[part] if x.ndim else x for x in (divisor, bend))
            r = np.abs(grad[part], out=hess[part])
            if divisor.ndim or divisor != 1:
                r = r / of_rows  # negative where f' is
            hess[part] *= np.copysign(1 - np.abs(r), r) if second.ndim else 1 - r
            if slope != 1:
                hess[part] *= slope
            if second.ndim:
                hess[part] += c * r**2
            if self._is_doubled:
                hess[part] *= 2
        return np.maximum(hess, 0, out=hess) if second.ndim else hess

    def _slopes(self, z: NDArray[Any], y: NDArray[Any]) -> tuple[Any, Any]:
        """Return f' and f'': of rows, with the sigmoid link of entries, or as numbers."""
        mass: Any = 1.0
        if self.weight is not None:
            mass = np.asarray(self.weight, np.float64)[y]
        elif self.pos_weight is not None:
            mass = np.where(y == 1, self.pos_weight, 1.0)
        if self.loss.is_cross_entropy:
            return mass, 0.0
        losses: Any = cross_entropy if self.link == "softmax" else binary_cross_entropy_with_logits
        maps = {name: getattr(self, name) for name in ("temperature", "prior", "prior_strength")}
        nll = losses(z, y, reduction="none", **maps).astype(np.float64)
        jet = derivatives(self.loss, LabelRows(nll, np.broadcast_to(mass, nll.shape)), order=2)
        assert jet.second is not None
        (first,), (second,) = jet.first.values(), jet.second.values() or (0.0,)
        return first, second

    def _tangent(self, z: NDArray[Any], y: NDArray[Any], grad: NDArray[Any]) -> NDArray[Any]:
        """Return f' p (1 - p) of a loss f(nll), from its gradient g = f' (p - t)."""
        names = ("temperature", "prior", "prior_strength")
        mapping = make_map(Options(self.link, **{name: getattr(self, name) for name in names}), z.shape[-1])
        p = (softmax if self.link == "softmax" else sigmoid)(mapping.forward(z))
        t = y
        if self.link == "softmax" and y.ndim == 1:
            t = np.arange(z.shape[1]) == y[:, None]
        t = t * (1 - self.label_smoothing) + self.label_smoothing / (z.shape[1] if self.link == "softmax" else 2)
        return np.asarray(np.abs(grad) * (t * p + (1 - t) * (1 - p)) * mapping.constant_slope, grad.dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return gradient and Hessian, as `xgboost.train`, `lightgbm.train` and both scikit-learn classes call it.

        Takes ``(labels, predictions, weights=None)``, ``(predictions, DMatrix or Dataset)``, or
        ``(iteration, predictions, DMatrix)``, the order of XGBoost 3.2's `Objective`.
        """
        for raw, data in ((y_true, y_pred), (y_pred, sample_weight)):
            if hasattr(data, "get_label"):
                y_true, y_pred, sample_weight = labels_of(data), raw, weights_of(data)
                break
        return self._derivatives(y_pred, y_true, sample_weight)

    def calc_ders_range(self, approxes: Any, targets: Any, weights: Any) -> NDArray[np.float64]:
        """Return CatBoost's derivatives (N, 2) for one prediction a row: minus the gradient, minus the Hessian."""
        grad, hess = self(np.asarray(targets), np.asarray(approxes), None if weights is None else np.asarray(weights))
        return -np.stack([grad, hess], axis=1)

    def calc_ders_multi(self, approxes: Any, target: Any, weight: float) -> tuple[list[float], list[list[float]]]:
        """Return CatBoost's derivatives of one row: minus the gradient (K,), minus the diagonal matrix (K, K)."""
        raw, label = np.asarray(approxes)[None], np.asarray(target)[None]
        grad, hess = self(label, raw, None if weight is None else np.array([weight]))
        return list(-grad[0]), np.diag(-hess[0]).tolist()


def labels_of(data: Any) -> NDArray[Any]:
    """Return the labels of a DMatrix or a Dataset."""
    label = data.get_label()
    if label is None or np.size(label) == 0:
        raise ValueError(refuse("the training data must have labels", "none"))
    return np.asarray(label)


def weights_of(data: Any) -> NDArray[Any] | None:
    """Return the rows' weights of a DMatrix or a Dataset, or None."""
    weight = data.get_weight()
    return None if weight is None or np.size(weight) == 0 else np.asarray(weight)


def _weights(sample_weight: Any, z: NDArray[Any]) -> Any:
    """Return weights of rows as the losses take them: of one column, each row is an entry."""
    return None if sample_weight is None else np.asarray(sample_weight).reshape(z.shape[:1])


def _on_cpu(array: Any) -> NDArray[Any]:
    if hasattr(array, "__cuda_array_interface__"):
        warnings.warn("crossent copies arrays on a GPU to this machine's memory and computes there", stacklevel=2)
        array = array.get()
    return np.asarray(array)
