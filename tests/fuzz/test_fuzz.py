"""A few examples of each fuzzed property, the same every time; `make fuzz` goes on for as long as it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis.errors import NoSuchExample
from libraries import HAS_NUMBA

import crossent as ce
from fuzz.accuracy import ACCURACY
from fuzz.calls import CALLS, Call
from fuzz.properties import check, check_close, outcome

FEW = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def run(strategy: Any, property_: Any) -> None:
    @FEW
    @given(strategy)
    def examples(example: Any) -> None:
        property_(example)

    examples()


@pytest.mark.parametrize("name", CALLS)
def test_any_call_gives_a_result_or_a_sentence(name: str) -> None:
    run(CALLS[name], lambda call: check(call, compiled=HAS_NUMBA))


@pytest.mark.parametrize("name", ACCURACY)
def test_any_problem_meets_the_bars(name: str) -> None:
    run(*ACCURACY[name])


def test_every_public_function_is_fuzzed() -> None:
    functions = {name for name in ce.__all__ if name[0].islower() and callable(getattr(ce, name))}
    assert functions - {"get_num_threads", "set_num_threads"} <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_sensible_often_enough(name: str) -> None:
    """A fuzzer whose every call is refused would find nothing."""
    try:
        find(CALLS[name], lambda call: outcome(call)[0] == "result" and _size(call) > 1, settings=FEW)
    except NoSuchExample:
        pytest.fail("none of the drawn calls returns anything")


def _size(call: Call) -> int:
    return getattr(call.args[0], "size", len(call.args[0]) if isinstance(call.args[0], list) else 1)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda z: z.fill(0.0), "an argument was written to"),
        (lambda z: (_ for _ in ()).throw(KeyError("z")), "z"),
        (lambda z: (_ for _ in ()).throw(ValueError("no")), "what came"),
    ],
    ids=["writes", "raises another error", "says nothing"],
)
def test_the_properties_have_teeth(broken: Any, message: str) -> None:
    class Module:
        function = staticmethod(broken)

    with pytest.raises((AssertionError, KeyError), match=message):
        outcome(Call(Module, "function", (np.ones(3),), {}))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1, 2, 3], [3, 1, 2]),
        ([np.inf, 1.0], [-np.inf, 1.0]),
        ([np.nan, 1.0], [0.0, 1.0]),
        ([1.0, 1e-3], [1.0, -1e-3]),
        ([1.0, 2.0], [1.0, 2.0 + 1e-12]),
        ([[1.0, 1.0], [1e-9, 1e-9]], [[1.0, 1.0], [1e-9, 2e-9]]),
    ],
)
def test_twins_that_differ_are_found(first: list, second: list) -> None:
    check_close(np.array(first), np.array(first))
    with pytest.raises(AssertionError):
        check_close(np.array(first), np.array(second))
