"""Weights and shares of the classes, from the labels of a training set."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import check_number, describe, refuse
from ..masked import refuse_masked

__all__ = ["SCHEMES", "check_codes", "class_prior", "class_weights", "scheme_weights"]

Float64 = NDArray[np.float64]
Scheme = Literal["inverse", "balanced", "sqrt", "effective"]
SCHEMES = get_args(Scheme)


def class_weights(
    y: ArrayLike, scheme: Scheme = "inverse", beta: float = 0.999, classes: ArrayLike | int | None = None
) -> Float64:
    """Return a weight for each class from the labels of the *training set*, for ``weight=`` of a loss.

    With n_k rows of class k, n rows and K classes:

    - "inverse": proportional to 1 / n_k;
    - "balanced": n / (K n_k), scikit-learn's rule, whose mean over the rows is 1;
    - "sqrt": proportional to 1 / √n_k;
    - "effective": proportional to (1 - β) / (1 - β^n_k), one over the effective number of samples [1]_.

    All but "balanced" sum to K.

    Parameters
    ----------
    y : array (N,)
        Labels of all training rows. Never those of a batch: it does not tell how rare a class is.
    scheme : {"inverse", "balanced", "sqrt", "effective"}
    beta : float in [0, 1), default 0.999
        β of "effective". 0 weights all classes alike; towards 1 the weights become those of "inverse".
    classes : array (K,) or int, optional
        The classes in the order of the weights. An integer K asks for labels 0 to K-1, which a loss takes. By default
        the sorted labels of `y`.

    Returns
    -------
    array (K,) of float64

    Raises
    ------
    ValueError
        If `y` holds another label, NaN or no row of a class, or an option is not one of those above.

    References
    ----------
    .. [1] Cui, Jia, Lin, Song, Belongie, "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019.

    Examples
    --------
    >>> y = np.repeat([0, 1, 2], [90, 9, 1])
    >>> class_weights(y, "balanced").round(3)
    array([ 0.37 ,  3.704, 33.333])
    >>> class_weights(y, "effective", beta=0.9, classes=3).round(3)
    array([0.238, 0.388, 2.375])
    """
    counts, names = _count(y, classes)
    if not counts.all():
        missing = names[np.argmin(counts)]
        works = "leave the class out of classes, or give its weight by hand"
        raise ValueError(refuse("each class must have a row in y", f"none of class {missing!r}", works))
    return scheme_weights(counts, scheme, beta)


def scheme_weights(counts: ArrayLike, scheme: str, beta: float = 0.999) -> Float64:
    """Return the weights of `class_weights` for numbers of rows, (K,), whole or not; 1 for a class without any.

    Examples
    --------
    >>> scheme_weights([30, 10], "inverse")
    array([0.5, 1.5])
    """
    beta = check_number("beta", beta, minimum=0.0)
    if beta >= 1:
        raise ValueError(refuse("beta must be less than 1", repr(beta), "scheme 'inverse' is its limit"))
    n = np.asarray(counts, dtype=np.float64)
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise ValueError(refuse(f"scheme must be one of {', '.join(map(repr, SCHEMES))}", repr(scheme)))
    weights, seen = np.ones(len(n)), n > 0
    if scheme == "balanced":
        weights[seen] = n.sum() / (len(n) * n[seen])
        return weights
    if scheme == "effective":
        weights[seen] = 1 / -np.expm1(n[seen] * math.log(beta)) if beta else 1.0
    else:
        weights[seen] = 1 / (n[seen] if scheme == "inverse" else np.sqrt(n[seen]))
    weights[seen] *= np.count_nonzero(seen) / weights[seen].sum()
    return weights


def class_prior(y: ArrayLike, smoothing: float = 0.0, classes: ArrayLike | int | None = None) -> Float64:
    """Return the share of each class in the labels of the training set, for ``prior=`` of a loss.

    ``(n_k + a) / (n + K a)`` with smoothing a: 1 is Laplace's rule, ½ Jeffreys'.

    Parameters
    ----------
    y : array (N,)
        Labels of all training rows.
    smoothing : float, default 0
        Rows that are added to each class. A class of `classes` without a row needs some: the logarithm of a prior of 0
        is infinite.
    classes : array (K,) or int, optional
        As in `class_weights`.

    Returns
    -------
    array (K,) of float64, which sums to 1

    Raises
    ------
    ValueError
        If `y` holds another label or NaN, or a share is 0.

    Examples
    --------
    >>> class_prior([0, 0, 0, 1])
    array([0.75, 0.25])
    >>> class_prior([0, 0, 0, 1], smoothing=1, classes=3).round(3)
    array([0.571, 0.286, 0.143])
    """
    smoothing = check_number("smoothing", smoothing, minimum=0.0)
    counts, names = _count(y, classes)
    shares = counts + smoothing
    if not shares.all():
        missing = names[np.argmin(shares)]
        works = "set smoothing=1, or leave the class out"
        raise ValueError(refuse("a prior must be positive", f"no row of class {missing!r}", works))
    return np.asarray(shares / shares.sum())


def _count(y: ArrayLike, classes: ArrayLike | int | None) -> tuple[Float64, NDArray[Any]]:
    """Return the number of rows of each class and the classes."""
    refuse_masked(y, "y")
    labels = np.asarray(y)
    if labels.ndim != 1 or not len(labels):
        raise ValueError(refuse("y must be labels of shape (N,), at least one", describe(labels)))
    is_missing = labels != labels
    if labels.dtype == object:
        is_missing = is_missing | np.array([label is None for label in labels])
    if np.any(is_missing):
        row = int(np.argmax(is_missing))
        raise ValueError(refuse("y must hold no missing labels", f"{labels[row]} in row {row}"))
    if classes is None:
        known, counts = np.unique(labels, return_counts=True)
        return counts.astype(np.float64), known
    if isinstance(classes, int | np.integer):
        if isinstance(classes, bool) or classes < 1:
            raise ValueError(refuse("classes must be labels or how many they are, 1 or more", repr(classes)))
        codes = check_codes(labels, int(classes), "y")
        return np.bincount(codes, minlength=int(classes)).astype(np.float64), np.arange(classes)
    refuse_masked(classes, "classes")
    known = np.asarray(classes)
    if known.ndim != 1 or not len(known) or len(np.unique(known)) != len(known):
        raise ValueError(refuse("classes must be an integer or different labels of shape (K,)", describe(known)))
    order = np.argsort(known)
    place = order[np.minimum(np.searchsorted(known[order], labels), len(known) - 1)]
    unknown = known[place] != labels
    if np.any(unknown):
        row = int(np.argmax(unknown))
        raise ValueError(refuse("every label of y must be one of classes", f"{labels[row]!r} in row {row}"))
    return np.bincount(place, minlength=len(known)).astype(np.float64), known


def check_codes(values: ArrayLike, most: int, name: str, rows: int | None = None) -> NDArray[np.intp]:
    """Return integers from 0 to most - 1, as many as there are rows."""
    refuse_masked(values, name)
    raw = np.asarray(values)
    asked = f"{name} must be {'' if rows is None else f'{rows} '}integers from 0 to {most - 1}, of shape (N,)"
    if raw.ndim != 1 or (raw.dtype.kind not in "iub" and len(raw)) or (rows is not None and len(raw) != rows):
        raise ValueError(refuse(asked, describe(raw)))
    wrong = (raw < 0) | (raw >= most)
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(refuse(asked, f"{raw[row]} in row {row}"))
    return raw.astype(np.intp)
