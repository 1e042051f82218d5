"""The GPU's kernels: on a GPU where there is one, or in Triton's interpreter, which `make test` runs apart.

The interpreter must be chosen before Triton is imported, for all of a process: TRITON_INTERPRET=1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import crossent as ce
import crossent.torch as cet
from crossent.torch import accelerated, blocks, functional

from .problems import SOFTMAX, WIDTH, Problem, logits_of, numpy_options, target_of

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    reason = "no GPU, and TRITON_INTERPRET=1 is not set: the GPU's kernels are not tested in this run"
    pytest.skip(reason, allow_module_level=True)
pytest.importorskip("triton", reason="Triton is not installed: the GPU's kernels are not tested")
# The interpreter computes with NumPy, which warns of what a GPU does silently.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|divide by zero|overflow):RuntimeWarning")

KEYWORDS = {"loss", "weight", "sample_weight", "label_smoothing", "ignore_index", "normalizer"}
SERVED = [p for p in SOFTMAX if set(p.options) <= KEYWORDS and not isinstance(p.options.get("loss"), ce.Distillation)]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The device whose tensors the kernels serve."""
    if not INTERPRETED:
        yield "cuda"
        return
    monkeypatch.setattr(accelerated, "is_served_device", lambda tensor: True)
    monkeypatch.setattr(functional, "mean_of_labels", lambda *_: None)  # it serves no GPU
    yield "cpu"


def moved(options: dict[str, Any], device: str) -> dict[str, Any]:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}


def assert_near(got: Tensor, want: Any, dtype: torch.dtype) -> None:
    """Within a few units in the last place of what the largest entry has."""
    want = torch.as_tensor(want)
    bound = 16 * torch.finfo(dtype).eps * float(want.abs().max())
    torch.testing.assert_close(got.detach().cpu().double(), want.double(), rtol=0, atol=bound)


def test_there_are_problems_to_serve() -> None:
    assert len(SERVED) >= 34
    assert {p.soft for p in SERVED} == {True, False}


@pytest.mark.parametrize(
    ("problem", "reduction"),
    # Every loss with a mean; the interpreter takes seconds for each.
    [(p, "mean") for p in SERVED] + [(p, "sum") for p in SERVED[::7]] + [(p, "none") for p in SERVED[3::5]],
    ids=str,
)
def test_value_and_gradient_are_those_of_the_numpy_front_end(problem: Problem, reduction: str, device: str) -> None:
    target, z = target_of(problem), logits_of(torch.float32)
    want, gradient = ce.value_and_grad(
        z.double().numpy(), target.numpy(), reduction=reduction, **numpy_options(problem)
    )
    logits = z.to(device).requires_grad_()
    loss = cet.cross_entropy(logits, target.to(device), reduction=reduction, **moved(problem.options, device))
    assert loss.dtype is torch.float32
    assert "_LossBackward" in loss.grad_fn.name()
    loss.sum().backward()
    assert_near(loss, want, torch.float32)
    assert_near(logits.grad, gradient, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype, device: str) -> None:
    z, labels = (4 * torch.randn(50, 30, generator=torch.Generator().manual_seed(1))).to(dtype), torch.arange(50) % 30
    value, gradient = ce.value_and_grad(z.double().numpy(), labels.numpy(), reduction="sum")
    logits = z.to(device).requires_grad_()
    loss = cet.cross_entropy(logits, labels.to(device), reduction="sum")
    loss.backward()
    assert logits.grad.dtype is dtype
    assert_near(loss, value, torch.float32)
    # The interpreter cuts bfloat16 off where a GPU rounds it: a unit in the last place, not half of one.
    error = (logits.grad.cpu().double() - torch.from_numpy(gradient)).abs()
    assert (error <= torch.finfo(dtype).eps * torch.from_numpy(gradient).abs() + torch.finfo(dtype).tiny).all()


@pytest.mark.parametrize("num_classes", [1, 2, 1023, 4097])
def test_rows_of_any_length(num_classes: int, device: str) -> None:
    z = 5 * torch.randn(5, num_classes, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(5) * 7919 % num_classes
    value, gradient = ce.value_and_grad(z.double().numpy(), labels.numpy(), reduction="none")
    logits = z.to(device).requires_grad_()
    loss = cet.cross_entropy(logits, labels.to(device), reduction="none")
    loss.sum().backward()
    assert_near(loss, value, torch.float32)
    assert_near(logits.grad, gradient, torch.float32)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("layout", ["plain", "channels last", "sliced"])
def test_classes_in_the_second_of_many_axes(layout: str, soft: bool, device: str) -> None:
    shape, generator = (3, 6, 4, 5), torch.Generator().manual_seed(3)
    z = torch.randn(*shape, generator=generator)
    target = torch.softmax(torch.randn(*shape, generator=generator), 1) if soft else torch.arange(60).view(3, 4, 5) % 6
    value, gradient = ce.value_and_grad(z.double().numpy(), target.double().numpy() if soft else target.numpy(), axis=1)
    logits = z.to(device)
    if layout == "channels last":
        logits = logits.to(memory_format=torch.channels_last)
    elif layout == "sliced":
        logits = torch.stack([logits, logits], -1)[..., 0]
    logits = logits.detach().requires_grad_()
    loss = cet.cross_entropy(logits, target.to(device))
    loss.backward()
    assert_near(loss, value, torch.float32)
    assert_near(logits.grad, gradient, torch.float32)


def test_shapes_strides_and_alignments(device: str) -> None:
    """Each met twice: they call for other machine code."""
    z = 5 * torch.randn(64, 70, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(64) % 32
    views = [z[:, :64], z[:, 1:65], z[:, 3:67], z[:64, :32], z[1:33, :32], z[:32, :64:2], z[:1, :32], z[:32, :64]]
    for view in views + views[::-1]:
        rows = labels[: len(view)]
        logits = z.to(device).as_strided(view.shape, view.stride(), view.storage_offset()).requires_grad_()
        loss = cet.cross_entropy(logits, rows.to(device), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, logits)
        value, expected = ce.value_and_grad(view.double().numpy(), rows.numpy(), reduction="sum")
        assert_near(loss, value, torch.float32)
        assert_near(gradient, expected, torch.float32)


def test_one_row_without_a_batch(device: str) -> None:
    logits = torch.tensor([1.0, 2.0, 3.0], device=device, requires_grad=True)
    for reduction in ("mean", "none"):
        logits.grad = None
        loss = cet.cross_entropy(logits, torch.tensor(0, device=device), reduction=reduction)
        assert loss.shape == ()
        loss.backward()
        value, gradient = ce.value_and_grad(np.array([1.0, 2.0, 3.0]), 0)
        assert_near(loss, value, torch.float32)
        assert_near(logits.grad, gradient, torch.float32)


def test_a_confident_right_answer_keeps_its_digits(device: str) -> None:
    logits = torch.tensor([[20.0, 1.0, 2.0, 3.0], [3.0, 30.0, -1.0, 0.0]], device=device, requires_grad=True)
    loss = cet.cross_entropy(logits, torch.tensor([0, 1], device=device), reduction="none")
    loss.sum().backward()
    value, gradient = ce.value_and_grad(logits.detach().cpu().double().numpy(), np.array([0, 1]), reduction="none")
    np.testing.assert_allclose(loss.detach().cpu(), value, rtol=1e-5)
    np.testing.assert_allclose(logits.grad.cpu(), gradient, rtol=1e-5)


def test_masked_classes_and_rows_that_are_none(device: str) -> None:
    inf, nan = float("inf"), float("nan")
    rows = [[1.0, -inf, 2.0], [-inf, 0.0, 1.0], [-inf] * 3, [inf, 0.0, 0.0], [nan, 0.0, 0.0], [0.0, 1.0, nan]]
    labels = torch.tensor([0, 0, 0, 0, 1, 0])
    value, gradient = ce.value_and_grad(np.array(rows, np.float32), labels.numpy(), reduction="none")
    logits = torch.tensor(rows, device=device, requires_grad=True)
    loss = cet.cross_entropy(logits, labels.to(device), reduction="none")
    loss.sum().backward()
    np.testing.assert_allclose(loss.detach().cpu(), value, rtol=1e-6)
    np.testing.assert_allclose(logits.grad.cpu(), gradient, rtol=1e-6)


def test_a_label_out_of_range_is_nan_and_an_ignored_row_is_silent(device: str) -> None:
    logits = torch.zeros(4, 3)
    logits[3, 0] = float("nan")
    logits = logits.to(device).requires_grad_()
    labels = torch.tensor([0, 3, -1, -100], device=device)
    loss = cet.cross_entropy(logits, labels, reduction="none")
    loss.sum().backward()
    assert loss.isnan().tolist() == [False, True, True, False]
    assert loss[3] == 0
    assert logits.grad.isnan().all(1).tolist() == [False, True, True, False]
    assert (logits.grad[3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_a_label_with_the_bits_of_ignore_index_is_out_of_range(dtype: torch.dtype, device: str) -> None:
    labels = torch.tensor([0, 1, 2]).to(dtype)
    labels.numpy()[1] = 2 ** (8 * dtype.itemsize) - 100
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(6)).to(device).requires_grad_()
    loss = cet.cross_entropy(logits, labels.to(device), reduction="none")
    assert "_LossBackward" in loss.grad_fn.name()
    assert loss.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("on_empty", ["nan", "zero", "raise"])
def test_a_mean_over_nothing(on_empty: str, device: str) -> None:
    logits = torch.randn(3, 4).to(device).requires_grad_()
    labels = torch.full((3,), -100, device=device)
    if on_empty == "raise":
        with pytest.raises(ValueError, match="a mean needs at least one row"):
            cet.cross_entropy(logits, labels, on_empty=on_empty)
        return
    loss = cet.cross_entropy(logits, labels, on_empty=on_empty)
    loss.backward()
    assert loss.isnan() if on_empty == "nan" else loss == 0
    assert (logits.grad == 0).all()


def test_backward_twice_and_of_the_gradient(device: str) -> None:
    logits = logits_of(torch.float32).to(device).requires_grad_()
    labels = target_of(SERVED[0]).to(device)
    loss = cet.cross_entropy(logits, labels)
    loss.backward(retain_graph=True)
    first = logits.grad.clone()
    logits.grad = None
    (3 * loss).backward(retain_graph=True)
    torch.testing.assert_close(logits.grad, 3 * first)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), logits)
    z = logits.detach().cpu().double().numpy()
    hvp = ce.hessian_vector_product(z, labels.cpu().numpy(), 2 * gradient.detach().cpu().double().numpy())
    assert_near(second, hvp, torch.float32)


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("target", torch.zeros(4, dtype=torch.long), "labels must have shape"),
        ("target", torch.zeros(3, 5), "a floating target must have the logits' shape"),
        ("weight", torch.ones(3), "weight must have one weight a class"),
        ("sample_weight", torch.ones(2), "sample_weight must have one weight a row"),
    ],
)
def test_shapes_that_do_not_fit(keyword: str, value: Tensor, message: str, device: str) -> None:
    arguments = {"target": torch.zeros(3, dtype=torch.long, device=device), keyword: value.to(device)}
    with pytest.raises(ValueError, match=message):
        cet.cross_entropy(torch.zeros(3, 4, device=device), **arguments)


@pytest.mark.parametrize(
    ("problem", "reduction"), [(p, "mean") for p in SERVED[::4]] + [(p, "none") for p in SERVED[2::6]], ids=str
)
def test_the_linear_head_takes_the_same_launches(
    problem: Problem, reduction: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "DEVICE_BLOCK_BYTES", 64)  # two rows a block
    launched = []
    losses = accelerated.Launches.losses
    monkeypatch.setattr(accelerated.Launches, "losses", lambda self, *a: launched.append(1) or losses(self, *a))
    monkeypatch.setattr(blocks, "_PRODUCTS", blocks._DEVICE_PRODUCTS)
    generator = torch.Generator().manual_seed(5)
    x, w, b = (torch.randn(*s, generator=generator) for s in ((9, WIDTH), (7, WIDTH), (7,)))
    want, gradients = ce.linear_value_and_grad(
        *(t.double().numpy() for t in (x, w)), target_of(problem).numpy(), linear_bias=b.double().numpy(),
        reduction=reduction, **numpy_options(problem),
    )  # fmt: skip
    leaves = [t.to(device).requires_grad_() for t in (x, w, b)]
    options = moved(problem.options, device)
    loss = cet.linear_cross_entropy(
        leaves[0], leaves[1], target_of(problem).to(device), linear_bias=leaves[2], reduction=reduction, **options
    )
    loss.sum().backward()
    assert len(launched) >= 5
    assert_near(loss, want, torch.float32)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        assert_near(leaf.grad, gradient, torch.float32)
