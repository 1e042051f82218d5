"""Beta calibration: the map of a probability that can be the identity, which Platt's sigmoid cannot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from crossent.errors import refuse
from crossent.numpy.elementwise import softmax

from .linear import LinearMap, Prior, fit
from .one_vs_rest import OneVersusRest
from .sample import Float64, Sample

__all__ = ["BetaCalibration"]


@dataclass(kw_only=True, eq=False, repr=False)
class BetaCalibration(OneVersusRest):
    r"""Beta calibration: :math:`logit\,p = a \log q - b \log(1 - q) + c` with a, b ≥ 0, by cross-entropy [1]_.

    For scores q that are already probabilities, where Platt's sigmoid cannot express the identity. Two classes: one map
    of the second. More: :math:`p = softmax_k(a_k \log q_k - b_k \log(1 - q_k) + c_k)`, all classes fitted together.
    Label sets: one map per label. Convex; Newton's method, with the whole Hessian up to 100 classes.

    Minimises :math:`\sum_i w_i \ell_i + \lambda \sum_k \bigl((a_k - 1)^2 + (b_k - 1)^2\bigr)`: a weak normal prior
    about the identity, without which scores that hardly differ are blown up to certainties.

    Parameters
    ----------
    prior : float
        λ, at least 0. More rows outweigh it.
    input, link
        As in `TemperatureScaling`; no probability may be 0 or 1.
    tol : float
        Stop when the loss is estimated to be so many nats per row above its minimum.
    max_iter : int

    Attributes
    ----------
    coef_ : array (K, 3), or (1, 3) for two classes
        a, b and c.
    classes_ : array (K,)

    References
    ----------
    .. [1] M. Kull, T. Silva Filho, P. Flach, "Beta calibration: a well-founded and easily implemented improvement on
       logistic calibration for binary classifiers", AISTATS (2017).

    Examples
    --------
    >>> import numpy as np
    >>> from crossent.sklearn import BetaCalibration
    >>> rng = np.random.default_rng(0)
    >>> q = rng.random(4000)
    >>> model = BetaCalibration(input="probabilities").fit(q, rng.random(4000) < q)
    >>> bool(abs(model.coef_ - [1, 1, 0]).max() < 0.2)  # calibrated already: the identity
    True
    """

    prior: float = 0.1
    tol: float = 1e-9
    max_iter: int = 200

    def _check_options(self) -> None:
        self._check_solver()
        self._check_not_negative("prior")

    def _fit_scores(self, sample: Sample) -> None:
        if not np.isfinite(sample.logits).all():
            row = sample.number(int(np.argmax(~np.isfinite(sample.logits).all(axis=1))))
            raise ValueError(refuse("beta calibration needs finite log-odds", f"a probability of 0 or 1 in row {row}"))
        self._joint = sample.events is None
        _, factor = replace(sample, link="sigmoid").scaled(by_column=True)
        unit = np.stack([factor, factor, np.ones_like(factor)])
        weight = np.zeros(unit.shape)
        weight[:2] = self.prior
        whole = _features(sample.logits)
        held = np.abs(whole).max(axis=2).T == 0
        found = np.ones(unit.shape)
        found[2] = 0.0
        while True:  # factors that want to be negative are held at 0, and the others fitted anew

            def problem(part: Sample, held: NDArray[np.bool_] = held) -> LinearMap:
                phi = _features(part.logits) / unit.T[:, :, None]
                return LinearMap(part, lambda rows: phi[:, :, rows], Prior(weight, 1.0), unit, held=held)

            found, _ = fit(problem, sample, np.where(held, 0.0, found), self.tol, self.max_iter)
            negative = found[:2] < 0
            if not negative.any():
                break
            held = held.copy()
            held[:2] |= negative
            found = found * unit
        self.coef_ = found.T.copy()

    def _map(self, scores: NDArray[Any]) -> NDArray[Any]:
        with np.errstate(invalid="ignore"):  # 0 · inf is 0
            terms = self.coef_[:, :, None] * _features(scores)
            mapped = np.where(self.coef_[:, :, None] == 0, 0.0, terms).sum(axis=1).T
        return np.asarray(softmax(mapped) if self._joint else expit(mapped))


def _features(scores: NDArray[Any]) -> Float64:
    """Return log q, -log(1 - q) and 1 of log-odds (N, K), as an array (K, 3, N)."""
    s = np.ascontiguousarray(scores.T, dtype=np.float64)
    return np.stack([-np.logaddexp(0.0, -s), np.logaddexp(0.0, s), np.ones_like(s)], axis=1)
