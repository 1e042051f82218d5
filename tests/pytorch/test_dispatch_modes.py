"""Under a dispatch mode (counting, say) the linear head is an operator; its second derivatives are not silently 0."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import crossent.torch as cet


def head() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    w = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    return x, w, torch.tensor([0, 1, 4, 2])


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_first_derivatives_are_right(reduction: str) -> None:
    x, w, y = head()
    with FlopCounterMode(display=False):
        (got,) = torch.autograd.grad(cet.linear_cross_entropy(x, w, y, reduction=reduction).sum(), w)
    (want,) = torch.autograd.grad(F.cross_entropy(x @ w.T, y, reduction=reduction).sum(), w)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_second_derivatives_are_right_or_refused(reduction: str) -> None:
    def curvature(loss: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), w)[0]

    x, w, y = head()
    want = curvature(F.cross_entropy(x @ w.T, y, reduction=reduction).sum())
    assert want.abs().max() > 0.01
    with FlopCounterMode(display=False):
        loss = cet.linear_cross_entropy(x, w, y, reduction=reduction).sum()
        with pytest.raises(RuntimeError, match="first derivatives only; got create_graph=True"):
            curvature(loss)
        torch.testing.assert_close(curvature(cet.cross_entropy(x @ w.T, y, reduction=reduction).sum()), want)
