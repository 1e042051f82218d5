"""Every number of a fit that was tuned, and what follows from them for a problem of a certain size.

`print(objective.plan)` shows each number with where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

__all__ = ["TUNED", "Plan", "Size", "Tuned", "tuned"]


def _number(default: Any, origin: str) -> Any:
    return field(default=default, metadata={"origin": origin})


def _result(origin: str) -> Any:
    return field(metadata={"origin": origin})


@dataclass(frozen=True)
class Size:
    """What a plan is made for: N rows, D features, K outputs of a link, in a dtype."""

    rows: int
    features: int
    outputs: int
    link: str
    fit_intercept: bool
    dtype: np.dtype[Any]
    is_cross_entropy: bool
    window_rows: int  # rows that are in memory at a time
    is_here: bool = True  # the rows are in this process, or read by it

    @property
    def work(self) -> int:
        """Multiplications of one product in a pass over all rows."""
        return self.rows * self.outputs * self.features

    @property
    def parameters(self) -> int:
        """Numbers that a fit finds, those of the intercept included."""
        return self.outputs * (self.features + self.fit_intercept)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Numbers that hold for all problems."""

    # Memory
    cache_bytes: int = _number(1 << 28, "a choice: what may be kept between passes, once for rows, once for products")
    totals_bytes: int = _number(1 << 27, "a choice: partial sums over rows take no more")
    pairs_bytes: int = _number(1 << 30, "a choice: the pairs of L-BFGS take no more; 20 of 100,000 classes took 24 GB")
    # Blocks of rows
    block_elements: int = _number(1 << 19, "2 MiB of float32, which a core's second-level cache holds")
    large_sum: int = _number(1 << 17, "sums of more elements leave no room for a block: blocks are twice as large then")
    block_rows: int = _number(256, "K=100,000: every block reads all of W, so that blocks need as many rows at least")
    rows_a_feature: int = _number(4, "K=100,000 of 8 features: W is small, and more rows push the logits out of caches")
    least_rows: int = _number(32, "calls of products with fewer rows take longer than their arithmetic")
    chunks: int = _number(16, "partial sums, in order: as many threads can share a pass, whatever their number")
    parallel_work: int = _number(1 << 22, "multiplications of a pass below which threads cost more than they bring")
    double_outputs: int = _number(
        64, "letter: outputs up to which b's gradient is summed in float64; more take too long"
    )
    # Hessian products
    sizeable_work: int = _number(1 << 17, "multiplications of a pass from which float32 and left out rows pay: digits")
    dense_outputs: int = _number(256, "A (K, K) of more classes takes longer than the passes that it saves")
    entry_outputs: int = _number(
        64, "K=100: entries of p are drawn from here on; fewer classes have little to leave out"
    )
    entries_per_row: int = _number(4, "K=100: too few entries cost Newton steps, and each costs little")
    entry_cost: int = _number(3, "K=100: a multiplication of an entry, in multiplications of a matrix product")
    far_entry_cost: int = _number(5, "K=1000: the same where each entry finds its parameters in a third-level cache")
    near_bytes: int = _number(1 << 20, "parameters that a second-level cache holds beside a block")
    entry_bytes: int = _number(16, "a class, a value and its part of a row")
    entries_per_total: int = _number(4, "K=1000: entries per class that are worth the zeros of another partial sum")
    oversampling: float = _number(8.0, "MNIST-5k: rows per effective parameter that the first products see")
    oversampling_growth: float = _number(4.0, "MNIST-5k: how many times more after a step that did too little")
    slow: float = _number(0.6, "MNIST-5k: a step that leaves more of the gradient saw too few rows")
    # The preconditioner
    sample_rows: int = _number(4096, "rows of the sample; 8 for each feature or class if these are many")
    basis_rows: int = _number(2048, "rows of the sample that the eigenvectors are found from")
    full_rank: int = _number(256, "features up to which all eigenvectors are found: their cube is less than a pass")
    rank: int = _number(128, "eigenvectors of more features: MNIST-5k gains nothing by more")
    double_features: int = _number(256, "features up to which the basis is float64: cheap, and scales may differ")
    # Newton's method and its linear systems
    whole_parameters: int = _number(
        256, "satimage: parameters up to which a linear system takes half of products' time"
    )
    whole_work: int = _number(1 << 29, "N P² up to which forming a Hessian costs less than products with it: satimage")
    kept_work: int = _number(1 << 25, "satimage: N P² from which a Hessian is kept for several steps")
    fast: float = _number(2.0, "satimage: it is kept while each pass divides the gap by this")
    most_products: int = _number(1000, "a choice: conjugate gradients end")
    most_products_float32: int = _number(100, "digits: rounding stalls conjugate gradients on float32 products")
    attainable: float = _number(3e-3, "what conjugate gradients on float32 products shrink a residual to, at best")
    most_polish: int = _number(8, "letter: moves of b alone after a step; each is a pass")
    # L-BFGS
    pairs: int = _number(20, "K=1000: pairs that are remembered")
    metric_age: int = _number(10, "MNIST-5k with focal loss: steps until the preconditioner is made anew")
    first_passes: int = _number(10, "isotropic: passes that a fit begins with in any case")
    first_features: int = _number(64, "of fewer features a model of the Hessian costs little more than a gradient")
    first_pairs: int = _number(10, "pairs that memory must hold")
    recent: tuple[int, int] = _number((4, 12), "MNIST-5k, K=1000: passes over which the pace is measured")
    patience: tuple[int, int] = _number((16, 40), "MNIST-5k, K=1000: passes at this pace that beat Newton's first step")
    rows_a_feature_first: int = _number(64, "K=100: with more rows a feature products leave out most of them")
    # The intercept alone
    intercept_outputs: int = _number(2048, "A (K, K) of more classes would cost more than the passes that it saves")


@dataclass(frozen=True, kw_only=True)
class Plan(Tuned):
    """All numbers of a fit: those of `Tuned`, and what they mean for a problem of one size."""

    num_chunks: int = _result("chunks, as totals_bytes allow; 1 below parallel_work")
    cache_rows: int = _result("block_elements over the longer side of a row, but block_rows and its likes at least")
    rows_at_a_time: int = _result("cache_rows, or a chunk's share of a window if that is less")
    leaves_out: bool = _result("a pass has sizeable_work: rows are left out of products, which begin in float32")
    forms_between: bool = _result("softmax of up to dense_outputs classes: A (K, K), else its diagonal")
    draws_entries: bool = _result("softmax of entry_outputs classes and more")
    num_sampled: int = _result("sample_rows, as cache_bytes allow")
    num_pairs: int = _result("pairs, as pairs_bytes allow; two at least")
    forms_hessian: bool = _result("softmax or one logit of few parameters: whole_parameters and whole_work")
    keeps_hessian: bool = _result("forms_hessian, and kept_work: forming it takes longer than several passes")
    begins_with_lbfgs: bool = _result(
        "rows in memory, sizeable_work, first_features, few rows a feature or few classes"
    )
    has_slow_products: bool = _result("entry_outputs and few rows: a product takes as long as a gradient")
    moves_intercept_alone: bool = _result("softmax of dense_outputs to intercept_outputs whose logits fit cache_bytes")

    @classmethod
    def of(cls, size: Size) -> Plan:
        """Return the plan for a problem of some size."""
        t = tuned()
        n, d, k = size.rows, size.features, size.outputs
        chunks = max(1, min(t.chunks, t.totals_bytes // (8 * k * (d + 1)))) if size.work >= t.parallel_work else 1
        elements = t.block_elements * (2 if k * d >= t.large_sum else 1)
        fewest = min(t.block_rows, max(t.least_rows, t.rows_a_feature * d))
        cache_rows = max(fewest, elements // max(k, d))
        is_softmax, leaves_out = size.link == "softmax", size.work >= t.sizeable_work
        num_pairs = max(2, min(t.pairs, t.pairs_bytes // (2 * 8 * k * (d + 1))))
        sampled = max(t.sample_rows, 8 * max(k, d))
        has_many = k >= t.entry_outputs
        forms_hessian = size.is_here and (is_softmax or k == 1) and size.parameters <= t.whole_parameters
        forms_hessian = forms_hessian and n * size.parameters**2 <= t.whole_work
        held = max(n * k * size.dtype.itemsize, chunks * 8 * k * k)
        return cls(
            **vars(t),
            num_chunks=chunks,
            cache_rows=cache_rows,
            rows_at_a_time=max(1, min(cache_rows, -(-size.window_rows // chunks))),
            leaves_out=leaves_out,
            forms_between=is_softmax and k <= t.dense_outputs,
            draws_entries=is_softmax and has_many,
            num_sampled=max(1, min(sampled, t.cache_bytes // (8 * (k + d)))),
            num_pairs=num_pairs,
            forms_hessian=forms_hessian,
            keeps_hessian=forms_hessian and n * size.parameters**2 >= t.kept_work,
            begins_with_lbfgs=size.is_here
            and size.is_cross_entropy
            and size.window_rows == n
            and leaves_out
            and num_pairs >= t.first_pairs
            and d >= t.first_features
            and not (has_many and n >= t.rows_a_feature_first * d),
            has_slow_products=has_many,
            moves_intercept_alone=size.is_here
            and is_softmax
            and t.dense_outputs < k <= t.intercept_outputs
            and held <= t.cache_bytes,
        )

    def __str__(self) -> str:
        lines = [(f.name, str(getattr(self, f.name)), f.metadata["origin"]) for f in fields(self)]
        return "\n".join(f"{name:22} {value:>12}  {origin}" for name, value, origin in lines)


TUNED = Tuned()


def tuned() -> Tuned:
    """Return the numbers that plans are made from."""
    return TUNED
