"""Wrong answers that losses in use give without a word, and what crossent gives there.

Each section is one fact about shipping code. Where the code is PyTorch's own, the test shows its number beside ours, so
that a version in which it is repaired is noticed; where it is another library's, the formula is written out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from mpmath import mpf
from torch import Tensor

import crossent as ce
import crossent.torch as cet
from crossent.core import linear as driver

TEACHER = cet.TopK(torch.tensor([[0, 2], [1, 4], [5, 3]]), torch.tensor([[0.5, 0.3], [0.6, 0.4], [0.2, 0.1]]))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def labels(num_rows: int, num_classes: int, seed: int = 0) -> Tensor:
    return torch.randint(num_classes, (num_rows,), generator=seeded(seed))


def leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def relative(got: Tensor, want: Tensor) -> float:
    """The distance of a gradient from the right one, relative to it."""
    return float((got.double() - want.double()).norm() / want.double().norm())


def head(seed: int = 0, *, rows: int = 12, width: int = 4, classes: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, weight and bias that want gradients, and labels."""
    x, w, b = normal(rows, width, seed=seed), normal(classes, width, seed=seed + 1), normal(classes, seed=seed + 2)
    return leaf(x), leaf(w), leaf(b), labels(rows, classes, seed)


# 1. PyTorch's chunked linear head adds the losses and gradients of bfloat16 chunks up in bfloat16.


def test_half_precision_losses_are_added_up_in_float32() -> None:
    x, w = normal(2048, 16, dtype=torch.float32).mul(0.3).bfloat16(), normal(256, 16, seed=1, dtype=torch.bfloat16)
    y = labels(2048, 256)
    exact_w = leaf(w.double())
    exact = F.cross_entropy(x.double() @ exact_w.T, y)
    exact.backward()

    chunks = torch.nn.LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=4, acc_policy="compact")
    their_w, our_w = leaf(w), leaf(w)
    theirs = F.linear_cross_entropy(leaf(x), their_w, y, options=chunks)
    theirs.backward()
    ours = cet.linear_cross_entropy(leaf(x), our_w, y)
    ours.backward()

    assert abs(theirs.item() / exact.item() - 1) > 0.3
    assert ours.dtype is torch.float32
    assert ours.item() == pytest.approx(exact.item(), rel=1e-4)  # the logits are rounded to bfloat16
    assert relative(their_w.grad, exact_w.grad) > 0.02
    assert relative(our_w.grad, exact_w.grad) < 0.004  # one rounding to bfloat16


def test_the_linear_head_refuses_no_option_for_the_sake_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BLOCK_BYTES", 9 * 8 * 5)
    x, w, b, y = head()
    soft = normal(12, 9, seed=5).softmax(-1)
    for target, keywords in [
        (y, {"label_smoothing": 0.1, "weight": torch.rand(9, generator=seeded()).double()}),
        (soft, {}),
        (y, {"reduction": "none"}),
    ]:
        got = cet.linear_cross_entropy(x, w, target, linear_bias=b, **keywords)
        want = F.cross_entropy(F.linear(x, w, b), target, **keywords)
        torch.testing.assert_close(got, want)
        for mine, other in zip(
            torch.autograd.grad(got.sum(), [x, w, b]), torch.autograd.grad(want.sum(), [x, w, b]), strict=True
        ):
            torch.testing.assert_close(mine, other)
    cubes = cet.linear_cross_entropy(x.reshape(3, 4, 4), w, y.reshape(3, 4), linear_bias=b)
    torch.testing.assert_close(cubes, F.cross_entropy(F.linear(x, w, b), y))


def test_the_linear_head_has_derivatives_of_its_derivatives() -> None:
    x, w, _, y = head()

    def curvature(loss: Callable[[Tensor], Tensor]) -> Tensor:
        (gradient,) = torch.autograd.grad(loss(w), w, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), w)[0]

    def ours(w: Tensor) -> Tensor:
        return cet.linear_cross_entropy(x.detach(), w, y)

    def theirs(w: Tensor) -> Tensor:
        return F.cross_entropy(x.detach() @ w.T, y)

    torch.testing.assert_close(curvature(ours), curvature(theirs))
    torch.testing.assert_close(torch.func.grad(ours)(w.detach()), torch.func.grad(theirs)(w.detach()))


# 2. The same head with every target ignored: its gradients are NaN.


@pytest.mark.parametrize("on_empty", ["nan", "zero"])
def test_a_batch_without_targets_has_a_gradient_of_zero(on_empty: str) -> None:
    x, w, b, y = head()
    y = torch.full_like(y, -100)
    chunks = torch.nn.LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=4)
    theirs = F.linear_cross_entropy(x, w, y, options=chunks)
    assert torch.autograd.grad(theirs, x)[0].isnan().any()

    for ours in (
        cet.linear_cross_entropy(x, w, y, linear_bias=b, on_empty=on_empty),
        cet.cross_entropy(F.linear(x, w, b), y, on_empty=on_empty),
        cet.cross_entropy(F.linear(x, w, b), y, on_empty=on_empty, loss=ce.Focal(2.0) + ce.ZPenalty(1e-4)),
    ):
        assert math.isnan(ours.item()) if on_empty == "nan" else ours.item() == 0
        for gradient in torch.autograd.grad(ours, [x, w, b]):
            assert (gradient == 0).all()


# 3. Liger's fused head: with frozen features backward succeeds, and the weight gets no gradient.


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("wanted", [c for n in (1, 2, 3) for c in itertools.combinations(("x", "w", "b"), n)])
def test_what_is_trained_gets_its_gradient_whatever_is_frozen(wanted: tuple[str, ...], reduction: str) -> None:
    *all_tensors, y = head()
    tensors = dict(zip("xwb", all_tensors, strict=True))
    F.cross_entropy(F.linear(*all_tensors), y, reduction=reduction).sum().backward()
    mine = {name: tensor.detach().clone().requires_grad_(name in wanted) for name, tensor in tensors.items()}
    cet.linear_cross_entropy(mine["x"], mine["w"], y, linear_bias=mine["b"], reduction=reduction).sum().backward()
    for name, tensor in mine.items():
        if name in wanted:
            assert tensor.grad is not None
            torch.testing.assert_close(tensor.grad, tensors[name].grad)
        else:
            assert tensor.grad is None


# 4. Fused losses that keep the gradient in the logits' place: a second backward scales it twice, and the caller's
# logits are overwritten.


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": lambda z: cet.cross_entropy(z, torch.tensor([0, 2, 5])),
    "none": lambda z: cet.cross_entropy(z, torch.tensor([0, 2, 5]), reduction="none").square().sum(),
    "binary": lambda z: cet.binary_cross_entropy_with_logits(z, torch.ones_like(z)),
    "focal": lambda z: cet.focal_loss(z, torch.tensor([0, 2, 5])),
    "distillation": lambda z: cet.distillation_loss(z, torch.zeros_like(z)),
    "top k": lambda z: cet.distillation_loss(z, TEACHER),
    "linear, weight": lambda z: cet.linear_cross_entropy(normal(4, 6).to(z), z, torch.tensor([0, 2, 1, 1])),
    "linear, input": lambda z: cet.linear_cross_entropy(z, normal(7, 6).to(z), torch.tensor([0, 2, 5])),
    "linear, none": lambda z: cet.linear_cross_entropy(
        z, normal(7, 6).to(z), torch.tensor([0, 2, 5]), reduction="none"
    ).sum(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", CALLS)
def test_a_second_backward_gives_the_same_gradient_and_nothing_is_written_to(name: str, dtype: torch.dtype) -> None:
    z = leaf(normal(3, 6, dtype=dtype))
    before = z.detach().clone()
    (loss := CALLS[name](z) * 3).backward(retain_graph=True)
    first = z.grad.clone()
    assert first.abs().max() > 0
    z.grad = None
    loss.backward()
    assert torch.equal(z.grad, first)
    assert torch.equal(z.detach(), before)

    (once,) = torch.autograd.grad(CALLS[name](z), z)
    torch.testing.assert_close(first, 3 * once, rtol=2e-2 if dtype is torch.bfloat16 else 1e-6, atol=0)


# 5. A soft cap turns the -inf of padded columns into -cap, and they gain mass.


@pytest.mark.parametrize("softcap", [1.0, 30.0])
def test_masked_classes_stay_masked_under_a_soft_cap(softcap: float) -> None:
    z, y = normal(5, 8), labels(5, 6)
    padded = z.clone()
    padded[:, 6:] = -math.inf
    without = leaf(z[:, :6])
    want = F.cross_entropy(softcap * torch.tanh(without / softcap), y)
    want.backward()
    naive = F.cross_entropy(softcap * torch.tanh(padded / softcap), y)
    got_at = leaf(padded)
    got = cet.cross_entropy(got_at, y, softcap=softcap)
    got.backward()
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    if softcap == 1.0:
        assert naive - want > 0.05
    torch.testing.assert_close(got_at.grad[:, :6], without.grad)
    assert (got_at.grad[:, 6:] == 0).all()


def test_a_bias_of_minus_infinity_masks_padded_rows_of_the_vocabulary() -> None:
    x, w, b, y = head(classes=6)
    padded_w = leaf(torch.cat([w.detach(), torch.zeros(3, 4, dtype=w.dtype)]))
    padded_b = torch.cat([b.detach(), torch.full((3,), -math.inf, dtype=b.dtype)])
    got = cet.linear_cross_entropy(x, padded_w, y, linear_bias=padded_b, softcap=2.0)
    want = F.cross_entropy(2 * torch.tanh(F.linear(x, w, b) / 2), y)
    torch.testing.assert_close(got, want)
    got_gradient, want_gradient = torch.autograd.grad(got, padded_w)[0], torch.autograd.grad(want, w)[0]
    torch.testing.assert_close(got_gradient[:6], want_gradient)
    assert (got_gradient[6:] == 0).all()


# 6. Kernels that forget to mask the columns by which they pad the vocabulary, and give an ignored row its log-sum-exp.


@pytest.mark.parametrize("num_classes", [1, 2, 7, 8, 9, 127, 129, 2047, 2048, 2049])
def test_no_column_is_made_up(num_classes: int) -> None:
    x, w, y = normal(6, 3), leaf(normal(num_classes, 3, seed=1)), labels(6, num_classes)
    y[2] = -100
    want = F.cross_entropy(x @ w.T, y, reduction="none")
    dense = cet.cross_entropy(x @ w.T, y, reduction="none")
    fused = cet.linear_cross_entropy(x, w, y, reduction="none")
    for got in (dense, fused):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)
        assert got[2] == 0
        mine, other = (torch.autograd.grad(loss.sum(), w, retain_graph=True)[0] for loss in (got, want))
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-14)


# 7. A kernel added the bias to the target's logit once for each block of features.


@pytest.mark.parametrize("width", [1, 16, 64, 257, 1024])
def test_the_bias_counts_once_whatever_the_number_of_features(width: int) -> None:
    x, w, b, y = head(width=width)
    b = leaf(100 * b)
    want = F.cross_entropy(F.linear(x, w, b), y)
    got = cet.linear_cross_entropy(x, w, y, linear_bias=b)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, b)[0], torch.autograd.grad(want, b)[0])
    value = cet.linear_cross_entropy(x, w, y, linear_bias=b, return_statistics=True)
    log_p = F.log_softmax(F.linear(x, w, b), -1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(value.log_prob, log_p)


# 8. Label smoothing that is wrong on more than one rank: a rank divides by its own number of classes or rows.


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_smoothed_losses_of_ranks_add_up(ranks: int) -> None:
    x, w, b, y = head()
    y[[0, 1, 5]] = -100
    weight, smoothing = torch.rand(9, generator=seeded(), dtype=torch.float64), 0.2
    log_p = F.log_softmax(F.linear(x, w, b), -1)
    counted = y != -100
    true = -(weight * log_p)[counted, y[counted]]
    uniform = -(weight * log_p).mean(-1)[counted]
    denominator = weight[y[counted]].sum()
    want = ((1 - smoothing) * true + smoothing * uniform).sum() / denominator

    options: dict[str, Any] = {"weight": weight, "label_smoothing": smoothing, "normalizer": denominator.item()}
    dense = [
        cet.cross_entropy(F.linear(part, w, b), target, **options)
        for part, target in zip(x.chunk(ranks), y.chunk(ranks), strict=True)
    ]
    fused = [
        cet.linear_cross_entropy(part, w, target, linear_bias=b, **options)
        for part, target in zip(x.chunk(ranks), y.chunk(ranks), strict=True)
    ]
    expected = torch.autograd.grad(want, [x, w, b], retain_graph=True)
    for parts in (dense, fused):
        got = torch.stack(parts).sum()
        torch.testing.assert_close(got, want)
        for mine, other in zip(torch.autograd.grad(got, [x, w, b]), expected, strict=True):
            torch.testing.assert_close(mine, other)


# 9. A mean returned once for each chunk, which a test that compared a loss with itself did not notice.


@pytest.mark.parametrize("rows_in_a_block", [1, 5, 12])
def test_the_number_of_blocks_does_not_enter_the_mean(rows_in_a_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BLOCK_BYTES", rows_in_a_block * 9 * 8)
    assert driver.rows_per_block(12, 9, 8, driver.BLOCK_BYTES) <= rows_in_a_block
    x, w, b, y = head()
    want = F.cross_entropy(F.linear(x, w, b), y)
    got = cet.linear_cross_entropy(x, w, y, linear_bias=b)
    torch.testing.assert_close(got, want)
    expected = torch.autograd.grad(want, [x, w, b])
    for mine, other in zip(torch.autograd.grad(got, [x, w, b]), expected, strict=True):
        torch.testing.assert_close(mine, other)

    blocks = math.ceil(12 / rows_in_a_block)
    if blocks > 1:
        with pytest.raises(AssertionError):
            torch.testing.assert_close(got * blocks, want)


# 10. Focal loss by (1 - p) ** γ has a NaN gradient where p rounds to 1 and γ < 1; with p clipped, none at all where the
# model is confidently wrong.


def naive_focal(z: Tensor, t: Tensor, gamma: float, clip: float = 0.0) -> Tensor:
    p = z.sigmoid().clamp(clip, 1 - clip)
    p_t = p * t + (1 - p) * (1 - t)
    nll = -p_t.log() if clip else F.binary_cross_entropy_with_logits(z, t, reduction="none")
    return ((1 - p_t) ** gamma * nll).sum()


def test_the_snippets_of_focal_loss_fail() -> None:
    sure = leaf(torch.tensor([40.0]))
    naive_focal(sure, torch.ones(1), 0.5).backward()
    assert sure.grad.isnan()
    wrong = leaf(torch.tensor([-40.0]))
    naive_focal(wrong, torch.ones(1), 2.0, clip=1e-7).backward()
    assert wrong.grad == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("logit", [-80.0, -40.0, -1.0, 0.0, 20.0, 40.0, 60.0])
def test_focal_loss_is_exact_at_saturation(logit: float, gamma: float) -> None:
    options = oracle.Options(terms=(("focal", 1.0, gamma),))
    bar = 1 + gamma

    z = leaf(torch.tensor([logit]))
    value = cet.focal_loss(z, torch.ones(1), gamma=gamma, link="sigmoid", reduction="sum")
    value.backward()
    row = oracle.sigmoid_row(logit, 1.0, options)
    slack = mpf(float(np.finfo(np.float32).smallest_normal))
    assert oracle.error_in_ulps(value.item(), row.value, row.value_scale, np.float32, slack) <= 2 * bar
    (slope,), (scale,) = row.gradient, row.gradient_scale
    assert oracle.error_in_ulps(z.grad.item(), slope, scale, np.float32, slack) <= 4 * bar

    z = leaf(torch.tensor([[logit, 0.0, -3.0]]))
    value = cet.focal_loss(z, torch.tensor([0]), gamma=gamma, reduction="sum")
    value.backward()
    row = oracle.softmax_row([logit, 0.0, -3.0], 0, options)
    assert oracle.error_in_ulps(value.item(), row.value, row.value_scale, np.float32, 3 * slack) <= 2 * bar
    for mine, slope, scale in zip(z.grad[0].tolist(), row.gradient, row.gradient_scale, strict=True):
        assert oracle.error_in_ulps(mine, slope, scale, np.float32, 3 * slack) <= 4 * bar


# 11. F.cross_entropy: a distribution without mass on a masked class gives NaN; a sum in float16 overflows; class
# weights mean different things for labels and for the same labels as distributions.


def test_a_masked_class_without_mass_adds_nothing() -> None:
    masked, target = torch.tensor([[1.0, 2.0, -math.inf]]), torch.tensor([[0.25, 0.75, 0.0]])
    assert F.cross_entropy(masked, target).isnan()
    z = leaf(masked)
    got = cet.cross_entropy(z, target)
    got.backward()
    torch.testing.assert_close(got, F.cross_entropy(masked[:, :2], target[:, :2]))
    torch.testing.assert_close(z.grad, torch.tensor([[1, 1, 0]]) * F.softmax(masked, -1) - target)


def test_a_sum_of_half_precision_losses_does_not_overflow() -> None:
    z, y = torch.zeros(70_000, 3, dtype=torch.float16), torch.zeros(70_000, dtype=torch.long)
    assert F.cross_entropy(z, y, reduction="sum").isinf()
    assert cet.cross_entropy(z, y, reduction="sum").item() == pytest.approx(70_000 * math.log(3), rel=1e-6)


def test_labels_and_their_distributions_can_be_given_the_same_mean() -> None:
    z, y, weight = normal(6, 3), labels(6, 3), torch.tensor([1.0, 2.0, 7.0], dtype=torch.float64)
    one_hot = F.one_hot(y, 3).double()
    theirs = [F.cross_entropy(z, target, weight=weight).item() for target in (y, one_hot)]
    assert abs(theirs[0] - theirs[1]) > 0.1 * theirs[0]
    # A drop-in keeps PyTorch's two means; by name there is one.
    assert [cet.cross_entropy(z, target, weight=weight).item() for target in (y, one_hot)] == pytest.approx(theirs)
    counts = [cet.cross_entropy(z, target, weight=weight, normalizer="count").item() for target in (y, one_hot)]
    assert counts[0] == pytest.approx(counts[1], rel=1e-14)


# 12. optax: the label -1 is the last class, -100 gives a NaN loss with a finite gradient, and a loss of bfloat16
# logits is rounded to bfloat16.


@pytest.mark.parametrize("label", [-1, -2, 3, 2**40])
def test_labels_that_are_none_are_refused(label: int) -> None:
    z, y = torch.zeros(2, 3), torch.tensor([0, label])
    message = rf"labels must lie in 0\.\.2.*; got {label} in row 1"
    with pytest.raises(ValueError, match=message):
        cet.cross_entropy(z, y)
    with pytest.raises(ValueError, match=message):
        cet.linear_cross_entropy(z, torch.eye(3), y)
    with pytest.raises(ValueError, match=message):
        ce.cross_entropy(z.numpy(), y.numpy())


@pytest.mark.parametrize("label", [-1, 3])
def test_where_nothing_can_raise_a_wrong_label_is_nan_in_value_and_gradient(label: int) -> None:
    def losses(z: Tensor, y: Tensor) -> Tensor:
        return cet.cross_entropy(z, y, reduction="none")

    z, y = normal(2, 3), torch.tensor([0, label])
    value = torch.func.vmap(lambda row, y: losses(row[None], y[None])[0])(z, y)
    gradient = torch.func.vmap(torch.func.grad(lambda row, y: losses(row[None], y[None])[0]))(z, y)
    torch.testing.assert_close(value[0], F.cross_entropy(z[0], y[0]))
    assert gradient[0].isfinite().all()
    assert value[1].isnan()
    assert gradient[1].isnan().all()


def test_ignored_rows_have_no_loss_and_no_gradient_whatever_they_hold() -> None:
    z = normal(3, 4)
    z[1] = math.nan
    y = torch.tensor([0, -100, 3])
    z = leaf(z)
    F.cross_entropy(z, y).backward()
    assert z.grad[1].isnan().all()
    z.grad = None
    value = cet.cross_entropy(z, y)
    value.backward()
    torch.testing.assert_close(value, F.cross_entropy(z[[0, 2]], y[[0, 2]]))
    assert (z.grad[1] == 0).all()
    assert z.grad.isfinite().all()


def test_half_precision_logits_have_losses_in_float32() -> None:
    z, y = normal(16, 10, dtype=torch.bfloat16), labels(16, 10)
    exact = F.cross_entropy(z.double(), y)
    theirs, ours = F.cross_entropy(z, y), cet.cross_entropy(leaf(z), y)
    assert theirs.dtype is torch.bfloat16
    assert abs(theirs.item() / exact.item() - 1) > 1e-4
    assert ours.dtype is torch.float32
    assert ours.item() == pytest.approx(exact.item(), rel=2e-7)
    assert ours.grad_fn is not None


# 13. A confident right answer: log-sum-exp gives a loss of 0 and a gradient of 0 for the true class.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("row", [[20.0, 1.0, 2.0, 3.0], [30.0, 0.0, -1.0], [10005.0, 10000.0, 9997.0]])
def test_small_losses_keep_their_digits(row: list[float], dtype: torch.dtype) -> None:
    kind, value_bar, slope_bar = (np.float32, 2, 4) if dtype is torch.float32 else (np.float64, 4, 8)
    exact = oracle.softmax_row(row, 0)
    z, y = leaf(torch.tensor([row], dtype=dtype)), torch.tensor([0])
    theirs = F.cross_entropy(z, y)
    assert oracle.error_in_ulps(theirs.item(), exact.value, exact.value_scale, kind) > 3 * value_bar
    linear = cet.linear_cross_entropy(torch.ones(1, 1, dtype=dtype), z.T, y)
    for ours in (cet.cross_entropy(z, y), linear, cet.cross_entropy(z, y, reduction="none")[0]):
        assert oracle.error_in_ulps(ours.item(), exact.value, exact.value_scale, kind) <= value_bar
        (gradient,) = torch.autograd.grad(ours, z)
        for mine, slope, scale in zip(gradient[0].tolist(), exact.gradient, exact.gradient_scale, strict=True):
            assert oracle.error_in_ulps(mine, slope, scale, kind) <= slope_bar


# 14. scikit-learn's LogisticRegression stops by the size of a gradient, far from the optimum, and says nothing.


def test_softmax_regression_says_how_far_from_the_optimum_it_is() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    from crossent.sklearn import SoftmaxRegression

    rng = np.random.default_rng(0)
    features, scores = rng.normal(size=(500, 20)), rng.normal(size=(20, 40))
    y = np.unique(np.argmax(features @ scores + rng.gumbel(size=(500, 40)), axis=1), return_inverse=True)[1]
    features, C = features / 1000, 1e6  # the problem of features of size 1 with C = 1

    def objective(model: Any) -> float:
        logits = features @ model.coef_.T + model.intercept_
        nll = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(500), y]
        return C * nll.sum() + (model.coef_**2).sum() / 2

    theirs = linear_model.LogisticRegression(C=C).fit(features, y)
    ours = SoftmaxRegression(C=C).fit(features, y)
    best = SoftmaxRegression(C=C, tol=1e-8).fit(features, y)
    assert ours.duality_gap_ <= ours.tol
    assert objective(ours) <= objective(best) * (1 + 2 * ours.tol)
    assert objective(theirs) > 1.25 * objective(best)
