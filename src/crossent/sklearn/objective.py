"""The objective of a linear model, evaluated a block of rows at a time.

``F(W, b) = Σ_i c_i ℓ(W x_i + b, t_i) + (λ/2) ‖W‖²`` with row weights c. No array of N·K elements is made beyond
`CACHE_BYTES`: the logits of a block of rows are written into a buffer, a kernel replaces them by their gradient, and two
matrix products take it from there.

Three decisions that the rest of the package leans on:

- **Parameters are one float64 array** (K, D + 1), W beside b, whatever the dtype of the data; sums over rows run in float64.
- **Columns are centred** when there is an intercept: ``W x + b = W (x - μ) + (b + W μ)``, and as b is free and not
  penalised the two problems are one. This keeps large offsets of the data out of the logits' rounding and out of the
  curvature's condition number.
- **Products run in a working precision**, that of the data, or float64 for float32 data when `promote` is called:
  blocks are converted one by one, so memory does not grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.kernels import registry

from .targets import EncodedTarget

BLOCK_ELEMENTS = 1 << 19
"""Elements of a block's largest buffer: 2 MiB in float32, which a core's second-level cache holds."""
CACHE_BYTES = 1 << 28
"""The most that may be kept between passes: the centred columns, and the probabilities for Hessian products."""
CROSS_ENTROPY_TERMS = np.array([[0.0, 1.0, 0.0]])

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """F and its gradient at a point, with the data's part kept apart for the certificate."""

    theta: Array
    data_loss: float
    data_gradient: Array
    value: float
    gradient: Array

    @property
    def gradient_norm(self) -> float:
        """The Euclidean norm of the gradient."""
        return float(np.sqrt(np.vdot(self.gradient, self.gradient)))


class LinearObjective:
    """F of a data set; see the module's docstring.

    Parameters
    ----------
    X : ndarray (N, D)
        float32 or float64, C-contiguous; not written to.
    target : EncodedTarget
        N rows.
    row_weight : ndarray (N,)
        c, positive.
    penalty : float
        λ ≥ 0.
    terms : ndarray (n, 3)
        The loss as its table (code, scale, parameter).
    fit_intercept : bool
        Without an intercept the last column of every parameter and gradient stays 0.
    """

    def __init__(
        self,
        X: NDArray[Any],
        target: EncodedTarget,
        row_weight: Array,
        penalty: float,
        terms: Array,
        fit_intercept: bool,
    ) -> None:
        self.X = X
        self.target = target
        self.row_weight = row_weight
        self.penalty = penalty
        self.terms = terms
        self.fit_intercept = fit_intercept
        self.num_rows, self.num_features = X.shape
        self.num_outputs = target.num_outputs
        self.is_cross_entropy = bool((terms[:, 0] == 0).all())
        self.evaluations = 0
        self.hessian_products = 0
        rows = max(1, BLOCK_ELEMENTS // max(self.num_outputs, self.num_features))
        self.blocks = [slice(i, min(i + rows, self.num_rows)) for i in range(0, self.num_rows, rows)]
        self.mean: Array | None = None
        if fit_intercept:
            total = np.zeros(self.num_features)
            for block in self.blocks:
                total += row_weight[block] @ X[block]
            self.mean = total / row_weight.sum()
        self._set_precision(X.dtype)

    def _set_precision(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._twin = registry.find(self.dtype)
        rows = self.blocks[0].stop
        self._logits = np.empty((rows, self.num_outputs), dtype=self.dtype)
        self._product = np.empty((self.num_outputs, self.num_features), dtype=self.dtype)
        self._columns: NDArray[Any] | None = None
        self._shifted: NDArray[Any] | None = None
        if self.mean is None and self.X.dtype == self.dtype:
            self._columns = self.X
        elif self.num_rows * self.num_features * self.dtype.itemsize <= CACHE_BYTES:
            self._columns = np.empty(self.X.shape, dtype=self.dtype)
            for block in self.blocks:
                self._shift(block, self._columns[block])
        else:
            self._shifted = np.empty((rows, self.num_features), dtype=self.dtype)

    @property
    def can_promote(self) -> bool:
        """Whether float64 would be more precise than what the products run in now."""
        return self.dtype == np.float32

    def promote(self) -> None:
        """Run all products in float64 from now on."""
        self._set_precision(np.float64)

    def _shift(self, rows: slice, out: NDArray[Any]) -> NDArray[Any]:
        if self.mean is None:
            out[...] = self.X[rows]
        else:
            np.subtract(self.X[rows], self.mean, out=out, casting="same_kind")
        return out

    def columns(self, rows: slice) -> NDArray[Any]:
        """Return a block of (centred) rows in working precision; valid until the next call."""
        if self._columns is not None:
            return self._columns[rows]
        assert self._shifted is not None
        return self._shift(rows, self._shifted[: rows.stop - rows.start])

    def logits(self, theta: Array) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any]]]:
        """Yield (rows, columns, logits (n, K)) of every block; valid until the next step, and free to overwrite."""
        weight = np.ascontiguousarray(theta[:, :-1], dtype=self.dtype)
        bias = theta[:, -1].astype(self.dtype)
        for rows in self.blocks:
            columns = self.columns(rows)
            logits = self._logits[: len(columns)]
            np.matmul(columns, weight.T, out=logits)
            if self.fit_intercept:
                logits += bias
            yield rows, columns, logits

    def evaluate(self, theta: Array) -> Evaluation:
        """Return F and its gradient at `theta`, in one pass."""
        self.evaluations += 1
        gradient = np.zeros(theta.shape)
        losses = []
        for rows, columns, logits in self.logits(theta):
            weight = self.row_weight[rows]
            row_loss = self._gradient_in_place(self.target.take(rows), logits, self.terms, weight)
            losses.append(float(weight @ row_loss))
            self.accumulate(gradient, logits, columns)
        data_loss = float(np.sum(losses))
        full = gradient.copy()
        full[:, :-1] += self.penalty * theta[:, :-1]
        value = data_loss + 0.5 * self.penalty * float(np.sum(theta[:, :-1] ** 2))
        return Evaluation(theta, data_loss, gradient, value, full)

    def accumulate(self, total: Array, rows_by_outputs: NDArray[Any], columns: NDArray[Any]) -> None:
        """Add ``Σ_i g_i (x_i, 1)ᵀ`` of a block to `total`, in float64."""
        np.matmul(rows_by_outputs.T, columns, out=self._product)
        total[:, :-1] += self._product
        if self.fit_intercept:
            total[:, -1] += rows_by_outputs.sum(axis=0, dtype=np.float64)

    def probabilities(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Replace logits by probabilities: the gradient of cross-entropy for the target "class 0" is p - e_0, or σ."""
        softmax = self.target.link == "softmax"
        zeros: NDArray[Any] = np.zeros(len(logits), np.int64) if softmax else np.zeros(logits.shape, np.int8)
        target = EncodedTarget(self.target.link, self.target.classes, self.num_outputs, zeros, None)
        self._gradient_in_place(target, logits, CROSS_ENTROPY_TERMS, None)
        if softmax:
            logits[:, 0] += 1
        return logits

    def mass(self, rows: slice) -> Array:
        """Return a = c τ of some rows: (n,), or (n, K) for the sigmoid link with unequal class weights."""
        weight, target = self.row_weight[rows], self.target
        if target.class_weight is None:
            return weight
        if target.hard and target.link == "softmax":
            return weight * target.class_weight[target.labels[rows]]  # type: ignore[index]
        tau = target.dense(rows)[1]
        return weight * tau if tau.ndim == 1 else weight[:, None] * tau

    def _gradient_in_place(
        self, target: EncodedTarget, logits: NDArray[Any], terms: Array, weight: Array | None
    ) -> Array:
        soft = None if target.soft is None else target.soft.astype(logits.dtype, copy=False)
        common = (logits, target.labels, soft, target.class_weight, target.label_smoothing, terms, 1.0, weight, logits)
        if target.link == "softmax":
            return self._twin.softmax_value_grad(*common)
        return self._twin.sigmoid_value_grad(*common, None)
