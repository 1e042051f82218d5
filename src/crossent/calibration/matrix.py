"""Matrix scaling and Dirichlet calibration: a softmax regression on the logits, kept near the diagonal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crossent.errors import refuse
from crossent.numpy.elementwise import log_softmax, softmax

from .base import Calibrator
from .linear import LinearMap, Prior, fit
from .sample import Float64, Sample

__all__ = ["DirichletCalibration", "MatrixScaling"]


@dataclass(kw_only=True, eq=False, repr=False)
class MatrixScaling(Calibrator):
    r"""A linear map of the logits: :math:`p = softmax(W z + b)`, fitted by cross-entropy and kept near a diagonal.

    Minimises, by Newton's method (conjugate gradients on exact Hessian products beyond 16 classes),

    .. math:: \sum_i w_i \ell_i + \lambda \sum_{j \ne k} W_{jk}^2 + \mu \sum_k b_k^2,

    the off-diagonal and intercept regularisation (ODIR) of [1]_, without which K² parameters overfit.

    Parameters
    ----------
    off_diagonal : float
        λ, at least 0: a normal prior of variance ``1 / (2 λ)`` on the entries off the diagonal. More rows outweigh it.
    intercept : float
        μ, at least 0.
    input : {"logits", "any-logits", "probabilities"}
        As in `TemperatureScaling`; no probability may be 0 here.
    tol : float
        Stop when the objective is estimated to be so many nats per row above its minimum.
    max_iter : int

    Attributes
    ----------
    coef_ : array (K, K)
        W.
    bias_ : array (K,)
        b.
    classes_ : array (K,)
    n_passes_ : int
        Evaluations of value and gradient.

    References
    ----------
    .. [1] M. Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with
       Dirichlet calibration", NeurIPS (2019).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import MatrixScaling
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(3, size=900)
    >>> logits = 5.0 * np.eye(3)[(y + (rng.random(900) < 0.2)) % 3]  # one class is taken for the next
    >>> model = MatrixScaling(off_diagonal=1.0).fit(logits, y)
    >>> model.predict_proba(5.0 * np.eye(3)).round(1).tolist()
    [[0.8, 0.0, 0.2], [0.2, 0.8, 0.0], [0.0, 0.2, 0.8]]
    """

    off_diagonal: float = 150.0
    intercept: float = 1.0
    tol: float = 1e-9
    max_iter: int = 200
    link: ClassVar[str] = "softmax"  # type: ignore[misc]  # no parameter: its classes exclude each other

    def _check_options(self) -> None:
        self._check_solver()
        self._check_not_negative("off_diagonal", "intercept")

    def _fit(self, sample: Sample) -> None:
        x = self._features(sample.logits)
        if not np.isfinite(x).all():
            row = int(np.argmax(~np.isfinite(x).all(axis=1)))
            got = f"{x[row][:8].tolist()} in row {sample.number(row)}"
            raise ValueError(refuse("this calibrator needs finite logits", got))
        sample, factor = replace(sample, logits=x).scaled()
        classes = len(factor)
        weight = self.off_diagonal * (1 - np.eye(classes + 1, classes))
        weight[-1] = self.intercept
        unit = np.full(weight.shape, factor)
        unit[-1] = 1.0

        def problem(part: Sample) -> LinearMap:
            extended = np.ascontiguousarray(np.concatenate([part.logits.T, np.ones((1, len(part.codes)))])[None])
            return LinearMap(part, lambda rows: extended[:, :, rows], Prior(weight), unit)

        found, self.n_passes_ = fit(problem, sample, np.eye(classes + 1, classes), self.tol, self.max_iter)
        self.coef_, self.bias_ = found[:-1].T.copy(), found[-1] - found[-1].mean()

    def _features(self, logits: NDArray[Any]) -> Float64:
        return np.ascontiguousarray(logits, dtype=np.float64)

    def _predict(self, z: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(softmax(self._features(z) @ self.coef_.T + self.bias_))


class DirichletCalibration(MatrixScaling):
    r"""Matrix scaling of *log-probabilities*: :math:`p = softmax(W \log q + b)` with q the uncalibrated probabilities.

    The map that calibrates predictions whose distributions, class by class, are Dirichlet [1]_; the beta calibration of
    many classes. Takes logits, whose log-softmax is the feature. Parameters, attributes and errors as in
    `MatrixScaling`.

    References
    ----------
    .. [1] M. Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with
       Dirichlet calibration", NeurIPS (2019).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import DirichletCalibration
    >>> probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7]])
    >>> model = DirichletCalibration(input="probabilities").fit(probabilities, [0, 1, 1, 0])
    >>> model.predict_proba(probabilities).sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def _features(self, logits: NDArray[Any]) -> Float64:
        return np.asarray(log_softmax(np.asarray(logits, dtype=np.float64)))
