"""The linear head on NumPy arrays: ``z = X Wᵀ + b`` and a loss on z, without N·K logits."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Unpack

import numpy as np

from crossent.core.linear import LinearGradients, evaluate
from crossent.errors import describe, refuse
from crossent.numpy.arrays import FLOAT64, compute_dtype, quietly, real_array
from crossent.numpy.evaluator import Evaluator
from crossent.numpy.options import Keywords, Options, collect, takes_options


class LinearValueGrad(NamedTuple):
    """A loss and its gradients in the linear head's arguments."""

    value: Any
    grad: LinearGradients


class LinearProblem:
    """Arguments of a linear head in canonical form: input (N, D), weight (K, D), bias (K,), one dtype."""

    @quietly
    def __init__(self, input: Any, weight: Any, bias: Any, target: Any, options: Options):
        if options.link not in ("softmax", "sigmoid"):
            raise ValueError(refuse('the link of a linear head must be "softmax" or "sigmoid"', repr(options.link)))
        self.arguments = [real_array(input, "input"), real_array(weight, "linear_weight")]
        if bias is not None:
            self.arguments.append(real_array(bias, "linear_bias"))
        source, weight = self.arguments[:2]
        if source.ndim == 0 or weight.ndim != 2 or source.shape[-1] != weight.shape[1]:
            raise ValueError(
                refuse(
                    "input must have shape (..., D) and linear_weight (K, D)",
                    f"{describe(source)} and {describe(weight)}",
                )
            )
        if weight.shape[0] == 0:
            raise ValueError(refuse("linear_weight must have at least one class", describe(weight)))
        if bias is not None and self.arguments[2].shape != weight.shape[:1]:
            raise ValueError(refuse(f"linear_bias must have shape ({weight.shape[0]},)", describe(self.arguments[2])))
        names = ("input", "linear_weight", "linear_bias")
        kinds = [compute_dtype(a.dtype, name) for a, name in zip(self.arguments, names, strict=False)]
        self.dtype = FLOAT64 if FLOAT64 in kinds else kinds[0]
        self.row_shape = source.shape[:-1]
        ready = [np.ascontiguousarray(a, dtype=self.dtype) for a in self.arguments]
        self.input, self.weight = ready[0].reshape(math.prod(self.row_shape), source.shape[-1]), ready[1]
        self.bias = ready[2] if bias is not None else None
        self.num_classes = weight.shape[0]
        self.evaluator = Evaluator.of(target, options, self.row_shape, self.num_classes, self.dtype)

    @quietly
    def solve(self, *, with_gradients: bool) -> tuple[Any, LinearGradients | None]:
        """Return the reduced value and the gradients, each in its argument's shape and dtype."""
        shape = (*self.row_shape, self.num_classes)
        entries = np.empty((len(self.input), self.num_classes)) if self.evaluator.wants_entries else None

        def evaluate_block(logits: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
            part = None if entries is None else entries[rows]
            return self.evaluator.evaluate(logits, rows, logits if with_gradients else None, part), logits

        losses, gradients = evaluate(
            self.input,
            self.weight,
            self.bias,
            evaluate_block,
            with_gradients=with_gradients,
            is_silent=self.evaluator.silent_rows,
        )
        if entries is not None:
            value: Any = entries.reshape(shape).astype(self.evaluator.result_dtype, copy=False)
        else:
            value = self.evaluator.reduce(losses).astype(self.evaluator.result_dtype)
        if gradients is None:
            return value, None
        restored = [self._restore(g, argument) for g, argument in zip(gradients, self.arguments, strict=False)]
        return value, LinearGradients(restored[0], restored[1], restored[2] if self.bias is not None else None)

    @staticmethod
    def _restore(gradient: np.ndarray, argument: np.ndarray) -> np.ndarray:
        dtype = argument.dtype if argument.dtype.kind not in "iu" else gradient.dtype
        return gradient.reshape(argument.shape).astype(dtype, copy=False)


@takes_options(without=("axis",))
def linear_cross_entropy(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    link: str = "softmax",
    **options: Unpack[Keywords],
) -> Any:
    """Return the loss of the linear head ``z = X Wᵀ + b``, without ever holding N·K logits.

    Parameters
    ----------
    input : array (..., D)
        X, one row a sample.
    linear_weight : array (K, D)
        W, one row a class.
    target : as in :func:`cross_entropy` or, with ``link="sigmoid"``, :func:`binary_cross_entropy_with_logits`
    linear_bias : array (K,), optional
    link : {"softmax", "sigmoid"}
    options
        As in :func:`cross_entropy`, without axis.

    Returns
    -------
    numpy scalar, or array (...) with reduction "none" ((..., K) with the sigmoid link), in nats

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import numpy as np, crossent as ce
    >>> round(float(ce.linear_cross_entropy(np.eye(2), np.eye(2), [0, 1])), 6)
    0.313262
    """
    collected = collect(options, link=link)
    return LinearProblem(input, linear_weight, linear_bias, target, collected).solve(with_gradients=False)[0]


@takes_options(without=("axis",))
def linear_value_and_grad(
    input: Any,
    linear_weight: Any,
    target: Any,
    *,
    linear_bias: Any = None,
    link: str = "softmax",
    **options: Unpack[Keywords],
) -> LinearValueGrad:
    """Return the loss of the linear head and its gradients in input, weight and bias, without N·K logits.

    With ``G = ∂L/∂z``: ``∂L/∂X = G W``, ``∂L/∂W = Gᵀ X``, ``∂L/∂b = Σ_rows G``; three matrix products in all.

    Parameters
    ----------
    input, linear_weight, target, linear_bias, link, options
        As in :func:`linear_cross_entropy`.

    Returns
    -------
    value : numpy scalar or array
    grad : LinearGradients
        Named tuple (input, weight, bias), each of its argument's shape and dtype; bias is None without a bias. With
        reduction "none", gradients of the summed losses.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import numpy as np, crossent as ce
    >>> value, grad = ce.linear_value_and_grad(np.eye(2), np.zeros((2, 2)), [0, 1])
    >>> grad.weight
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    collected = collect(options, link=link)
    problem = LinearProblem(input, linear_weight, linear_bias, target, collected)
    return LinearValueGrad(*problem.solve(with_gradients=True))  # type: ignore[arg-type]
