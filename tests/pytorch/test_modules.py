"""The modules against PyTorch's: their parameters and buffers, so that checkpoints load, and what they refuse."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import crossent as ce
import crossent.torch as cet


@pytest.mark.parametrize("out_features", [(), (2,), (2, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_checkpoint_of_pytorchs_linear_loss_loads(out_features: tuple[int, ...], bias: bool) -> None:
    keywords = {"out_features": out_features, "bias": bias, "weight": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    theirs = nn.LinearCrossEntropyLoss(5, 4, **keywords)
    torch.manual_seed(1)
    ours = cet.LinearCrossEntropyLoss(5, 4, **keywords)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x, y = torch.randn(6, 5), torch.randint(4, (6, *out_features))
    got, want = ours(x, y), theirs(x, y)
    torch.testing.assert_close(got, want)
    got.backward()
    want.backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_a_seed_gives_pytorchs_parameters() -> None:
    torch.manual_seed(0)
    ours = cet.LinearCrossEntropyLoss(5, 4, bias=True)
    torch.manual_seed(0)
    theirs = nn.LinearCrossEntropyLoss(5, 4, bias=True)
    for (name, mine), (other_name, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other_name
        assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (cet.CrossEntropyLoss, nn.CrossEntropyLoss),
        (cet.BCEWithLogitsLoss, nn.BCEWithLogitsLoss),
        (cet.LinearCrossEntropyLoss, nn.LinearCrossEntropyLoss),
    ],
)
def test_pytorchs_arguments_come_in_pytorchs_order(ours: type, theirs: type) -> None:
    mine, other = (inspect.signature(module).parameters for module in (ours, theirs))
    positional = [name for name, p in other.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [n for n, p in mine.items() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD] == positional
    assert set(other) <= {*mine, *inspect.signature(ours.function).parameters}


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy_with_logits", "linear_cross_entropy"])
def test_functions_take_pytorchs_arguments_in_its_order(name: str) -> None:
    mine, other = (inspect.signature(getattr(module, name)).parameters for module in (cet, F))
    positional = [n for n, p in other.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert [n for n, p in mine.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY] == positional
    for n, parameter in other.items():
        expected = -100 if n == "ignore_index" else parameter.default  # which None stands for there
        assert mine[n].default == expected, n


MODULES = {
    "CrossEntropyLoss": lambda **k: cet.CrossEntropyLoss(**k),
    "BCEWithLogitsLoss": lambda **k: cet.BCEWithLogitsLoss(**k),
    "FocalLoss": lambda **k: cet.FocalLoss(**k),
    "LinearCrossEntropyLoss": lambda **k: cet.LinearCrossEntropyLoss(3, 4, **k),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("keyword", ["gama", "input", "target"])
def test_a_keyword_that_is_none_is_refused_when_the_module_is_made(name: str, keyword: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}\(\) takes no keyword '{keyword}'; got .*; it takes .*reduction"):
        MODULES[name](**{keyword: 2.0})


@pytest.mark.parametrize("keyword", ["weight", "loss", "gama"])
def test_focal_loss_refuses_what_it_does_not_take(keyword: str) -> None:
    with pytest.raises(TypeError, match=rf"focal_loss\(\) takes no keyword '{keyword}'; got .*; it takes .*alpha"):
        cet.focal_loss(torch.zeros(2, 3), torch.tensor([0, 1]), **{keyword: None})


def test_the_signature_of_focal_loss_shows_its_options() -> None:
    shown = set(inspect.signature(cet.focal_loss).parameters)
    assert {"reduction", "sample_weight", "ignore_index", "pos_weight", "margin"} <= shown
    assert not {"weight", "loss", "axis", "options"} & shown


def test_options_follow_the_module_and_those_of_a_batch_come_with_it() -> None:
    module = cet.CrossEntropyLoss(torch.tensor([1.0, 2.0]), loss=ce.Focal(1.0), prior=torch.tensor([0.2, 0.8]))
    assert set(module.state_dict()) == {"weight", "prior"}
    assert module.double().weight.dtype is torch.float64
    z, y = torch.randn(3, 2), torch.tensor([0, 1, 1])
    want = cet.cross_entropy(z, y, module.weight, loss=ce.Focal(1.0), prior=module.prior, normalizer=7.0)
    assert torch.equal(module(z, y, normalizer=7.0), want)


def test_modules_print_what_was_asked_for() -> None:
    assert repr(cet.CrossEntropyLoss(label_smoothing=0.1)) == "CrossEntropyLoss(label_smoothing=0.1)"
    assert repr(cet.FocalLoss(0.5)) == "FocalLoss(gamma=0.5)"
    first, second, third, *_ = repr(cet.LinearCrossEntropyLoss(3, 5, reduction="sum")).splitlines()
    assert (first, second) == ("LinearCrossEntropyLoss(", "  reduction='sum'")
    assert third.startswith("  (linear): Linear(in_features=3, out_features=5")


@pytest.mark.parametrize(
    "module",
    [
        cet.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1),
        cet.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0])),
        cet.FocalLoss(alpha=torch.tensor([1.0, 2.0, 3.0])),
        cet.LinearCrossEntropyLoss(3, 4, weight=torch.tensor([1.0, 2.0, 3.0, 4.0])),
    ],
    ids=lambda module: type(module).__name__,
)
def test_modules_are_recorded_whole(module: nn.Module) -> None:
    z, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, -100])
    if isinstance(module, cet.BCEWithLogitsLoss):
        y = torch.rand(5, 3)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(z, y), module(z, y))


@pytest.mark.parametrize(
    ("ours", "theirs", "target"),
    [
        (cet.CrossEntropyLoss, nn.CrossEntropyLoss, torch.tensor([0, 2, 1])),
        (cet.BCEWithLogitsLoss, nn.BCEWithLogitsLoss, torch.rand(3, 4)),
    ],
)
def test_attributes_are_pytorchs_and_may_be_set(ours: type, theirs: type, target: torch.Tensor) -> None:
    z, mine, other = torch.randn(3, 4), ours(), theirs()
    for name in ("reduction", "ignore_index", "label_smoothing", "weight", "pos_weight"):
        if hasattr(other, name):
            assert getattr(mine, name) == getattr(other, name)
    changes = {"reduction": "none", "weight": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    if ours is cet.CrossEntropyLoss:
        changes |= {"ignore_index": 2, "label_smoothing": 0.25}
    for name, value in changes.items():
        before = mine(z, target)
        for module in (mine, other):
            setattr(module, name, value)
        assert not torch.equal(mine(z, target), before)
        torch.testing.assert_close(mine(z, target), other(z, target))
    other.load_state_dict(mine.state_dict())
    mine.load_state_dict(other.state_dict())
    assert list(mine.state_dict()) == ["weight"]


def test_deprecated_names_become_a_reduction() -> None:
    with pytest.warns(UserWarning, match="size_average"):
        assert cet.CrossEntropyLoss(size_average=False).reduction == "sum"


def test_a_parameter_as_an_option_is_trained() -> None:
    module = cet.CrossEntropyLoss(temperature=nn.Parameter(torch.tensor(2.0)))
    assert [name for name, _ in module.named_parameters()] == ["temperature"]
    module(torch.randn(3, 4), torch.tensor([0, 2, 1])).backward()
    assert module.temperature.grad.abs() > 0


def test_a_margin_for_each_class_follows_the_module() -> None:
    module = cet.CrossEntropyLoss(margin=torch.ones(4))
    assert module.double().margin.dtype is torch.float64
    assert not module.state_dict()  # a checkpoint of the loss without one loads
