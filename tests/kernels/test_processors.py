"""Helper threads stay off their caller's processor and go where the caller may go, no further."""

from __future__ import annotations

import os
import threading

import pytest

from crossent.kernels import processors, threads

pytestmark = pytest.mark.skipif(processors.current_place() is None, reason="the system does not tell where threads run")


@pytest.fixture(autouse=True)
def _restore():
    allowed = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, allowed)
    threads.set_num_threads(None)


def helpers_places(callers_choice):
    """The processors that the pool's threads may use after a call from a thread pinned to `callers_choice`."""
    os.sched_setaffinity(0, callers_choice)
    threads.set_num_threads(2)
    seen = {}
    both = threading.Barrier(2, timeout=30)

    def function(start, stop):
        thread = threading.get_native_id()
        if thread not in seen:
            seen[thread] = os.sched_getaffinity(0)
            both.wait()

    threads.run_rows(function, 3000, 1000, ())
    return [place for thread, place in seen.items() if thread != threading.get_native_id()]


def test_helpers_leave_the_callers_processor():
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("needs two processors")
    (place,) = helpers_places(allowed)
    assert place < allowed
    assert len(place) == len(allowed) - 1


def test_helpers_go_only_where_the_caller_may_go():
    one = {min(os.sched_getaffinity(0))}
    (place,) = helpers_places(one)
    assert place == one


def test_the_callers_own_affinity_is_left_alone():
    allowed = os.sched_getaffinity(0)
    helpers_places(allowed)
    assert os.sched_getaffinity(0) == allowed


def test_a_forbidden_call_is_no_error(monkeypatch):
    def forbidden(*arguments):
        raise PermissionError

    allowed = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_getaffinity", forbidden)
    assert processors.current_place() is None
    assert threads._available_processors() >= 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda thread_id: allowed)
    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    processors.keep_away([threading.get_native_id()], (0, {0, 1}))


def test_callers_on_two_processors_never_leave_a_helper_beside_the_last():
    """However calls interleave, the place that is remembered is the one that the helpers were told to leave."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        pytest.skip("needs two processors")
    threads.set_num_threads(2)

    def call(processor):
        os.sched_setaffinity(0, {processor})
        os.sched_setaffinity(0, set(allowed))
        for _ in range(50):
            threads.run_rows(lambda start, stop: None, 3000, 1000, ())

    callers = [threading.Thread(target=call, args=(allowed[i % 2],)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    processor, remembered = threads._pool._caller
    for thread in threads._pool._native_ids:
        assert os.sched_getaffinity(thread) == remembered - {processor}
