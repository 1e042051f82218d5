"""A Hugging Face causal language model with crossent: one line, or no logits at all.

`transformers` computes `model(input_ids, labels=labels).loss` with `model.loss_function`, which can be set. Replacing
it is one line. With another head the logits (batch × length × vocabulary) are never held in training. The model is
still called as before, so autocast, gradient checkpointing, `torch.compile` and DDP do what they did.

    pip install 'crossent[torch]' transformers
    python examples/hugging_face_causal_lm.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import crossent.torch as cet


class LogitsNotComputed:
    """What a head returns in the place of logits: all that a loss needs. It is no tensor, so whoever reads it fails."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None):
        self.hidden, self.weight, self.bias = hidden, weight, bias


class Head(nn.Linear):
    """The last layer of a language model. It leaves its product to the loss while it is in training mode."""

    def forward(self, hidden: Tensor) -> Any:
        return LogitsNotComputed(hidden, self.weight, self.bias) if self.training else super().forward(hidden)


def train_without_logits(model: Any) -> Any:
    """Give the model a head that makes no logits in training, and the loss that goes with it; return the model.

    Parameters keep their names, and the head's weight stays tied to the embedding where it was. `model.eval()` brings
    the logits back, for `generate` as well. Models that change their logits after the head, such as those with a soft
    cap, raise a TypeError in training. The loss reads the weight after the head has returned: under FSDP the head
    belongs to the root, or keeps its weight (`reshard_after_forward=False`).
    """
    old = model.get_output_embeddings()
    head = Head(old.in_features, old.out_features, bias=old.bias is not None, device="meta").train(old.training)
    head.weight, head.bias = old.weight, old.bias
    model.set_output_embeddings(head)
    model.loss_function = causal_lm_loss
    return model


def causal_lm_loss(
    logits: Tensor | LogitsNotComputed,
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
    if isinstance(logits, LogitsNotComputed):
        return cet.linear_cross_entropy(
            logits.hidden,
            logits.weight,
            shift_labels.to(logits.hidden.device),
            linear_bias=logits.bias,
            ignore_index=ignore_index,
            normalizer=num_items_in_batch,
        )
    return cet.cross_entropy(
        logits.reshape(-1, vocab_size),
        shift_labels.reshape(-1).to(logits.device),
        ignore_index=ignore_index,
        normalizer=num_items_in_batch,
    )


def tiny_model(**options: Any) -> Any:
    """A randomly initialised Llama of two layers and 257 tokens, in training mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, **options
    )
    return LlamaForCausalLM(config).train()


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

    model.loss_function = causal_lm_loss  # the one line
    replaced = model(input_ids=tokens, labels=labels).loss
    without_logits = train_without_logits(model)(input_ids=tokens, labels=labels).loss

    print(f"its own loss            {of_its_own.item():.6f}")
    for name, loss in (("replaced", replaced), ("without logits", without_logits)):
        pairs = zip(gradients(model, loss), expected, strict=True)
        apart = max((a - b).abs().max().item() for a, b in pairs)
        print(f"{name:23} {loss.item():.6f}, largest difference of gradients {apart:.1e}")
