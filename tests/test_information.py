"""The door of the information measures: what they take, in which layout, and what they say to the rest."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from test_callers import LAYOUTS

import crossent as ce
from crossent import information

RNG = np.random.default_rng(0)
P, Q = RNG.dirichlet(np.ones(4), (2, 6))
MEASURES: dict[str, Any] = {
    "entropy": lambda p, q: ce.entropy(p),
    "cross_entropy": information.cross_entropy,
    "kl_divergence": ce.kl_divergence,
    "js_divergence": ce.js_divergence,
    "mutual_information": lambda p, q: information.mutual_information(p / np.asarray(6, p.dtype)),
    "perplexity": lambda p, q: ce.perplexity(p),
    "bits_per_token": lambda p, q: information.bits_per_token(p),
    "bits_per_byte": lambda p, q: information.bits_per_byte(p, 10, 40),
    "bits_per_dimension": lambda p, q: information.bits_per_dimension(p, 3),
}
by_measure = pytest.mark.parametrize("name", MEASURES)


@by_measure
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_computed_and_returned_in_float32(name: str, dtype: Any) -> None:
    p, q = P.astype(dtype), Q.astype(dtype)
    result = MEASURES[name](p, q)
    assert result.dtype == np.float32
    if name != "mutual_information":  # which is given quotients in half precision here
        np.testing.assert_array_equal(result, MEASURES[name](p.astype(np.float32), q.astype(np.float32)))


@by_measure
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "memory map"])
def test_any_layout_gives_the_same_numbers(name: str, layout: str) -> None:
    given = LAYOUTS[layout](P), LAYOUTS[layout](Q)
    before = [a.tobytes() for a in given]
    np.testing.assert_allclose(MEASURES[name](*given), MEASURES[name](P, Q), rtol=1e-15)
    assert [a.tobytes() for a in given] == before


BAD = {
    "masked": np.ma.masked_array(P, P > 0.5),
    "object": P.astype(object),
    "big-endian": P.astype(">f8"),
    "complex": P.astype(complex),
    "bool": P > 0.5,
    "text": "a",
    "None": None,
    "ragged": [[0.5, 0.5], [1.0]],
}


@pytest.mark.parametrize("name", ["entropy", "kl_divergence", "perplexity", "bits_per_token"])
@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_array_of_real_numbers_is_refused_by_name(name: str, bad: str) -> None:
    argument = {"perplexity": "cross_entropy", "bits_per_token": "nats"}.get(name, "p")
    with pytest.raises(TypeError, match=rf"^{argument} must be .*; got ") as caught:
        MEASURES[name](BAD[bad], Q)
    assert "\n" not in str(caught.value)


CALLS: dict[str, tuple[Any, str]] = {
    "axis": (lambda: ce.entropy(P, axis=2), "axis must be an integer between -2 and 1; got 2"),
    "fractional axis": (lambda: ce.js_divergence(P, Q, axis=0.5), "axis must be .*; got 0.5"),
    "a number": (lambda: ce.entropy(0.5), "must have an axis of outcomes; got a number"),
    "base": (lambda: ce.entropy(P, base="bans"), "base must be .*; got 'bans'"),
    "a vector": (lambda: information.mutual_information(P[0]), r"two axes; got an array of shape \(4,\)"),
    "tokens": (lambda: information.bits_per_byte(1.0, "many", 3), "tokens must be .*; got 'many'"),
    "dimensions": (lambda: information.bits_per_dimension(1.0, 0), "dimensions must be .*; got 0"),
}


@pytest.mark.parametrize("name", CALLS)
def test_one_sentence_says_what_came(name: str) -> None:
    call, sentence = CALLS[name]
    with pytest.raises(ValueError, match=sentence):
        call()


def test_numbers_without_end_do_not_warn() -> None:
    assert ce.perplexity(1e4) == np.inf
    assert np.isnan(ce.perplexity(np.nan))


def test_arrays_of_other_libraries_stay_what_they_are() -> None:
    strict = pytest.importorskip("array_api_strict")
    result = ce.entropy(strict.asarray(P), base="bits")
    assert type(result) is type(strict.asarray(P))
    np.testing.assert_allclose(np.asarray(result), ce.entropy(P, base="bits"), rtol=1e-15)


@pytest.mark.parametrize(("function", "name"), [(ce.nll_loss, "log_probs"), (ce.binary_cross_entropy, "probs")])
def test_probabilities_are_refused_under_their_own_name(function: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be"):
        function(P.astype(object), np.zeros(6, int))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divergences_where_a_probability_is_the_least_number(dtype: Any) -> None:
    """The quotient of the two is beyond the dtype's range; the divergence is not."""
    least = np.nextafter(dtype(0), dtype(1))
    p, q = np.array([0.25, 0.75], dtype), np.array([least, 1], dtype)
    exact = 0.5 * (0.25 * np.log(2.0) + 0.75 * np.log(0.75 / 0.875)) + 0.5 * np.log(1 / 0.875)
    for one, other in ((p, q), (q, p)):
        np.testing.assert_allclose(ce.js_divergence(one, other), exact, rtol=8 * np.finfo(dtype).eps)
        assert np.isfinite(ce.kl_divergence(one, other))
