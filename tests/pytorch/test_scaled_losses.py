"""float16 under a loss scale (`torch.amp.GradScaler`): a row's part of a mean is too small for float16 without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor

import crossent.torch as cet

from .problems import by_operations

ROWS, WIDTH, CLASSES, SCALE = 2048, 8, 1000, 2.0**16


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(*shape, generator=generator) for shape in ((ROWS, WIDTH), (CLASSES, WIDTH), (CLASSES,)))
    y = torch.randint(CLASSES, (ROWS,), generator=generator)
    return (x / WIDTH).requires_grad_(), w.requires_grad_(), b.requires_grad_(), y


def gradients(loss: Callable[..., Tensor], dtype: torch.dtype = torch.float16) -> list[Tensor]:
    """Gradients of a loss under autocast and a loss scale, unscaled as the scaler does; float64: the exact ones."""
    *leaves, y = data()
    if dtype is torch.float64:
        leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    with torch.autocast("cpu", dtype=torch.float16, enabled=dtype is torch.float16):
        value = loss(*leaves, y)
    return [g.double() / SCALE for g in torch.autograd.grad(value * SCALE, leaves)]


def head(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    return cet.linear_cross_entropy(x, w, y, linear_bias=b)


def head_of_rows(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    return cet.linear_cross_entropy(x, w, y, linear_bias=b, reduction="none").mean()


def dense(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    return cet.cross_entropy(F.linear(x, w, b), y)


def theirs(x: Tensor, w: Tensor, b: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, w, b), y)


LOSSES = {"head": head, "head of rows": head_of_rows, "dense": dense}


def check(loss: Callable[..., Tensor]) -> None:
    for got, pytorchs, want in zip(gradients(loss), gradients(theirs), gradients(theirs, torch.float64), strict=True):
        error, bar = ((g - want).norm() / want.norm() for g in (got, pytorchs))
        assert error < 1.2 * bar + 1e-5
        assert error < 0.002  # 5 % before


@pytest.mark.parametrize("name", LOSSES)
def test_a_scaled_loss_keeps_its_digits(name: str) -> None:
    check(LOSSES[name])


@pytest.mark.parametrize("name", ["head", "dense"])
def test_in_pytorchs_own_operations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_operations(monkeypatch)
    check(LOSSES[name])


@pytest.mark.parametrize("name", ["head", "head of rows"])
def test_in_a_recorded_program(name: str) -> None:
    torch._dynamo.reset()
    check(torch.compile(LOSSES[name], fullgraph=True, backend="aot_eager"))


def test_a_sum_over_many_rows_of_one_class_is_in_range() -> None:
    """Their part of the weight's gradient is beyond float16 until it is divided."""
    x = torch.full((100_000, 2), 4.0, dtype=torch.float16)
    w = torch.zeros(2, 2, dtype=torch.float16, requires_grad=True)
    b = torch.zeros(2, dtype=torch.float16, requires_grad=True)
    cet.linear_cross_entropy(x, w, torch.zeros(100_000, dtype=torch.long), linear_bias=b).backward()
    torch.testing.assert_close(w.grad, torch.tensor([[-2.0, -2.0], [2.0, 2.0]], dtype=torch.float16))
    torch.testing.assert_close(b.grad, torch.tensor([-0.5, 0.5], dtype=torch.float16))
