"""An argument that is changed between forward and backward is noticed, or its change has no effect: PyTorch's rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import crossent.torch as cet

ROWS, CLASSES, WIDTH = 6, 5, 3
Function = Callable[..., Tensor]


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


ARGUMENTS: dict[str, dict[str, Tensor]] = {
    "labels": {"target": torch.arange(ROWS) % 4},
    "distributions": {"target": uniform(0, ROWS, CLASSES).softmax(-1)},
    "class weights": {"target": torch.arange(ROWS) % 4, "weight": uniform(1, CLASSES)},
    "row weights": {"target": torch.arange(ROWS) % 4, "sample_weight": uniform(2, ROWS)},
    "temperature": {"target": torch.arange(ROWS) % 4, "temperature": uniform(3)},
}
HEAD = uniform(4, CLASSES, WIDTH)


def dense(input: Tensor, **given: Tensor | str) -> Tensor:
    return cet.cross_entropy(input @ HEAD.T, **given)


def linear(input: Tensor, **given: Tensor | str) -> Tensor:
    return cet.linear_cross_entropy(input, HEAD, **given)


def binary(input: Tensor, target: Tensor, **given: Tensor | str) -> Tensor:
    if not target.is_floating_point():
        target = torch.nn.functional.one_hot(target, CLASSES).to(torch.uint8)
    return cet.binary_cross_entropy_with_logits(input @ HEAD.T, target, **given)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("function", [dense, linear, binary], ids=lambda f: f.__name__)
@pytest.mark.parametrize("changed", ARGUMENTS)
def test_no_gradient_is_that_of_other_arguments(
    changed: str, function: Function, reduction: str, create_graph: bool
) -> None:
    def gradient(change: bool) -> Tensor:
        given = {name: tensor.clone() for name, tensor in ARGUMENTS[changed].items()}
        leaf = uniform(5, ROWS, WIDTH).requires_grad_()
        loss = function(leaf, **given, reduction=reduction).sum()
        if change:
            name = list(given)[-1]
            given[name].copy_(torch.ones_like(given[name]))
        return torch.autograd.grad(loss, leaf, create_graph=create_graph)[0]

    try:
        found = gradient(change=True)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)  # noqa: PT017
    else:
        torch.testing.assert_close(found, gradient(change=False), rtol=1e-12, atol=1e-14)
