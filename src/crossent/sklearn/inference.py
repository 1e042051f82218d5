"""Standard errors of a fitted softmax regression, from the Hessian of its objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from crossent.errors import refuse
from crossent.regression.arrays import Array
from crossent.regression.targets import EncodedTarget
from crossent.shown import data_frame, html_table

MOST_PARAMETERS = 4096


@dataclass(frozen=True)
class CoefficientSummary:
    """Coefficients with their uncertainty; arrays have one row per contrast, and the intercept in the last column.

    For the softmax link a contrast is a class against the first one, ``W_k - W_0``; for the sigmoid link a label.

    Attributes
    ----------
    names : list of str
        Of the columns: features, and "intercept" if there is one.
    contrasts : list of str
    coefficients, standard_errors, z, p : ndarray
        z is coefficient / standard error; p two-sided, against 0.
    lower, upper : ndarray
        The ends of the Wald intervals.
    confidence : float
    covariance : ndarray (P, P)
        Of the coefficients, row by row.
    """

    names: list[str]
    contrasts: list[str]
    coefficients: Array
    standard_errors: Array
    z: Array
    p: Array
    lower: Array
    upper: Array
    confidence: float
    covariance: Array

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a line for each contrast and column.

        Raises
        ------
        ModuleNotFoundError
            If pandas is not installed.
        """
        return data_frame(self._columns())

    def _repr_html_(self) -> str:
        return html_table(self._columns())

    def _columns(self) -> dict[str, list[Any]]:
        arrays = ("coefficients", "standard_errors", "z", "p", "lower", "upper")
        return {
            "contrast": [contrast for contrast in self.contrasts for _ in self.names],
            "name": self.names * len(self.contrasts),
            **{name.removesuffix("s"): getattr(self, name).ravel().tolist() for name in arrays},
        }

    def __str__(self) -> str:
        width = max(len(name) for name in [*self.names, "coefficient"])
        header = f"{'':{width}}  {'estimate':>10}  {'std err':>10}  {'z':>8}  {'p':>8}  {self.confidence:.0%} interval"
        lines = []
        for i, contrast in enumerate(self.contrasts):
            lines += [contrast, header]
            for j, name in enumerate(self.names):
                numbers = f"{self.coefficients[i, j]:10.4g}  {self.standard_errors[i, j]:10.4g}  {self.z[i, j]:8.2f}"
                ends = f"{self.lower[i, j]:.4g} to {self.upper[i, j]:.4g}"
                lines.append(f"{name:{width}}  {numbers}  {self.p[i, j]:8.2g}  {ends}")
        return "\n".join(lines)


def summarize_coefficients(
    X: Array,
    mass: Array,
    probabilities: Array,
    coefficients: Array,
    *,
    penalty: float,
    fit_intercept: bool,
    target: EncodedTarget,
    names: list[str],
    confidence: float,
) -> CoefficientSummary:
    """Return the summary of a fit; arguments as `SoftmaxRegression.summary` collects them.

    `mass` is ``C s_i τ_i``, (N,) or (N, K); `coefficients` (K, D + 1), without the last column where there is no
    intercept; `penalty` is the second derivative of the penalty, 1 or 0.
    """
    if not 0 < confidence < 1:
        raise ValueError(refuse("confidence must lie in (0, 1)", repr(confidence)))
    columns = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    penalized = np.full(columns.shape[1], penalty)
    if fit_intercept:
        penalized[-1] = 0.0
    if probabilities.shape[1] * columns.shape[1] > MOST_PARAMETERS:
        size = f"{probabilities.shape[1]} × {columns.shape[1]}"
        raise ValueError(refuse(f"standard errors need a Hessian of at most {MOST_PARAMETERS} parameters", size))
    is_softmax = target.link == "softmax"
    hessian = _hessian(columns, mass, probabilities, penalized, is_softmax)
    if is_softmax:
        # f does not change when all classes shift together: its parameters are the contrasts, W = T (W_k - W_0).
        num_classes, size = probabilities.shape[1], columns.shape[1]
        differences = np.column_stack([-np.ones(num_classes - 1), np.eye(num_classes - 1)])
        back = np.kron(np.linalg.pinv(differences), np.eye(size))
        hessian = back.T @ hessian @ back
        values = coefficients[1:] - coefficients[0]
        contrasts = [f"{name} against {target.classes[0]}" for name in target.classes[1:]]
    else:
        values = coefficients
        contrasts = [str(name) for name in target.classes[-len(values) :]]
    covariance = _inverse(hessian)
    errors = np.sqrt(np.diag(covariance)).reshape(values.shape)
    z = values / errors
    p = 2 * ndtr(-np.abs(z))
    reach = float(ndtri((1 + confidence) / 2)) * errors
    names = [*names, "intercept"] if fit_intercept else names
    return CoefficientSummary(
        names, contrasts, values, errors, z, p, values - reach, values + reach, confidence, covariance
    )


def _hessian(columns: Array, mass: Array, p: Array, penalized: Array, is_softmax: bool) -> Array:
    """Return the Hessian (K D, K D); the sigmoid link's labels have no part in each other's."""
    outputs, size = p.shape[1], columns.shape[1]
    out = np.zeros((outputs, size, outputs, size))
    for k in range(outputs):
        for other in range(k, outputs if is_softmax else k + 1):
            weight = (mass if mass.ndim == 1 else mass[:, k]) * p[:, k] * ((k == other) - p[:, other])
            out[k, :, other] = (columns * weight[:, None]).T @ columns
            out[other, :, k] = out[k, :, other].T
        out[k, :, k] += np.diag(penalized)
    return out.reshape(outputs * size, outputs * size)


def _inverse(hessian: Array) -> Array:
    scale = np.sqrt(np.maximum(np.diag(hessian), np.finfo(np.float64).tiny))
    values, vectors = np.linalg.eigh(hessian / np.outer(scale, scale))
    if values[0] <= len(values) * np.finfo(np.float64).eps * values[-1]:
        raise ValueError(
            refuse(
                "standard errors need a Hessian that can be inverted",
                "columns that depend on each other, or classes that are separated",
                "leave out columns, or choose a finite C",
            )
        )
    inverse: NDArray[np.float64] = (vectors / values) @ vectors.T / np.outer(scale, scale)
    return inverse
