"""The scripts of examples/ at small sizes: they run, and do what they are there to show."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _own_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "character_model",
        "gradient_accumulation",
        "hugging_face_causal_lm",
    }


def test_the_character_model_learns() -> None:
    script = example("character_model")
    model, alphabet, bits = script.train(steps=30, width=32, batch=8, length=16)
    assert bits[0] == pytest.approx(math.log2(len(alphabet)), abs=0.5)
    assert bits[-1] < bits[0] - 1

    found = script.evaluate(model, alphabet, script.TEXT)
    characters = torch.tensor([[alphabet.index(character) for character in script.TEXT]])
    with torch.no_grad():
        logits = model.head(model(characters[:, :-1]))[0].double()
    truth = characters[0, 1:]
    p = logits.softmax(-1)
    assert found == {
        "bits a character": pytest.approx(F.cross_entropy(logits, truth).item() / math.log(2), rel=1e-5),
        "accuracy": pytest.approx((logits.argmax(-1) == truth).double().mean().item(), rel=1e-6),
        "entropy of the predictions, in bits": pytest.approx(-(p * p.log2()).sum(-1).mean().item(), rel=1e-5),
    }

    text = script.continued(model, alphabet, "Beware the ", 5)
    assert text.startswith("Beware the ")
    assert len(text) == len("Beware the ") + 5


@pytest.mark.parametrize("parts", [2, 4, 12])
def test_accumulated_gradients_give_the_parameters_of_one_batch(parts: int) -> None:
    script = example("gradient_accumulation")
    start = script.pretrained_model()
    whole = script.fine_tune(start, parts=1, steps=5)
    moved = script.distance(whole, start)
    assert moved > 1e-2
    accumulated = script.fine_tune(start, parts=parts, steps=5)
    assert script.distance(whole, accumulated) < 1e-4 * moved  # rounding in float32
    mean_of_means = script.fine_tune(start, parts=parts, steps=5, how="mean of means")
    assert script.distance(whole, mean_of_means) > 1e-2 * moved


@pytest.mark.parametrize("num_items", [None, 40, torch.tensor(40)], ids=["mean", "number", "tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_causal_loss_is_the_one_written_by_hand(num_items: Any, dtype: torch.dtype) -> None:
    script = example("hugging_face_causal_lm")
    tokens, labels = script.batch()
    logits = torch.randn(*tokens.shape, 257).to(dtype).requires_grad_()
    got = script.causal_lm_loss(logits, labels, 257, num_items_in_batch=num_items)
    rows, truth = logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
    want = F.cross_entropy(rows, truth, reduction="sum") / (int((truth != -100).sum()) if num_items is None else 40)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)
    got, want = (torch.autograd.grad(loss, logits)[0] for loss in (got, want))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("num_items", [None, 40, torch.tensor(40)], ids=["mean", "number", "tensor"])
def test_a_hugging_face_model_keeps_its_loss_and_gradients(num_items: Any) -> None:
    pytest.importorskip("transformers")
    script = example("hugging_face_causal_lm")
    model, (tokens, labels) = script.tiny_model(), script.batch()
    given = {} if num_items is None else {"num_items_in_batch": num_items}
    of_its_own = model(input_ids=tokens, labels=labels, **given).loss
    expected = script.gradients(model, of_its_own)
    without_logits = script.loss_without_logits(model, labels, num_items, input_ids=tokens)

    called = []

    def spy(*args: Any, **kwargs: Any) -> torch.Tensor:
        called.append(kwargs.get("num_items_in_batch"))
        return script.causal_lm_loss(*args, **kwargs)

    model.loss_function = spy
    replaced = model(input_ids=tokens, labels=labels, **given).loss
    assert called == [num_items]
    for loss in (replaced, without_logits):
        torch.testing.assert_close(loss, of_its_own, rtol=1e-6, atol=0)
        scale = max(float(g.abs().max()) for g in expected)
        for mine, other in zip(script.gradients(model, loss), expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6 * scale)
