"""The dense losses: PyTorch's parameters in PyTorch's order, then the options of the family."""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor

from crossent.errors import refuse
from crossent.losses import Distillation, Focal
from crossent.numpy.options import BinaryExtras, Extras, Options, takes_options

from . import composed
from .door import dense, options_of
from .kernels import mean_of_labels

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "distillation_loss", "focal_loss"]


@takes_options(without=("link", "pos_weight", "alpha", "axis"))
def cross_entropy(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **options: Unpack[Extras],
) -> Tensor:
    """Return the cross-entropy of softmax(input) against the target, in nats: `torch.nn.functional.cross_entropy`.

    For a row of logits z with target distribution t (one-hot for a label) and class weights w it is
    ``Σ_k w_k t_k (LSE(z) - z_k)``, ``LSE(z) = log Σ_k e^{z_k}``; its gradient is ``softmax(z) - t`` (w = 1, Σt = 1).

    Parameters
    ----------
    input : tensor (N, C, d1, ...) or (C,), float16, bfloat16, float32 or float64
        Logits; the class axis is 1. ``-inf`` masks a class.
    target : integer tensor (N, d1, ...) of labels, or floating tensor of the input's shape
        A floating target may require a gradient.
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
        not options
        and size_average is reduce is weight is None
        and type(label_smoothing) is float
        and type(ignore_index) is int
        and (reduction, label_smoothing) == ("mean", 0.0)
    ):
        value = mean_of_labels(
            input,
            target,
            ignore_index,
            lambda z: composed.dense(z, target, Options(ignore_index=ignore_index), native=False),
        )
        if value is not None:
            return value
    given = options_of(
        target,
        size_average,
        reduce,
        options,
        weight=weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
    return dense(input, target, given)


@takes_options(without=("link", "margin", "axis"))
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    **options: Unpack[BinaryExtras],
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
    given = options_of(
        target,
        size_average,
        reduce,
        options,
        link="sigmoid",
        weight=weight,
        reduction=reduction,
        pos_weight=pos_weight,
    )
    return dense(input, target, given)


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
    if link not in ("softmax", "sigmoid"):
        raise ValueError(refuse('link must be "softmax" or "sigmoid"', repr(link)))
    given = {"alpha" if link == "sigmoid" else "weight": alpha, "loss": Focal(gamma), "normalizer": normalizer}
    function = binary_cross_entropy_with_logits if link == "sigmoid" else cross_entropy
    return function(input, target, **given, **options)


_NOT_DISTILLED = ("link", "loss", "weight", "pos_weight", "alpha", "label_smoothing", "ignore_index", "margin", "axis")


@takes_options(without=_NOT_DISTILLED)
def distillation_loss(input: Tensor, teacher: Any, *, temperature: float = 1.0, **options: Any) -> Tensor:
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
    return cross_entropy(input, teacher, loss=Distillation(temperature), **options)
