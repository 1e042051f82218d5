"""What surrounds a loss: checkpointing, hooks on saved tensors, devices without values, tensors that are views."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import crossent as ce
import crossent.torch as cet

from .problems import CLASSES, PROBLEMS, ROWS, SOFTMAX, WIDTH, Problem, logits_of, target_of

Y = target_of(SOFTMAX[0])


def features() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x, w = (torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for n in (ROWS, CLASSES))
    return x.requires_grad_(), w.requires_grad_()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_checkpointed_and_saved_elsewhere(reduction: str) -> None:
    def head(x: Tensor, w: Tensor) -> Tensor:
        value = cet.linear_cross_entropy(x, w, Y, reduction=reduction, return_statistics=True)
        return value.loss.sum() + value.entropy.sum()

    def dense(x: Tensor, w: Tensor) -> Tensor:
        return cet.cross_entropy(x @ w.T, Y, reduction=reduction).sum()

    for function in (head, dense):
        want = torch.autograd.grad(function(*(leaves := features())), leaves)
        for around in (nullcontext(), torch.autograd.graph.save_on_cpu()):
            with around:
                loss = checkpoint(function, *(leaves := features()), use_reentrant=False)
                got = torch.autograd.grad(loss, leaves)
            for mine, other in zip(got, want, strict=True):
                torch.testing.assert_close(mine, other, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"reduction": "none"}, {"loss": ce.Focal(2.0), "softcap": 3.0}])
def test_tensors_without_values_have_shapes(options: dict) -> None:
    x, w = (t.detach().to("meta").requires_grad_() for t in features())
    for loss in (
        cet.linear_cross_entropy(x, w, Y.to("meta"), **options),
        cet.cross_entropy(x @ w.T, Y.to("meta"), **options),
    ):
        assert loss.is_meta
        assert loss.shape == ((ROWS,) if options.get("reduction") == "none" else ())
        for leaf, gradient in zip((x, w), torch.autograd.grad(loss.sum(), (x, w)), strict=True):
            assert gradient.shape == leaf.shape


class NoDoublePrecision(TorchDispatchMode):
    """A device without float64, as Metal is."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            assert not (isinstance(tensor, Tensor) and tensor.is_meta and tensor.dtype is torch.float64), func
        return result


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_a_device_without_double_precision(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    def single(value: Any) -> Any:
        if isinstance(value, cet.TopK):
            return cet.TopK(single(value.indices), single(value.probabilities))
        if not isinstance(value, Tensor):
            return value
        return value.to("meta", torch.float32 if value.is_floating_point() else value.dtype)

    monkeypatch.setattr("crossent.torch.tensors.is_traced", lambda: False)
    for module in ("problem", "softmax", "sigmoid", "reduction", "head", "blocks"):
        monkeypatch.setattr(f"crossent.torch.{module}.wide", lambda device: torch.float32)
    options = {name: single(value) for name, value in problem.options.items()}
    target, (x, w) = single(target_of(problem)), (single(t.detach()).requires_grad_() for t in features())
    dense = cet.binary_cross_entropy_with_logits if problem.link == "sigmoid" else cet.cross_entropy
    with NoDoublePrecision():
        for reduction in ("mean", "none"):
            losses = [
                dense(x @ w.T, target, reduction=reduction, **options),
                cet.linear_cross_entropy(x, w, target, link=problem.link, reduction=reduction, **options),
            ]
            for loss in losses:
                torch.autograd.grad(loss.sum(), (x, w))


def negated(tensor: Tensor) -> Tensor:
    """The same numbers in a view that is marked as negative, as the imaginary part of a conjugate is."""
    view = torch._neg_view(-tensor)
    assert view.is_neg()
    return view


def test_views_that_are_marked_as_negative() -> None:
    x, w = (t.detach() for t in features())
    z, soft, weight = logits_of(), logits_of().softmax(-1), torch.rand(CLASSES, dtype=torch.float64)
    calls: list[Callable[..., Tensor]] = [
        lambda f: cet.linear_cross_entropy(f(x), f(w), Y),
        lambda f: cet.cross_entropy(f(z), Y, weight=f(weight)),
        lambda f: cet.cross_entropy(f(z), f(soft)),
        lambda f: torch.func.grad(lambda v: cet.cross_entropy(v, f(soft)))(f(z)),
    ]
    for call in calls:
        torch.testing.assert_close(call(negated), call(lambda t: t), rtol=1e-13, atol=1e-15)


def test_accuracy_over_nothing_is_what_was_asked_for() -> None:
    x, w = features()
    nothing = torch.full((ROWS,), -100)
    for on_empty, want in (("zero", 0.0), ("nan", torch.nan)):
        found = cet.linear_cross_entropy(x, w, nothing, on_empty=on_empty, return_statistics=True)
        torch.testing.assert_close(found.accuracy.item(), want, equal_nan=True)
        torch.testing.assert_close(found.loss.item(), want, equal_nan=True)


def test_a_teacher_lists_a_class_once_on_every_way() -> None:
    twice = cet.TopK(torch.tensor([[0, 1], [2, 2]]), torch.full((2, 2), 0.4, dtype=torch.float64))
    z = logits_of()[:2]
    with pytest.raises(ValueError, match=r"distinct classes in 0..6; got \[2, 2\] in row 1"):
        cet.distillation_loss(z, twice, sample_weight=torch.ones(2).requires_grad_())
    with pytest.raises(ValueError, match="distinct classes"):
        cet.distillation_loss(z, twice)
    losses = torch.func.vmap(lambda v: cet.distillation_loss(v, twice, reduction="none"))(z[None])[0]
    assert losses.isnan().tolist() == [False, True]
