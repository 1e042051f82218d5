"""Weights, priors and decisions for rare classes, beside formulas and optimisers that share no code with them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.utils.class_weight import compute_class_weight

import crossent as ce
from crossent import imbalance as im

RNG = np.random.default_rng(20)
Y = np.repeat([0, 1, 2], [90, 9, 1])


def softmax_rows(rows: int, classes: int, scale: float = 2.0) -> Any:
    return ce.softmax(scale * RNG.normal(size=(rows, classes)))


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.999, 1 - 1e-12])
def test_weights_are_the_formulas(beta: float) -> None:
    counts = [90, 9, 1]
    with mpmath.workdps(40):
        raw = [1 / (1 - mpmath.mpf(beta) ** n) if beta else mpmath.mpf(1) for n in counts]
        effective = [float(3 * w / sum(raw)) for w in raw]
    np.testing.assert_allclose(im.class_weights(Y, "effective", beta=beta), effective, rtol=1e-14)
    inverse = [Fraction(3, n) / sum(Fraction(1, m) for m in counts) for n in counts]
    np.testing.assert_allclose(im.class_weights(Y), np.array(inverse, float), rtol=1e-14)
    roots = [3 / math.sqrt(n) / sum(1 / math.sqrt(m) for m in counts) for n in counts]
    np.testing.assert_allclose(im.class_weights(Y, "sqrt"), roots, rtol=1e-14)
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=Y)
    np.testing.assert_allclose(im.class_weights(Y, "balanced"), balanced, rtol=1e-14)


def test_classes_have_an_order_and_labels_any_type() -> None:
    names = np.array(["many", "few", "one"])[Y]
    ordered = im.class_weights(names, "sqrt", classes=["one", "many", "few"])
    np.testing.assert_array_equal(ordered, im.class_weights(Y, "sqrt")[[2, 0, 1]])
    np.testing.assert_allclose(im.class_prior(Y, classes=3), [0.9, 0.09, 0.01], rtol=1e-15)
    np.testing.assert_allclose(im.class_prior(Y, smoothing=0.5, classes=4), np.array([90.5, 9.5, 1.5, 0.5]) / 102)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(0.1, 300.0))
def test_correction_is_the_exact_inverse_of_weights_and_adjustment(seed: int, classes: int, size: float) -> None:
    """A loss with weights w has its minimum at p ∝ w η, one with a prior π at p ∝ η / π: η comes back."""
    rng = np.random.default_rng(seed)
    eta = ce.softmax(rng.normal(size=(5, classes)) * 3)
    factor = np.exp(rng.uniform(-size, size, classes) / 2)
    logits = np.log(eta)
    moved = ce.softmax(logits + np.log(factor))
    back = im.correct_prior(moved, factor, np.ones(classes))
    kept = moved > 1e-290  # what underflowed does not come back
    np.testing.assert_allclose(back[kept.all(axis=1)], eta[kept.all(axis=1)], rtol=1e-10)
    there = im.correct_prior(eta, np.ones(classes), factor)
    np.testing.assert_allclose(there, moved, rtol=1e-10, atol=1e-300)
    np.testing.assert_allclose(there.sum(axis=1), 1, rtol=4e-16 * classes)


@pytest.mark.parametrize("option", ["weight", "prior"])
def test_correction_undoes_what_the_loss_of_this_library_does(option: str) -> None:
    """At the corrected optimum the gradient of the weighted or adjusted loss is 0: softmax(z) against frequencies."""
    counts = np.array([70, 25, 5])
    eta, labels = counts / 100, np.repeat([0, 1, 2], counts)
    value = im.class_weights(labels) if option == "weight" else im.class_prior(labels)
    trained, deployed = (value, np.ones(3)) if option == "weight" else (np.ones(3), value)
    start = im.correct_prior(eta[None], deployed, trained)  # what training ends in
    logits = np.tile(np.log(start), (100, 1))
    _, gradient = ce.value_and_grad(logits, labels, **{option: value})
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=1e-15)
    np.testing.assert_allclose(im.correct_prior(start, trained, deployed)[0], eta, rtol=1e-14)


def test_zeros_stay_and_tiny_priors_do_not_underflow() -> None:
    got = im.correct_prior([[1e-300, 0.0, 1.0]], [1e-200, 1.0, 1.0], [1e200, 1.0, 1e-300])
    assert got.tolist() == [[1.0, 0.0, 0.0]]
    assert im.correct_prior([[0.5, 0.5]], [1, 1], [0, 3]).tolist() == [[0.0, 1.0]]
    assert im.correct_prior(np.empty((0, 2)), [1, 1], [1, 2]).shape == (0, 2)
    half = im.correct_prior(np.array([[0.25, 0.75]], np.float16), [1, 1], [1, 1])
    assert half.dtype == np.float64
    np.testing.assert_allclose(half, [[0.25, 0.75]], rtol=1e-15)


@pytest.mark.parametrize(("classes", "true"), [(2, [0.9, 0.1]), (3, [0.05, 0.15, 0.8]), (4, [0.5, 0.5, 0.0, 0.0])])
def test_the_estimated_prior_has_the_greatest_likelihood(classes: int, true: list[float]) -> None:
    rng = np.random.default_rng(classes)
    trained = np.arange(1, classes + 1) / sum(range(1, classes + 1))
    x = rng.normal(size=(2000, classes)) + 1.5 * np.eye(classes)[rng.choice(classes, 2000, p=true)]
    prob = ce.softmax(1.5 * x + np.log(trained))  # exact posteriors of unit normals at the corners
    got = im.estimate_prior(prob, trained, tol=1e-11)
    np.testing.assert_allclose(got, true, atol=0.06)
    ratio = prob / trained

    def loss(free: Any) -> float:
        return -float(np.mean(np.log(ratio @ ce.softmax(np.append(free, 0.0)))))

    best = minimize(loss, np.zeros(classes - 1), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    assert -math.fsum(np.log(ratio @ got)) / 2000 <= best.fun + 1e-10
    np.testing.assert_allclose(got, ce.softmax(np.append(best.x, 0.0)), atol=1e-4)
    smooth = im.estimate_prior(prob, trained, smoothing=30.0, tol=1e-11)

    def penalised(free: Any) -> float:
        return loss(free) - 30 / 2000 * float(np.sum(ce.log_softmax(np.append(free, 0.0))))

    best = minimize(penalised, np.zeros(classes - 1), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
    np.testing.assert_allclose(smooth, ce.softmax(np.append(best.x, 0.0)), atol=1e-6)
    with pytest.warns(RuntimeWarning, match="max_iter=1 was reached"):
        im.estimate_prior(prob, trained, max_iter=1)


def test_decisions_are_those_of_enumeration() -> None:
    prob, cost = softmax_rows(40, 3), RNG.normal(size=(3, 5))
    expected = [[sum(p[k] * cost[k, a] for k in range(3)) for a in range(5)] for p in prob]
    np.testing.assert_allclose(im.expected_cost(prob, cost), expected, rtol=1e-12, atol=1e-15)
    actions = im.decide(prob, cost)
    assert actions.tolist() == [row.index(min(row)) for row in expected]
    y = RNG.integers(3, size=40)
    weights = RNG.integers(1, 4, size=40)
    paid = [cost[k, a] for k, a in zip(y, actions, strict=True)]
    assert im.realised_cost(y, actions, cost) == pytest.approx(sum(paid) / 40, rel=1e-13)
    repeated = im.realised_cost(np.repeat(y, weights), np.repeat(actions, weights), cost)
    assert im.realised_cost(y, actions, cost, weights) == pytest.approx(repeated, rel=1e-13)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_thresholds_are_where_decisions_change(seed: int, actions: int) -> None:
    cost = np.random.default_rng(seed).integers(-4, 5, size=(2, actions)).astype(float)
    bounds, order = im.thresholds(cost)
    assert len(order) == len(bounds) + 1
    second = np.setdiff1d(np.linspace(0, 1, 203)[1:-1], bounds)
    costs = np.column_stack([1 - second, second]) @ cost
    chosen = order[np.searchsorted(bounds, second, side="right")]
    np.testing.assert_allclose(costs[np.arange(len(second)), chosen], costs.min(axis=1), atol=1e-12)
    assert np.all(np.diff(bounds) > 0)
    assert np.all((bounds >= 0) & (bounds < 1))


def test_value_of_a_decision() -> None:
    rng = np.random.default_rng(0)
    prob = np.column_stack([1 - (p := rng.uniform(0, 0.4, 4000)), p])
    y = (rng.random(4000) < p).astype(int)
    cost = np.array([[0.0, 1.0], [8.0, 0.0]])
    value = im.decision_value(y, prob, cost)
    assert value.decided == pytest.approx(im.realised_cost(y, im.decide(prob, cost), cost))
    assert value.most_probable == pytest.approx(im.realised_cost(y, prob.argmax(axis=1), cost))
    assert value.constant == pytest.approx(min(8 * y.mean(), 1 - y.mean()))
    assert value.lower < value.saving < value.upper
    assert value.expected == pytest.approx(value.decided, abs=0.05)  # the probabilities are true
    assert str(value).startswith("Deciding by cost saves")
    assert str(im.decision_value(0 * y, prob, cost)).startswith("Deciding by cost loses")
    assert str(im.decision_value(y[:4], prob[:4], cost)).startswith("These rows cannot show")
    ask = im.decision_value(y, prob, [[0.0, 1.0, 0.5], [8.0, 0.0, 0.5]])
    assert ask.most_probable is None
    assert "the best single action" in str(ask)
    weights = rng.integers(1, 4, 4000)
    again = im.decision_value(np.repeat(y, weights), np.repeat(prob, weights, axis=0), cost)
    assert im.decision_value(y, prob, cost, weights)[:5] == pytest.approx(again[:5])


P = np.array([[0.5, 0.5], [0.9, 0.1]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: im.class_weights([0, 1, 3], classes=3), r"y must be integers from 0 to 2.*got 3 in row 2"),
        (lambda: im.class_weights([0, -1], classes=2), "got -1 in row 1"),
        (lambda: im.class_weights([0.0, np.nan]), "no missing labels; got .*nan.* in row 1"),
        (lambda: im.class_weights(np.array(["a", None], object)), "no missing labels; got None in row 1"),
        (lambda: im.class_prior([0, 1], classes=0), "how many they are, 1 or more; got 0"),
        (lambda: im.class_weights(["a", "b"], classes=["a", "c"]), "one of classes; got .*'b'.* in row 1"),
        (lambda: im.class_weights([0, 0], classes=2), "each class must have a row in y; got none of class"),
        (lambda: im.class_weights([[0, 1]]), r"labels of shape \(N,\)"),
        (lambda: im.class_weights([0, 1], classes=[0, 0, 1]), "different labels"),
        (lambda: im.class_weights([0, 1], "auto"), "scheme must be one of 'inverse', .*; got 'auto'"),
        (lambda: im.class_weights([0, 1], "effective", beta=1.0), "beta must be less than 1"),
        (lambda: im.class_prior([0, 0], classes=2), "a prior must be positive; got no row of class"),
        (lambda: im.class_prior([0, 0], smoothing=-1), "smoothing must be at least 0"),
        (
            lambda: im.correct_prior(P, [0.0, 1.0], [1, 1]),
            "trained_on must be 2 .*all positive; got 0.0 for",
        ),
        (
            lambda: im.correct_prior(P, [1, 1], [-1.0, 1.0]),
            "deployed_on .*not negative; got -1.0 for class 0",
        ),
        (lambda: im.correct_prior(P, [1, 1], [np.nan, 1.0]), "got nan for class 0"),
        (lambda: im.correct_prior(P, [1, 1], [0, 0]), "got zeros alone"),
        (lambda: im.correct_prior(P, [1, 1, 1], [1, 1]), r"got an array of shape \(3,\)"),
        (lambda: im.correct_prior(P, "uniform", [1, 1]), "got str 'uniform'"),
        (lambda: im.correct_prior([[1.0, 0.0]], [1, 1], [0, 1]), "a class that occurs; got none in row 0"),
        (lambda: im.correct_prior([[0.5, 0.6]], [1, 1], [1, 1]), "sums to 1; got 1.1 in row 0"),
        (lambda: im.correct_prior([[np.nan, 0.5]], [1, 1], [1, 1]), "got nan in row 0, column 0"),
        (lambda: im.correct_prior([0.5, 0.5], [1, 1], [1, 1]), r"shape \(N, K\)"),
        (lambda: im.estimate_prior(P[:0], [1, 1]), "one row or more; got none"),
        (lambda: im.decide(P, np.eye(3)), r"shape \(2, A\).*got an array of shape \(3, 3\)"),
        (lambda: im.decide(P, [1.0, 2.0]), r"got an array of shape \(2,\)"),
        (lambda: im.decide(P, [[1.0, 2.0], [1.0]]), "got rows of different lengths"),
        (lambda: im.decide(P, [[0.0, np.inf], [1.0, 0.0]]), "got inf for class 0, action 1"),
        (lambda: im.realised_cost([0, 2], [0, 1], np.eye(2)), "y must be integers from 0 to 1.*got 2 in row 1"),
        (lambda: im.realised_cost([0, 1], [0, 2], np.eye(2)), "actions must be 2 integers.*got 2 in row 1"),
        (lambda: im.realised_cost([0, 1], [0], np.eye(2)), "actions must be 2 integers"),
        (lambda: im.realised_cost([0, 1], [0, 1], np.eye(2), [1, -1]), "none negative"),
        (lambda: im.decision_value([0, 1, 1], P, np.eye(2)), "y must be 2 integers"),
        (lambda: im.thresholds(np.eye(3)), r"shape \(2, A\)"),
    ],
)
def test_bad_input(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_masked_arrays_are_refused() -> None:
    masked = np.ma.masked_array([0, 1], [0, 1])
    for call in (im.class_weights, im.class_prior, lambda m: im.correct_prior(P, m, [1, 1]), lambda m: im.decide(P, m)):
        with pytest.raises(TypeError, match="masked"):
            call(masked)


@pytest.mark.parametrize("option", ["weight", "prior"])
def test_a_batch_does_not_tell_how_rare_a_class_is(option: str) -> None:
    words = f"{option} must be numbers, for a batch does not tell how rare a class is; got 'balanced'; pass"
    with pytest.raises(ValueError, match=words):
        ce.cross_entropy(np.zeros((2, 3)), [0, 1], **{option: "balanced"})
    torch = pytest.importorskip("torch")
    from crossent.torch import cross_entropy

    with pytest.raises(ValueError, match=words):
        cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), **{option: "balanced"})
