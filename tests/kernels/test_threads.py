"""The thread pool: limits, forks, many callers, errors, interruption; and results that do not show it."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from crossent.kernels import threads


@pytest.fixture(autouse=True)
def _restore():
    yield
    threads.set_num_threads(None)


def fill(out, start, stop):
    """A row function: says who computed which row."""
    out[start:stop] += 1


def run_in_child(code, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "CROSSENT_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout.strip(), done.stderr


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("rows", "columns", "multiple"), [(1, 100_000, 1), (1001, 100, 1), (5000, 10, 64), (3, 9000, 1)]
)
def test_every_row_is_computed_once(count, rows, columns, multiple):
    threads.set_num_threads(count)
    out = np.zeros(rows, int)
    starts = []

    def function(out, start, stop):
        starts.append(start)
        fill(out, start, stop)

    threads.run_rows(function, rows, columns, (out,), multiple)
    assert (out == 1).all()
    assert all(start % multiple == 0 for start in starts)


def test_small_problems_stay_in_the_calling_thread():
    threads.set_num_threads(4)
    seen = []
    threads.run_rows(lambda start, stop: seen.append((threading.get_ident(), start, stop)), 32, 10, ())
    assert seen == [(threading.get_ident(), 0, 32)]


def test_large_problems_use_several_threads():
    threads.set_num_threads(3)
    seen = set()
    barrier = threading.Barrier(3, timeout=30)  # passes only if three threads are inside at the same time

    def function(start, stop):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            barrier.wait()

    threads.run_rows(function, 3000, 1000, ())
    assert len(seen) == 3


def test_set_and_get():
    threads.set_num_threads(5)
    assert threads.get_num_threads() == 5
    threads.set_num_threads(np.int64(2))
    assert threads.get_num_threads() == 2
    threads.set_num_threads(None)
    assert threads.get_num_threads() >= 1


@pytest.mark.parametrize("wrong", [0, -3])
def test_less_than_one_thread_is_refused(wrong):
    with pytest.raises(ValueError, match=f"at least 1, got {wrong}"):
        threads.set_num_threads(wrong)


@pytest.mark.parametrize("wrong", [2.0, "2", True])
def test_a_number_of_threads_is_an_integer(wrong):
    with pytest.raises(TypeError, match=type(wrong).__name__):
        threads.set_num_threads(wrong)


REPORT = "from crossent.kernels import threads; print(threads.get_num_threads())"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CROSSENT_NUM_THREADS": "7"}, "7"),
        ({"OMP_NUM_THREADS": "1"}, "1"),
        ({"OMP_NUM_THREADS": "1,4"}, "1"),
        ({"OMP_NUM_THREADS": "1", "CROSSENT_NUM_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "nonsense", "CROSSENT_NUM_THREADS": "2"}, "2"),
    ],
)
def test_the_environment_is_honoured(environment, expected):
    assert run_in_child(REPORT, **environment)[:2] == (0, expected)


def test_a_wrong_limit_is_an_error():
    code, _, error = run_in_child(REPORT, CROSSENT_NUM_THREADS="many")
    assert code != 0
    assert "CROSSENT_NUM_THREADS must be a positive integer, got 'many'" in error


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no processor affinity")
def test_affinity_is_honoured():
    pin = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    assert run_in_child(pin + REPORT)[:2] == (0, "1")


def test_joblib_workers_are_limited():
    joblib = pytest.importorskip("joblib")
    with joblib.parallel_config(backend="loky", inner_max_num_threads=1, n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(threads.get_num_threads)() for _ in range(2)) == [1, 1]


def test_many_callers_at_once():
    threads.set_num_threads(4)
    results = [np.zeros(2000, int) for _ in range(16)]
    callers = [
        threading.Thread(target=threads.run_rows, args=(fill, 2000, 1000, (out,))) for out in results for _ in range(1)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert all((out == 1).all() for out in results)


def test_a_call_from_inside_a_call_does_not_wait_for_itself():
    threads.set_num_threads(2)
    out = np.zeros(200, int)

    def outer(start, stop):
        inner = np.zeros(200, int)
        threads.run_rows(fill, 200, 1000, (inner,))
        out[start:stop] += inner[start:stop]

    threads.run_rows(outer, 200, 1000, ())
    assert (out == 1).all()


def test_an_error_reaches_the_caller_and_the_pool_goes_on():
    threads.set_num_threads(3)

    def broken(start, stop):
        raise ZeroDivisionError(f"row {start}")

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            threads.run_rows(broken, 1000, 1000, ())
    out = np.zeros(1000, int)
    threads.run_rows(fill, 1000, 1000, (out,))
    assert (out == 1).all()


def test_an_error_in_a_helper_alone_reaches_the_caller():
    threads.set_num_threads(2)
    caller = threading.get_ident()

    def broken_elsewhere(start, stop):
        if threading.get_ident() != caller:
            raise KeyError("helper")
        time.sleep(0.02)  # leaves the helper time to take a piece

    with pytest.raises(KeyError, match="helper"):
        threads.run_rows(broken_elsewhere, 1000, 1000, ())


def test_an_interrupted_caller_waits_for_its_helpers_and_the_pool_goes_on():
    threads.set_num_threads(2)
    caller = threading.get_ident()
    inside = []

    def slow(start, stop):
        inside.append(start)
        if threading.get_ident() == caller:
            _thread.interrupt_main()
            for _ in range(100):
                time.sleep(0.01)
        else:
            time.sleep(0.05)
        inside.remove(start)

    with pytest.raises(KeyboardInterrupt):
        threads.run_rows(slow, 1000, 1000, ())
    assert len(inside) <= 1  # the caller's own piece; no helper is still writing
    out = np.zeros(1000, int)
    threads.run_rows(fill, 1000, 1000, (out,))
    assert (out == 1).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_pool_works_in_a_forked_child():
    # In a fresh process: Python warns about forks of a process with threads, and those warnings are errors here.
    code = """
import os, warnings
warnings.simplefilter("ignore")
import numpy as np
from crossent.kernels import threads
threads.set_num_threads(3)
def fill(out, start, stop): out[start:stop] += 1
def check():
    out = np.zeros(1000, int)
    threads.run_rows(fill, 1000, 1000, (out,))
    return (out == 1).all() and threads.get_num_threads() == 3
assert check()
child = os.fork()
if child == 0:
    os._exit(0 if check() else 1)
assert os.waitpid(child, 0)[1] == 0 and check()
print("both")
"""
    assert run_in_child(code)[:2] == (0, "both")


@pytest.fixture
def few_threads(monkeypatch):
    """Let the system start so many threads and no more, and begin with a pool that has none."""

    def allow(number):
        left = iter(range(number))

        def if_allowed(start):
            def start_if_allowed(*arguments):
                if next(left, None) is None:
                    raise RuntimeError("can't start new thread")
                return start(*arguments)

            return start_if_allowed

        monkeypatch.setattr(threading.Thread, "start", if_allowed(of_python))
        monkeypatch.setattr(_thread, "start_new_thread", if_allowed(of_the_system))

    of_python, of_the_system = threading.Thread.start, _thread.start_new_thread
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    return allow


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_rows_are_computed_by_as_many_threads_as_start(few_threads, caplog, allowed):
    caplog.set_level("INFO", "crossent")
    few_threads(allowed)
    threads.set_num_threads(4)
    out = np.zeros(1000, int)
    for _ in range(3):
        threads.run_rows(fill, 1000, 1000, (out,))
    assert (out == 3).all()
    assert threads._pool._queue.qsize() <= 3 * allowed
    assert caplog.messages == ["the system starts no more threads, so fewer compute: can't start new thread"]
    few_threads(9)
    threads.run_rows(fill, 1000, 1000, (out,))
    assert (out == 4).all()
    assert threads._pool._started == 3


def test_a_thread_that_dies_before_it_runs_is_not_waited_for(monkeypatch):
    """Memory may end while the system starts it: it never says that it runs, and takes no job."""
    monkeypatch.setattr(threads, "_pool", threads._Pool())
    monkeypatch.setattr(_thread, "start_new_thread", lambda function, arguments: 0)
    threads.set_num_threads(2)
    out = np.zeros(1000, int)
    for _ in range(100):
        threads.run_rows(fill, 1000, 1000, (out,))
    assert (out == 100).all()
    assert threads._pool._queue.qsize() == threads._MOST_WAITING


def test_one_thread_or_the_callers(few_threads):
    def call(number):
        if number == 3:
            raise KeyError("three")
        return number, threading.get_ident()

    for allowed in (1, 0):
        few_threads(allowed)
        with threads.OneThread("other") as other:
            futures = [other.submit(call, number) for number in range(4)]
            few_threads(9)  # what was called on this thread must not be called again
            futures += [other.submit(call, number) for number in range(4, 6)]
        with pytest.raises(KeyError, match="three"):
            futures.pop(3).result()
        results = [future.result() for future in futures]
        assert [number for number, _ in results] == [0, 1, 2, 4, 5]
        assert {thread == threading.get_ident() for _, thread in results} == {not allowed}


def test_a_limit_on_processes_is_survived():
    pytest.importorskip("resource")
    code = """
import os, resource, threading
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
from crossent.kernels import threads
from crossent.regression.data.sources import read_ahead
if os.geteuid() == 0:  # whom no limit holds
    os.setresuid(54321, 54321, 54321)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
try:
    threading.Thread(target=print).start()
except RuntimeError:
    threads.set_num_threads(3)
    out = np.zeros(1000, int)
    def fill(out, start, stop): out[start:stop] += 1
    threads.run_rows(fill, 1000, 1000, (out,))
    print((out == 1).all(), list(read_ahead(lambda i: i * i, 4)))
else:
    print("unlimited")
"""
    status, out, error = run_in_child(code)
    if out.endswith("unlimited"):
        pytest.skip("this system starts threads beyond RLIMIT_NPROC")
    assert (status, out) == (0, "True [0, 1, 4, 9]"), error


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "classes"), [(4001, 10), (301, 1000)])
@pytest.mark.parametrize("soft", [False, True])
def test_bits_do_not_depend_on_the_number_of_threads(dtype, rows, classes, soft):
    pytest.importorskip("numba")
    import crossent as ce
    from crossent.core.target import Target
    from crossent.kernels import cpu

    rng = np.random.default_rng(11)
    logits = (rng.normal(size=(rows, classes)) * 4).astype(dtype)
    labels = None if soft else rng.integers(0, classes, rows)
    target = rng.dirichlet(np.ones(classes), rows).astype(dtype) if soft else None
    form = {"class_weight": rng.uniform(0.5, 2, classes), "label_smoothing": 0.1}
    whole = Target(classes, labels, target, **form)
    loss_of = ce.Focal(2.0) + ce.ZPenalty(0.01)
    results = []
    for count in (1, 2, 3, 5):
        threads.set_num_threads(count)
        grad = np.empty_like(logits)
        loss = cpu.row_losses(logits, whole, loss_of, 0.3, None, grad)
        results.append((loss, grad))
    # ... nor on where in a block a row comes to lie.
    grad = np.empty_like(logits[13:])
    loss = cpu.row_losses(logits[13:].copy(), whole.rows(slice(13, None)), loss_of, 0.3, None, grad)
    np.testing.assert_array_equal(loss, results[0][0][13:])
    np.testing.assert_array_equal(grad, results[0][1][13:])
    for other_loss, other_grad in results[1:]:
        np.testing.assert_array_equal(other_loss, results[0][0])
        np.testing.assert_array_equal(other_grad, results[0][1])
