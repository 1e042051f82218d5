"""How other heads become softmax rows: the sigmoid's two classes and the top-k teacher's bucket."""

from __future__ import annotations

from functools import cached_property

from crossent.core.arrays import Array, array_namespace, guarded_product, one_hot
from crossent.core.statistics import Rows, Target


class SigmoidRows(Rows):
    """Entries z (M,) as two-class rows ``(0, z)``: class 1 has probability σ(z).

    The row is handed on shifted so that its maximum is exactly 0, which a softmax does not see; so z = ±inf, p = 1 or
    0, needs no rule of its own. Gradients and Hessian diagonals with respect to z are the entries of class 1.
    """

    def __init__(self, entries: Array, target: Target):
        xp = array_namespace(entries)
        zero = xp.zeros_like(entries)
        self.positive_part = xp.maximum(entries, zero)
        super().__init__(xp.stack([-self.positive_part, xp.minimum(entries, zero)], axis=-1), target)

    @cached_property
    def lse(self) -> Array:
        """softplus(z)."""
        return self.positive_part + self.log1p_tail


class TopKTarget(Target):
    """A teacher known on k classes; the mass it left over is one bucket, compared with the student's summed tail.

    Parameters
    ----------
    num_classes : int
    indices : (N, k) integer array, distinct classes in each row
    probabilities : (N, k) array ≥ 0 with row sums ≤ 1
    remainder : (N,) array ≥ 0
        The teacher's mass outside the list.
    """

    def __init__(self, num_classes: int, indices: Array, probabilities: Array, remainder: Array):
        super().__init__(num_classes)
        self.indices, self.probabilities, self.remainder = indices, probabilities, remainder

    @cached_property
    def listed(self) -> tuple[Array, Array]:
        """Return (t on the listed classes and 0 elsewhere; whether a class is listed), both (N, K)."""
        xp = array_namespace(self.probabilities)
        dense: Array = 0.0
        is_listed: Array = None
        for j in range(self.indices.shape[1]):
            here = one_hot(self.indices[:, j], self.num_classes)
            probability = self.probabilities[:, j][:, None]
            dense = dense + xp.where(here, probability, xp.zeros_like(probability))
            is_listed = here if is_listed is None else is_listed | here
        return dense, is_listed

    def distribution(self, like: Array) -> Array:
        raise TypeError("a top-k teacher has no distribution over single classes")


class TopKRows(Rows):
    """Rows whose ``nll`` is ``Σ_listed t_k (LSE - z_k) + remainder · (LSE - LSE_unlisted)``.

    With π the student's distribution inside the bucket, the gradient row is ``p - t - remainder·π`` and the Hessian
    ``diag p - ppᵀ - remainder·(diag π - ππᵀ)``.
    """

    target: TopKTarget

    @cached_property
    def bucket(self) -> Rows:
        """The unlisted classes as rows of their own."""
        _, is_listed = self.target.listed
        masked = self.xp.where(is_listed, self.xp.full_like(self.logits, -self.xp.inf), self.logits)
        # A bucket without classes, or all masked, has mass 0; a row of zeros stands in and is multiplied by 0.
        empty = self.xp.all(self.xp.isinf(masked) & (masked < 0), axis=-1, keepdims=True)
        return Rows(self.xp.where(empty, self.xp.zeros_like(masked), masked), Target(self.target.num_classes))

    @cached_property
    def bucket_is_possible(self) -> Array:
        _, is_listed = self.target.listed
        return self.xp.any(~is_listed & (self.logits > -self.xp.inf), axis=-1)

    @cached_property
    def mass(self) -> Array:
        return self.xp.ones_like(self.maximum)

    @cached_property
    def nll(self) -> Array:
        dense, _ = self.target.listed
        bucket = (self.maximum - self.bucket.maximum) + (self.log1p_tail - self.bucket.log1p_tail)
        bucket = self.xp.where(self.bucket_is_possible, bucket, self.xp.full_like(bucket, self.xp.inf))
        listed = self.xp.sum(guarded_product(dense, self.surprisal), axis=-1)
        return listed + guarded_product(self.target.remainder, bucket)

    @cached_property
    def share(self) -> Array:
        """remainder · π."""
        return self.target.remainder[:, None] * self.xp.where(
            self.bucket_is_possible[:, None], self.bucket.probability, self.xp.zeros_like(self.logits)
        )

    def gradient_row(self, name: str) -> Array:
        if name == "nll":
            dense, _ = self.target.listed
            return self.probability - dense - self.share
        return super().gradient_row(name)

    def hessian_product(self, name: str, vector: Array) -> Array:
        product = super().hessian_product(name, vector)
        if name == "nll":
            mean = self._dot(self.bucket.probability, vector)
            product = product - self.share * (vector - mean)
        return product

    def hessian_diagonal(self, name: str) -> Array:
        diagonal = super().hessian_diagonal(name)
        if name == "nll":
            diagonal = diagonal - self.share * self.bucket.complement
        return diagonal
