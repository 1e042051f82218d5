"""Losses of tensors that are computed from one another: an embedding as the head, an inner step, a gradient penalty.

A backward pass that is differentiated again works on tensors that have a history. What it counts must be the loss's own
part of the gradient; the history is autograd's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from laws.naive import softmax_rows
from laws.tables import LOSSES, WITH_Z_PENALTY, LossCase
from torch import Tensor
from torch.func import grad, hessian, jvp, vmap
from torch.utils.checkpoint import checkpoint

import crossent.torch as cet

# PyTorch's own: its forward derivatives go through a deprecated part of it.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning",
    "ignore:.*jit.script.*",
    "ignore:.*create_graph=True will create a reference",
)

ROWS, CLASSES, WIDTH = 6, 5, 3
Arguments = dict[str, Any]
Function = Callable[[Tensor], Tensor]


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


INPUT, WEIGHT = normal(0, ROWS, WIDTH), normal(1, CLASSES, WIDTH)
TO_ROWS, TO_CLASSES, DOWN, UP = normal(2, ROWS, CLASSES), normal(3, CLASSES, ROWS), normal(4, WIDTH), normal(5, WIDTH)
MIX, NUMBERS = normal(6, WIDTH, CLASSES), normal(8, ROWS, CLASSES)


@dataclass(frozen=True)
class Tie:
    """Arguments of a loss as a function of one leaf (rows, WIDTH)."""

    name: str
    rows: int
    of: Callable[[Tensor], Arguments]

    def __str__(self) -> str:
        return self.name

    @property
    def leaf(self) -> Tensor:
        return normal(7, self.rows, WIDTH)


def _head(input: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Arguments:
    return {"input": input, "linear_weight": weight, "linear_bias": bias, **options}


def _positive(numbers: Tensor) -> Tensor:
    return 0.5 + numbers.sigmoid()


def _chain(u: Tensor) -> Arguments:
    x = u.tanh()
    w = (TO_CLASSES @ x).tanh()
    b = w @ DOWN
    row_weight = _positive(F.linear(x, w, b).logsumexp(1))
    return _head(x, w, b, class_weight=_positive(b), sample_weight=row_weight, temperature=1 + w.square().mean())


OF_THE_HEAD = [
    Tie("weight = f(input)", ROWS, lambda x: _head(x, (TO_CLASSES @ x).tanh())),
    Tie("input = f(weight)", CLASSES, lambda w: _head((TO_ROWS @ w).tanh(), w)),
    Tie("bias = f(weight)", CLASSES, lambda w: _head(INPUT, w, w @ DOWN)),
    Tie("weight = f(bias)", CLASSES, lambda u: _head(INPUT, torch.outer(u @ DOWN, UP).tanh(), u @ DOWN)),
    Tie("bias = f(input)", ROWS, lambda x: _head(x, WEIGHT, TO_CLASSES @ (x @ DOWN))),
    Tie("input is weight", CLASSES, lambda w: _head(w, w)),
    Tie("everything", ROWS, _chain),
]
OF_OPTIONS = [
    Tie("class weight = f(weight)", CLASSES, lambda w: _head(INPUT, w, class_weight=_positive(w @ DOWN))),
    Tie("row weight = f(input)", ROWS, lambda x: _head(x, WEIGHT, sample_weight=_positive(x @ DOWN))),
    Tie("temperature = f(weight)", CLASSES, lambda w: _head(INPUT, w, temperature=1 + w.square().mean())),
]
OF_TARGETS = [
    Tie("target = f(input)", ROWS, lambda x: _head(x, WEIGHT, target=(x @ MIX).softmax(-1))),
    Tie("target = f(logits)", CLASSES, lambda w: _head(INPUT, w, target=F.linear(INPUT.cos(), w).softmax(-1))),
]


@dataclass(frozen=True)
class Case:
    """A loss of the family on labels or distributions, softmax or sigmoid."""

    loss: LossCase
    link: str
    is_soft: bool

    def __str__(self) -> str:
        return f"{self.link}-{'soft' if self.is_soft else 'hard'}-{self.loss}"

    @property
    def ties(self) -> list[Tie]:
        return OF_THE_HEAD + OF_OPTIONS + (OF_TARGETS if self.is_soft else [])

    def target(self, rows: int) -> Tensor:
        numbers = NUMBERS[:rows]
        if self.link == "softmax":
            return numbers.softmax(-1) if self.is_soft else numbers.argmax(-1)
        return numbers.sigmoid() if self.is_soft else (numbers > 0).long()

    @property
    def name_of_class_weight(self) -> str:
        return "weight" if self.link == "softmax" else "pos_weight"

    def arguments(self, tie: Tie, u: Tensor) -> Arguments:
        given = tie.of(u)
        return {"target": self.target(len(given["input"])), **given}


CASES = [
    Case(loss, link, is_soft)
    for loss in LOSSES
    for link in ("softmax", "sigmoid")
    for is_soft in (False, True)
    if not (is_soft and loss.hard_only)
]
CROSS_ENTROPY = Case(LOSSES[0], "softmax", is_soft=True)
CHOSEN = [Case(WITH_Z_PENALTY, link, is_soft=True) for link in ("softmax", "sigmoid")]
CHOSEN += [Case(loss, "softmax", is_soft=False) for loss in LOSSES if loss is LOSSES[0] or loss.hard_only]


def linear(case: Case, tie: Tie) -> Function:
    def of(u: Tensor) -> Tensor:
        given = case.arguments(tie, u)
        given[case.name_of_class_weight] = given.pop("class_weight", None)
        return cet.linear_cross_entropy(**given, link=case.link, loss=case.loss.loss)

    return of


def dense(case: Case, tie: Tie) -> Function:
    def of(u: Tensor) -> Tensor:
        given = case.arguments(tie, u)
        logits = F.linear(given.pop("input"), given.pop("linear_weight"), given.pop("linear_bias"))
        given[case.name_of_class_weight] = given.pop("class_weight", None)
        function = cet.cross_entropy if case.link == "softmax" else cet.binary_cross_entropy_with_logits
        return function(logits, **given, loss=case.loss.loss)

    return of


def plain(case: Case, tie: Tie) -> Function:
    """The same loss in PyTorch's own operations."""

    def of(u: Tensor) -> Tensor:
        given = case.arguments(tie, u)
        target, weight = given["target"], given.get("class_weight")
        z = F.linear(given["input"], given["linear_weight"], given["linear_bias"]) / given.get("temperature", 1.0)
        weight = torch.ones(CLASSES, dtype=z.dtype) if weight is None else weight
        row_weight = given.get("sample_weight", torch.ones(len(z), dtype=z.dtype))
        if case.link == "sigmoid":
            t = target.to(z.dtype)
            rows = torch.stack([torch.zeros_like(z), z], -1).reshape(-1, 2), torch.stack([1 - t, t], -1).reshape(-1, 2)
            factors = torch.stack([torch.ones_like(weight), weight], -1).repeat(len(z), 1)
            return (softmax_rows(*rows, case.loss, factors).reshape(z.shape) * row_weight[:, None]).mean()
        distribution = target if case.is_soft else F.one_hot(target, CLASSES).to(z.dtype)
        denominator = row_weight if case.is_soft else row_weight * weight[target]
        return (softmax_rows(z, distribution, case.loss, weight) * row_weight).sum() / denominator.sum()

    return of


def once(function: Function, u: Tensor) -> list[Tensor]:
    """The value and its gradient."""
    leaf = u.clone().requires_grad_()
    value = function(leaf)
    return [value.detach(), *torch.autograd.grad(value, leaf)]


def twice(function: Function, u: Tensor) -> list[Tensor]:
    """The value, the gradient that is to be differentiated again, and that one's product with a vector."""
    leaf = u.clone().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    return [value.detach(), gradient.detach(), *torch.autograd.grad(gradient, leaf, normal(10, *u.shape))]


def under_checkpoint(function: Function) -> Function:
    return lambda u: checkpoint(function, u, use_reentrant=False)


def check(got: list[Tensor], want: list[Tensor], name: str) -> None:
    for mine, other in zip(got, want, strict=True):
        scale = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12 * scale, msg=lambda m: f"{name}: {m}")


@pytest.fixture(autouse=True)
def blocks_of_four_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr("crossent.core.linear.BLOCK_BYTES", 4 * CLASSES * 8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_and_hessian_products_are_those_of_plain_operations(case: Case) -> None:
    for tie in OF_THE_HEAD:
        wanted = twice(plain(case, tie), tie.leaf)
        for ours in (linear, dense):
            check(twice(ours(case, tie), tie.leaf), wanted, f"{ours.__name__}, {tie}")


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_so_they_are_in_every_mode(case: Case) -> None:
    def modes(function: Function, u: Tensor) -> dict[str, list[Tensor]]:
        batch = torch.stack([u, -u])
        return {
            "grad": [grad(function)(u)],
            "jvp": [jvp(function, (u,), (u.cos(),))[1]],
            "hessian": [hessian(function)(u)],
            "vmap": [vmap(function)(batch)],
            "vmap of grad": [vmap(grad(function))(batch)],
            "backward": once(function, u),
            "create_graph": twice(function, u),
            "checkpoint": once(under_checkpoint(function), u) + twice(under_checkpoint(function), u),
        }

    for tie in case.ties:
        wanted = modes(plain(case, tie), tie.leaf)
        for ours in (linear, dense):
            for name, found in modes(ours(case, tie), tie.leaf).items():
                check(found, wanted[name], f"{ours.__name__}, {tie}, {name}")


@pytest.mark.parametrize("case", CHOSEN, ids=str)
def test_gradgradcheck(case: Case) -> None:
    for tie in OF_THE_HEAD:
        assert torch.autograd.gradgradcheck(linear(case, tie), tie.leaf.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("tie", OF_THE_HEAD[:3], ids=str)
def test_a_recorded_program(tie: Tie) -> None:
    case = CROSS_ENTROPY
    for ours in (linear, dense):
        compiled = torch.compile(ours(case, tie), fullgraph=True, backend="aot_eager")
        check(once(compiled, tie.leaf), once(plain(case, tie), tie.leaf), ours.__name__)


@pytest.mark.parametrize("tie", OF_THE_HEAD + OF_OPTIONS + OF_TARGETS, ids=str)
def test_statistics_of_the_rows(tie: Tie) -> None:
    case = CROSS_ENTROPY

    def ours(u: Tensor) -> Tensor:
        given = case.arguments(tie, u)
        given["weight"] = given.pop("class_weight", None)
        found = cet.linear_cross_entropy(**given, return_statistics=True)
        return found.loss + (found.lse + 2 * found.entropy - 3 * found.log_prob).sum()

    def theirs(u: Tensor) -> Tensor:
        given = case.arguments(tie, u)
        z = F.linear(given["input"], given["linear_weight"], given["linear_bias"]) / given.get("temperature", 1.0)
        log_p = z.log_softmax(-1)
        rows = z.logsumexp(-1) - 2 * (log_p.exp() * log_p).sum(-1) - 3 * (given["target"] * log_p).sum(-1)
        return plain(case, tie)(u) + rows.sum()

    for mode in (once, twice):
        check(mode(ours, tie.leaf), mode(theirs, tie.leaf), str(tie))


HOOKED: dict[str, Callable[[Tensor], Tensor]] = {
    "defaults": lambda z: cet.cross_entropy(z, torch.arange(ROWS) % WIDTH),
    "smoothed": lambda z: cet.cross_entropy(z, torch.arange(ROWS) % WIDTH, label_smoothing=0.1),
    "sigmoid": lambda z: cet.binary_cross_entropy_with_logits(z, z.detach().sigmoid()),
    "linear": lambda z: cet.linear_cross_entropy(z, WEIGHT, torch.arange(ROWS) % CLASSES),
    "linear, rows": lambda z: cet.linear_cross_entropy(z, WEIGHT, torch.arange(ROWS) % CLASSES, reduction="none"),
    "linear's weight": lambda w: cet.linear_cross_entropy(INPUT, w, torch.arange(ROWS) % ROWS),
}


@pytest.mark.parametrize("is_leaf", [True, False])
@pytest.mark.parametrize("name", HOOKED)
def test_hooks_run_once(name: str, is_leaf: bool) -> None:
    def gradients(create_graph: bool) -> list[Tensor | None]:
        leaf = INPUT.clone().requires_grad_()
        z = leaf if is_leaf else leaf * 1
        z.retain_grad()
        z.register_hook(lambda gradient: 2 * gradient)
        HOOKED[name](z).sum().backward(create_graph=create_graph)
        assert z.grad is not None
        return [leaf.grad, z.grad]

    torch.testing.assert_close(gradients(True), gradients(False))
