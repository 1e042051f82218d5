"""Labels of unsigned dtypes: none is taken for `ignore_index` because it has the same bits in another dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor

import crossent.torch as cet
from crossent.numpy.options import Options
from crossent.torch.sigmoid import SigmoidProblem
from crossent.torch.softmax import SoftmaxProblem

ROWS, CLASSES, WIDTH = 5, 50, 3
BAD_ROW = 2
DTYPES = {torch.uint8: 8, torch.uint16: 16, torch.uint32: 32, torch.uint64: 64}
CASES = [(dtype, ignore_index) for dtype in DTYPES for ignore_index in (-100, -1)]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


INPUT, WEIGHT = normal(0, ROWS, WIDTH), normal(1, CLASSES, WIDTH)
LOGITS = INPUT @ WEIGHT.T


def functions(link: str, y: Tensor, ignore_index: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The losses of rows (of entries with the sigmoid link), from logits and from a linear head's input."""
    given: dict[str, Any] = {"reduction": "none", "ignore_index": ignore_index}
    function = cet.cross_entropy if link == "softmax" else cet.binary_cross_entropy_with_logits

    def dense(z: Tensor = LOGITS, **options: Any) -> Tensor:
        return function(z, y, **given, **options)

    def linear(x: Tensor = INPUT, **options: Any) -> Tensor:
        return cet.linear_cross_entropy(x, WEIGHT, y, link=link, **given, **options)

    return dense, linear


def wanting(size: int) -> Tensor:
    return torch.ones(size, dtype=torch.float64, requires_grad=True)


def readers(link: str, y: Tensor, ignore_index: int) -> dict[str, Callable[[], Tensor]]:
    """Every way that looks at labels, so that a wrong one raises."""
    dense, linear = functions(link, y, ignore_index)
    return {
        "at once": dense,
        "composed": lambda: dense(sample_weight=wanting(ROWS)),
        "native": lambda: dense(weight=wanting(CLASSES)),
        "linear": linear,
        "linear, composed": lambda: linear(sample_weight=wanting(ROWS)),
        "linear, native": lambda: linear(weight=wanting(CLASSES)),
    }


def transformed(link: str, y: Tensor, ignore_index: int) -> dict[str, Callable[[], Tensor]]:
    """What cannot look at labels."""
    dense, linear = functions(link, y, ignore_index)
    return {
        "transformed": lambda: torch.func.vmap(dense)(LOGITS[None])[0],
        "linear, transformed": lambda: torch.func.vmap(linear)(INPUT[None])[0],
    }


def compiled(link: str, y: Tensor, ignore_index: int) -> dict[str, Callable[[], Tensor]]:
    """What cannot look at labels, and takes a second to compile."""
    dense, linear = (
        torch.compile(function, fullgraph=True, backend="aot_eager") for function in functions(link, y, ignore_index)
    )
    return {"compiled": lambda: dense(LOGITS), "linear, compiled": lambda: linear(INPUT)}


def labels(link: str, dtype: torch.dtype, bad: int | None = None) -> Tensor:
    """Labels of `dtype`; the one in the bad row is another."""
    shape, most = ((ROWS,), CLASSES) if link == "softmax" else ((ROWS, CLASSES), 2)
    found = torch.randint(most, shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    if bad is not None:
        found.numpy().reshape(ROWS, -1)[BAD_ROW, 0] = bad  # PyTorch itself writes no number beyond int64
    return found


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("dtype", "ignore_index"), CASES, ids=str)
def test_a_label_with_the_bits_of_ignore_index_is_out_of_range(
    link: str, dtype: torch.dtype, ignore_index: int
) -> None:
    bad = 2 ** DTYPES[dtype] + ignore_index
    y = labels(link, dtype, bad)
    for losses in readers(link, y, ignore_index).values():
        with pytest.raises(ValueError, match=rf"must (lie in|be) 0.*got {bad} (in row |at index \()2"):
            losses()
    assert_nan_there(transformed(link, y, ignore_index))


def assert_nan_there(ways: dict[str, Callable[[], Tensor]]) -> None:
    for name, losses in ways.items():
        is_nan = losses().isnan().reshape(ROWS, -1)
        assert is_nan.any(1).tolist() == [row == BAD_ROW for row in range(ROWS)], name
        assert int(is_nan.sum()) == 1, name


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint64], ids=str)
def test_a_recorded_program_makes_such_a_row_nan(link: str, dtype: torch.dtype) -> None:
    assert_nan_there(compiled(link, labels(link, dtype, 2 ** DTYPES[dtype] - 100), -100))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_labels_in_range_count_whatever_their_dtype(link: str, dtype: torch.dtype) -> None:
    """`ignore_index` is no number of uint8: its last eight bits are a label's."""
    y = labels(link, torch.int64)
    ignore_index = 256 + int(y.flatten()[0])
    if link == "softmax":
        want = F.cross_entropy(LOGITS, y, reduction="none")
    else:
        want = F.binary_cross_entropy_with_logits(LOGITS, y.double(), reduction="none")
    for group in (readers, transformed):
        for name, losses in group(link, y.to(dtype), ignore_index).items():
            torch.testing.assert_close(losses(), want, rtol=1e-10, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_accuracy_counts_them(dtype: torch.dtype) -> None:
    y = LOGITS.argmax(1)
    y[0] = (y[0] + 1) % CLASSES
    ignore_index = 256 + int(y[0])
    found = cet.linear_cross_entropy(INPUT, WEIGHT, y.to(dtype), ignore_index=ignore_index, return_statistics=True)
    assert found.accuracy.item() == pytest.approx(1 - 1 / ROWS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_distributed_counts_are_those_of_int64(dtype: torch.dtype) -> None:
    """What every process adds to the denominator of a mean over all of them."""
    for link in ("softmax", "sigmoid"):
        y = labels(link, torch.int64)
        options = Options(link=link, ignore_index=256 + int(y.flatten()[0]))
        found = []
        for given in (y.to(dtype), y):
            if link == "softmax":
                found.append(SoftmaxProblem.of(given, options, (ROWS,), CLASSES, LOGITS, native=False).counts)
            else:
                found.append(SigmoidProblem.of(given, options, tuple(y.shape), LOGITS).counts)
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_teachers_classes_out_of_range_are_refused(dtype: torch.dtype) -> None:
    indices = torch.tensor([[0, 1]] * ROWS).to(dtype)
    indices.numpy()[BAD_ROW, 0] = 2 ** DTYPES[dtype] - 100
    teacher = cet.TopK(indices, torch.full((ROWS, 2), 0.5, dtype=torch.float64))
    wanting = torch.ones(ROWS, dtype=torch.float64, requires_grad=True)
    for options in ({}, {"sample_weight": wanting}):
        with pytest.raises(ValueError, match="TopK indices must be distinct classes"):
            cet.distillation_loss(LOGITS, teacher, **options)
