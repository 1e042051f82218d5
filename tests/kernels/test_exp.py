"""The elementary functions of the compiled kernels against mpmath at 60 digits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

numba = pytest.importorskip("numba")

from crossent.kernels.numba import exp  # noqa: E402


@numba.njit(error_model="numpy")
def exp_rows(z, m, out):
    for i in range(len(z)):
        out[i] = exp.exp_difference(z[i], m[i])


@numba.njit(error_model="numpy")
def log1p_rows(x, out):
    for i in range(len(x)):
        out[i] = exp.log1p(x[i])


@numba.njit(error_model="numpy")
def power_rows(x, n, out):
    for i in range(len(x)):
        out[i] = exp.integer_power(x[i], n)


@numba.njit(error_model="numpy")
def maximum_rows(z):
    m = z[0]
    for i in range(len(z)):
        m = exp.maximum(m, z[i])
    return m


@numba.njit(error_model="numpy")
def gce_exponent(high, low, out):
    for i in range(len(high)):
        out[i] = exp.exp_sum(high[i], low[i])


def errors_in_ulp(got, exact, dtype):
    """|got - exact| in units in the last place of the exact value, which mpmath holds."""
    with mpmath.workdps(60):
        return np.array(
            [
                float(abs(mpmath.mpf(float(g)) - x) / mpmath.mpf(float(np.spacing(dtype(float(abs(x)))))))
                for g, x in zip(got, exact, strict=True)
            ]
        )


def differences(dtype, cut):
    """Pairs z <= m: plain, with a large common offset, of very different size, and next to the cut."""
    rng = np.random.default_rng(3)
    count = 400
    near = rng.uniform(-2, 0, count)
    far = rng.uniform(cut, 0, count)
    top = rng.normal(size=count) * 3
    pairs = [(top + near, top), (top + far, top), (1e4 + far, np.full(count, 1e4)), (-1e4 + near, np.full(count, -1e4))]
    # z and m of different size: the subtraction must round.
    pairs.append((rng.normal(size=count) * 1e-3 - 1, 10 ** rng.uniform(-1, 1.5, count)))
    pairs.append((cut + rng.uniform(0, 0.1, count), np.zeros(count)))
    pairs.append((top, top))
    z = np.concatenate([a for a, _ in pairs]).astype(dtype)
    m = np.concatenate([b for _, b in pairs]).astype(dtype)
    keep = (z <= m) & (z.astype(np.longdouble) - m > cut)
    return z[keep], m[keep]


@pytest.mark.parametrize(("dtype", "cut"), [(np.float32, -87.33), (np.float64, -708.39)])
def test_exp_of_a_difference_is_within_one_ulp(dtype, cut):
    z, m = differences(dtype, cut)
    got = np.empty_like(z)
    exp_rows(z, m, got)
    assert got.dtype == dtype
    with mpmath.workdps(60):
        exact = [mpmath.exp(mpmath.mpf(float(a)) - mpmath.mpf(float(b))) for a, b in zip(z, m, strict=True)]
    errors = errors_in_ulp(got, exact, dtype)
    assert len(errors) > 1500
    assert errors.max() < 1.0
    # Rounding the difference first would have been far off: the test inputs do exercise the two-sum.
    naive = np.exp((z - m).astype(np.float64)).astype(dtype)
    assert errors_in_ulp(naive, exact, dtype).max() > 3.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_at_the_edges(dtype):
    big = np.finfo(dtype).max
    z = np.array([0, 5, -np.inf, -np.inf, -1e4, -big, np.nan, np.inf, -np.inf, 1.5], dtype)
    m = np.array([0, 5, 0, big, 0, big, 1, np.inf, -np.inf, np.nan], dtype)
    got = np.empty_like(z)
    exp_rows(z, m, got)
    np.testing.assert_array_equal(got, np.array([1, 1, 0, 0, 0, 0, np.nan, np.nan, np.nan, np.nan], dtype))


@pytest.mark.parametrize("payload", [0x7FC00001, 0x7FFFFFFF, 0xFFC12345])
def test_a_nan_of_any_payload_stays_one(payload):
    z = np.array([payload], np.uint32).view(np.float32)
    got = np.empty_like(z)
    exp_rows(z, np.zeros(1, np.float32), got)
    assert math.isnan(got[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bits_do_not_depend_on_the_position_in_the_vector(dtype):
    z, m = differences(dtype, -80.0)
    whole = np.empty_like(z)
    exp_rows(z, m, whole)
    one = np.empty(1, dtype)
    for i in range(0, len(z), 17):
        exp_rows(z[i : i + 1], m[i : i + 1], one)
        assert one[0] == whole[i]


def test_exp_of_an_unevaluated_sum():
    rng = np.random.default_rng(5)
    high = -rng.uniform(0, 700, 300)
    low = np.spacing(high) * rng.uniform(-0.5, 0.5, 300)
    got = np.empty(300)
    gce_exponent(high, low, got)
    with mpmath.workdps(60):
        exact = [mpmath.exp(mpmath.mpf(a) + mpmath.mpf(b)) for a, b in zip(high, low, strict=True)]
    assert errors_in_ulp(got, exact, np.float64).max() < 1.0


def test_log1p_is_within_one_ulp():
    rng = np.random.default_rng(7)
    x = np.concatenate(
        [
            10 ** rng.uniform(-300, 6, 800),
            rng.uniform(0, 1, 800),
            np.arange(0, 65, dtype=float),
            2.0 ** np.arange(-60, 20),
            0.41421356237309503 + np.spacing(0.414) * np.arange(-5, 6),
        ]
    )
    got = np.empty_like(x)
    log1p_rows(x, got)
    with mpmath.workdps(60):
        exact = [mpmath.log1p(mpmath.mpf(v)) for v in x]
    assert errors_in_ulp(got, exact, np.float64).max() < 1.0
    assert got[np.flatnonzero(x == 0)[0]] == 0.0
    log1p_rows(np.array([np.nan]), got)
    assert math.isnan(got[0])


@pytest.mark.parametrize("exponent", range(16))
def test_integer_power(exponent):
    x = np.concatenate([[0.0, 1.0], np.random.default_rng(exponent).uniform(0.01, 1, 200)])
    got = np.empty_like(x)
    power_rows(x, exponent, got)
    with mpmath.workdps(60):
        exact = [mpmath.mpf(v) ** exponent for v in x[1:]]
    assert got[0] == (1.0 if exponent == 0 else 0.0)
    assert errors_in_ulp(got[1:], exact, np.float64).max() <= max(
        exponent - 1, 0
    )  # half a unit of relative rounding, which is up to one ulp, per product


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maximum_propagates_nan(dtype):
    z = np.random.default_rng(1).normal(size=1001).astype(dtype)
    assert maximum_rows(z) == z.max()
    for i in (0, 1, 500, 999, 1000):
        spoiled = z.copy()
        spoiled[i] = np.nan
        assert math.isnan(maximum_rows(spoiled))
    z[:] = -np.inf
    assert maximum_rows(z) == -np.inf


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 100, 1023, 1024])
def test_pairwise_sum(n):
    values = np.random.default_rng(n).uniform(size=n)
    exact = math.fsum(values)
    assert abs(exp.pairwise_sum(values.copy()) - exact) <= 4 * np.spacing(exact)
    # A thousand equal numbers: a plain running sum loses bits here, halves do not.
    assert exp.pairwise_sum(np.full(1024, 0.1)) == 1024 * 0.1


@numba.njit(error_model="numpy")
def logistic_rows(d, e, log_sum, large):
    for i in range(len(d)):
        e[i] = exp.exp_for_float(d[i])
        log_sum[i], large[i] = exp.logistic_for_float(e[i])


def test_the_parts_of_a_sigmoid_loss_are_those_of_float32_to_a_fraction_of_an_ulp():
    rng = np.random.default_rng(5)
    d = -np.abs(np.concatenate([rng.normal(size=2000), rng.uniform(0, 700, 2000), rng.lognormal(-8, 4, 500) % 700]))
    d = d.astype(np.float32).astype(np.float64)
    e, log_sum, large = (np.empty(len(d)) for _ in range(3))
    logistic_rows(d, e, log_sum, large)
    with mpmath.workdps(60):
        exact = [mpmath.exp(mpmath.mpf(float(x))) for x in d]
        relative = {
            "e^d": [abs(mpmath.mpf(float(g)) / x - 1) for g, x in zip(e, exact, strict=True)],
            "log": [abs(mpmath.mpf(float(g)) / mpmath.log1p(x) - 1) for g, x in zip(log_sum, exact, strict=True)],
            "p": [abs(mpmath.mpf(float(g)) * (1 + x) - 1) for g, x in zip(large, exact, strict=True)],
        }
        worst = {name: float(max(errors)) for name, errors in relative.items()}
    assert max(worst.values()) < 0.07 * 2.0**-24, worst
    logistic_rows(np.array([0.0, -np.inf, np.nan, -709.0]), e, log_sum, large)
    np.testing.assert_array_equal(e[:4], [1, 0, np.nan, 0])
    np.testing.assert_array_equal(log_sum[1:3], [0, np.nan])
    assert large[0] == 0.5
    assert large[1] == 1.0
