"""A few examples of each fuzzed property, the same every time; `make fuzz` goes on for as long as it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from libraries import HAS_NUMBA

import crossent as ce
from fuzz import run as fuzzing
from fuzz.calls import CALLS, Call
from fuzz.properties import check, check_close, outcome
from fuzz.run import ACCURACY

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


@pytest.mark.parametrize("name", fuzzing.PROPERTIES)
def test_what_the_database_keeps_holds(name: str) -> None:
    """Failures of old, and the examples that came closest to a bar."""
    assert bool(fuzzing.replay(name)) == bool(fuzzing.kept(fuzzing.KeptDatabase(fuzzing.DATABASE), name))


def test_the_database_is_small_and_holds_something() -> None:
    database = fuzzing.KeptDatabase(fuzzing.DATABASE)
    assert all(fuzzing.kept(database, name) > 0 for name in ACCURACY)
    assert sum(path.stat().st_size for path in fuzzing.DATABASE.rglob("*") if path.is_file()) < 2**20


def test_a_failure_is_kept_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after it was mended: then it is an example like others, until it fails again."""

    def holds(number: int) -> float:
        return float(number)

    def fails(number: int) -> float:
        assert number < 1000
        return holds(number)

    for property_, failures in ((fails, 1), (holds, 0), (fails, 1)):
        monkeypatch.setitem(fuzzing.PROPERTIES, "number", (st.integers(0, 1 << 20), property_))
        record = fuzzing.fuzz("number", 0.01, 0, tmp_path)
        assert len(record["failures"]) == failures
        if failures:
            with pytest.raises(AssertionError):
                fuzzing.replay("number", tmp_path)
        else:
            assert fuzzing.replay("number", tmp_path) > 0


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
