"""What one wants to know of a prediction beside its loss: log-sum-exp, entropy, log-probability, argmax."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import numpy as np

from crossent.core.linear import evaluate
from crossent.errors import refuse
from crossent.kernels import registry
from crossent.numpy.arrays import quietly, widened
from crossent.numpy.evaluator import WORK_ELEMENTS, Evaluator
from crossent.numpy.linear import LinearProblem
from crossent.numpy.options import KEYWORDS, Keywords, collect, takes_options
from crossent.numpy.problem import make_problem

_TAKEN = ("ignore_index", "temperature", "prior", "prior_strength", "softcap", "axis")
WITHOUT = tuple(name for name in KEYWORDS if name not in _TAKEN)


STATISTICS_NEED = "statistics need the softmax link and labels or distributions as targets"


class Statistics(NamedTuple):
    """Statistics of each row, in nats.

    Rows of ignored labels have log_prob 0 and are not correct; rows that are NaN are not correct either, and their
    argmax means nothing.
    """

    lse: np.ndarray
    entropy: np.ndarray
    log_prob: np.ndarray
    argmax: np.ndarray
    correct: np.ndarray


class Collector:
    """Fills the five arrays block by block."""

    def __init__(self, evaluator: Evaluator):
        if evaluator.is_binary or evaluator.target.teacher is not None:
            raise TypeError(refuse(STATISTICS_NEED, "the sigmoid link" if evaluator.is_binary else "a teacher"))
        self.evaluator = evaluator
        n = evaluator.num_rows
        self.columns = {name: np.empty(n) for name in ("lse", "entropy", "log_prob")}
        self.argmax = np.empty(n, dtype=np.int64)

    @quietly
    def add_linear(self, problem: LinearProblem) -> None:
        def add_block(logits: np.ndarray, rows: slice) -> tuple[Any, Any]:
            self.add(logits, rows)
            return 0.0, None

        evaluate(problem.input, problem.weight, problem.bias, add_block, with_gradients=False)

    @quietly
    def add(self, logits: np.ndarray, rows: slice) -> None:
        work = logits if self.evaluator.map.is_identity else self.evaluator.mapped(logits, rows)
        target = self.evaluator.target.rows(rows)._replace(class_weight=None, label_smoothing=0.0)
        labels = target.labels
        found = registry.find(work.dtype).statistics(np.ascontiguousarray(work), target)
        self.columns["lse"][rows] = found["lse"]
        self.columns["entropy"][rows] = found["entropy"]
        log_prob = -(found["nll_plain"] if labels is not None else found["nll"])
        if labels is None:
            self.columns["log_prob"][rows] = np.where(np.isnan(found["lse"]), np.nan, log_prob)
        else:
            self.columns["log_prob"][rows] = np.where(labels < 0, 0.0, log_prob + 0.0)
        self.argmax[rows] = found["argmax"]

    @quietly
    def result(self, dtype: Any) -> Statistics:
        target, shape = self.evaluator.target, self.evaluator.shape
        labels = np.argmax(np.asarray(target.soft), axis=1) if target.labels is None else target.labels
        correct = self.argmax == labels
        correct &= ~np.isnan(self.columns["lse"])
        columns = {name: column.astype(dtype).reshape(shape) for name, column in self.columns.items()}
        return Statistics(**columns, argmax=self.argmax.reshape(shape), correct=correct.reshape(shape))


@takes_options(without=WITHOUT)
def statistics(logits: Any, target: Any, **options: Unpack[Keywords]) -> Statistics:
    """Return per row: log-sum-exp, entropy of the prediction, log-probability of the target, argmax, correctness.

    ``lse = log Σ e^{z_k}``, ``entropy = -Σ p_k log p_k``, ``log_prob = Σ t_k log p_k`` (log p_y for a label), all
    in nats; ``correct`` is argmax = label (for a distribution, its own argmax). Ties go to the first class.

    Parameters
    ----------
    logits : array (..., K)
    target : integer array (...) or floating array (..., K)
    ignore_index, temperature, prior, prior_strength, softcap, axis
        As in :func:`cross_entropy`; the statistics are those of the mapped logits.

    Returns
    -------
    Statistics
        Named tuple of arrays (...): lse, entropy, log_prob in float32 or float64; argmax int64; correct bool.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import crossent as ce
    >>> s = ce.statistics([[0.0, 0.0]], [0])
    >>> round(float(s.entropy[0]), 4), bool(s.correct[0])
    (0.6931, True)
    """
    problem = make_problem(logits, target, collect(options))
    collector = Collector(problem.evaluator)
    step = max(1, WORK_ELEMENTS // problem.logits.shape[1])
    for start in range(0, len(problem.logits), step):
        rows = slice(start, min(start + step, len(problem.logits)))
        collector.add(widened(problem.logits[rows], problem.evaluator.dtype), rows)
    return collector.result(problem.evaluator.result_dtype)


@takes_options(without=(*WITHOUT, "axis"))
def linear_statistics(
    input: Any, linear_weight: Any, target: Any, *, linear_bias: Any = None, **options: Unpack[Keywords]
) -> Statistics:
    """Return the statistics of the linear head ``z = X Wᵀ + b`` without holding N·K logits.

    Parameters
    ----------
    input : array (..., D)
    linear_weight : array (K, D)
    target : integer array (...) or floating array (..., K)
    linear_bias : array (K,), optional
    options
        As in :func:`statistics`, without axis.

    Returns
    -------
    Statistics

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import numpy as np, crossent as ce
    >>> ce.linear_statistics(np.eye(2), np.eye(2), [0, 0]).argmax
    array([0, 1])
    """
    problem = LinearProblem(input, linear_weight, linear_bias, target, collect(options))
    collector = Collector(problem.evaluator)
    collector.add_linear(problem)
    return collector.result(problem.evaluator.result_dtype)
