"""One loss, however it is computed: by the kernels at once, composed, in PyTorch's own operations, recorded, in blocks.

The NumPy front end is the standard here; it is held to the oracle elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import crossent as ce
import crossent.torch as cet
from crossent.numpy import target as numpy_target
from crossent.numpy.options import Options
from crossent.torch import composed, door

from .problems import (
    CLASSES,
    PROBLEMS,
    ROWS,
    WIDTH,
    Problem,
    by_operations,
    logits_of,
    numpy_options,
    numpy_target_of,
    target_of,
)

REDUCTIONS = ("mean", "sum", "none")


def function_of(problem: Problem) -> Callable[..., Tensor]:
    return cet.binary_cross_entropy_with_logits if problem.link == "sigmoid" else cet.cross_entropy


def by_route(route: str, problem: Problem, logits: Tensor, target: Any, reduction: str) -> Tensor:
    if route == "kernels":
        return function_of(problem)(logits, target, reduction=reduction, **problem.options)
    options = Options(link=problem.link, reduction=reduction, **problem.options).checked()
    return composed.dense(logits, target, options, native=route == "native")


def standard(problem: Problem, reduction: str) -> tuple[np.ndarray, np.ndarray]:
    target = numpy_target_of(problem)
    return ce.value_and_grad(
        logits_of().numpy(), target, link=problem.link, reduction=reduction, **numpy_options(problem)
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("route", ["kernels", "composed", "native"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_every_route_gives_the_value_and_gradient_of_the_numpy_front_end(
    problem: Problem, route: str, reduction: str
) -> None:
    value, gradient = standard(problem, reduction)
    logits = logits_of().requires_grad_()
    loss = by_route(route, problem, logits, target_of(problem), reduction)
    loss.sum().backward()
    np.testing.assert_allclose(loss.detach().numpy(), value, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(logits.grad, gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_routes_are_taken_when_they_should_be(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("composed")

    monkeypatch.setattr(composed, "dense", refuse)
    function_of(problem)(logits_of(), target_of(problem), **problem.options)  # the kernels, at once
    with pytest.raises(AssertionError, match="composed"):
        torch.func.grad(lambda z: function_of(problem)(z, target_of(problem), **problem.options))(logits_of())
    if problem.soft:
        with pytest.raises(AssertionError, match="composed"):
            function_of(problem)(logits_of(), target_of(problem).requires_grad_(), **problem.options)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_a_factor_per_row_reaches_the_gradient(problem: Problem) -> None:
    """reduction="none" with another upstream gradient: what a weighted sum afterwards gives."""
    logits = logits_of().requires_grad_()
    loss = by_route("kernels", problem, logits, target_of(problem), "none")
    upstream = torch.linspace(-1.0, 2.0, loss.numel(), dtype=torch.float64).reshape(loss.shape)
    (got,) = torch.autograd.grad(loss, logits, upstream)
    (want,) = torch.autograd.grad(by_route("native", problem, logits, target_of(problem), "none"), logits, upstream)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("route", ["kernels", "composed", "native"])
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_second_derivatives(problem: Problem, route: str) -> None:
    logits = logits_of().requires_grad_()
    vector = torch.from_numpy(np.random.default_rng(5).standard_normal((ROWS, CLASSES)))
    loss = by_route(route, problem, logits, target_of(problem), "mean")
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (product,) = torch.autograd.grad(gradient, logits, vector)
    want = ce.hessian_vector_product(
        logits_of().numpy(), numpy_target_of(problem), vector.numpy(), link=problem.link, **numpy_options(problem)
    )
    np.testing.assert_allclose(product.numpy(), want, rtol=1e-8, atol=1e-12)


def head(reduction: str, problem: Problem) -> tuple[list[Tensor], Callable[..., Tensor], Callable[..., Tensor]]:
    """Arguments of a linear head, the head, and the dense loss of its logits."""
    generator = np.random.default_rng(3)
    shapes = ((ROWS, WIDTH), (CLASSES, WIDTH), (CLASSES,))
    arguments = [torch.from_numpy(generator.standard_normal(shape)).requires_grad_() for shape in shapes]
    target = target_of(problem)

    def linear(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return cet.linear_cross_entropy(
            x, w, target, linear_bias=b, link=problem.link, reduction=reduction, **problem.options
        )

    def dense(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return function_of(problem)(F.linear(x, w, b), target, reduction=reduction, **problem.options)

    return arguments, linear, dense


@pytest.mark.parametrize("route", ["kernels", "native"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_linear_head_is_the_dense_loss_of_its_logits(
    problem: Problem, reduction: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if route == "native":
        by_operations(monkeypatch)
    monkeypatch.setattr("crossent.core.linear.BLOCK_BYTES", 4 * CLASSES * 8)  # three blocks
    arguments, linear, dense = head(reduction, problem)
    got = linear(*arguments)
    upstream = torch.linspace(0.5, 2.0, got.numel(), dtype=torch.float64).reshape(got.shape)
    mine = torch.autograd.grad(got, arguments, upstream)
    monkeypatch.undo()
    want = dense(*arguments)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-13, equal_nan=True)
    for one, other in zip(mine, torch.autograd.grad(want, arguments, upstream), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_eager_results_have_the_bits_of_the_numpy_front_end(problem: Problem, dtype: torch.dtype) -> None:
    """So what docs/accuracy.md says of the one holds for the other."""
    logits = logits_of(dtype).requires_grad_()
    loss = by_route("kernels", problem, logits, target_of(problem), "mean")
    loss.backward()
    value, gradient = ce.value_and_grad(
        logits.detach().numpy(), numpy_target_of(problem), link=problem.link, **numpy_options(problem)
    )
    np.testing.assert_array_equal(loss.detach().numpy(), value)
    np.testing.assert_array_equal(logits.grad.numpy(), gradient)


@pytest.mark.parametrize("margin", [20.0, 200.0, 700.0])
@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("route", ["kernels", "composed", "native"])
def test_a_saturated_focal_loss_has_finite_derivatives(route: str, gamma: float, margin: float) -> None:
    problem = Problem("focal", {"loss": ce.Focal(gamma)})
    for logits in ([[margin, 0.0, 0.0]], [[0.0, margin, 0.0]]):
        leaf = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        loss = by_route(route, problem, leaf, torch.tensor([0]), "mean")
        (gradient,) = torch.autograd.grad(loss, leaf, create_graph=True)
        assert gradient.isfinite().all()
        if route != "native":  # PyTorch's own operations are asked for the first derivative only
            assert torch.autograd.grad(gradient[0, 0], leaf)[0].isfinite().all()


@pytest.mark.parametrize("route", ["kernels", "composed", "native"])
@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_a_mean_over_nothing_raises_where_asked(link: str, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem("empty", {"on_empty": "raise"}, link=link, ignored="all")
    with pytest.raises(ValueError, match="at least one row that counts"):
        by_route(route, problem, logits_of(), target_of(problem), "mean")
    if route != "composed":
        arguments, linear, _ = head("mean", problem)
        if route == "native":
            by_operations(monkeypatch)
        with pytest.raises(ValueError, match="at least one row that counts"):
            linear(*arguments)


def test_a_broken_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The laws above have teeth: a gradient scaled by 1.001 fails them."""
    from crossent.torch import rows

    sound = rows._gradient
    monkeypatch.setattr(rows, "_gradient", lambda *a: sound(*a) * 1.001)
    with pytest.raises(AssertionError):
        test_every_route_gives_the_value_and_gradient_of_the_numpy_front_end(PROBLEMS[1], "composed", "mean")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_half_precision_is_the_float32_result_rounded(problem: Problem, dtype: torch.dtype) -> None:
    half = logits_of(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    losses = [function_of(problem)(z, target_of(problem), **problem.options) for z in (half, single)]
    for loss in losses:
        assert loss.dtype is torch.float32
        loss.backward()
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0, equal_nan=True)
    assert half.grad.dtype is dtype
    # A soft cap's slope is taken from the logits in double precision in either case, and rounded once.
    torch.testing.assert_close(half.grad, single.grad.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [40, 2000])
def test_floating_targets_of_every_dtype(dtype: torch.dtype, rows: int) -> None:
    """On the kernels' way and, where a target lies outside their range, on PyTorch's own."""
    torch.manual_seed(rows)
    logits = torch.randn(rows, 10).to(dtype)
    for scale in (1.0, 2.0, -1.0):
        target = (scale * torch.rand(rows, 10)).to(dtype)
        z = logits.clone().requires_grad_()
        exact = logits.double().clone().requires_grad_()
        for ours, theirs in (
            (cet.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits),
            (cet.cross_entropy, F.cross_entropy),
        ):
            z.grad = exact.grad = None
            value, expected = ours(z, target), theirs(exact, target.double())
            value.backward()
            expected.backward()
            torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=1e-12)
            torch.testing.assert_close(z.grad.double(), exact.grad.to(dtype).double(), rtol=2e-2, atol=1e-7)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_floating_targets_are_looked_at_once(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    for place in (door, numpy_target):
        look = place.lies_within
        monkeypatch.setattr(place, "lies_within", lambda *given, look=look: looks.append("") or look(*given))
    logits = torch.randn(20, CLASSES, requires_grad=True)
    function = cet.cross_entropy if link == "softmax" else cet.binary_cross_entropy_with_logits
    function(logits, torch.full((20, CLASSES), 1 / CLASSES)).backward()
    assert len(looks) == 1


def test_a_target_that_leaves_the_logits_range_is_named() -> None:
    """1e300 is finite as it is given, and infinite where float32 logits are computed."""
    logits, target = torch.zeros(2, 3), torch.full((2, 3), 1e300, dtype=torch.float64)
    with pytest.raises(ValueError, match="must be finite in float32"):
        cet.cross_entropy(logits, target)
