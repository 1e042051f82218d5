"""The loss functions on dense logits: value, gradient, Hessian."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

import numpy as np

from crossent.errors import refuse
from crossent.losses import Distillation, Focal
from crossent.numpy.options import Keywords, collect, takes_options
from crossent.numpy.problem import make_problem, mean_of_labels


class ValueGrad(NamedTuple):
    """A loss and its gradient in the logits."""

    value: Any
    grad: np.ndarray


class ValueGradHess(NamedTuple):
    """A loss, its gradient and its Hessian's diagonal in the logits."""

    value: Any
    grad: np.ndarray
    hess: np.ndarray


@takes_options(without=("link", "pos_weight", "alpha"))
def cross_entropy(logits: Any, target: Any, **options: Unpack[Keywords]) -> Any:
    """Return the cross-entropy of softmax(logits) against the target, in nats.

    For a row of logits z with target distribution t (one-hot for a label) and class weights w it is
    ``Σ_k w_k t_k (LSE(z) - z_k)``, ``LSE(z) = log Σ_k e^{z_k}``; its gradient is ``softmax(z) - t`` (w = 1, Σt = 1).

    Parameters
    ----------
    logits : array (..., K), float16, bfloat16, float32, float64 or integers
        Unnormalised log-probabilities, classes along `axis`. ``-inf`` masks a class.
    target : integer array (...) of labels in 0..K-1, or floating array (..., K) of distributions
        A :class:`TopK` or teacher logits for :class:`Distillation`.
    loss : Loss, optional
        Another member of the family, such as ``Focal(2.0) + ZPenalty(1e-4)``; cross-entropy by default.
    weight : array (K,), optional
        Class weights ≥ 0. They multiply the terms that look at the target.
    sample_weight : array (...), optional
        Row weights ≥ 0. A row of weight 0 has no loss and no gradient.
    label_smoothing : float in [0, 1]
        ε: the target becomes ``(1-ε) t + ε/K``.
    ignore_index : int
        Rows with this label have no loss, no gradient and no part in the mean. It may be a real class.
    reduction : {"mean", "sum", "none"}
    normalizer : None, "count" or number > 0
        The mean's denominator. None: ``Σ w_y · sample_weight`` for labels, ``Σ sample_weight`` for distributions;
        "count": the rows that count; or a number, such as a global token count.
    on_empty : {"nan", "zero", "raise"}
        The mean over a zero denominator; its gradient is 0.
    temperature, prior, margin, softcap
        Maps of the logits before the loss, in the order soft cap ``c·tanh(z/c)``, temperature ``z/T``, prior
        ``z + prior_strength · log prior`` (K,), margin ``z_y - a_y`` (a number, or one a class).
    prior_strength : float
        κ, the factor of log prior.
    axis : int
        The class axis.

    Returns
    -------
    numpy scalar, or array (...) with reduction "none"
        float64 for float64 and integer logits, else float32. A NaN in a row, a +inf logit or a row that is all -inf
        makes that row NaN.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or a label is out of range.

    Examples
    --------
    >>> import crossent as ce
    >>> round(float(ce.cross_entropy([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]], [2, 0])), 6)
    0.907606
    """
    if not options and (found := mean_of_labels(logits, target, with_grad=False)):
        return found[0]
    return make_problem(logits, target, collect(options)).solve(with_grad=False)[0]


@takes_options(without=("link", "margin"))
def binary_cross_entropy_with_logits(logits: Any, target: Any, **options: Unpack[Keywords]) -> Any:
    """Return the binary cross-entropy of σ(logits) against the target, in nats: every entry a question of its own.

    ``softplus(z) - t z`` per entry, gradient ``σ(z) - t``; the two-class softmax of the row ``(0, z)``.

    Parameters
    ----------
    logits : array
        Any shape; of two and more axes, `axis` holds the labels of a row. ``±inf`` is p = 1 or 0.
    target : integer or bool array (0, 1 or ignore_index), or floating array in [0, 1]; the logits' shape
    pos_weight : float or array (K,), optional
        Factor of the positive class's term, one a label.
    weight : array, optional
        Factor of each entry, broadcast to the logits.
    alpha : float in [0, 1], optional
        Weight of the positive class, 1 - alpha of the negative.
    label_smoothing : float
        ε: t becomes ``(1-ε) t + ε/2``.
    prior : array (K,), optional
        Rates of the positive class: ``z + prior_strength · logit(prior)``.
    others
        As in :func:`cross_entropy`. The default mean divides by the number of entries that count, whatever the weights.

    Returns
    -------
    numpy scalar, or array of the logits' shape with reduction "none"

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import crossent as ce
    >>> round(float(ce.binary_cross_entropy_with_logits([0.0, 2.0], [1, 0])), 6)
    1.410038
    """
    return make_problem(logits, target, collect(options, link="sigmoid")).solve(with_grad=False)[0]


@takes_options(without=("loss", "weight"))
def focal_loss(
    logits: Any,
    target: Any,
    *,
    gamma: float = 2.0,
    alpha: Any = None,
    link: str = "softmax",
    normalizer: Any = "count",
    **options: Any,
) -> Any:
    """Return the focal loss ``(1 - p_y)^γ · nll`` (Lin et al. 2017), in nats; the mean is over rows that count.

    The same as ``cross_entropy(..., loss=Focal(gamma), weight=alpha, normalizer="count")``.

    Parameters
    ----------
    logits, target
        As in :func:`cross_entropy`, or with ``link="sigmoid"`` as in :func:`binary_cross_entropy_with_logits`.
    gamma : float ≥ 0
    alpha : array (K,), or with the sigmoid link a float, optional
        Class weights; a float means alpha where t = 1 and 1 - alpha where t = 0.
    link : {"softmax", "sigmoid"}
    normalizer : "count", None or number > 0
        The mean's denominator, as in :func:`cross_entropy`, but "count" by default.
    others
        As in :func:`cross_entropy`.

    Returns
    -------
    numpy scalar or array

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import crossent as ce
    >>> round(float(ce.focal_loss([[3.0, 0.0, 0.0]], [0], gamma=2.0)), 9)
    0.000778422
    """
    given = {"link": link, "loss": Focal(gamma), "normalizer": normalizer}
    given["alpha" if link == "sigmoid" else "weight"] = alpha
    return make_problem(logits, target, collect(options, **given)).solve(with_grad=False)[0]


_NOT_DISTILLED = ("link", "loss", "weight", "pos_weight", "alpha", "label_smoothing", "ignore_index", "margin")


@takes_options(without=_NOT_DISTILLED)
def distillation_loss(logits: Any, teacher: Any, *, temperature: float = 1.0, **options: Any) -> Any:
    """Return ``T² · KL(softmax(teacher/T) ‖ softmax(logits/T))`` (Hinton et al. 2015), in nats.

    Its gradient is ``T (p - t)``; `value_and_grad` returns it with ``loss=Distillation(T)``.

    Parameters
    ----------
    logits : array (..., K)
        The student's.
    teacher : floating array (..., K) of logits, or TopK
        Of a :class:`TopK`, the mass left over is one bucket, compared with the student's summed probability of the
        classes not listed.
    temperature : float > 0
    others
        As in :func:`cross_entropy`.

    Returns
    -------
    numpy scalar, or array (...) with reduction "none"

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import crossent as ce
    >>> round(float(ce.distillation_loss([[0.0, 0.0]], [[0.0, 2.0]], temperature=2.0)), 6)
    0.443776
    """
    return make_problem(logits, teacher, collect(options, loss=Distillation(temperature))).solve(with_grad=False)[0]


@takes_options()
def value_and_grad(logits: Any, target: Any, *, link: str = "softmax", **options: Unpack[Keywords]) -> ValueGrad:
    """Return a loss and its gradient in the logits.

    Parameters
    ----------
    logits, target, options
        As in :func:`cross_entropy`, or with ``link="sigmoid"`` as in :func:`binary_cross_entropy_with_logits`.
    link : {"softmax", "sigmoid", "probability", "log_probability", "binary_probability"}
        What `logits` hold. The last three are the losses of :func:`cross_entropy_from_probabilities`, :func:`nll_loss`
        and :func:`binary_cross_entropy`, whose gradient is in the probabilities themselves.

    Returns
    -------
    value : numpy scalar or array
    grad : array of the logits' shape and dtype (float64 for integer logits)
        With reduction "none", the gradient of the summed losses.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Notes
    -----
    Where the system can take memory back at any time (``MADV_FREE``: Linux, macOS), a gradient of 32 MiB and more may
    lie in the memory of an earlier one that nobody holds any more. Such an array does not own its memory
    (``grad.flags.owndata`` is False, ``grad.resize`` refuses), ``tracemalloc`` does not see it, and one block, at most
    twice as large as the gradient, stays mapped for the next.

    Examples
    --------
    >>> import crossent as ce
    >>> value, grad = ce.value_and_grad([[0.0, 0.0]], [1])
    >>> grad
    array([[ 0.5, -0.5]])
    """
    found = None if options or link != "softmax" else mean_of_labels(logits, target, with_grad=True)
    if found is None:
        found = make_problem(logits, target, collect(options, link=link)).solve(with_grad=True)
    return ValueGrad(*found)


@takes_options()
def value_grad_hess(logits: Any, target: Any, *, link: str = "softmax", **options: Unpack[Keywords]) -> ValueGradHess:
    """Return a loss, its gradient and the diagonal of its Hessian in the logits.

    For cross-entropy the diagonal is ``p_k (1 - p_k)`` times the row's weight over the mean's denominator.

    Parameters
    ----------
    logits, target, options
        As in :func:`cross_entropy`, or with ``link="sigmoid"`` as in :func:`binary_cross_entropy_with_logits`.
    link : as in :func:`value_and_grad`

    Returns
    -------
    value : numpy scalar or array
    grad, hess : arrays of the logits' shape and dtype

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import crossent as ce
    >>> ce.value_grad_hess([[0.0, 0.0]], [1]).hess
    array([[0.25, 0.25]])
    """
    return ValueGradHess(*make_problem(logits, target, collect(options, link=link)).second_order())


@takes_options()
def hessian_vector_product(
    logits: Any, target: Any, vector: Any, *, link: str = "softmax", **options: Unpack[Keywords]
) -> np.ndarray:
    """Return the Hessian of the reduced loss in the logits, times a vector of the logits' shape.

    For cross-entropy ``(diag p - ppᵀ) v`` row by row; no K×K matrix is made.

    Parameters
    ----------
    logits, target, options
        As in :func:`value_and_grad`; with reduction "none", the Hessian of the summed losses.
    vector : array of the logits' shape
        NaN or an infinite number is a result, as in logits: it stays in its row (its entry with the sigmoid link), and
        rows that do not count stay 0.
    link : as in :func:`value_and_grad`

    Returns
    -------
    array of the logits' shape and dtype

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import crossent as ce
    >>> ce.hessian_vector_product([[0.0, 0.0]], [1], [[1.0, 0.0]])
    array([[ 0.25, -0.25]])
    """
    if vector is None:
        raise TypeError(refuse("vector must be an array of the logits' shape", "None"))
    problem = make_problem(logits, target, collect(options, link=link))
    return problem.second_order(vector)[2]
