"""A language model of characters, trained on the CPU with the linear head.

The last layer and the loss are one call, `cet.linear_cross_entropy`: it takes the hidden states and the matrix, and the
logits of all positions never exist together. With 30 characters that saves little; with the 128,256 tokens of a large
vocabulary, 2048 positions in float32 save a gigabyte, and nothing below changes.

    python examples/character_model.py
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import crossent.torch as cet

TEXT = """\
'Twas brillig, and the slithy toves
Did gyre and gimble in the wabe:
All mimsy were the borogoves,
And the mome raths outgrabe.

"Beware the Jabberwock, my son!
The jaws that bite, the claws that catch!
Beware the Jubjub bird, and shun
The frumious Bandersnatch!"

He took his vorpal sword in hand;
Long time the manxome foe he sought--
So rested he by the Tumtum tree
And stood awhile in thought.
"""  # Lewis Carroll, 1871


class CharacterModel(nn.Module):
    def __init__(self, num_characters: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(num_characters, width)
        self.body = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, num_characters, bias=False)

    def forward(self, characters: Tensor) -> Tensor:
        """Return the hidden states; the head is applied by the loss in training, and by `continued` afterwards."""
        hidden, _ = self.body(self.embedding(characters))
        return hidden


def train(
    steps: int = 200, width: int = 64, batch: int = 16, length: int = 32
) -> tuple[CharacterModel, str, list[float]]:
    """Return the trained model, its alphabet, and the loss of each step in bits a character."""
    torch.manual_seed(0)
    alphabet = "".join(sorted(set(TEXT)))
    text = torch.tensor([alphabet.index(character) for character in TEXT])
    model = CharacterModel(len(alphabet), width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    bits = []
    for _ in range(steps):
        starts = torch.randint(len(text) - length, (batch, 1))
        window = text[starts + torch.arange(length + 1)]
        hidden = model(window[:, :-1])
        loss = cet.linear_cross_entropy(hidden, model.head.weight, window[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bits.append(loss.item() / math.log(2))
    return model, alphabet, bits


@torch.no_grad()
def evaluate(model: CharacterModel, alphabet: str, text: str) -> dict[str, float]:
    """What an evaluation prints, from one pass and without the logits."""
    characters = torch.tensor([[alphabet.index(character) for character in text]])
    value = cet.linear_cross_entropy(
        model(characters[:, :-1]), model.head.weight, characters[:, 1:], return_statistics=True
    )
    return {
        "bits a character": value.loss.item() / math.log(2),
        "accuracy": value.accuracy.item(),
        "entropy of the predictions, in bits": value.entropy.mean().item() / math.log(2),
    }


@torch.no_grad()
def continued(model: CharacterModel, alphabet: str, text: str, count: int) -> str:
    """Return the text with its `count` most probable next characters."""
    for _ in range(count):
        characters = torch.tensor([[alphabet.index(character) for character in text]])
        text += alphabet[int(model.head(model(characters)[0, -1]).argmax())]
    return text


if __name__ == "__main__":
    model, alphabet, bits = train()
    print(f"before training {math.log2(len(alphabet)):.2f} bits a character, after it {bits[-1]:.2f}")
    for name, number in evaluate(model, alphabet, TEXT).items():
        print(f"{name}: {number:.3f}")
    print(continued(model, alphabet, "Beware the ", 60))
