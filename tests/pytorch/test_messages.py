"""One sentence that names the mistake."""

from __future__ import annotations

import pytest
import torch

import crossent as ce
import crossent.torch as cet


def test_classes_in_the_last_axis() -> None:
    with pytest.raises(ValueError, match=r"class axis is 1: give input.movedim\(-1, 1\)"):
        cet.cross_entropy(torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.long))
    cet.cross_entropy(torch.zeros(2, 5, 3).movedim(-1, 1), torch.zeros(2, 5, dtype=torch.long))
    cet.cross_entropy(torch.zeros(2, 5, 5), torch.zeros(2, 5, dtype=torch.long))  # right as it stands


def test_what_topk_returns_the_other_way_round() -> None:
    logits = torch.randn(3, 6)
    values, indices = torch.softmax(logits, -1).topk(2)
    with pytest.raises(ValueError, match="indices come first"):
        cet.distillation_loss(logits, cet.TopK(values, indices))
    with pytest.raises(ValueError, match="indices come first"):
        ce.distillation_loss(logits.numpy(), ce.TopK(values.numpy(), indices.numpy()))
    assert cet.distillation_loss(logits, cet.TopK(indices, values)) < 1e-6


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda z, y: cet.cross_entropy(z.long(), y), "input must be a tensor of float16"),
        (lambda z, y: cet.cross_entropy([[0.0]], y), "input must be a tensor of float16"),
        (lambda z, y: cet.cross_entropy(z, y.bool()), "integer labels or floating"),
        (lambda z, y: cet.cross_entropy(z, [0, 1, 2]), "a tensor or a TopK"),
        (lambda z, y: cet.cross_entropy(z, y + 9), "labels must lie in 0..3"),
        (lambda z, y: cet.cross_entropy(z, y, reduction="avg"), "reduction must be"),
        (lambda z, y: cet.cross_entropy(z, y, weight=torch.ones(3)), "weight must have one weight a class"),
        (lambda z, y: cet.cross_entropy(z, y, loss="focal"), "loss must be a loss"),
        (lambda z, y: cet.cross_entropy(z, z.softmax(-1), ignore_index=0), "ignore_index applies to integer targets"),
        (lambda z, y: cet.linear_cross_entropy(z, torch.zeros(5, 3), y), "linear_weight"),
    ],
)
def test_one_sentence(call, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        call(torch.zeros(3, 4), torch.tensor([0, 1, 2]))
    assert "\n" not in str(caught.value)
