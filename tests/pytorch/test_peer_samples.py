"""PyTorch's own samples of its losses, drawn as its wheel ships them: values and gradients in float64, and errors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from mpmath import mp, mpf
from torch import Tensor

import crossent.torch as cet

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch.testing._internal.common_methods_invocations as samples
    from torch.testing._internal import common_modules

# (generator, how many samples it draws, ours, theirs)
SUITES: dict[str, tuple[Any, int, Callable[..., Tensor], Callable[..., Tensor]]] = {
    "cross_entropy": (samples.sample_inputs_cross_entropy, 21, cet.cross_entropy, F.cross_entropy),
    "linear": (samples.sample_inputs_linear_cross_entropy, 119, cet.linear_cross_entropy, F.linear_cross_entropy),
    "linear, chunked": (
        samples.sample_inputs_linear_cross_entropy_chunked,
        133,
        cet.linear_cross_entropy,
        F.linear_cross_entropy,
    ),
    "linear, chunked, none": (
        samples.sample_inputs_linear_cross_entropy_chunked_none,
        77,
        cet.linear_cross_entropy,
        F.linear_cross_entropy,
    ),
    "binary": (
        samples.sample_inputs_binary_cross_entropy_with_logits,
        26,
        cet.binary_cross_entropy_with_logits,
        F.binary_cross_entropy_with_logits,
    ),
}
CASES = [(suite, index) for suite, (_, count, *_) in SUITES.items() for index in range(count)]

_drawn: dict[str, list[Any]] = {}


def drawn(suite: str) -> list[Any]:
    if suite not in _drawn:
        torch.manual_seed(0)
        _drawn[suite] = list(SUITES[suite][0](None, "cpu", torch.float64, True))
    return _drawn[suite]


def leaves_of(sample: Any) -> list[Tensor]:
    values = (sample.input, *sample.args, *sample.kwargs.values())
    return [t for t in values if isinstance(t, Tensor) and t.requires_grad]


@pytest.mark.parametrize("suite", SUITES)
def test_all_samples_are_run(suite: str) -> None:
    assert len(drawn(suite)) == SUITES[suite][1]


@pytest.mark.filterwarnings("ignore:linear_cross_entropy")
@pytest.mark.parametrize(("suite", "index"), CASES)
def test_value_and_gradients_are_pytorchs(suite: str, index: int) -> None:
    _, _, ours, theirs = SUITES[suite]
    sample = drawn(suite)[index]
    got, want = (f(sample.input, *sample.args, **sample.kwargs) for f in (ours, theirs))
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13, equal_nan=True)
    upstream = torch.linspace(0.5, 2.0, want.numel(), dtype=torch.float64).reshape(want.shape)
    leaves = leaves_of(sample)
    for mine, other in zip(
        torch.autograd.grad(got, leaves, upstream, allow_unused=True),
        torch.autograd.grad(want, leaves, upstream, allow_unused=True),
        strict=True,
    ):
        assert (mine is None) == (other is None)
        if other is not None:
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-13, equal_nan=True)


def oracle_rows(sample: Any) -> Iterator[Any]:
    """The oracle's rows of a dense sample, class axis last, in the order of the rows; None where one is ignored."""
    axis = 0 if sample.input.ndim == 1 else 1
    return rows_of(sample.input, axis, sample.args[-1], sample.kwargs, oracle.softmax_row)


def value_of(row: list[float], goal: Any, options: oracle.Options) -> Any:
    """The oracle's value alone, of moderate logits; derivatives take most of its time."""
    with mp.workdps(60):
        return oracle.mapped_loss([mpf(z) for z in row], goal, options)


def rows_of(logits: Tensor, axis: int, target: Tensor, kwargs: dict[str, Any], row_of: Any = value_of) -> Iterator[Any]:
    logits = logits.detach().movedim(axis, -1)
    is_soft = target.is_floating_point()
    targets = (target.movedim(axis, -1) if is_soft else target).detach()
    weight = kwargs.get("weight")
    options = oracle.Options(
        weight=None if weight is None else weight.tolist(), label_smoothing=kwargs.get("label_smoothing", 0.0)
    )
    flat = logits.reshape(-1, logits.shape[-1]).tolist()
    flat_targets = targets.reshape(-1, logits.shape[-1]).tolist() if is_soft else targets.reshape(-1).tolist()
    for row, goal in zip(flat, flat_targets, strict=True):
        ignored = not is_soft and goal == kwargs.get("ignore_index", -100)  # None: no label is
        yield None if ignored else row_of(row, goal, options)


def compare(got: Tensor, want: list[Any]) -> None:
    """Losses and the oracle's, of logits that were rounded once."""
    for value, exact in zip(got.detach().reshape(-1).tolist(), want, strict=True):
        assert abs(value - float(exact)) <= 1e-12 * abs(float(exact)) + 1e-13


@pytest.mark.parametrize("suite", ["linear", "linear, chunked", "linear, chunked, none"])
def test_rows_of_linear_heads_are_the_oracles(suite: str) -> None:
    for sample in drawn(suite):
        matrix, target = sample.args
        keywords = {**sample.kwargs, "reduction": "none"}
        got = cet.linear_cross_entropy(sample.input, matrix, target, **keywords)
        logits = torch.tensordot(sample.input, matrix, ([-1], [-1]))
        if keywords.get("linear_bias") is not None:
            logits = logits + keywords["linear_bias"]
        rows = rows_of(logits, -1 if matrix.ndim == 2 else 1, target, keywords)
        compare(got, [0 if value is None else value for value in rows])


def test_entries_of_the_binary_loss_are_the_oracles() -> None:
    for sample in drawn("binary"):
        (target,), keywords = sample.args, {**sample.kwargs, "reduction": "none"}
        got = cet.binary_cross_entropy_with_logits(sample.input, target, **keywords)
        ones = torch.ones_like(sample.input)
        factors = [ones * (1 if keywords.get(n) is None else keywords[n]) for n in ("weight", "pos_weight")]
        columns = [t.detach().reshape(-1).tolist() for t in (sample.input, target, *factors)]
        with mp.workdps(60):
            compare(
                got,
                [
                    mpf(w) * (mpf(pos) * t * mp.log1p(mp.exp(-mpf(z))) + (1 - mpf(t)) * mp.log1p(mp.exp(mpf(z))))
                    for z, t, w, pos in zip(*columns, strict=True)
                ],
            )


def is_signed(sample: Any) -> bool:
    """Whether a weight or a target is negative: such samples are computed by PyTorch's own operations, in float64."""
    tensors = [t for t in (*sample.args, sample.kwargs.get("weight")) if isinstance(t, Tensor)]
    return any(bool((t < 0).any()) for t in tensors if t.is_floating_point())


@pytest.mark.parametrize("index", range(21))
def test_rows_are_the_oracles(index: int) -> None:
    sample = drawn("cross_entropy")[index]
    bar = 16 if is_signed(sample) else 8
    keywords = {**sample.kwargs, "reduction": "none"}
    got = cet.cross_entropy(sample.input, *sample.args, **keywords).detach().reshape(-1).numpy()
    (gradient,) = torch.autograd.grad(cet.cross_entropy(sample.input, *sample.args, **keywords).sum(), sample.input)
    axis = 0 if sample.input.ndim == 1 else 1
    gradient_rows = gradient.movedim(axis, -1).reshape(len(got), -1).numpy()
    for value, slope, row in zip(got, gradient_rows, oracle_rows(sample), strict=True):
        if row is None:
            assert value == 0
            assert not slope.any()
            continue
        assert oracle.error_in_ulps(value, row.value, row.value_scale, np.float64) <= 4
        for component, exact, scale in zip(slope, row.gradient, row.gradient_scale, strict=True):
            assert oracle.error_in_ulps(component, exact, scale, np.float64) <= bar


@pytest.mark.filterwarnings("ignore:linear_cross_entropy")
def test_what_pytorch_refuses_is_refused() -> None:
    cases = list(samples.error_inputs_linear_cross_entropy(None, "cpu"))
    assert len(cases) == 6
    for case in cases:
        sample = case.sample_input
        with pytest.raises((TypeError, ValueError)):
            cet.linear_cross_entropy(sample.input, *sample.args, **sample.kwargs)


MODULE_INPUTS = 105
ALL_IGNORED = [20]  # the oracle's mean of no rows: NaN, with a gradient of 0


def module_inputs() -> list[Any]:
    torch.manual_seed(0)
    return list(common_modules.module_inputs_torch_nn_CrossEntropyLoss(None, "cpu", torch.float64, True, training=True))


def test_the_modules_samples() -> None:
    inputs = module_inputs()
    assert len(inputs) == MODULE_INPUTS
    without_value = []
    for index, case in enumerate(inputs):
        build, call = case.constructor_input, case.forward_input
        ours = cet.CrossEntropyLoss(*build.args, **build.kwargs)
        theirs = torch.nn.CrossEntropyLoss(*build.args, **build.kwargs)
        got, want = (module(*call.args, **call.kwargs) for module in (ours, theirs))
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13, equal_nan=True)
        mine, other = (torch.autograd.grad(loss.sum(), call.args[0])[0] for loss in (got, want))
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-13)
        keywords = {"label_smoothing": ours.label_smoothing, "ignore_index": ours.ignore_index, "weight": ours.weight}
        rows = list(rows_of(call.args[0], 0 if call.args[0].ndim == 1 else 1, call.args[1], keywords))
        ours.reduction = "none"
        compare(ours(*call.args, **call.kwargs), [0 if value is None else value for value in rows])
        if math.isnan(want.sum().item()):
            without_value.append(index)
            assert all(row is None for row in rows)
            assert (mine == 0).all()
    assert without_value == ALL_IGNORED
