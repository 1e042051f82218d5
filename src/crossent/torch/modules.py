"""The losses as modules, with the signatures of `torch.nn`'s."""

from __future__ import annotations

import inspect
import math
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import _reduction as legacy

from crossent.numpy.options import refuse_keyword

from . import functional, linear
from .tensors import describe

_SAVED = ("weight", "pos_weight", "prior", "alpha")  # those that are tensors are in a checkpoint, as in PyTorch's
_DEPRECATED = ("size_average", "reduce")
_DATA = ("input", "target", "linear_weight", "linear_bias")


class _LossModule(nn.Module):
    """Keeps the options of a function as attributes that may be set: tensors follow the module's device."""

    function: Any
    defaults: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        parameters = inspect.signature(cls.function).parameters.values()
        cls.defaults = {p.name: p.default for p in parameters if p.name not in _DATA}

    def __init__(self, **options: Any):
        super().__init__()
        for name, value in options.items():
            if name not in self.defaults:
                refuse_keyword(type(self).__name__, name, value, self.defaults)
        old_names = [options.pop(name, None) for name in _DEPRECATED]
        if any(value is not None for value in old_names):
            options["reduction"] = legacy.legacy_get_string(*old_names)
        self._names = tuple(name for name in self.defaults if name not in _DEPRECATED)
        for name in self._names:
            value = options.get(name, self.defaults[name])
            is_buffer = isinstance(value, Tensor) and not isinstance(value, nn.Parameter)
            if is_buffer or (value is None and name in _SAVED):
                self.register_buffer(name, value, persistent=name in _SAVED)
            else:
                setattr(self, name, value)

    def _options(self) -> dict[str, Any]:
        """The options that are not at their defaults."""
        options = {name: getattr(self, name) for name in self._names}
        return {name: value for name, value in options.items() if value is not self.defaults[name]}

    def forward(self, input: Tensor, target: Any, **at_call: Any) -> Any:
        """Return the loss; options of a batch, such as ``sample_weight`` or ``normalizer``, are keywords here."""
        return type(self).function(input, target, **(self._options() | at_call))

    def extra_repr(self) -> str:
        shown = []
        for name, value in self._options().items():
            text = describe(value) if isinstance(value, Tensor) else repr(value)
            if text != repr(self.defaults[name]):
                shown.append(f"{name}={text}")
        return ", ".join(shown)


class CrossEntropyLoss(_LossModule):
    """`torch.nn.CrossEntropyLoss` with the options of :func:`cross_entropy`.

    Examples
    --------
    >>> import torch, crossent as ce, crossent.torch as cet
    >>> criterion = cet.CrossEntropyLoss(label_smoothing=0.1, loss=ce.Focal(2.0))
    >>> criterion(torch.zeros(2, 3), torch.tensor([0, 1])).shape
    torch.Size([])
    """

    function = staticmethod(functional.cross_entropy)

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        **options: Any,
    ):
        super().__init__(
            weight=weight,
            size_average=size_average,
            ignore_index=ignore_index,
            reduce=reduce,
            reduction=reduction,
            label_smoothing=label_smoothing,
            **options,
        )


class BCEWithLogitsLoss(_LossModule):
    """`torch.nn.BCEWithLogitsLoss` with the options of :func:`binary_cross_entropy_with_logits`.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> round(cet.BCEWithLogitsLoss()(torch.zeros(3), torch.ones(3)).item(), 4)
    0.6931
    """

    function = staticmethod(functional.binary_cross_entropy_with_logits)

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        pos_weight: Tensor | None = None,
        **options: Any,
    ):
        super().__init__(
            weight=weight,
            size_average=size_average,
            reduce=reduce,
            reduction=reduction,
            pos_weight=pos_weight,
            **options,
        )


class FocalLoss(_LossModule):
    """:func:`focal_loss` as a module.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> cet.FocalLoss(gamma=0.5)(torch.zeros(2, 3), torch.tensor([0, 1])).shape
    torch.Size([])
    """

    function = staticmethod(functional.focal_loss)

    def __init__(self, gamma: float = 2.0, alpha: Any = None, link: str = "softmax", **options: Any):
        super().__init__(gamma=gamma, alpha=alpha, link=link, **options)


class LinearCrossEntropyLoss(_LossModule):
    """A linear layer and its cross-entropy, without the logits between: `torch.nn.LinearCrossEntropyLoss` with the
    options of :func:`linear_cross_entropy`.

    Parameters
    ----------
    in_features, num_classes : int
    out_features : tuple of int
        (d1, ...) for PyTorch's K-dimensional loss of targets (N, d1, ...), which holds its logits.
    bias : bool
    device, dtype
        Of the parameters of ``linear``, a `torch.nn.Linear`: names, shapes and initial values are those of PyTorch's
        module, and so are checkpoints.
    options
        Keywords of :func:`linear_cross_entropy`.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> head = cet.LinearCrossEntropyLoss(8, 100)
    >>> head(torch.randn(4, 8), torch.tensor([0, 1, 2, 3])).backward()
    >>> head.linear.weight.grad.shape
    torch.Size([100, 8])
    """

    function = staticmethod(linear.linear_cross_entropy)

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.head_shape = (num_classes, *out_features)
        self.linear = nn.Linear(in_features, math.prod(self.head_shape), bias=bias, device=device, dtype=dtype)

    def forward(self, input: Tensor, target: Any, **at_call: Any) -> Any:
        """Return the loss of the rows of input (..., in_features)."""
        weight, bias = self.linear.weight, self.linear.bias
        if len(self.head_shape) > 1:
            weight = weight.unflatten(0, self.head_shape)
            bias = None if bias is None else bias.unflatten(0, self.head_shape)
        options = self._options() | at_call
        return linear.linear_cross_entropy(input, weight, target, linear_bias=bias, **options)
