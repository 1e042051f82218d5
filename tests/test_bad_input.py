"""Bad input raises at the door: with what was asked, what came, and what would work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import crossent as ce

Z = np.zeros((3, 4))
Y = np.array([0, 1, 2])
SOFT = np.full((3, 4), 0.25)
BITS = np.zeros((3, 4), dtype=int)
W = np.ones((4, 2))
X = np.ones((3, 2))

ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    # labels
    "label too large": (lambda: ce.cross_entropy(Z, [0, 4, 2]), ValueError, r"0\.\.3.*got 4 in row 1"),
    "label -1": (lambda: ce.cross_entropy(Z, [0, 1, -1]), ValueError, r"got -1 in row 2"),
    "label -100 with another ignore_index": (
        lambda: ce.cross_entropy(Z, [0, -100, 1], ignore_index=0),
        ValueError,
        r"-100 in row 1",
    ),
    "huge unsigned label": (
        lambda: ce.cross_entropy(Z, np.array([0, 1, 2**63 + 5], dtype=np.uint64)),
        ValueError,
        r"row 2",
    ),
    "labels as floats": (lambda: ce.cross_entropy(Z, [0.0, 1, 2]), ValueError, r"integers"),
    "labels as bools": (lambda: ce.cross_entropy(Z, [True, False, True]), (TypeError, ValueError), r"integer"),
    "one-hot integers": (lambda: ce.cross_entropy(Z, np.eye(4, dtype=int)[Y]), ValueError, r"one-hot.*float"),
    "too few labels": (lambda: ce.cross_entropy(Z, [0, 1]), ValueError, r"\(3,\).*\(2,\)"),
    "labels as text": (lambda: ce.cross_entropy(Z, ["a", "b", "c"]), TypeError, r"number the labels from 0"),
    "labels as objects": (lambda: ce.cross_entropy(Z, [0, None, 1]), TypeError, r"target"),
    # distributions
    "negative mass": (lambda: ce.cross_entropy(Z, SOFT - 0.5 * np.eye(3, 4)), ValueError, r"-0\.25.*row 0"),
    "NaN mass": (lambda: ce.cross_entropy(Z, SOFT + np.nan * np.eye(3, 4)), ValueError, r"nan.*row 0"),
    "infinite mass": (lambda: ce.cross_entropy(Z, np.where(np.eye(3, 4), np.inf, 0)), ValueError, r"inf.*row 0"),
    "distributions of another shape": (lambda: ce.cross_entropy(Z, SOFT[:, :3]), ValueError, r"\(3, 4\).*\(3, 3\)"),
    "mass other than 1 for focal": (lambda: ce.cross_entropy(Z, 2 * SOFT, loss=ce.Focal(2.0)), ValueError, r"sum.*2"),
    "mass other than 1 for Poly-1": (lambda: ce.cross_entropy(Z, 2 * SOFT, loss=ce.Poly1(1.0)), ValueError, r"sum.*2"),
    "soft target for GCE": (
        lambda: ce.cross_entropy(Z, SOFT, loss=ce.GeneralizedCrossEntropy(0.5)),
        ValueError,
        r"integer labels",
    ),
    "smoothed target for GCE": (
        lambda: ce.cross_entropy(Z, Y, loss=ce.GeneralizedCrossEntropy(0.5), label_smoothing=0.1),
        ValueError,
        r"smooth",
    ),
    "ignore_index with soft targets": (lambda: ce.cross_entropy(Z, SOFT, ignore_index=1), ValueError, r"ignore_index"),
    # logits
    "no class axis": (lambda: ce.cross_entropy(1.0, 0), ValueError, r"class axis"),
    "no classes": (lambda: ce.cross_entropy(np.zeros((3, 0)), Y), ValueError, r"at least one class"),
    "complex logits": (lambda: ce.cross_entropy(Z + 0j, Y), TypeError, r"complex"),
    "text logits": (lambda: ce.cross_entropy([["a", "b"]], [0]), TypeError, r"logits"),
    "ragged logits": (lambda: ce.cross_entropy([[1.0], [1.0, 2.0]], [0, 0]), TypeError, r"logits"),
    "masked array": (lambda: ce.cross_entropy(np.ma.masked_array(Z, Z > 0), Y), TypeError, r"masked array"),
    "long double": (lambda: ce.cross_entropy(Z.astype(np.longdouble), Y), TypeError, r"float64"),
    "bool logits": (lambda: ce.cross_entropy(Z > 0, Y), TypeError, r"bool"),
    "axis out of range": (lambda: ce.cross_entropy(Z, Y, axis=2), ValueError, r"axis"),
    # options
    "negative class weight": (lambda: ce.cross_entropy(Z, Y, weight=[1, -1, 1, 1]), ValueError, r"-1.*\b1\b"),
    "NaN class weight": (lambda: ce.cross_entropy(Z, Y, weight=[1, np.nan, 1, 1]), ValueError, r"weight.*nan"),
    "wrong number of class weights": (lambda: ce.cross_entropy(Z, Y, weight=[1, 1, 1]), ValueError, r"\(4,\).*\(3,\)"),
    "negative sample weight": (
        lambda: ce.cross_entropy(Z, Y, sample_weight=[1, 1, -2]),
        ValueError,
        r"sample_weight.*-2",
    ),
    "infinite sample weight": (
        lambda: ce.cross_entropy(Z, Y, sample_weight=[1, 1, np.inf]),
        ValueError,
        r"sample_weight.*inf",
    ),
    "wrong number of sample weights": (
        lambda: ce.cross_entropy(Z, Y, sample_weight=[1, 1]),
        ValueError,
        r"sample_weight",
    ),
    "smoothing above 1": (lambda: ce.cross_entropy(Z, Y, label_smoothing=1.5), ValueError, r"label_smoothing.*1\.5"),
    "smoothing NaN": (lambda: ce.cross_entropy(Z, Y, label_smoothing=np.nan), ValueError, r"label_smoothing"),
    "smoothing as text": (
        lambda: ce.cross_entropy(Z, Y, label_smoothing="0.1"),
        (TypeError, ValueError),
        r"label_smoothing",
    ),
    "unknown reduction": (lambda: ce.cross_entropy(Z, Y, reduction="avg"), ValueError, r"'mean', 'sum' or 'none'.*avg"),
    "reduction None": (lambda: ce.cross_entropy(Z, Y, reduction=None), ValueError, r"'mean'"),
    "unknown on_empty": (lambda: ce.cross_entropy(Z, Y, on_empty="ignore"), ValueError, r"on_empty.*ignore"),
    "normalizer 0": (lambda: ce.cross_entropy(Z, Y, normalizer=0), ValueError, r"normalizer.*0"),
    "normalizer NaN": (lambda: ce.cross_entropy(Z, Y, normalizer=np.nan), ValueError, r"normalizer.*nan"),
    "unknown normalizer": (lambda: ce.cross_entropy(Z, Y, normalizer="rows"), ValueError, r"normalizer.*rows"),
    "temperature 0": (lambda: ce.cross_entropy(Z, Y, temperature=0), ValueError, r"temperature.*0"),
    "temperature NaN": (lambda: ce.cross_entropy(Z, Y, temperature=np.nan), ValueError, r"temperature"),
    "negative softcap": (lambda: ce.cross_entropy(Z, Y, softcap=-1), ValueError, r"softcap.*-1"),
    "prior with a zero": (lambda: ce.cross_entropy(Z, Y, prior=[0, 0.5, 0.5, 0]), ValueError, r"prior.*class 0"),
    "prior of another size": (lambda: ce.cross_entropy(Z, Y, prior=[0.5, 0.5]), ValueError, r"prior"),
    "margin with soft targets": (lambda: ce.cross_entropy(Z, SOFT, margin=0.1), ValueError, r"margin"),
    "infinite margin": (lambda: ce.cross_entropy(Z, Y, margin=np.inf), ValueError, r"margin"),
    "a string for a loss": (lambda: ce.cross_entropy(Z, Y, loss="focal"), TypeError, r"Focal"),
    "a class for a loss": (lambda: ce.cross_entropy(Z, Y, loss=ce.Focal), TypeError, r"Focal\(2"),
    "unknown keyword": (lambda: ce.value_and_grad(Z, Y, weights=[1]), TypeError, r"weights"),
    "unknown link": (lambda: ce.value_and_grad(Z, Y, link="probit"), ValueError, r"softmax.*sigmoid.*probit"),
    "pos_weight under softmax": (lambda: ce.value_and_grad(Z, Y, pos_weight=2), TypeError, r"pos_weight.*sigmoid"),
    "ignore_index that is no integer": (
        lambda: ce.cross_entropy(Z, Y, ignore_index=0.5),
        (TypeError, ValueError),
        r"ignore_index",
    ),
    # sigmoid
    "bit 2": (lambda: ce.binary_cross_entropy_with_logits(Z, BITS + 2), ValueError, r"0, 1.*got 2 in row 0"),
    "probability 1.5": (lambda: ce.binary_cross_entropy_with_logits(Z, SOFT * 6), ValueError, r"\[0, 1\].*1\.5"),
    "NaN probability": (lambda: ce.binary_cross_entropy_with_logits(Z, SOFT * np.nan), ValueError, r"\[0, 1\].*nan"),
    "labels under the sigmoid": (lambda: ce.binary_cross_entropy_with_logits(Z, Y), ValueError, r"\(3, 4\).*\(3,\)"),
    "negative pos_weight": (
        lambda: ce.binary_cross_entropy_with_logits(Z, BITS, pos_weight=-1),
        ValueError,
        r"pos_weight.*-1",
    ),
    "alpha 2": (lambda: ce.focal_loss(Z, BITS, link="sigmoid", alpha=2), ValueError, r"alpha.*2"),
    "weight that does not broadcast": (
        lambda: ce.binary_cross_entropy_with_logits(Z, BITS, weight=np.ones(3)),
        ValueError,
        r"weight.*broadcast",
    ),
    # probabilities
    "probability above 1": (lambda: ce.cross_entropy_from_probabilities([[1.5, -0.5]], [0]), ValueError, r"\[0, 1\]"),
    "probabilities that are logits": (
        lambda: ce.cross_entropy_from_probabilities([[0.5, 0.2]], [0]),
        ValueError,
        r"sum to 1.*0\.7",
    ),
    "positive log-probability": (lambda: ce.nll_loss([[0.5, -1.0]], [0]), ValueError, r"at most 0.*0\.5"),
    "binary probability 1.1": (lambda: ce.binary_cross_entropy([1.1], [1]), ValueError, r"\[0, 1\].*1\.1"),
    "unknown base": (lambda: ce.entropy([0.5, 0.5], base="hartleys"), ValueError, r"nats.*bits.*hartleys"),
    "negative probability": (lambda: ce.entropy([1.5, -0.5]), ValueError, r"between 0 and 1"),
    # linear heads
    "other widths": (lambda: ce.linear_cross_entropy(X, np.ones((4, 3)), Y), ValueError, r"\(3, 2\).*\(4, 3\)"),
    "transposed weight": (lambda: ce.linear_cross_entropy(X, W.T, Y), ValueError, r"\(K, D\)"),
    "bias of another size": (
        lambda: ce.linear_cross_entropy(X, W, Y, linear_bias=[1.0]),
        ValueError,
        r"linear_bias.*\(4,\)",
    ),
    "label beyond the weight": (lambda: ce.linear_value_and_grad(X, W, [0, 1, 4]), ValueError, r"4 in row 2"),
    # products, teachers, threads
    "vector of another shape": (lambda: ce.hessian_vector_product(Z, Y, np.ones(4)), ValueError, r"vector.*\(4,\)"),
    "vector None": (lambda: ce.hessian_vector_product(Z, Y, None), TypeError, r"vector"),
    "teacher of another shape": (lambda: ce.distillation_loss(Z, Z[:, :2]), ValueError, r"teacher"),
    "teacher of labels": (lambda: ce.distillation_loss(Z, Y), ValueError, r"teacher"),
    "top-k index twice": (
        lambda: ce.distillation_loss(Z[:1], ce.TopK([[1, 1]], [[0.5, 0.2]])),
        ValueError,
        r"distinct.*row 0",
    ),
    "top-k mass above 1": (lambda: ce.distillation_loss(Z[:1], ce.TopK([[0, 1]], [[0.9, 0.2]])), ValueError, r"row 0"),
    "top-k for another loss": (lambda: ce.cross_entropy(Z[:1], ce.TopK([[0]], [[0.9]])), TypeError, r"distillation"),
    "distillation temperature 0": (lambda: ce.distillation_loss(Z, Z, temperature=0), ValueError, r"temperature"),
    "0 threads": (lambda: ce.set_num_threads(0), ValueError, r"at least 1.*0"),
    "half a thread": (lambda: ce.set_num_threads(0.5), TypeError, r"integer"),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.usefixtures("twin")
def test_error(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.usefixtures("twin")
def test_what_must_not_raise() -> None:
    """The near misses of the cases above."""
    ce.cross_entropy(Z, [0, -100, 3])
    ce.cross_entropy(Z, SOFT.astype(np.float32), loss=ce.Focal(2.0))
    ce.cross_entropy(Z, 2 * SOFT)
    ce.cross_entropy(Z, Y, ignore_index=np.int64(-1), normalizer=np.float32(3), temperature=np.float64(2))
    ce.cross_entropy(Z, Y, weight=[0, 0, 1, 1], label_smoothing=1)
    ce.cross_entropy(Z, Y, label_smoothing=0, loss=ce.GeneralizedCrossEntropy(0.5))
    ce.binary_cross_entropy_with_logits(Z, BITS > 0, pos_weight=np.arange(4))
    ce.distillation_loss(Z[:1], ce.TopK([[0, 1]], [[0.5, 0.5]]))
    ce.cross_entropy_from_probabilities([[1.0, 0.0]], [1], reduction="none")
