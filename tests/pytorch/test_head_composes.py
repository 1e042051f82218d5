"""The linear head under transforms and higher derivatives; and what of them needs no more memory than a block."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, hessian, jvp, vmap

import crossent as ce
import crossent.torch as cet

from .problems import CLASSES, PROBLEMS, WIDTH, Problem, target_of
from .test_composition import Operations, counted, head_arguments

__all__ = ["counted"]

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:.*jit.script.*")

CHOSEN = [
    p for p in PROBLEMS if p.name in {"cross-entropy", "focal 0.5, weights", "brier, soft", "soft cap", "ignored"}
]
CHOSEN += [p for p in PROBLEMS if p.name in {"distillation", "pos_weight", "entries' weights"}]


@pytest.fixture(autouse=True)
def blocks_of_four_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossent.core.linear.BLOCK_BYTES", 4 * CLASSES * 8)


def head_of(problem: Problem, reduction: str = "mean") -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The head, and the dense loss of its logits."""
    target, options = target_of(problem), {"reduction": reduction, **problem.options}
    dense = cet.binary_cross_entropy_with_logits if problem.link == "sigmoid" else cet.cross_entropy

    def head(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return cet.linear_cross_entropy(x, w, target, linear_bias=b, link=problem.link, **options)

    return head, lambda x, w, b: dense(F.linear(x, w, b), target, **options)


def plain() -> tuple[Tensor, Tensor, Tensor]:
    return tuple(t.detach() for t in head_arguments()[:3])


@pytest.mark.parametrize("problem", CHOSEN, ids=str)
class TestTransforms:
    def test_both_modes_and_vmap_give_the_numbers_of_the_dense_loss(self, problem: Problem) -> None:
        head, dense = head_of(problem)
        x, w, b = plain()
        tangents = tuple(torch.ones_like(t) for t in (x, w, b))
        for transform in (
            lambda f: grad(f, argnums=(0, 1, 2))(x, w, b),
            lambda f: jvp(f, (x, w, b), tangents)[1],
            lambda f: vmap(lambda x: f(x, w, b))(torch.stack([x, 2 * x])),
            lambda f: hessian(lambda bias: f(x, w, bias))(b),
        ):
            torch.testing.assert_close(transform(head), transform(dense), rtol=1e-9, atol=1e-13)

    def test_gradcheck(self, problem: Problem) -> None:
        for reduction in ("mean", "none"):
            head, _ = head_of(problem, reduction)
            assert torch.autograd.gradcheck(
                head, head_arguments()[:3], check_forward_ad=reduction == "mean", fast_mode=True
            )
        assert torch.autograd.gradgradcheck(head_of(problem)[0], head_arguments()[:3], fast_mode=True)

    def test_third_derivatives(self, problem: Problem) -> None:
        def third(function: Callable[..., Tensor]) -> Tensor:
            arguments = head_arguments()[:3]
            value = function(*arguments)
            for _ in range(3):
                (value,) = torch.autograd.grad(value.square().sum(), arguments[1], create_graph=True)
            return value

        if problem.name not in {"focal 0.5, weights"}:  # whose third derivative is not kept from 0
            torch.testing.assert_close(*(third(f) for f in head_of(problem)), rtol=1e-8, atol=1e-12)


def wide_head() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for n in (64, 50))
    return x.requires_grad_(), w.requires_grad_(), torch.randint(50, (64,), generator=generator)


class Kept:
    """A tensor that a graph keeps for as long as it lives."""

    def __init__(self, tensor: Tensor, alive: weakref.WeakSet):
        self.tensor = tensor
        alive.add(self)


def numbers_in(alive: weakref.WeakSet) -> int:
    gc.collect()
    storages = {k.tensor.untyped_storage().data_ptr(): k.tensor.untyped_storage().size() // 8 for k in alive}
    return sum(storages.values())


def derivatives(loss: Tensor, leaves: list[Tensor], is_second: bool, alive: Any = ()) -> tuple[Any, list[int]]:
    """The gradients, or those of their squares; and how many numbers the graphs held on the way."""
    held = [numbers_in(alive)]
    gradients = torch.autograd.grad(loss, leaves, create_graph=is_second)
    if not is_second:
        return gradients, held
    held.append(numbers_in(alive))
    return torch.autograd.grad(sum(g.square().sum() for g in gradients), leaves), held


ROW_WEIGHTS = torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CLASS_WEIGHTS = ROW_WEIGHTS[:50] + 0.1
SMALL: dict[str, tuple[bool, dict[str, Any]]] = {
    "create_graph": (True, {}),
    "create_graph, focal": (True, {"loss": ce.Focal(2.0), "softcap": 5.0}),
    "create_graph, sigmoid": (True, {"link": "sigmoid"}),
    "class weights": (False, {"weight": CLASS_WEIGHTS}),
    "sample_weight": (False, {"sample_weight": ROW_WEIGHTS, "loss": ce.Focal(1.0)}),
    "margins": (False, {"margin": CLASS_WEIGHTS}),
    "temperature": (False, {"temperature": torch.tensor(2.0, dtype=torch.float64)}),
    "margins, create_graph": (True, {"margin": CLASS_WEIGHTS}),
}


@pytest.mark.parametrize("name", SMALL)
def test_no_more_than_a_block_of_logits_is_held(name: str, counted: Operations, monkeypatch: Any) -> None:
    """The largest tensor an operation makes is a block; those that autograd keeps are arguments and results."""
    is_second, options = SMALL[name]
    x, w, y = wide_head()
    if options.get("link") == "sigmoid":
        y = F.one_hot(y, 50)
    given = {k: v.clone().requires_grad_() if isinstance(v, Tensor) else v for k, v in options.items()}
    leaves = [x, w, *(v for v in given.values() if isinstance(v, Tensor))]
    dense = {k: v for k, v in given.items() if k != "link"}
    function = cet.binary_cross_entropy_with_logits if "link" in given else cet.cross_entropy
    alive: weakref.WeakSet = weakref.WeakSet()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: Kept(t, alive), lambda k: k.tensor):
        want, held = derivatives(function(x @ w.T, y, **dense), leaves, is_second, alive)
    assert max(held) >= 64 * 50  # as it must be noticed
    monkeypatch.setattr("crossent.core.linear.BLOCK_BYTES", 8 * 50 * 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: Kept(t, alive), lambda k: k.tensor), counted:
        got, held = derivatives(cet.linear_cross_entropy(x, w, y, **given), leaves, is_second, alive)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-13)
    targets = y.numel() if "link" in given else 0
    assert counted.largest <= max(64 * 50 / 4, targets)
    assert max(held) < 64 * 50 / 2 + targets
