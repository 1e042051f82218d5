"""Calibrators as modules: a layer behind a network's logits, fitted by `crossent.sklearn`'s solvers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from .tensors import floating

__all__ = ["TemperatureScaling", "VectorScaling"]


def _arrays(logits: Tensor, target: Tensor, sample_weight: Tensor | None) -> tuple[Any, Any, Any]:
    """Rows of logits (N, K), their labels and weights, as the estimators take them."""
    rows = floating(logits, "logits").detach().cpu()
    weights = None if sample_weight is None else sample_weight.detach().cpu().double().numpy()
    return (rows if rows.dtype is torch.float64 else rows.float()).numpy(), target.detach().cpu().numpy(), weights


def _through(logits: Tensor, mapped: Callable[[Tensor], Tensor]) -> Tensor:
    """Map the logits that are finite. What is masked stays so, and its 0 · inf is kept out of the gradients."""
    masked = logits.isinf()
    return torch.where(masked, logits, mapped(logits.masked_fill(masked, 0.0)))


class TemperatureScaling(nn.Module):
    """``logits / temperature``, the temperature fitted by cross-entropy (Guo et al. 2017); ``-inf`` stays ``-inf``.

    Parameters
    ----------
    temperature : float > 0
        Before it is fitted.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> generator = torch.Generator().manual_seed(0)
    >>> truth = torch.randn(2000, 3, generator=generator)
    >>> y = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    >>> calibrator = cet.TemperatureScaling().fit(3 * truth, y)
    >>> round(calibrator.temperature.item())
    3
    >>> calibrated = torch.nn.Sequential(torch.nn.Linear(5, 3), calibrator)
    """

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(float(temperature)))

    def forward(self, logits: Tensor) -> Tensor:
        return _through(logits, lambda z: z / self.temperature.to(z.dtype))

    def fit(self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Self:
        """Find the temperature of logits (N, K), labels (N,) and weights (N,) that the network was not trained on.

        Raises
        ------
        TypeError, ValueError
            As `crossent.sklearn.TemperatureScaling.fit`: for probabilities in the place of logits, for instance.
        """
        from crossent.sklearn import TemperatureScaling as Estimator

        found = Estimator().fit(*_arrays(logits, target, sample_weight))
        with torch.no_grad():
            self.temperature.fill_(found.temperature_)
        return self


class VectorScaling(nn.Module):
    """``scale ∘ logits + bias``, one factor and shift a class, fitted by cross-entropy with weak priors.

    Parameters
    ----------
    num_classes : int
    options
        Of `crossent.sklearn.VectorScaling`.

    Examples
    --------
    >>> import torch, crossent.torch as cet
    >>> generator = torch.Generator().manual_seed(0)
    >>> truth = torch.randn(4000, 3, generator=generator)
    >>> y = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    >>> calibrator = cet.VectorScaling(3).fit(2 * truth, y)
    >>> (calibrator.scale - 0.5).abs().max() < 0.1
    tensor(True)
    """

    def __init__(self, num_classes: int, **options: Any):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_classes))
        self.bias = nn.Parameter(torch.zeros(num_classes))
        self._given = options

    def forward(self, logits: Tensor) -> Tensor:
        return _through(logits, lambda z: z * self.scale.to(z.dtype) + self.bias.to(z.dtype))

    def fit(self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Self:
        """Find factors and shifts of logits (N, K), labels (N,) and weights (N,) that it was not trained on.

        Raises
        ------
        TypeError, ValueError
            As `crossent.sklearn.VectorScaling.fit`.
        """
        from crossent.sklearn import VectorScaling as Estimator

        found = Estimator(**self._given).fit(*_arrays(logits, target, sample_weight))
        with torch.no_grad():
            self.scale.copy_(torch.as_tensor(found.scale_))
            self.bias.copy_(torch.as_tensor(found.bias_))
        return self
