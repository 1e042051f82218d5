"""Vector scaling and bias-corrected temperature scaling: a factor and a shift for each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crossent.numpy.elementwise import sigmoid, softmax

from .base import Calibrator
from .linear import DENSE, LinearMap, Prior, fit
from .sample import Sample
from .temperature import best_factor

__all__ = ["BiasCorrectedTemperatureScaling", "VectorScaling"]


@dataclass(kw_only=True, eq=False, repr=False)
class _AffineCalibrator(Calibrator):
    """``softmax(a ∘ z + b)``, with a one number or one per class."""

    tol: float = 1e-9
    max_iter: int = 200
    _tied: ClassVar[bool] = False

    def _check_options(self) -> None:
        self._check_solver()
        self._check_not_negative("spread", "intercept")

    def _fit(self, sample: Sample) -> None:
        sample, factor = sample.scaled(by_column=self.link == "sigmoid" and not self._tied)
        unit = np.stack([factor, np.ones_like(factor)])
        common, passes = 1.0, 0
        if self.link == "softmax" and unit.size > DENSE:
            # The best common factor is a start that the diagonal blocks of the Hessian find slowly.
            start = best_factor(sample, 1e-2)
            common, passes = start.beta or 1.0, start.passes
        prior = Prior(np.stack([0 * factor + self.spread, 0 * factor + self.intercept]), spread=True)
        (self.scale_, self.bias_), self.n_passes_ = fit(
            lambda part: LinearMap(part, None, prior, unit, tied=self._tied),
            sample,
            np.stack([0 * factor + common, 0 * factor]),
            self.tol,
            self.max_iter,
        )
        self.n_passes_ += passes
        if self.link == "softmax":
            self.bias_ -= self.bias_.mean()

    def _predict(self, z: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore"):
            mapped = self.scale_.astype(z.dtype) * z + self.bias_.astype(z.dtype)
        mapped = np.where(np.isfinite(z), mapped, z)  # what is masked stays masked, whatever its factor
        return np.asarray(softmax(mapped) if self.link == "softmax" else sigmoid(mapped))


@dataclass(kw_only=True, eq=False, repr=False)
class BiasCorrectedTemperatureScaling(_AffineCalibrator):
    r"""Temperature and one shift per class: :math:`p = softmax(z / T + b)`, fitted by cross-entropy.

    The shifts repair class shares that differ from those the model was trained on [1]_. Convex; Newton's method with
    the whole Hessian up to 299 classes.

    Parameters
    ----------
    input, link
        As in `TemperatureScaling`.
    tol : float
        Stop when the loss is estimated to be so many nats per row above its minimum.
    max_iter : int

    Attributes
    ----------
    temperature_ : float
    bias_ : array (K,)
        Shifts of mean 0.
    classes_ : array (K,)
    n_passes_ : int
        Passes over all rows for values and gradients; those over the part that the fit starts on are not counted.

    References
    ----------
    .. [1] A. Alexandari, A. Kundaje, A. Shrikumar, "Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat
       at Label Shift Adaptation", ICML (2020).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import BiasCorrectedTemperatureScaling
    >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0]])
    >>> model = BiasCorrectedTemperatureScaling().fit(logits, [0, 0, 1, 0, 1])
    >>> float(model.predict_proba(logits)[:, 0].sum().round(6))  # as many as there are
    3.0
    """

    _tied: ClassVar[bool] = True
    spread: ClassVar[float] = 0.0
    intercept: ClassVar[float] = 0.0

    def _fit(self, sample: Sample) -> None:
        super()._fit(sample)
        with np.errstate(divide="ignore"):
            self.temperature_ = float(1 / self.scale_[0])


@dataclass(kw_only=True, eq=False, repr=False)
class VectorScaling(_AffineCalibrator):
    r"""A factor and a shift for each class: :math:`p = softmax(a \circ z + b)`, fitted by cross-entropy [1]_.

    Minimises :math:`\sum_i w_i \ell_i + \lambda \sum_k (a_k - \bar a)^2 + \mu \sum_k b_k^2`: weak normal priors, which
    matter where a class has few rows.

    Convex. Up to 150 classes by Newton's method with the whole Hessian; beyond by L-BFGS around its 2 × 2 blocks, class
    by class, from the best temperature: a dozen passes over the data. 2K parameters want some thousand rows.

    Parameters
    ----------
    spread : float
        λ, at least 0: how strongly factors are drawn to their mean.
    intercept : float
        μ, at least 0: how strongly shifts are drawn to 0.
    input, link
        As in `TemperatureScaling`; with link "sigmoid" this is Platt's scaling of each label, without his targets.
    tol : float
        Stop when the loss is estimated to be so many nats per row above its minimum.
    max_iter : int

    Attributes
    ----------
    scale_, bias_ : arrays (K,)
        a and b (b of mean 0 under softmax).
    classes_ : array (K,)
    n_passes_ : int
        Passes over all rows for values and gradients; those over the part that the fit starts on are not counted.

    References
    ----------
    .. [1] C. Guo et al., "On Calibration of Modern Neural Networks", ICML (2017).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import VectorScaling
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.normal(size=(2000, 3))
    >>> y = np.array([rng.choice(3, p=np.exp(v) / np.exp(v).sum()) for v in 0.5 * logits])
    >>> bool(abs(VectorScaling().fit(logits, y).scale_ - 0.5).max() < 0.2)
    True
    """

    spread: float = 10.0
    intercept: float = 1.0
