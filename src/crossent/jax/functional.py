"""The dense losses and statistics: the keywords of `crossent`, and ``where``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from crossent.core.target import TopK
from crossent.errors import refuse
from crossent.losses import CrossEntropy, Distillation, EntropyPenalty, Focal
from crossent.numpy.options import KEYWORDS, takes_options
from crossent.numpy.statistics import STATISTICS_NEED

from .arrays import number
from .problem import Problem, dense, options_of, rows_of
from .rows import Form, LogSumExp

__all__ = [
    "Statistics",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "distillation_loss",
    "focal_loss",
    "statistics",
]


_OF_SIGMOID = ("link", "pos_weight", "alpha")


@takes_options(without=_OF_SIGMOID)
def cross_entropy(logits: Any, target: Any, *, where: Any = None, **options: Any) -> jax.Array:
    """Return the cross-entropy of softmax(logits) against the target, in nats.

    For a row of logits z with target distribution t (one-hot for a label) and class weights w it is
    ``Σ_k w_k t_k (LSE(z) - z_k)``, ``LSE(z) = log Σ_k e^{z_k}``; its gradient is ``softmax(z) - t`` (w = 1, Σt = 1).

    Parameters
    ----------
    logits : array (..., K), float16, bfloat16, float32 or float64
        Half precisions are computed in float32. ``-inf`` masks a class.
    target : integer array (...) of labels, or floating array (..., K) of distributions
    where : bool array (...), optional
        Rows that count. Others have no loss, no gradient and no part in the mean, whatever they hold.
    loss : Loss, optional
        Another member of the family, such as ``ce.Focal(2.0) + ce.ZPenalty(1e-4)``.
    weight : array (K,), optional
        Class weights.
    sample_weight : array (...), optional
        Row weights. A row of weight 0 has no loss and no gradient.
    label_smoothing : float in [0, 1]
    ignore_index : int
        Rows with this label do not count.
    reduction : {"mean", "sum", "none"}
    normalizer : None, "count", number > 0 or array of one number
        The mean's denominator. None: ``Σ w_y · sample_weight`` for labels, ``Σ sample_weight`` for distributions;
        "count": the rows that count; or a number, such as a global token count, which may be traced.
    on_empty : {"nan", "zero", "raise"}
        The mean over a zero denominator; its gradient is 0. Where nothing can raise, "raise" is "nan".
    temperature, prior, prior_strength, margin, softcap
        Maps of the logits before the loss, in the order soft cap ``c·tanh(z/c)``, temperature ``z/T``, prior
        ``z + prior_strength · log prior`` (K,), margin ``z_y - a_y`` (a number, or one a class). Arrays have gradients.
    axis : int
        The class axis.

    Returns
    -------
    array, a number or (...) with reduction "none"; float64 for float64 logits, else float32

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or a label is out of range. Under `jit` and `vmap`, where nothing can raise,
        the loss and the gradient of such a row are NaN.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, crossent.jax as cej
    >>> logits, labels = jnp.array([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]]), jnp.array([2, 0])
    >>> value, grad = jax.value_and_grad(cej.cross_entropy)(logits, labels)
    >>> round(float(value), 6), grad.shape
    (0.907606, (2, 3))
    """
    return dense(logits, target, where, options_of(options))


_OF_SOFTMAX = ("link", "margin")


@takes_options(without=_OF_SOFTMAX)
def binary_cross_entropy_with_logits(logits: Any, target: Any, *, where: Any = None, **options: Any) -> jax.Array:
    """Return the binary cross-entropy of σ(logits), entry by entry: ``softplus(z) - t z``, gradient ``σ(z) - t``, nats.

    Parameters
    ----------
    logits : floating array of any shape
        ``±inf`` is p = 1 or 0.
    target : array of the logits' shape
        Floating in [0, 1], or integers and bools: 0, 1 or `ignore_index`.
    where : bool array, optional
        Entries that count, of a shape that broadcasts to the logits'; or rows, of their shape without the last axis.
    pos_weight : number or array (K,), optional
        Factor of the positive term.
    weight : array, optional
        Factor of each entry, broadcast to the logits.
    alpha : float in [0, 1], optional
        Weight of the positive class, 1 - alpha of the negative.
    label_smoothing : float
        ε: t becomes ``(1-ε) t + ε/2``.
    sample_weight : array (...), optional
        One weight a row of labels.
    prior : array (K,), optional
        Rates of the positive class: ``z + prior_strength · logit(prior)``.
    loss, ignore_index, reduction, normalizer, on_empty, temperature, prior_strength, softcap, axis
        As in :func:`cross_entropy`. The default mean divides by the number of entries that count.

    Returns
    -------
    array, a number or of the logits' shape with reduction "none"

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import jax.numpy as jnp, crossent.jax as cej
    >>> round(float(cej.binary_cross_entropy_with_logits(jnp.array([0.0, 2.0]), jnp.array([1.0, 0.0]))), 6)
    1.410038
    """
    return dense(logits, target, where, options_of(options, link="sigmoid"))


@takes_options(without=("loss", "weight"))
def focal_loss(
    logits: Any,
    target: Any,
    *,
    gamma: float = 2.0,
    alpha: Any = None,
    link: str = "softmax",
    normalizer: Any = "count",
    where: Any = None,
    **options: Any,
) -> jax.Array:
    """Return the focal loss ``(1 - p_y)^γ · nll`` (Lin et al. 2017), in nats; the mean is over rows that count.

    Parameters
    ----------
    logits, target
        As in :func:`cross_entropy`, or with ``link="sigmoid"`` as in :func:`binary_cross_entropy_with_logits`.
    gamma : float ≥ 0
        The gradient is finite at saturation for every γ.
    alpha : array (K,), or with the sigmoid link a number, optional
        Class weights; a number means alpha where t = 1 and 1 - alpha where t = 0.
    link : {"softmax", "sigmoid"}
    normalizer : "count", None, number > 0 or array of one number
    where : bool array, optional
    options
        Other keywords of these functions.

    Returns
    -------
    array

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import jax.numpy as jnp, crossent.jax as cej
    >>> round(float(cej.focal_loss(jnp.array([[3.0, 0.0, 0.0]]), jnp.array([0]))), 9)
    0.000778422
    """
    if link not in ("softmax", "sigmoid"):
        raise ValueError(refuse('link must be "softmax" or "sigmoid"', repr(link)))
    given = {"alpha" if link == "sigmoid" else "weight": alpha, "loss": Focal(gamma), "normalizer": normalizer}
    function = binary_cross_entropy_with_logits if link == "sigmoid" else cross_entropy
    return function(logits, target, where=where, **given, **options)


_OF_LABELS = (*_OF_SIGMOID, "loss", "weight", "label_smoothing", "ignore_index", "margin")


@takes_options(without=_OF_LABELS)
def distillation_loss(
    logits: Any, teacher: Any, *, temperature: Any = 1.0, where: Any = None, **options: Any
) -> jax.Array:
    """Return ``T² · KL(softmax(teacher/T) ‖ softmax(logits/T))`` (Hinton et al. 2015), in nats.

    Parameters
    ----------
    logits : array (..., K)
        The student's logits.
    teacher : floating array of the logits' shape, or TopK(indices, probabilities)
        Of a TopK, the mass left over is one bucket, compared with the student's summed probability of the others.
    temperature : number > 0, or array of one number
    where, sample_weight, reduction, normalizer, on_empty, prior, prior_strength, softcap, axis
        As in :func:`cross_entropy`.

    Returns
    -------
    array

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import jax.numpy as jnp, crossent.jax as cej
    >>> round(float(cej.distillation_loss(jnp.zeros((1, 2)), jnp.array([[0.0, 2.0]]), temperature=2.0)), 6)
    0.443776
    """
    temperature = number("temperature", temperature, above=0)
    if isinstance(temperature, jax.Array):
        given = options_of(options, loss=Distillation(1.0), temperature=temperature)
    else:
        given = options_of(options, loss=Distillation(temperature))
    return dense(logits, teacher, where, given)


class Statistics(NamedTuple):
    """Statistics of each row, in nats; the first three are differentiable.

    Rows of ignored labels have log_prob 0 and are not correct; neither are rows that are NaN.
    """

    lse: jax.Array
    entropy: jax.Array
    log_prob: jax.Array
    argmax: jax.Array
    correct: jax.Array


_TAKEN = ("ignore_index", "temperature", "prior", "prior_strength", "softcap", "axis")
OF_LOSSES = tuple(name for name in KEYWORDS if name not in _TAKEN)


@takes_options(without=OF_LOSSES)
def statistics(logits: Any, target: Any, **options: Any) -> Statistics:
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
        Named tuple of arrays (...): lse, entropy, log_prob; argmax, integers; correct, bools.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import jax.numpy as jnp, crossent.jax as cej
    >>> s = cej.statistics(jnp.zeros((1, 2)), jnp.array([0]))
    >>> round(float(s.entropy[0]), 4), bool(s.correct[0])
    (0.6931, True)
    """
    if isinstance(target, TopK):
        raise TypeError(refuse(STATISTICS_NEED, "a TopK"))
    given = options_of(options)
    problem, rows, _ = rows_of(logits, target, None, given)
    found = statistics_of_rows(problem, rows)
    return Statistics(*(column.reshape(problem.shape) for column in found))


@jax.jit
def statistics_of_rows(problem: Problem, logits: jax.Array) -> Statistics:
    """Return the statistics of the rows (N,) of a problem."""
    labels = problem.given.labels
    any_label = jnp.zeros(len(logits), jnp.int32)
    of_prediction = replace(problem, given=problem.given._replace(labels=any_label, soft=None), bad=None)

    def column(which: Problem, loss: Any) -> jax.Array:
        return replace(which, form=Form(loss, problem.form.num_classes)).losses(logits)

    lse = column(of_prediction, LogSumExp())
    entropy = column(of_prediction, EntropyPenalty(1.0))
    log_prob = -column(problem, CrossEntropy())
    argmax = problem.mapped(logits).argmax(-1)
    correct = argmax == (problem.given.soft.argmax(-1) if labels is None else labels)
    if problem.bad is not None:
        correct = correct & ~problem.bad
    return Statistics(lse, entropy, log_prob, argmax, correct & ~jnp.isnan(lse))
