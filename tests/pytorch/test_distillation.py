"""Distillation near equality and at every temperature: the same digits whichever way PyTorch computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from accuracy import divergences
from accuracy.judge import DIVERGENCE_BAR, GRADIENT_BAR, entries, slack_of
from torch import Tensor

import crossent as ce
import crossent.torch as cet

Result = tuple[Tensor, Tensor]


def _differentiated(loss: Callable[[Tensor], Tensor], z: Tensor) -> Result:
    z = z.clone().requires_grad_()
    losses = loss(z)
    return losses.detach(), torch.autograd.grad(losses.sum(), z)[0]


def eager(z: Tensor, v: Tensor, temperature: float) -> Result:
    return _differentiated(lambda x: cet.distillation_loss(x, v, temperature=temperature, reduction="none"), z)


def native(z: Tensor, v: Tensor, temperature: float) -> Result:
    return eager(z, v.clone().requires_grad_(), temperature)


def composed(z: Tensor, v: Tensor, temperature: float) -> Result:
    weight = torch.ones(len(z), dtype=torch.float64, requires_grad=True)

    def loss(x: Tensor) -> Tensor:
        return cet.distillation_loss(x, v, temperature=temperature, reduction="none", sample_weight=weight)

    return _differentiated(loss, z)


def transformed(z: Tensor, v: Tensor, temperature: float) -> Result:
    def loss(x: Tensor) -> tuple[Tensor, Tensor]:
        losses = cet.distillation_loss(x, v, temperature=temperature, reduction="none")
        return losses.sum(), losses

    gradient, losses = torch.func.grad(loss, has_aux=True)(z)
    return losses, gradient


def linear(z: Tensor, v: Tensor, temperature: float) -> Result:
    """Of the logits as weights of one feature."""
    weight = torch.eye(z.shape[1], dtype=z.dtype)
    loss = ce.Distillation(temperature)
    return _differentiated(lambda x: cet.linear_cross_entropy(x, weight, v, loss=loss, reduction="none"), z)


WAYS = [eager, native, composed, transformed, linear]


def share_of_bars(way: Any, dtype: Any) -> dict[str, float]:
    """The largest error of each kind, as a share of its bar."""
    worst = {"value": 0.0, "gradient": 0.0}
    bar = {"value": DIVERGENCE_BAR[dtype], "gradient": GRADIENT_BAR[dtype]}
    for family in divergences.FAMILIES[:6]:
        for student, teacher, temperature in family.problems(dtype, 4):
            rows = [oracle.distilled_row(z, v, temperature) for z, v in zip(student, teacher, strict=True)]
            found = way(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
            slack = slack_of(student.shape[1], dtype, max(1.0, temperature**2))
            for entry in entries([part.numpy() for part in found], rows, dtype, slack):
                worst[entry.what] = max(worst[entry.what], entry.ulps / bar[entry.what])
    return worst


@pytest.mark.parametrize("way", WAYS)
def test_every_way_keeps_the_bars_in_single_precision(way: Any) -> None:
    assert max(share_of_bars(way, np.float32).values()) <= 1


@pytest.mark.parametrize("way", [eager, composed, transformed, linear])
def test_the_kernels_ways_keep_the_bars_in_double_precision(way: Any) -> None:
    assert max(share_of_bars(way, np.float64).values()) <= 1


def test_native_operations_lose_little_in_double_precision() -> None:
    """Their logarithms and exponentials are PyTorch's own: digits, but no more than that."""
    z = torch.randn(50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for apart in (1e-9, 1e-3, 1.0, 100.0):
        v = z + apart * torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(1))
        for temperature in (0.5, 20.0, 1e4):
            for found, exact in zip(native(z, v, temperature), eager(z, v, temperature), strict=True):
                torch.testing.assert_close(found, exact, rtol=1e-11, atol=1e-13 * float(exact.abs().max()))


def test_a_recorded_program_keeps_the_bars() -> None:
    v = torch.linspace(-3, 3, 8).reshape(2, 4)
    z = v + torch.tensor([[1e-4, -1e-4, 0.0, 2e-4], [0.0, 1e-3, 0.0, 0.0]])
    recorded = torch.compile(eager, backend="aot_eager", fullgraph=False)
    for found, exact in zip(recorded(z, v, 20.0), eager(z, v, 20.0), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_as_what_it_says(dtype: torch.dtype) -> None:
    v = torch.linspace(-3, 3, 8).reshape(2, 4).to(dtype)
    z = (v.float() * 1.01).to(dtype)
    exact = eager(z.double(), v.double(), 20.0)
    for way in WAYS[:4]:
        found = way(z, v, 20.0)
        assert found[0].dtype is torch.float32
        assert found[1].dtype is dtype
        torch.testing.assert_close(found[0].double(), exact[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(found[1].double(), exact[1], rtol=4e-3, atol=1e-7)


def test_derivatives_in_teacher_and_student_to_the_second_order() -> None:
    generator = torch.Generator().manual_seed(2)
    z, v = (torch.randn(3, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    far = v.detach() + 40 * torch.randn(3, 4, dtype=torch.float64, generator=generator)
    indices, listed = torch.tensor([[0, 2], [1, 3], [3, 0]]), torch.tensor([[0.5, 0.2], [0.3, 0.3], [0.1, 0.7]])
    listed = listed.double().requires_grad_()

    def loss(student: Tensor, teacher: Any) -> Tensor:
        return cet.distillation_loss(student, teacher, temperature=1.5, reduction="none")

    for function, inputs in (
        (loss, (z, v)),
        (loss, (z, far.requires_grad_())),
        (lambda a, b: loss(a, cet.TopK(indices, b)), (z, listed)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)
