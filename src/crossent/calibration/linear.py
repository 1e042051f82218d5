"""Fits of maps that are linear in their parameters: class k's new logit is ``Σ_f θ_fk φ_fk`` of features φ of its own.

The mean cross-entropy of such a map is convex. Its gradient, and its Hessian or products with it, are sums over rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .newton import Point, minimize
from .sample import Float64, Sample

__all__ = ["LinearMap", "Prior", "fit"]

DENSE = 300
"""Up to so many parameters the whole Hessian is formed."""
_CG_STEPS = 50
_RIDGE = 1e-11

Features = Callable[[slice], Float64]
"""Gives φ of some rows: (K, F, n), or (1, F, n) where all classes have the same features."""


@dataclass(frozen=True)
class Prior:
    """``Σ weight (θ - center)²`` beside the summed loss; `spread`: the center of the first feature is its mean."""

    weight: Float64  # (F, K)
    center: float = 0.0
    spread: bool = False

    def gap(self, theta: Float64) -> Float64:
        """Return how far parameters are from their centers."""
        gap = theta - self.center
        if self.spread:
            gap[0] -= gap[0].mean()
        return gap


class LinearMap:
    """The objective of one sample, ``Σ w ℓ / Σ w`` and the prior; call it with parameters for a `Point`.

    Parameters
    ----------
    sample : Sample
    features : callable or None
        None: ``z_k`` and 1, whose sums the compiled kernels know.
    prior : Prior
    unit : array (F, K)
        Parameters are looked for in this unit, the inverse of their features': θ is parameter / unit.
    tied : bool
        One parameter of the first feature for all classes.
    held : array (F, K) of bool, optional
        Parameters that stay 0.
    targets : (array, array), optional
        What a label's probability should be where it is 0 and where it is 1, with the sigmoid link.
    """

    def __init__(
        self,
        sample: Sample,
        features: Features | None,
        prior: Prior,
        unit: Float64,
        *,
        tied: bool = False,
        held: NDArray[np.bool_] | None = None,
        targets: tuple[Float64, Float64] | None = None,
    ) -> None:
        self.sample, self.prior, self.unit, self.tied = sample, prior, unit, tied
        self.free = np.ones(unit.shape, bool) if held is None else ~held
        self.classes = unit.shape[1]
        self.exclusive = sample.link == "softmax"
        self.features = affine_features(sample) if features is None else features
        self.size = len(self.pick(unit))
        self.is_small = self.size <= DENSE
        self.is_compiled = features is None and not (self.exclusive and self.is_small)
        self.targets = targets or (np.zeros(self.classes), np.ones(self.classes))
        self.curvature = 2 * prior.weight / sample.total / unit / unit

    def collapse(self, values: Float64) -> Float64:
        """Return (P, …) parameters of (F, K, …) entries: what is tied is added up, what is held left out."""
        if self.tied:
            return np.concatenate([values[0].sum(axis=0, keepdims=True), *values[1:]])
        return np.asarray(values[self.free])

    def pick(self, entries: Float64) -> Float64:
        """Return the parameters of (F, K) entries."""
        return np.concatenate([entries[0, :1], *entries[1:]]) if self.tied else np.asarray(entries[self.free])

    def expand(self, parameters: Float64) -> Float64:
        """Return (F, K) entries of parameters."""
        if self.tied:
            return np.stack([np.full(self.classes, parameters[0]), *parameters[1:].reshape(-1, self.classes)])
        entries = np.zeros(self.unit.shape)
        entries[self.free] = parameters
        return entries

    def __call__(self, parameters: Float64) -> Point:
        entries = self.expand(parameters)
        with np.errstate(invalid="ignore", over="ignore"):
            point = self._compiled(entries) if self.is_compiled else self._by_blocks(entries)
        if not np.isfinite(point.value):
            return Point(np.inf, np.zeros_like(parameters), lambda v: v, False)
        gap = self.prior.gap(entries / self.unit)
        scale = self.prior.weight / self.sample.total
        gradient = self.collapse(point.gradient + 2 * scale * gap / self.unit)
        return point._replace(value=point.value + float(np.sum(scale * gap**2)), gradient=gradient)

    # -- features z and 1 by the compiled kernels --------------------------------------------------------------------

    def _compiled(self, entries: Float64) -> Point:
        sample, (scale, bias) = self.sample, entries
        if self.exclusive:
            loss, sums = sample.kernels.affine_moments(sample.logits, sample.codes, sample.weights, scale, bias)
        else:
            moments = sample.kernels.sigmoid_affine_moments(
                sample.logits, sample.codes, sample.events, self.targets, sample.weights, scale, bias
            )
            loss, sums = float(moments[0].sum()), moments[1:]
        by_bias, by_scale, bb, ab, aa = sums / sample.total
        solve = self._arrow(bb, ab, aa) if self.tied else self._pairs(bb, ab, aa)
        exact = not self.exclusive and not (self.prior.spread and self.prior.weight[0].any())
        return Point(loss / sample.total, np.stack([by_scale, by_bias]), solve, exact)

    def _arrow(self, bb: Float64, ab: Float64, aa: Float64) -> Callable[[Float64], Float64]:
        """Return what solves with one factor beside all shifts."""
        bb = bb + self.curvature[1]
        bb, corner = bb + 1e-10 * bb.max() + 1e-300, float(aa.sum()) + 1e-300
        schur = max(corner - float(np.sum(ab**2 / bb)), 1e-10 * corner)

        def solve(v: Float64) -> Float64:
            first = (v[0] - float(np.sum(ab / bb * v[1:]))) / schur
            return np.concatenate([[first], (v[1:] - ab * first) / bb])

        return solve

    def _pairs(self, bb: Float64, ab: Float64, aa: Float64) -> Callable[[Float64], Float64]:
        """Return what solves class by class."""
        aa, bb = (d + 1e-10 * d.max() + 1e-300 for d in (aa + self.curvature[0], bb + self.curvature[1]))
        determinant = np.maximum(aa * bb - ab**2, 1e-12 * aa * bb)

        def solve(v: Float64) -> Float64:
            by_a, by_b = v.reshape(2, -1)
            return np.concatenate([bb * by_a - ab * by_b, aa * by_b - ab * by_a]) / np.tile(determinant, 2)

        return solve

    # -- any features, a block of rows at a time ---------------------------------------------------------------------

    def _by_blocks(self, entries: Float64) -> Point:
        sample, (features, classes) = self.sample, self.unit.shape
        value, gradient = 0.0, np.zeros(self.unit.shape)
        blocks, product, kept = np.zeros((classes, features, features)), np.zeros((self.size, self.size)), []
        for part in sample.blocks(4 * self.unit.size if self.is_small else 3 * classes + features):
            phi, w = self.features(part), sample.weight(part) / sample.total
            z = _combine(entries, phi)
            if self.exclusive:
                loss, p, gap = _softmax_rows(z, sample.codes[part])
            else:
                loss, p, gap = _sigmoid_rows(z, np.asarray(sample.events)[part].T)
            if not np.isfinite(phi).all():
                phi = np.where(np.isfinite(phi), phi, 0.0)  # of a class that cannot happen
            value += float(w @ loss)
            gradient += _gather(phi, gap * w)
            if not self.is_small:
                kept.append((phi, p, w))
                continue
            rows = phi * p[:, None]
            spread = rows * w if self.exclusive else rows * (w * (1 - p))[:, None]
            blocks += spread @ phi.transpose(0, 2, 1)
            if self.exclusive:
                rows = self.collapse(rows.transpose(1, 0, 2))
                product += (rows * w) @ rows.T
        if self.is_small:
            return Point(value, gradient, dense_solver(self._hessian(blocks) - product), True)
        return Point(value, gradient, self._conjugate_gradients(kept), True)

    def _hessian(self, blocks: Float64) -> Float64:
        """Return the Hessian of the prior and of the (F, F) block of each class."""
        features, classes = self.unit.shape
        whole, k = np.zeros((features, classes, features, classes)), np.arange(classes)
        whole[:, k, :, k] = blocks
        whole.reshape(self.unit.size, -1)[np.diag_indices(self.unit.size)] += self.curvature.ravel()
        if self.prior.spread:
            whole[0, :, 0] -= self.curvature[0] / classes
        half = self.collapse(whole.reshape(features, classes, -1))
        return self.collapse(half.T.reshape(features, classes, -1))

    def _conjugate_gradients(self, kept: list[tuple[Float64, Float64, Float64]]) -> Callable[[Float64], Float64]:
        """Return what solves with the Hessian by conjugate gradients, preconditioned by its diagonal.

        `kept` has the features, probabilities and weights of every block of rows.
        """

        def product(v: Float64) -> Float64:
            entries = self.expand(v)
            out = self.curvature * entries
            for phi, p, w in kept:
                u = _combine(entries, phi)
                u = u - np.einsum("kn,kn->n", p, u) if self.exclusive else u * (1 - p)
                out += _gather(phi, u * p * w)
            return self.collapse(out)

        diagonal = self.collapse(self.curvature + sum(_gather(phi**2, w * p * (1 - p)) for phi, p, w in kept))
        diagonal = np.maximum(diagonal, 1e-12 * diagonal.max())

        def solve(gradient: Float64) -> Float64:
            residual, solution = gradient.copy(), np.zeros_like(gradient)
            step = residual / diagonal
            fall = first = float(residual @ step)
            for _ in range(_CG_STEPS):
                image = product(step)
                curvature = float(step @ image)
                if curvature <= 0:
                    break
                solution += fall / curvature * step
                residual -= fall / curvature * image
                scaled = residual / diagonal
                before, fall = fall, float(residual @ scaled)
                if fall <= 1e-4 * first:
                    break
                step = scaled + fall / before * step
            return solution if solution.any() else gradient / diagonal

        return solve


def fit(
    make: Callable[[Sample], LinearMap], sample: Sample, start: Float64, tol: float, max_iter: int
) -> tuple[Float64, int]:
    """Return the best entries (F, K) of a map, and the number of passes over all rows; `start` is in its unit."""
    entries, passes = start, 0
    for stage in sample.stages(start.size):
        problem = make(stage)
        parameters, passes = minimize(problem, problem.pick(entries), tol, max_iter)
        entries = problem.expand(parameters)
    return entries / problem.unit, passes


def dense_solver(hessian: Float64) -> Callable[[Float64], Float64]:
    """Return what solves with a Hessian that a shift of all logits makes singular."""
    ridge = _RIDGE * max(float(np.trace(hessian)) / len(hessian), np.finfo(np.float64).tiny)
    hessian = hessian + ridge * np.eye(len(hessian))
    return lambda v: np.asarray(np.linalg.solve(hessian, v))


def affine_features(sample: Sample) -> Features:
    """Return the features ``z_k`` and 1 of a sample's logits."""

    def features(part: slice) -> Float64:
        z = np.ascontiguousarray(sample.logits[part].T, dtype=np.float64)
        return np.stack([z, np.ones_like(z)], axis=1)

    return features


def _combine(entries: Float64, phi: Float64) -> Float64:
    """Return (K, n) logits ``Σ_f θ_fk φ_fk``."""
    return entries.T @ phi[0] if len(phi) == 1 else (entries.T[:, None] @ phi)[:, 0]


def _gather(phi: Float64, values: Float64) -> Float64:
    """Return (F, K) sums ``Σ_n φ_fkn v_kn``."""
    return (values @ phi[0].T if len(phi) == 1 else (phi @ values[:, :, None])[:, :, 0]).T


def _softmax_rows(z: Float64, codes: NDArray[np.intp]) -> tuple[Float64, Float64, Float64]:
    """Return losses (n,), probabilities (K, n) and the losses' derivatives by the logits (K, n)."""
    rows = np.arange(len(codes))
    z = z - z.max(axis=0)
    p = np.exp(z)
    total = p.sum(axis=0)
    p /= total
    gap = p.copy()
    gap[codes, rows] -= 1.0
    return np.log(total) - z[codes, rows], p, gap


def _sigmoid_rows(z: Float64, events: NDArray[np.bool_]) -> tuple[Float64, Float64, Float64]:
    """Return summed losses (n,), probabilities (K, n) and the losses' derivatives by the logits (K, n)."""
    e = np.exp(-np.abs(z))
    p = np.where(z >= 0, 1.0, e) / (1 + e)
    return np.sum(np.maximum(z, 0.0) - events * z + np.log1p(e), axis=0), p, p - events
