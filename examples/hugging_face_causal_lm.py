"""A Hugging Face causal language model with crossent: one line, or no logits at all.

`transformers` computes `model(input_ids, labels=labels).loss` with `model.loss_function`, which can be set. Replacing
it is one line; the second way never holds the logits (batch × length × vocabulary).

    pip install 'crossent[torch]' transformers
    python examples/hugging_face_causal_lm.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import crossent.torch as cet


def causal_lm_loss(
    logits: Tensor,
    labels: Tensor | None,
    vocab_size: int,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = -100,
    shift_labels: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """What `transformers` asks of a causal model's loss: the logits at one position are for the label at the next.

    The trainer passes `num_items_in_batch`, the number of labels in all batches of one optimizer step: the denominator.
    """
    if shift_labels is None:
        shift_labels = F.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    return cet.cross_entropy(
        logits.reshape(-1, vocab_size),
        shift_labels.reshape(-1),
        ignore_index=ignore_index,
        normalizer=num_items_in_batch,
    )


def loss_without_logits(model: Any, labels: Tensor, num_items_in_batch: int | None = None, **inputs: Any) -> Tensor:
    """The same number and gradients from the hidden states and the head's matrix."""
    hidden = model.base_model(**inputs).last_hidden_state
    head = model.get_output_embeddings()
    return cet.linear_cross_entropy(
        hidden[:, :-1], head.weight, labels[:, 1:], linear_bias=head.bias, normalizer=num_items_in_batch
    )


def tiny_model() -> Any:
    """A randomly initialised Llama of two layers and 257 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    return LlamaForCausalLM(config)


def batch() -> tuple[Tensor, Tensor]:
    """Tokens and labels: the prompt's labels are -100."""
    tokens = torch.randint(257, (3, 24), generator=torch.Generator().manual_seed(0))
    labels = tokens.masked_fill(torch.arange(24) < torch.tensor([[4], [9], [20]]), -100)
    return tokens, labels


def gradients(model: Any, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


if __name__ == "__main__":
    model, (tokens, labels) = tiny_model(), batch()
    of_its_own = model(input_ids=tokens, labels=labels).loss
    expected = gradients(model, of_its_own)

    without_logits = loss_without_logits(model, labels, input_ids=tokens)
    model.loss_function = causal_lm_loss  # the one line
    replaced = model(input_ids=tokens, labels=labels).loss

    print(f"its own loss            {of_its_own.item():.6f}")
    for name, loss in (("replaced", replaced), ("without logits", without_logits)):
        pairs = zip(gradients(model, loss), expected, strict=True)
        apart = max((a - b).abs().max().item() for a, b in pairs)
        print(f"{name:23} {loss.item():.6f}, largest difference of gradients {apart:.1e}")
