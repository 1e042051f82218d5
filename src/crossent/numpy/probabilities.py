"""The same losses for people who hold probabilities or log-probabilities: exact at 0 and 1, never clipped."""

from __future__ import annotations

from typing import Any, Unpack

from crossent.numpy.options import Keywords, collect, takes_options
from crossent.numpy.problem import make_problem

_NOT_TAKEN = ("link", "loss", "pos_weight", "alpha", "temperature", "prior", "prior_strength", "margin", "softcap")


@takes_options(without=_NOT_TAKEN)
def nll_loss(log_probs: Any, target: Any, **options: Unpack[Keywords]) -> Any:
    """Return the negative log-likelihood ``-Σ_k w_k t_k log p_k`` from log-probabilities, in nats.

    Parameters
    ----------
    log_probs : array (..., K), ≤ 0
        ``-inf`` is probability 0: the loss is inf where the target has mass there, and not touched where it has none.
    target, options
        As in :func:`cross_entropy`.

    Returns
    -------
    numpy scalar, or array (...) with reduction "none"

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or a log-probability is positive.

    Examples
    --------
    >>> import numpy as np, crossent as ce
    >>> round(float(ce.nll_loss(np.log([[0.25, 0.75]]), [0])), 6)
    1.386294
    """
    return make_problem(log_probs, target, collect(options, link="log_probability")).solve(with_grad=False)[0]


@takes_options(without=_NOT_TAKEN)
def cross_entropy_from_probabilities(probs: Any, target: Any, **options: Unpack[Keywords]) -> Any:
    """Return the cross-entropy ``-Σ_k w_k t_k log p_k`` from probabilities, in nats; exact at 0 (inf) and 1 (0).

    Parameters
    ----------
    probs : array (..., K) in [0, 1], rows summing to 1 (within 1e-2)
    target, options
        As in :func:`cross_entropy`.

    Returns
    -------
    numpy scalar, or array (...) with reduction "none"

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, a value lies outside [0, 1] or a row does not sum to 1.

    Examples
    --------
    >>> import crossent as ce
    >>> float(ce.cross_entropy_from_probabilities([[0.0, 1.0]], [0]))
    inf
    """
    collected = collect(options, link="probability")
    return make_problem(probs, target, collected).solve(with_grad=False)[0]


@takes_options(without=_NOT_TAKEN)
def binary_cross_entropy(probs: Any, target: Any, **options: Unpack[Keywords]) -> Any:
    """Return ``-t log p - (1-t) log(1-p)`` from probabilities, in nats; exact at 0 and 1, never clipped.

    Parameters
    ----------
    probs : array in [0, 1]
    target, options
        As in :func:`binary_cross_entropy_with_logits`.

    Returns
    -------
    numpy scalar, or array of the shape of probs with reduction "none"

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or a probability lies outside [0, 1].

    Examples
    --------
    >>> import crossent as ce
    >>> ce.binary_cross_entropy([0.0, 1.0], [0, 0], reduction="none")
    array([ 0., inf])
    """
    collected = collect(options, link="binary_probability")
    return make_problem(probs, target, collected).solve(with_grad=False)[0]
