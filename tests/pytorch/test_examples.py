"""The scripts of examples/ at small sizes: they run, and do what they are there to show."""

from __future__ import annotations

import copy
import importlib.util
import math
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where torch.compile looks for the classes that a program makes
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _own_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def test_every_example_is_tested() -> None:
    tests = "".join(path.read_text() for path in EXAMPLES.parent.glob("tests/*/test_examples.py"))
    assert [path.stem for path in EXAMPLES.glob("*.py") if f'"{path.stem}' not in tests] == []


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


def own_and_ours(script: ModuleType, **options: Any) -> tuple[Any, Any]:
    """A model with the loss and head that it came with, and its twin that makes no logits."""
    pytest.importorskip("transformers")
    model = script.tiny_model(**options)
    return model, script.train_without_logits(copy.deepcopy(model))


def assert_same_gradients(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """To the rounding of their largest entry."""
    scale = max(float(g.abs().max()) for g in expected)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6 * scale)


@pytest.mark.parametrize("num_items", [None, 40, torch.tensor(40)], ids=["mean", "number", "tensor"])
def test_a_hugging_face_model_keeps_its_loss_and_gradients(num_items: Any) -> None:
    script = example("hugging_face_causal_lm")
    model, without_logits = own_and_ours(script)
    tokens, labels = script.batch()
    given = {} if num_items is None else {"num_items_in_batch": num_items}
    own, replaced = model(input_ids=tokens, labels=labels, **given).loss, copy.deepcopy(model)
    expected = script.gradients(model, own)

    called = []

    def spy(*args: Any, **kwargs: Any) -> torch.Tensor:
        called.append(kwargs.get("num_items_in_batch"))
        return script.causal_lm_loss(*args, **kwargs)

    replaced.loss_function = spy
    loss = replaced(input_ids=tokens, labels=labels, **given).loss
    torch.testing.assert_close(loss, own, rtol=1e-6, atol=0)
    assert_same_gradients(script.gradients(replaced, loss), expected)
    assert called == [num_items]
    shifted = F.pad(labels, (0, 1), value=-100)[:, 1:]
    for labelled in ({"labels": labels}, {"labels": labels, "shift_labels": shifted}):
        out = without_logits(input_ids=tokens, **labelled, **given)
        assert isinstance(out.logits, script.LogitsNotComputed)
        torch.testing.assert_close(out.loss, own, rtol=1e-6, atol=0)
        assert_same_gradients(script.gradients(without_logits, out.loss), expected)


def test_it_keeps_the_products_of_autocast() -> None:
    """Accelerate wraps a model's own forward in autocast: a loss that goes around it would be that of float32."""
    script = example("hugging_face_causal_lm")
    models, (tokens, labels) = own_and_ours(script), script.batch()
    in_float32 = models[0](input_ids=tokens, labels=labels).loss
    for model in models:
        model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    own, ours = (model(input_ids=tokens, labels=labels).loss for model in models)
    assert abs(in_float32.item() / own.item() - 1) > 5e-6
    assert ours.dtype is torch.float32
    torch.testing.assert_close(ours, own, rtol=1e-6, atol=0)

    def distance(gradients: list[torch.Tensor], others: list[torch.Tensor]) -> float:
        pairs = zip(gradients, others, strict=True)
        return sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5

    expected = script.gradients(models[0], own)
    rounding = distance(script.gradients(models[0], in_float32), expected)
    assert distance(script.gradients(models[1], ours), expected) < rounding / 4


@pytest.mark.parametrize("way", ["checkpoint", "compile", "tied"])
def test_it_survives(way: str) -> None:
    script = example("hugging_face_causal_lm")
    models, (tokens, labels) = own_and_ours(script, tie_word_embeddings=way == "tied"), script.batch()
    called = models[1]
    layer_calls: list[None] = []
    called.model.layers[0].mlp.register_forward_pre_hook(lambda *_: layer_calls.append(None))
    if way == "checkpoint":
        name = "activation_checkpointing_enable"  # since transformers 5
        getattr(called, name if hasattr(called, name) else "gradient_checkpointing_enable")()
    elif way == "compile":
        called = torch.compile(called, fullgraph=True, backend="aot_eager")
    else:
        assert called.lm_head.weight is called.model.embed_tokens.weight
    own, ours = (model(input_ids=tokens, labels=labels).loss for model in (models[0], called))
    torch.testing.assert_close(ours, own, rtol=1e-6, atol=0)
    assert_same_gradients(script.gradients(models[1], ours), script.gradients(models[0], own))
    assert way == "compile" or len(layer_calls) == (2 if way == "checkpoint" else 1)


def test_the_logits_are_back_in_evaluation_and_in_files(tmp_path: Path) -> None:
    script = example("hugging_face_causal_lm")
    model, ours = own_and_ours(script)
    tokens, labels = script.batch()
    assert list(ours.state_dict()) == list(model.state_dict())
    with pytest.raises(TypeError, match="LogitsNotComputed"):
        ours(input_ids=tokens).logits[:, -1]
    ours.eval()
    found, expected = ours(input_ids=tokens, labels=labels), model.eval()(input_ids=tokens, labels=labels)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=0)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-6, atol=0)
    generated = (m.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0) for m in (ours, model))
    assert torch.equal(*generated)
    ours.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def train_in_parallel(rank: int, port: int, expected: list[torch.Tensor]) -> None:
    """The gradients that DDP averages are those of the whole batch."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        script = example("hugging_face_causal_lm")
        model = script.train_without_logits(script.tiny_model())
        tokens, labels = script.batch()
        mine = slice(0, 1) if rank == 0 else slice(1, 3)  # processes that do not count the same number of tokens
        count = int((labels[:, 1:] != -100).sum())
        parallel = torch.nn.parallel.DistributedDataParallel(model)
        parallel(input_ids=tokens[mine], labels=labels[mine], num_items_in_batch=count / 2).loss.backward()
        assert_same_gradients([parameter.grad for parameter in model.parameters()], expected)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="this PyTorch has no gloo")
def test_two_processes_train_it() -> None:
    script = example("hugging_face_causal_lm")
    model, _ = own_and_ours(script)
    tokens, labels = script.batch()
    expected = script.gradients(model, model(input_ids=tokens, labels=labels).loss)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(train_in_parallel, args=(port, expected), nprocs=2)
