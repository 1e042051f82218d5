"""The short way of `cross_entropy` with default options: bits of the general way, its derivatives and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import crossent as ce
import crossent.torch as cet
from crossent.torch.kernels import mean_of_labels

GENERATOR = torch.Generator().manual_seed(0)
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def problem(rows: int, classes: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    logits = torch.randn(rows, classes, generator=GENERATOR).to(dtype).requires_grad_()
    return logits, torch.randint(0, classes, (rows,), generator=GENERATOR)


def general(logits: Tensor, target: Tensor, ignore_index: int = -100) -> Tensor:
    return cet.cross_entropy(logits, target, ignore_index=ignore_index, loss=ce.CrossEntropy())


def short(logits: Any, target: Any, ignore_index: int = -100) -> Tensor | None:
    return mean_of_labels(logits, target, ignore_index, lambda z: general(z, target, ignore_index))


def backward(loss: Any, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits)[0]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    pytest.importorskip("crossent.kernels.cpu", reason="numba is not installed")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (7, 5), (32, 10), (129, 11), (1000, 3), (12, 65), (2, 3000)])
def test_the_short_way_gives_the_bits_of_the_general_one(shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits, target = problem(*shape, dtype)
    target[::3] = -100 if shape[0] > 1 else target[0]
    values = short(logits, target), general(logits, target)
    assert values[0] is not None
    assert values[0].dtype is values[1].dtype
    assert torch.equal(*values)
    assert torch.equal(*(backward(value, logits) for value in values))
    with torch.no_grad():
        plain = short(logits, target)
    assert plain is not None
    assert not plain.requires_grad
    assert torch.equal(plain, values[1])


def test_public_calls_go_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = problem(4, 3)
    taken = []

    def spy(*arguments: Any) -> Tensor | None:
        taken.append(arguments)
        return mean_of_labels(*arguments)

    monkeypatch.setattr("crossent.torch.functional.mean_of_labels", spy)
    cet.cross_entropy(logits, target)
    cet.cross_entropy(logits, target, ignore_index=2)
    cet.CrossEntropyLoss()(logits, target)
    assert len(taken) == 3
    for option in ({"temperature": 2.0}, {"label_smoothing": 0.1}, {"reduction": "sum"}):
        cet.cross_entropy(logits, target, **option)  # type: ignore[arg-type]
    assert len(taken) == 3


def test_a_class_may_be_ignored() -> None:
    logits, target = problem(9, 3)
    values = short(logits, target, 1), general(logits, target, 1)
    assert torch.equal(*values)  # type: ignore[arg-type]
    assert values[1] != general(logits, target)
    assert torch.equal(*(backward(value, logits) for value in values))
    hessians = [
        torch.autograd.functional.hessian(lambda z, f=f: f(z, target, ignore_index=1), logits)
        for f in (cet.cross_entropy, general)
    ]
    torch.testing.assert_close(*hessians)
    assert short(logits, target, 2**63) is None


def test_rows_that_are_nan_infinite_or_masked() -> None:
    logits = torch.tensor([[torch.nan, 0.0], [-torch.inf, 0.0], [3e38, -3e38]], requires_grad=True)
    for rows in (slice(0, 1), slice(1, 2), slice(2, 3), slice(1, 3)):
        part = logits[rows].detach().requires_grad_()
        target = torch.zeros(len(part), dtype=torch.int64)
        values = short(part, target), general(part, target)
        torch.testing.assert_close(*values, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(*(backward(v, part) for v in values), rtol=0, atol=0, equal_nan=True)


LOGITS, TARGET = problem(2, 3)
DECLINED: dict[str, tuple[Any, Any]] = {
    "nothing counts": (LOGITS, torch.full((2,), -100)),
    "empty": (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
    "a list": ([[0.0, 1.0]], TARGET),
    "int32 labels": (LOGITS, TARGET.int()),
    "distributions": (LOGITS, torch.ones(2, 3) / 3),
    "out of range": (LOGITS, torch.tensor([0, 3])),
    "negative": (LOGITS, torch.tensor([0, -1])),
    "transposed": (torch.zeros(3, 2).T, TARGET),
    "every other label": (LOGITS, torch.zeros(4, dtype=torch.int64)[::2]),
    "three axes": (torch.zeros(2, 3, 1), torch.zeros(2, 1, dtype=torch.int64)),
    "float16": (LOGITS.half(), TARGET),
    "negated view": (torch.zeros(2, 3, dtype=torch.complex64).conj().imag.reshape(2, 3), TARGET),
    "on no device": (LOGITS.to("meta"), TARGET.to("meta")),
    "sparse": (LOGITS.detach().to_sparse(), TARGET),
    "one label for two rows": (LOGITS, TARGET[:1]),
    "unaligned": (torch.frombuffer(bytearray(25), dtype=torch.float32, offset=1).reshape(2, 3), TARGET),
    "many": problem(20_000, 1),
}


@pytest.mark.parametrize("name", DECLINED)
def test_the_rest_goes_the_general_way(name: str) -> None:
    assert short(*DECLINED[name]) is None


def test_bad_labels_raise_one_sentence() -> None:
    for label in (3, -1):
        with pytest.raises(ValueError, match=rf"labels must lie in 0\.\.2 .*; got {label} in row 1"):
            cet.cross_entropy(LOGITS, torch.tensor([0, label]))


def test_gradients_may_be_asked_for_again_scaled_and_written_to() -> None:
    logits, target = problem(5, 4)
    expected = backward(general(logits, target), logits)
    loss = cet.cross_entropy(logits, target)
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert torch.equal(first, expected)
    first.zero_()
    second = torch.autograd.grad(3 * loss, logits, retain_graph=True)[0]
    assert torch.equal(second, 3 * expected)
    assert torch.equal(backward(loss, logits), expected)
    with pytest.raises(RuntimeError, match="second time"):
        backward(loss, logits)


def test_second_derivatives() -> None:
    logits, target = problem(3, 4, torch.float64)
    assert torch.autograd.gradgradcheck(lambda z: cet.cross_entropy(z, target), logits)
    hessians = [
        torch.autograd.functional.hessian(f, logits)[0, :, 0]
        for f in (lambda z: cet.cross_entropy(z, target), lambda z: torch.nn.functional.cross_entropy(z, target))
    ]
    torch.testing.assert_close(*hessians)


@pytest.mark.parametrize("which", ["logits", "target"])
def test_what_was_changed_in_place_is_not_used_again(which: str) -> None:
    logits, target = problem(3, 4)
    loss = cet.cross_entropy(logits, target)
    torch.autograd.grad(loss, logits, retain_graph=True)
    with torch.no_grad():
        (logits if which == "logits" else target).zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        backward(loss, logits)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 127, 128, 129, 1000, 16_384])
def test_sums_have_the_bits_of_numpy(length: int) -> None:
    numba = pytest.importorskip("numba")
    from crossent.kernels.numba.mean import sum_as_numpy

    values = np.random.default_rng(length).lognormal(sigma=10, size=length)
    assert numba.njit(lambda values: sum_as_numpy(values))(values) == np.add.reduce(values)
