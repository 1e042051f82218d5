"""Information measures of distributions: entropy, cross-entropy, divergences, perplexity; in nats or bits.

All follow ``0 · log 0 = 0``; a divergence is ``inf`` where q rules out what p allows. Arrays come from any library of
the array-API standard, distributions along `axis`. Lists and NumPy arrays are checked as everywhere, and half precision
is computed in float32; arrays of other libraries go through as they are.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np

from crossent.core.arrays import Array, array_namespace, divergence_terms, guarded_product, log_ratio, sum_pair
from crossent.errors import check_number, describe, refuse
from crossent.numpy.arrays import checked_axis, compute_dtype, quietly, real_array, widened

__all__ = [
    "bits_per_byte",
    "bits_per_dimension",
    "bits_per_token",
    "cross_entropy",
    "entropy",
    "js_divergence",
    "kl_divergence",
    "mutual_information",
    "perplexity",
]

P = ParamSpec("P")
R = TypeVar("R")
Base = Literal["nats", "bits"]
LOG_2 = math.log(2.0)


def _is_foreign(value: Any) -> bool:
    """Whether the value is an array of another library: one of the array-API standard, or PyTorch's."""
    if isinstance(value, np.ndarray | np.generic):
        return False
    return hasattr(type(value), "__array_namespace__") or hasattr(type(value), "__torch_function__")


def _numbers(value: Any, name: str) -> Any:
    """Return the value as an array to compute with: float32 or float64, or another library's."""
    if _is_foreign(value):
        return value
    array = real_array(value, name)
    dtype = compute_dtype(array.dtype, name)
    if array.dtype == dtype:
        return array
    return widened(np.ascontiguousarray(array).reshape(-1, 1), dtype).reshape(array.shape)


def _takes(*arrays: str, counts: tuple[str, ...] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check the named arguments of a function."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        @quietly
        def checked(*args: P.args, **options: P.kwargs) -> R:
            bound = signature.bind(*args, **options)
            given = bound.arguments
            for name in arrays:
                given[name] = _numbers(given[name], name)
            for name in counts:
                check_number(name, given[name], above=0)
            if "axis" in signature.parameters:
                ndim = max(given[name].ndim for name in arrays)
                if ndim == 0:
                    raise ValueError(refuse("a distribution must have an axis of outcomes", "a number"))
                checked_axis(given.get("axis", -1), ndim)
            if "joint" in given and given["joint"].ndim < 2:
                raise ValueError(refuse("a joint distribution must have two axes", describe(given["joint"])))
            return function(*bound.args, **bound.kwargs)

        return checked

    return decorate


def _unit(base: str) -> float:
    """Return how many nats the unit is."""
    if base not in ("nats", "bits"):
        raise ValueError(refuse('base must be "nats" or "bits"', repr(base)))
    return LOG_2 if base == "bits" else 1.0


def _distributions(*arrays: Any) -> tuple[Any, list[Array]]:
    """Return the namespace and the arrays as floating arrays, refused if negative or above 1 (beyond rounding)."""
    xp = array_namespace(*arrays)
    floating = []
    for array in arrays:
        if not xp.isdtype(array.dtype, "real floating"):
            array = xp.astype(array, xp.float64)
        if bool(xp.any((array < 0) | (array > 1 + 1e-6))):
            raise ValueError(refuse("probabilities must lie between 0 and 1", f"values outside, shape {array.shape}"))
        floating.append(array)
    try:
        xp.broadcast_arrays(*floating)
    except (ValueError, TypeError, RuntimeError):
        shapes = " and ".join(str(tuple(array.shape)) for array in floating)
        raise ValueError(refuse("distributions must have shapes that broadcast", shapes)) from None
    return xp, floating


def _log(xp: Any, p: Array) -> Array:
    """log p with log 0 = -inf and no warning on the way."""
    positive = xp.where(p > 0, p, xp.ones_like(p))
    return xp.where(p == 0, xp.full_like(p, -xp.inf), xp.log(positive) + 0 * p)


@_takes("p")
def entropy(p: Array, *, axis: int = -1, base: Base = "nats") -> Array:
    """Return the entropy ``H(p) = -Σ p log p`` (Shannon 1948).

    Parameters
    ----------
    p : array
        Probabilities along `axis`.
    axis : int
    base : {"nats", "bits"}

    Returns
    -------
    array
        `p`'s shape without `axis`.

    Raises
    ------
    ValueError
        If a probability is negative or above 1, or base is unknown.

    Examples
    --------
    >>> float(entropy([0.5, 0.5, 0.0], base="bits"))
    1.0
    """
    xp, (p,) = _distributions(p)
    return xp.sum(-guarded_product(p, _log(xp, p)), axis=axis) / _unit(base)


@_takes("p", "q")
def cross_entropy(p: Array, q: Array, *, axis: int = -1, base: Base = "nats") -> Array:
    """Return ``H(p, q) = -Σ p log q = H(p) + KL(p‖q)``: the mean code length of p's symbols in q's code.

    ``inf`` where p > 0 and q = 0. Arguments, result and errors as :func:`entropy`, p and q broadcast.

    Examples
    --------
    >>> float(cross_entropy([1.0, 0.0], [0.25, 0.75], base="bits"))
    2.0
    """
    xp, (p, q) = _distributions(p, q)
    p, q = xp.broadcast_arrays(p, q)
    return xp.sum(-guarded_product(p, _log(xp, q)), axis=axis) / _unit(base)


@_takes("p", "q")
def kl_divergence(p: Array, q: Array, *, axis: int = -1, base: Base = "nats") -> Array:
    """Return ``KL(p‖q) = Σ p log(p/q) ≥ 0`` (Kullback & Leibler 1951).

    ``inf`` where p > 0 and q = 0. Arguments, result and errors as :func:`entropy`, p and q broadcast.

    Rounded probabilities sum to 1 but for an ulp or so, which near p = q is more than the divergence. So the sum is
    ``Σ p log(p/q) - p + q``, the divergence of non-negative numbers: it is the same for sums that are equal, no term
    of it is negative, and it is 0 for p = q alone.

    Examples
    --------
    >>> float(kl_divergence([1.0, 0.0], [0.5, 0.5], base="bits"))
    1.0
    """
    xp, (p, q) = _distributions(p, q)
    return _sum(xp, _relative_entropy(xp, *xp.broadcast_arrays(p, q)), axis) / _unit(base)


def _sum(xp: Any, terms: Array, axis: int) -> Array:
    """The sum of terms ≥ 0, rounded once: beside one large term, many small ones would round off the same way."""
    if terms.shape[axis] == 0:
        return xp.sum(terms, axis=axis)
    is_infinite = xp.isinf(terms)
    total, low = sum_pair(xp.where(is_infinite, xp.zeros_like(terms), terms), axis)
    return xp.where(xp.any(is_infinite, axis=axis), xp.full_like(total, xp.inf), total + low)


def _relative_entropy(xp: Any, p: Array, q: Array) -> Array:
    """``p log(p/q) - p + q``, entry by entry."""
    both = (p > 0) & (q > 0)
    one = xp.ones_like(p)
    safe_p, safe_q = xp.where(both, p, one), xp.where(both, q, one)
    ratio = log_ratio(xp, safe_q, safe_p, xp.log(safe_q) - xp.log(safe_p))
    ratio = xp.where((p > 0) & (q == 0), xp.full_like(p, -xp.inf), ratio)
    return divergence_terms(xp, p, q, ratio + (0 * p + 0 * q))


@_takes("p", "q")
def js_divergence(p: Array, q: Array, *, axis: int = -1, base: Base = "nats") -> Array:
    """Return the Jensen-Shannon divergence ``½ KL(p‖m) + ½ KL(q‖m)``, m = (p+q)/2 (Lin 1991): 0 to 1 bit.

    Arguments, result and errors as :func:`entropy`, p and q broadcast.

    Examples
    --------
    >>> float(js_divergence([1.0, 0.0], [0.0, 1.0], base="bits"))
    1.0
    """
    xp, (p, q) = _distributions(p, q)
    p, q = xp.broadcast_arrays(p, q)
    # Of the doubled distributions, so that the middle of the smallest numbers does not round to 0.
    terms = _to_the_middle(xp, p, q) + _to_the_middle(xp, q, p)
    return 0.25 * _sum(xp, terms, axis) / _unit(base)


def _to_the_middle(xp: Any, p: Array, q: Array) -> Array:
    """`_relative_entropy` of 2p and p + q, by ``log1p((q - p) / 2p)``: the middle's own rounding does not enter.

    That quotient could overflow where p is a tiny part of q; p + q is q there, and the logarithm ``log q - log 2p``.
    """
    one = xp.ones_like(p)
    is_far = (p > 0) & (p < q * 2.0**-60)
    far = xp.log(xp.where(is_far, q, one)) - xp.log(xp.where(is_far, p, one)) - LOG_2
    safe = xp.where((p > 0) & ~is_far, p, one)
    ratio = xp.where(is_far, far, xp.log1p((q - p) / xp.where(p > 0, 2 * safe, one)))
    return divergence_terms(xp, 2 * p, p + q, ratio)


@_takes("joint")
def mutual_information(joint: Array, *, base: Base = "nats") -> Array:
    """Return ``I(X;Y) = KL(p(x,y) ‖ p(x)p(y)) ≥ 0`` of a joint distribution, its last two axes X and Y.

    The sum is that of :func:`kl_divergence`. Errors as :func:`entropy`.

    Examples
    --------
    >>> round(float(mutual_information([[0.5, 0.0], [0.0, 0.5]], base="bits")), 12)
    1.0
    """
    xp, (joint,) = _distributions(joint)
    x, y = xp.sum(joint, axis=-1, keepdims=True), xp.sum(joint, axis=-2, keepdims=True)
    # p(x|y) against p(x): unlike p(x) p(y), neither underflows where the joint does not.
    possible = xp.broadcast_to(y, joint.shape) > 0
    given_y = xp.where(possible, joint / xp.where(y > 0, y, xp.ones_like(y)), xp.zeros_like(joint))
    terms = guarded_product(y, _relative_entropy(xp, given_y, xp.broadcast_to(x, joint.shape)))
    return xp.sum(terms, axis=(-2, -1)) / _unit(base)


@_takes("cross_entropy")
def perplexity(cross_entropy: Array | float, *, base: Base = "nats") -> Array:
    """Return ``e^H`` (nats) or ``2^H`` (bits): the number of equally likely choices that a mean loss amounts to.

    Examples
    --------
    >>> float(perplexity(1.0, base="bits"))
    2.0
    """
    return array_namespace(cross_entropy).exp(cross_entropy * _unit(base))


@_takes("nats")
def bits_per_token(nats: Array | float) -> Array:
    """Return a loss in bits: nats / ln 2.

    Examples
    --------
    >>> float(bits_per_token(math.log(2.0)))
    1.0
    """
    return nats / LOG_2


@_takes("nats", counts=("tokens", "byte_count"))
def bits_per_byte(nats: Array | float, tokens: float, byte_count: float) -> Array:
    """Return bits per byte of text from the mean nats per token, the tokens and the bytes that they encode.

    Raises
    ------
    ValueError
        If a count is not positive.

    Examples
    --------
    >>> float(bits_per_byte(math.log(2.0), tokens=100, byte_count=400))
    0.25
    """
    return nats / LOG_2 * (tokens / byte_count)


@_takes("nats", counts=("dimensions",))
def bits_per_dimension(nats: Array | float, dimensions: float) -> Array:
    """Return bits per dimension from the nats of one sample (an image, say) of that many dimensions.

    Raises
    ------
    ValueError
        If dimensions is not positive.

    Examples
    --------
    >>> float(bits_per_dimension(math.log(2.0) * 6, dimensions=3))
    2.0
    """
    return nats / LOG_2 / dimensions
