"""The losses as modules, with the signatures of `torch.nn`'s."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from . import functional
from .tensors import describe

_TENSORS = ("weight", "pos_weight", "prior")


class _LossModule(nn.Module):
    """Keeps the options of a function: tensors as buffers, which follow the module's device, the rest as given."""

    function: Any

    def __init__(self, **options: Any):
        super().__init__()
        for name in _TENSORS:
            if isinstance(options.get(name), Tensor):
                self.register_buffer(name, options.pop(name))
        self._given = options

    def _options(self) -> dict[str, Any]:
        buffers = {name: buffer for name in _TENSORS if isinstance(buffer := getattr(self, name, None), Tensor)}
        return self._given | buffers

    def forward(self, input: Tensor, target: Any, **at_call: Any) -> Any:
        """Return the loss; options of a batch, such as ``sample_weight`` or ``normalizer``, are keywords here."""
        return type(self).function(input, target, **(self._options() | at_call))

    def extra_repr(self) -> str:
        shown = {name: describe(v) if isinstance(v, Tensor) else repr(v) for name, v in self._options().items()}
        return ", ".join(f"{name}={text}" for name, text in shown.items())


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
        super().__init__(gamma=gamma, link=link, **options)
        if isinstance(alpha, Tensor):
            self.register_buffer("alpha", alpha)
        else:
            self._given["alpha"] = alpha

    def _options(self) -> dict[str, Any]:
        alpha = getattr(self, "alpha", None)
        return super()._options() | ({} if alpha is None else {"alpha": alpha})


class LinearCrossEntropyLoss(nn.Module):
    """A linear layer and its cross-entropy, without the logits between: `torch.nn.LinearCrossEntropyLoss` with the
    options of :func:`linear_cross_entropy`.

    Parameters
    ----------
    in_features, num_classes : int
    bias : bool
    device, dtype
        Of the parameters ``linear_weight`` (num_classes, in_features) and ``linear_bias``, which are drawn as
        `torch.nn.Linear` draws its own.
    options
        Keywords of :func:`linear_cross_entropy`.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> head = cet.LinearCrossEntropyLoss(8, 100)
    >>> head(torch.randn(4, 8), torch.tensor([0, 1, 2, 3])).backward()
    >>> head.linear_weight.grad.shape
    torch.Size([100, 8])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        **options: Any,
    ):
        super().__init__()
        layer = nn.Linear(in_features, num_classes, bias=bias, device=device, dtype=dtype)
        self.linear_weight = layer.weight
        self.linear_bias = layer.bias
        self._criterion = _LossModule(**options)

    def forward(self, input: Tensor, target: Any, **at_call: Any) -> Any:
        """Return the loss of the rows of input (..., in_features)."""
        options = self._criterion._options() | at_call
        return functional.linear_cross_entropy(
            input, self.linear_weight, target, linear_bias=self.linear_bias, **options
        )

    def extra_repr(self) -> str:
        num_classes, in_features = self.linear_weight.shape
        return f"in_features={in_features}, num_classes={num_classes}"
