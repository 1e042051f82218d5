"""crossent beside its peers: equal where they are right, right where they are silently wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, logsumexp, rel_entr
from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss
from sklearn.metrics import brier_score_loss, log_loss

import crossent as ce

pytestmark = pytest.mark.usefixtures("twin")
RNG = np.random.default_rng(0)
Z, Y = RNG.normal(scale=2, size=(40, 7)), RNG.integers(0, 7, 40)
SOFT = RNG.dirichlet(np.ones(7), 40)
W = RNG.uniform(0.2, 3, 7)
BITS = RNG.integers(0, 2, (40, 7))


def close(got: Any, want: Any, rtol: float = 1e-12) -> None:
    want = np.asarray(want)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol * np.max(np.abs(want)))


def torch_value_and_grad(
    function: Any, z: np.ndarray, *arguments: Any, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    def tensor(x: Any) -> Any:
        return torch.tensor(x) if isinstance(x, np.ndarray) else x

    leaf = torch.tensor(z, requires_grad=True)
    value = function(leaf, *map(tensor, arguments), **{k: tensor(v) for k, v in options.items()})
    value.sum().backward()
    return value.detach().numpy(), leaf.grad.numpy()


# --- Where the peers are right ----------------------------------------------------------------------------------------

IGNORING = np.where(np.arange(40) % 5 == 0, -100, Y)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("target", "options"),
    [
        (Y, {}),
        (Y, {"weight": W}),
        (Y, {"label_smoothing": 0.1}),
        (Y, {"weight": W, "label_smoothing": 0.3}),
        (IGNORING, {}),
        (IGNORING, {"weight": W, "label_smoothing": 0.1}),
        (Y, {"ignore_index": 3, "weight": W}),
        (SOFT, {}),
        (SOFT, {"weight": W, "label_smoothing": 0.2}),
    ],
    ids=["hard", "weight", "smooth", "both", "ignored", "all three", "ignored class", "soft", "soft, both"],
)
def test_torch_cross_entropy(target: np.ndarray, options: dict[str, Any], reduction: str) -> None:
    value, grad = torch_value_and_grad(F.cross_entropy, Z, target, reduction=reduction, **options)
    got = ce.value_and_grad(Z, target, reduction=reduction, **options)
    close(got.value, value)
    close(got.grad, grad)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"pos_weight": W}, {"weight": W}, {"weight": Z**2, "pos_weight": W}], ids=len)
def test_torch_binary_cross_entropy(options: dict[str, Any], reduction: str) -> None:
    for target in (BITS.astype(float), SOFT):
        value, grad = torch_value_and_grad(
            F.binary_cross_entropy_with_logits, Z, target, reduction=reduction, **options
        )
        got = ce.value_and_grad(Z, target, link="sigmoid", reduction=reduction, **options)
        close(got.value, value)
        close(got.grad, grad)


def test_torch_on_probabilities() -> None:
    logp = log_softmax(Z, axis=1)
    close(
        ce.nll_loss(logp, IGNORING, weight=W), F.nll_loss(torch.tensor(logp), torch.tensor(IGNORING), torch.tensor(W))
    )
    t = torch.tensor(BITS.astype(float))
    close(ce.binary_cross_entropy(SOFT, BITS), F.binary_cross_entropy(torch.tensor(SOFT), t))


def test_torch_divergence() -> None:
    student, teacher = torch.tensor(Z), torch.tensor(Z[::-1].copy())
    expected = F.kl_div(
        F.log_softmax(student / 3, 1), F.log_softmax(teacher / 3, 1), log_target=True, reduction="batchmean"
    )
    close(ce.distillation_loss(Z, Z[::-1], temperature=3.0), 9 * expected)


def test_scipy() -> None:
    close(ce.log_softmax(Z), log_softmax(Z, axis=1))
    close(ce.logsumexp(Z), logsumexp(Z, axis=1))
    close(ce.kl_divergence(SOFT, SOFT[::-1]), rel_entr(SOFT, SOFT[::-1]).sum(axis=1))


def test_sklearn() -> None:
    s = RNG.uniform(0, 2, 40)
    close(ce.cross_entropy(Z, Y, sample_weight=s), log_loss(Y, np.exp(log_softmax(Z, axis=1)), sample_weight=s))
    value, grad = HalfMultinomialLoss(n_classes=7).loss_gradient(Y.astype(float), Z, sample_weight=s)
    got = ce.value_and_grad(Z, Y, sample_weight=s, reduction="none")
    close(got.value, value)
    close(got.grad, grad)
    value, grad = HalfBinomialLoss().loss_gradient(BITS[:, 0].astype(float), Z[:, 0].copy())
    got = ce.value_and_grad(Z[:, 0], BITS[:, 0], link="sigmoid", reduction="none")
    close(got.value, value)
    close(got.grad, grad)
    binary = 1 / (1 + np.exp(-Z[:, 0]))
    pair = np.stack([0 * Z[:, 0], Z[:, 0]], axis=1)
    close(ce.cross_entropy(pair, BITS[:, 0], loss=ce.Brier()), 2 * brier_score_loss(BITS[:, 0], binary))


# --- Where they are wrong, and say nothing ----------------------------------------------------------------------------


def test_tiny_losses() -> None:
    """float32 torch, SciPy and scikit-learn give 0; float64 is off by 8e-4 one step further."""
    z = np.array([[20, 1, 2, 3]], dtype=np.float32)
    exact = 6.2232197e-08
    naive = torch_value_and_grad(F.cross_entropy, z, np.array([0]))[0]
    assert naive == 0
    assert -log_softmax(z, axis=1)[0, 0] == 0
    close(ce.cross_entropy(z, [0]), exact, 1e-6)
    z = np.array([[30.0, 0, -1]])
    exact = np.exp(-30) + np.exp(-31)
    naive = torch_value_and_grad(F.cross_entropy, z, np.array([0]))[0]
    assert abs(naive / exact - 1) > 1e-4
    close(ce.cross_entropy(z, [0]), exact, 1e-12)


def test_gradient_of_the_true_class() -> None:
    z = np.array([[30, 0, -1]], dtype=np.float32)
    assert torch_value_and_grad(F.cross_entropy, z, np.array([0]))[1][0, 0] == 0
    close(ce.value_and_grad(z, [0]).grad[0, 0], -1.2800100e-13, 1e-6)


def test_soft_target_without_mass_on_a_masked_class() -> None:
    z = np.array([[1.0, 2, -np.inf]])
    t = np.array([[0.0, 1, 0]])
    assert np.isnan(torch_value_and_grad(F.cross_entropy, z, t)[0])
    value, grad = ce.value_and_grad(z, t)
    close(value, np.log1p(np.exp(-1)))
    assert np.isfinite(grad).all()


def test_sums_of_half_precision() -> None:
    z = np.zeros((140_000, 2), dtype=np.float16)
    y = np.zeros(140_000, dtype=int)
    assert np.isinf(torch_value_and_grad(F.cross_entropy, z, y, reduction="sum")[0])
    close(ce.cross_entropy(z, y, reduction="sum"), 140_000 * np.log(2), 1e-6)


def test_bfloat16_losses_are_not_rounded_to_bfloat16() -> None:
    import ml_dtypes

    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(8192, 64)).astype(ml_dtypes.bfloat16), rng.integers(0, 64, 8192)
    exact = ce.cross_entropy(z.astype(np.float64), y)
    half = F.cross_entropy(torch.tensor(z.astype(np.float32)).bfloat16(), torch.tensor(y))
    assert abs(float(half) / exact - 1) > 1e-5
    close(ce.cross_entropy(z, y), exact, 1e-6)
    x, w = rng.normal(size=(512, 16)).astype(ml_dtypes.bfloat16), rng.normal(size=(64, 16)).astype(ml_dtypes.bfloat16)
    value = ce.linear_cross_entropy(x, w, y[:512])
    close(value, ce.linear_cross_entropy(x.astype(np.float64), w.astype(np.float64), y[:512]), 1e-6)


def test_everything_ignored() -> None:
    """The value is NaN, as in torch; no gradient is, not even the linear head's input's."""
    value, grad = ce.linear_value_and_grad(np.ones((4, 3)), np.ones((5, 3)), np.full(4, -100))
    assert np.isnan(value)
    assert not grad.input.any()
    assert not grad.weight.any()


def test_focal_at_saturation() -> None:
    """The formula as found in torchvision and kornia has NaN gradients for γ = 1/2 where p_y rounds to 1."""
    z = np.array([[60.0, 0, 0], [0, 60, 0]])

    def common(logits: Any, target: Any) -> Any:
        nll = F.cross_entropy(logits, target, reduction="none")
        return (1 - torch.exp(-nll)) ** 0.5 * nll

    assert np.isnan(torch_value_and_grad(common, z, np.array([0, 0]))[1][0]).any()
    value, grad = ce.value_and_grad(z, [0, 0], loss=ce.Focal(0.5), reduction="none")
    odds = 2 * np.exp(-60)
    close(value[0], odds**1.5, 1e-12)
    close(grad[0], [-1.5 * odds**1.5, 0.75 * odds**1.5, 0.75 * odds**1.5], 1e-12)
    # a confidently wrong row keeps its gradient, where clipping probabilities at 1e-7 leaves 0
    close(grad[1], [-1, 1, 0], 1e-12)


def test_negative_labels_are_not_counted_from_the_end() -> None:
    with pytest.raises(ValueError, match="-1"):
        ce.cross_entropy(Z, np.full(40, -1))


def test_softcap_keeps_padding_out() -> None:
    """A padded -inf lane that becomes -softcap gains mass; here it has none."""
    padded = np.concatenate([Z, np.full((40, 3), -np.inf)], axis=1)
    for options in ({"softcap": 2.0}, {"softcap": 2.0, "temperature": 0.5}):
        got, want = ce.value_and_grad(padded, Y, **options), ce.value_and_grad(Z, Y, **options)
        close(got.value, want.value)
        close(got.grad[:, :7], want.grad)
        assert not got.grad[:, 7:].any()


@pytest.mark.parametrize("num_classes", [2047, 2048, 2049, 4097])
def test_no_padding_of_the_vocabulary(num_classes: int) -> None:
    """Sizes around a power of two: no column more, no column less."""
    z = np.random.default_rng(2).normal(size=(3, num_classes))
    y = np.array([0, num_classes - 1, 5])
    close(ce.cross_entropy(z, y, reduction="none"), logsumexp(z, axis=1) - z[np.arange(3), y])


def test_a_bias_is_added_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of blocks the linear head works in."""
    from crossent.core import linear

    x, w, b = RNG.normal(size=(50, 9)), RNG.normal(size=(31, 9)), RNG.normal(size=31)
    y = RNG.integers(0, 31, 50)
    value, g = ce.value_and_grad(x @ w.T + b, y)
    for block, tile in ((linear.BLOCK_BYTES, linear.TILE_BYTES), (31 * 8 * 7, 9 * 8 * 4), (1, 1)):
        monkeypatch.setattr(linear, "BLOCK_BYTES", block)
        monkeypatch.setattr(linear, "TILE_BYTES", tile)
        got, gradients = ce.linear_value_and_grad(x, w, y, linear_bias=b)
        close(got, value)
        close(gradients.weight, g.T @ x)
        close(gradients.input, g @ w)
        close(gradients.bias, g.sum(axis=0))


def test_hard_labels_and_their_one_hot_differ_by_their_denominators_only() -> None:
    hard, soft = (ce.cross_entropy(Z, t, weight=W, reduction="sum") for t in (Y, np.eye(7)[Y]))
    close(hard, soft)
    close(ce.cross_entropy(Z, Y, weight=W) * W[Y].sum(), ce.cross_entropy(Z, np.eye(7)[Y], weight=W) * 40)
    close(ce.cross_entropy(Z, Y, weight=W, normalizer="count"), ce.cross_entropy(Z, np.eye(7)[Y], weight=W))


def test_a_linear_head_never_holds_all_logits() -> None:
    import tracemalloc

    n, k, d = 4096, 16_000, 8  # 500 MiB of float64 logits
    x, w = np.zeros((n, d)), np.ones((k, d))
    y = np.zeros(n, dtype=int)
    tracemalloc.start()
    try:
        ce.linear_value_and_grad(x, w, y, loss=ce.Focal(2.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 160 << 20
