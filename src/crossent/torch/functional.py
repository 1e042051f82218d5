"""The functions: PyTorch's parameters in PyTorch's order, then the options of the family."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import _reduction as legacy

from crossent.core.target import TopK
from crossent.errors import refuse
from crossent.losses import Distillation, Focal, Loss
from crossent.numpy.arrays import lies_within
from crossent.numpy.options import Options, takes_options

from . import accelerated, composed, fused, linear
from .keywords import keywords_of, refuse_unknown
from .linear import LinearStatistics, LinearValue
from .shortcut import mean_cross_entropy
from .tensors import (
    NUMBERS,
    PLAIN,
    as_numpy,
    describe,
    floating,
    is_distributed,
    is_traced,
    is_transformed,
    of_each_class,
    other_tensors,
    varies,
    wants_gradients,
)


def _options(size_average: Any, reduce: Any, **given: Any) -> Options:
    if size_average is not None or reduce is not None:
        given["reduction"] = legacy.legacy_get_string(size_average, reduce)
    numbers = {name: given.pop(name) for name in NUMBERS if isinstance(given.get(name), Tensor)}
    smoothing = given.get("label_smoothing")
    if isinstance(smoothing, Tensor) and (smoothing.requires_grad or is_traced() or is_transformed()):
        asked = "label_smoothing must be a number: it has no gradient"
        raise TypeError(refuse(asked, describe(smoothing), "float(label_smoothing)"))
    return replace(Options(**given).checked(), **numbers)


def _for_distributions(options: Options) -> Options:
    """PyTorch's rule: with a distribution as the target a negative ignore_index has no effect; others are wrong."""
    if options.ignore_index >= 0:
        asked = "ignore_index applies to integer targets"
        raise ValueError(refuse(asked, options.ignore_index, "use sample_weight with floating targets"))
    return replace(options, ignore_index=-100) if options.ignore_index != -100 else options


def _checked(target: Any, options: Options) -> Options:
    if not isinstance(target, Tensor | TopK):
        raise TypeError(refuse("target must be a tensor or a TopK", describe(target)))
    if isinstance(target, Tensor):
        if target.is_floating_point():
            return _for_distributions(options)
        if target.is_complex() or (target.dtype is torch.bool and options.kind == "softmax"):
            asked = "target must hold integer labels or floating distributions"
            raise TypeError(refuse(asked, describe(target)))
    return options


def _in_range(tensor: Any, most: float = math.inf) -> bool:
    """Whether NumPy's front end accepts the values: finite, from 0 to `most`. PyTorch's functions take others too."""
    # Not by PyTorch: its threads would spin for a while on the processors that the kernels need next.
    return not isinstance(tensor, Tensor) or lies_within(as_numpy(tensor), most)


def _fits_kernels(target: Any, options: Options, num_labels: int | None) -> bool:
    """Whether the values are those that the NumPy front end accepts."""
    is_teacher = options.loss is not None and options.loss.needs_teacher
    is_soft = isinstance(target, Tensor) and target.is_floating_point() and not is_teacher
    if is_soft and not _in_range(target, 1.0 if options.kind == "sigmoid" else math.inf):
        return False
    pos_weight = options.pos_weight
    if isinstance(pos_weight, Tensor) and pos_weight.numel() != 1 and tuple(pos_weight.shape) != (num_labels,):
        return False  # PyTorch broadcasts it in any way
    return _in_range(options.weight) and _in_range(pos_weight) and _in_range(options.sample_weight)


def _route(inputs: list[Tensor], target: Any, options: Options, num_labels: int | None) -> str:
    """Which way to compute: by the "kernels" at once, "composed" around them, by PyTorch's "native" operations, or
    "sharded" over processes."""
    others = other_tensors(target, options)
    is_plain = True
    for tensor in (*inputs, *others):
        if type(tensor) not in PLAIN or tensor.layout is not torch.strided:
            if is_distributed(tensor):
                return "sharded"
            is_plain = False
        elif not tensor.is_cpu:
            return "native"
    if any(varies(tensor) for tensor in of_each_class(target, options)):
        return "native"
    if is_transformed() or is_traced() or wants_gradients(others):
        return "composed"
    if not is_plain:
        return "native"
    only_labels = len(others) == 1 and not others[0].is_floating_point()
    return "kernels" if only_labels or _fits_kernels(target, options, num_labels) else "native"


def _check_class_axis(input: Tensor, labels: Tensor) -> None:
    """Labels of logits whose classes are in the last axis are a frequent mistake: name it."""
    expected = (input.shape[0], *input.shape[2:])
    if tuple(labels.shape) != expected and labels.shape == input.shape[:-1]:
        works = "the class axis is 1: give input.movedim(-1, 1), or flatten the rows"
        raise ValueError(refuse(f"labels must have shape {expected}, one a row", describe(labels), works))


def _dense(input: Tensor, target: Any, options: Options) -> Tensor:
    input = floating(input, "input")
    options = _checked(target, options)
    if input.ndim == 0 and options.kind == "softmax":
        raise ValueError(refuse("input must have a class axis", "a number"))
    if isinstance(target, Tensor) and 3 <= input.ndim == target.ndim + 1 and options.kind == "softmax":
        _check_class_axis(input, target)
    if accelerated.serves(input, target, options):
        return accelerated.loss(input, target, options, lambda z: composed.loss(z, target, options, native=True))
    route = _route([input], target, options, input.shape[-1] if input.ndim > 1 else None)
    if route == "sharded":
        from . import sharded

        return sharded.dense(input, target, options, _dense)
    if route == "kernels":
        options = replace(options, target_in_range=True)  # or there is none
        if options.kind == "softmax":
            options = replace(options, axis=0 if input.ndim == 1 else 1)
        return fused.loss(input, target, options, lambda z: composed.loss(z, target, options, native=False))
    return composed.loss(input, target, options, native=route == "native")


def cross_entropy(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    loss: Loss | None = None,
    sample_weight: Tensor | None = None,
    normalizer: Any = None,
    on_empty: str = "nan",
    temperature: float | None = None,
    prior: Tensor | None = None,
    prior_strength: float = 1.0,
    margin: Tensor | float | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return the cross-entropy of softmax(input) against the target, in nats: `torch.nn.functional.cross_entropy`.

    For a row of logits z with target distribution t (one-hot for a label) and class weights w it is
    ``Σ_k w_k t_k (LSE(z) - z_k)``, ``LSE(z) = log Σ_k e^{z_k}``; its gradient is ``softmax(z) - t`` (w = 1, Σt = 1).

    Parameters
    ----------
    input : tensor (N, C, d1, ...) or (C,), float16, bfloat16, float32 or float64
        Logits; the class axis is 1. ``-inf`` masks a class.
    target : integer tensor (N, d1, ...) of labels, or floating tensor of the input's shape
        With a floating target its gradient is there to be had.
    weight : tensor (C,), optional
        Class weights.
    size_average, reduce
        PyTorch's deprecated names of `reduction`.
    ignore_index : int
        Rows with this label have no loss, no gradient and no part in the mean. With distributions a negative one has
        no effect and others are refused.
    reduction : {"mean", "sum", "none"}
    label_smoothing : float in [0, 1]
    loss : Loss, optional
        Another member of the family, such as ``ce.Focal(2.0) + ce.ZPenalty(1e-4)``.
    sample_weight : tensor (N, d1, ...), optional
        Row weights. A row of weight 0 has no loss and no gradient.
    normalizer : None, "count" or number > 0
        The mean's denominator. None: ``Σ w_y · sample_weight`` for labels, ``Σ sample_weight`` for distributions;
        "count": the rows that count; or a number, such as a global token count under data parallelism.
    on_empty : {"nan", "zero", "raise"}
        The mean over a zero denominator; its gradient is 0.
    temperature, prior, margin, softcap
        Maps of the logits before the loss, in the order soft cap ``c·tanh(z/c)``, temperature ``z/T``, prior
        ``z + prior_strength · log prior`` (C,), margin ``z_y - a_y`` (a number, or one a class).

    Returns
    -------
    tensor, a number or (N, d1, ...) with reduction "none"
        float64 for float64 logits, else float32: a loss in bfloat16 has two to three digits.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or a label is out of range. Where nothing can raise (a recorded or transformed
        program, another device) such a row is NaN.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> logits = torch.tensor([[1.0, 2.0, 3.0], [2.0, 1.0, 3.0]], requires_grad=True)
    >>> loss = cet.cross_entropy(logits, torch.tensor([2, 0]))
    >>> loss.backward()
    >>> round(loss.item(), 6), logits.grad.sum(1).abs().max() < 1e-6
    (0.907606, tensor(True))
    """
    if (
        not is_traced()
        and size_average is reduce is loss is weight is sample_weight is normalizer is None
        and temperature is prior is margin is softcap is None
        and type(label_smoothing) is float
        and type(ignore_index) is int
        and type(prior_strength) is float
        and (reduction, label_smoothing, on_empty, prior_strength) == ("mean", 0.0, "nan", 1.0)
    ):
        value = mean_cross_entropy(input, target, ignore_index, _general)
        if value is not None:
            return value
    options = _options(
        size_average,
        reduce,
        loss=loss,
        weight=weight,
        sample_weight=sample_weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        reduction=reduction,
        normalizer=normalizer,
        on_empty=on_empty,
        temperature=temperature,
        prior=prior,
        prior_strength=prior_strength,
        margin=margin,
        softcap=softcap,
    )
    return _dense(input, target, options)


def _general(input: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    return composed.loss(input, target, Options(ignore_index=ignore_index), native=False)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    *,
    loss: Loss | None = None,
    alpha: float | None = None,
    sample_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    normalizer: Any = None,
    on_empty: str = "nan",
    temperature: float | None = None,
    prior: Tensor | None = None,
    prior_strength: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """Return the binary cross-entropy of σ(input), entry by entry: `torch.nn.functional`'s function of this name.

    ``softplus(z) - t z`` per entry, gradient ``σ(z) - t``, in nats.

    Parameters
    ----------
    input : floating tensor of any shape
        Logits; ``±inf`` is p = 1 or 0.
    target : tensor of the input's shape
        Floating, or integer and bool labels (0, 1 or `ignore_index`).
    weight : tensor, optional
        Factor of each entry, broadcast to the input.
    pos_weight : tensor, optional
        Factor of the positive term, broadcast to the input.
    alpha : float in [0, 1], optional
        Weight of the positive class, 1 - alpha of the negative.
    label_smoothing : float
        ε: t becomes ``(1-ε) t + ε/2``.
    sample_weight : tensor (*input.shape[:-1]), optional
        One weight a row of labels.
    prior : tensor (K,), optional
        Rates of the positive class: ``z + prior_strength · logit(prior)``.
    size_average, reduce, reduction, loss, ignore_index, normalizer, on_empty, temperature, softcap
        As in :func:`cross_entropy`. The default mean divides by the number of entries that count.

    Returns
    -------
    tensor, a number or of the input's shape with reduction "none"; float32, or float64 for float64 logits

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> round(cet.binary_cross_entropy_with_logits(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])).item(), 6)
    1.410038
    """
    options = _options(
        size_average,
        reduce,
        link="sigmoid",
        loss=loss,
        weight=weight,
        pos_weight=pos_weight,
        alpha=alpha,
        sample_weight=sample_weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        reduction=reduction,
        normalizer=normalizer,
        on_empty=on_empty,
        temperature=temperature,
        prior=prior,
        prior_strength=prior_strength,
        softcap=softcap,
    )
    return _dense(input, target, options)


@takes_options(without=("loss", "weight", "axis"))
def focal_loss(
    input: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    alpha: Any = None,
    link: str = "softmax",
    normalizer: Any = "count",
    **options: Any,
) -> Tensor:
    """Return the focal loss ``(1 - p_y)^γ · nll`` (Lin et al. 2017), in nats; the mean is over rows that count.

    Parameters
    ----------
    input, target
        As in :func:`cross_entropy`, or with ``link="sigmoid"`` as in :func:`binary_cross_entropy_with_logits`.
    gamma : float ≥ 0
        The gradient is finite at saturation for every γ.
    alpha : tensor (C,), or with the sigmoid link a float, optional
        Class weights; a float means alpha where t = 1 and 1 - alpha where t = 0.
    link : {"softmax", "sigmoid"}
    normalizer : "count", None or number > 0
    options
        Other keywords of :func:`cross_entropy`, or of :func:`binary_cross_entropy_with_logits`.

    Returns
    -------
    tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> round(cet.focal_loss(torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([0])).item(), 9)
    0.000778422
    """
    refuse_unknown("focal_loss", options, _FOCAL_KEYWORDS)
    if link not in ("softmax", "sigmoid"):
        raise ValueError(refuse('link must be "softmax" or "sigmoid"', repr(link)))
    given = {"alpha" if link == "sigmoid" else "weight": alpha, "loss": Focal(gamma), "normalizer": normalizer}
    function = binary_cross_entropy_with_logits if link == "sigmoid" else cross_entropy
    return function(input, target, **given, **options)


_FOCAL_KEYWORDS = keywords_of(focal_loss)


def distillation_loss(
    input: Tensor,
    teacher: Any,
    *,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: str = "mean",
    normalizer: Any = None,
    on_empty: str = "nan",
    prior: Tensor | None = None,
    prior_strength: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """Return ``T² · KL(softmax(teacher/T) ‖ softmax(input/T))`` (Hinton et al. 2015), in nats.

    Parameters
    ----------
    input : tensor (N, C, d1, ...) or (C,)
        The student's logits.
    teacher : floating tensor of the input's shape, or TopK(indices, probabilities) with classes in the last axis
        Of a TopK, the mass left over is one bucket, compared with the student's summed probability of the others.
    temperature : float > 0
    sample_weight, reduction, normalizer, on_empty, prior, prior_strength, softcap
        As in :func:`cross_entropy`.

    Returns
    -------
    tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> round(cet.distillation_loss(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), temperature=2.0).item(), 6)
    0.443776
    """
    return cross_entropy(
        input,
        teacher,
        reduction=reduction,
        loss=Distillation(temperature),
        sample_weight=sample_weight,
        normalizer=normalizer,
        on_empty=on_empty,
        prior=prior,
        prior_strength=prior_strength,
        softcap=softcap,
    )


def _linear_arguments(input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the arguments in one dtype: autocast's, where that is on, else the widest of theirs."""
    floating(input, "input")
    floating(weight, "linear_weight")
    if input.ndim == 0 or weight.ndim < 2 or input.shape[-1] != weight.shape[-1]:
        asked = "input must have shape (..., D) and linear_weight (C, D)"
        raise ValueError(refuse(asked, f"{describe(input)} and {describe(weight)}"))
    if weight.shape[0] == 0:
        raise ValueError(refuse("linear_weight must have at least one class", describe(weight)))
    if bias is not None and floating(bias, "linear_bias").shape != weight.shape[:-1]:
        raise ValueError(refuse(f"linear_bias must have shape {tuple(weight.shape[:-1])}", describe(bias)))
    device = input.device.type
    if (
        torch.amp.is_autocast_available(device)
        and torch.is_autocast_enabled(device)
        and input.dtype is not torch.float64
    ):
        dtype = torch.get_autocast_dtype(device)
    else:
        dtype = torch.promote_types(input.dtype, weight.dtype)
    return input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Any,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    options: Any = None,
    link: str = "softmax",
    loss: Loss | None = None,
    pos_weight: Tensor | None = None,
    alpha: float | None = None,
    sample_weight: Tensor | None = None,
    normalizer: Any = None,
    on_empty: str = "nan",
    temperature: float | None = None,
    prior: Tensor | None = None,
    prior_strength: float = 1.0,
    margin: Tensor | float | None = None,
    softcap: float | None = None,
    return_statistics: bool = False,
) -> Any:
    """Return the loss of the linear head ``z = input @ linear_weight.T + linear_bias``, never holding N·C logits.

    ``torch.nn.functional.linear_cross_entropy`` with every loss and option. Value and gradients take three matrix
    products; with ``reduction="none"`` four, as the upstream gradient is known in backward only. The weight's gradient
    is added up in float32 at least. Half-precision logits are those of PyTorch's own product, rounded to their dtype.

    Parameters
    ----------
    input : tensor (..., D)
    linear_weight : tensor (C, D)
        (C, d1, ..., D) asks for PyTorch's K-dimensional loss, which does hold its logits.
    target : integer tensor (...) or floating tensor (..., C); a teacher with ``loss=ce.Distillation(T)``
    linear_bias : tensor (C,), optional
    options
        PyTorch's chunking options; taken and not needed.
    link : {"softmax", "sigmoid"}
        With "sigmoid" the target is that of :func:`binary_cross_entropy_with_logits`.
    return_statistics : bool
        Return also what is known of each row, from the same pass: a :class:`LinearValue`.
    others
        As in :func:`cross_entropy`.

    Returns
    -------
    tensor or LinearValue (loss, lse, entropy, log_prob, argmax, correct, accuracy)
        lse, entropy and log_prob are differentiable.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> x, w = torch.eye(2), torch.eye(2, requires_grad=True)
    >>> loss = cet.linear_cross_entropy(x, w, torch.tensor([0, 1]))
    >>> loss.backward()
    >>> round(loss.item(), 6), w.grad.shape
    (0.313262, torch.Size([2, 2]))
    """
    given = _options(
        None,
        None,
        link=link,
        loss=loss,
        weight=weight,
        pos_weight=pos_weight,
        alpha=alpha,
        sample_weight=sample_weight,
        label_smoothing=label_smoothing,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        normalizer=normalizer,
        on_empty=on_empty,
        temperature=temperature,
        prior=prior,
        prior_strength=prior_strength,
        margin=margin,
        softcap=softcap,
    )
    given = _checked(target, given)
    input, matrix, bias = _linear_arguments(input, linear_weight, linear_bias)
    if matrix.ndim > 2:
        if return_statistics or link == "sigmoid":
            raise ValueError(refuse("a K-dimensional loss has no sigmoid link and no statistics", describe(matrix)))
        return _k_dimensional(input, matrix, bias, target, given)
    return _linear(input, matrix, bias, target, given, return_statistics)


def _linear(
    input: Tensor, matrix: Tensor, bias: Tensor | None, target: Any, options: Options, with_statistics: bool = False
) -> Any:
    route = _route([input, matrix] if bias is None else [input, matrix, bias], target, options, matrix.shape[0])
    if route == "kernels":
        options = replace(options, target_in_range=True)
    if route != "sharded":
        return linear.loss(input, matrix, bias, target, options, route, with_statistics)
    from . import sharded

    if with_statistics:
        raise TypeError(refuse("statistics need tensors that are not distributed", describe(input)))
    return sharded.linear(input, matrix, bias, target, options, _linear)


def _k_dimensional(input: Tensor, matrix: Tensor, bias: Tensor | None, target: Any, options: Options) -> Tensor:
    if input.ndim != 2:
        raise ValueError(refuse("a K-dimensional loss needs input of shape (N, D)", describe(input)))
    flat = F.linear(input, matrix.flatten(0, -2), None if bias is None else bias.flatten())
    return _dense(flat.unflatten(-1, matrix.shape[:-1]), target, options)


def linear_statistics(
    input: Tensor,
    linear_weight: Tensor,
    target: Any,
    *,
    linear_bias: Tensor | None = None,
    ignore_index: int = -100,
    temperature: float | None = None,
    prior: Tensor | None = None,
    prior_strength: float = 1.0,
    softcap: float | None = None,
) -> LinearStatistics:
    """Return log-sum-exp, entropy, log-probability of the target, argmax and correctness of each row of a linear head.

    ``lse = log Σ e^{z_k}``, ``entropy = -Σ p_k log p_k``, ``log_prob = Σ t_k log p_k``, in nats, without N·C logits.

    Parameters
    ----------
    input, linear_weight, target, linear_bias, ignore_index, temperature, prior, prior_strength, softcap
        As in :func:`linear_cross_entropy`; the statistics are those of the mapped logits.

    Returns
    -------
    LinearStatistics
        Tensors (...). The first three are differentiable, at the price of the logits computed once more in backward.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> cet.linear_statistics(torch.eye(2), torch.eye(2), torch.tensor([0, 0])).argmax
    tensor([0, 1])
    """
    value = linear_cross_entropy(
        input,
        linear_weight,
        target,
        linear_bias=linear_bias,
        reduction="none",
        ignore_index=ignore_index,
        temperature=temperature,
        prior=prior,
        prior_strength=prior_strength,
        softcap=softcap,
        return_statistics=True,
    )
    return LinearStatistics(*value[1:6])


__all__ = [
    "LinearStatistics",
    "LinearValue",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "distillation_loss",
    "focal_loss",
    "linear_cross_entropy",
    "linear_statistics",
]
