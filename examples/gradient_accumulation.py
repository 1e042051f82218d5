"""Fine-tuning with gradient accumulation that gives the parameters of one big batch.

Sequences have different lengths, so small batches hold different numbers of tokens. The mean over each, averaged, is
not the mean over all: tokens of short sequences weigh more. Count the tokens of the big batch first, and pass the
count as `normalizer`; the parts then add up to the whole, losses and gradients.

    python examples/gradient_accumulation.py
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import crossent.torch as cet

PADDING = -100  # the default ignore_index


def big_batches(count: int, num_sequences: int = 12, length: int = 20) -> Iterator[tuple[Tensor, Tensor]]:
    """Sequences of tokens and the labels of some of their positions: answers of many lengths, the rest is padding."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        tokens = torch.randint(100, (num_sequences, length), generator=generator)
        lengths = torch.linspace(1, length, num_sequences).long()  # sorted by length, as samplers like to do
        is_answer = torch.arange(length) < lengths[:, None]
        yield tokens, torch.where(is_answer, tokens * 7 % 10, PADDING)


def pretrained_model() -> nn.Module:
    """Stands for the network to be fine-tuned: tokens (N, L) to logits (N, L, 10)."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Embedding(100, 32), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 10))


def fine_tune(model: nn.Module, parts: int, *, how: str = "normalizer", steps: int = 20) -> nn.Module:
    """Return a fine-tuned copy of the model, with big batches split into parts.

    Parameters
    ----------
    how : "normalizer" or "mean of means"
        The second is the usual recipe, `loss / parts`, and what goes wrong.
    """
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for tokens, labels in big_batches(steps):
        num_labels = int((labels != PADDING).sum())
        optimizer.zero_grad()
        for some_tokens, some_labels in zip(tokens.chunk(parts), labels.chunk(parts), strict=True):
            logits = model(some_tokens).flatten(0, 1)
            if how == "normalizer":
                loss = cet.cross_entropy(logits, some_labels.flatten(), normalizer=num_labels)
            else:
                loss = cet.cross_entropy(logits, some_labels.flatten()) / parts
            loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def distance(model: nn.Module, other: nn.Module) -> float:
    """The largest difference of two models' parameters."""
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


if __name__ == "__main__":
    start = pretrained_model()
    whole = fine_tune(start, parts=1)
    for how in ("normalizer", "mean of means"):
        print(f"4 parts, {how}: {distance(whole, fine_tune(start, parts=4, how=how)):.1e} from one big batch")
