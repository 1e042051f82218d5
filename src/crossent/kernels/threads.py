"""A small pool of threads for kernels that release the GIL and work on ranges of rows.

Rows are handed out in pieces from one counter, so a processor that is busy elsewhere slows nobody down, and because
every result belongs to one row, the bits do not depend on who computed it. The caller works too and never waits for a
thread that has not started: many Python threads may call at once, and a pool whose threads are all busy costs nothing.
Where the system starts no thread (a limit on processes, or memory for stacks), the caller does everything.

Numba's own parallel layer is not used: its work queue aborts the process when two threads enter it, and its OpenMP
aborts after a fork. This pool is simply built anew in a forked child.

How many threads: what `set_num_threads` asked for, else ``CROSSENT_NUM_THREADS``, else the smaller of
``OMP_NUM_THREADS`` (which is how joblib's worker processes receive their limit) and the number of processors that this
process may run on.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from queue import SimpleQueue
from typing import Any

from .processors import Place, current_place, keep_away

__all__ = ["OneThread", "get_num_threads", "run_rows", "set_num_threads"]

logger = logging.getLogger("crossent")

SERIAL_ELEMENTS = 16384
"""Problems with fewer elements than this run in the calling thread: waking another one costs about as much."""

_PIECE_ELEMENTS = 8192
_PIECES_PER_THREAD = 8

_MOST_PLACED = 16
"""Pools of more threads are left to the scheduler: a system call for each would cost more than it saves."""

_MOST_WAITING = 64
"""Where so many jobs wait, no thread takes them: all are busy, or memory ended before they ran."""

RowFunction = Callable[..., None]


_inside = threading.local()


class _Job:
    """One call: pieces of rows, taken from a counter by whoever comes."""

    __slots__ = ("_active", "_args", "_closed", "_condition", "_error", "_function", "_next", "_rows", "_step")

    def __init__(self, function: RowFunction, args: tuple[Any, ...], rows: int, step: int) -> None:
        self._function = function
        self._args = args
        self._rows = rows
        self._step = step
        self._next = count(0, step).__next__  # one atomic step under the GIL
        self._condition = threading.Condition(threading.Lock())
        self._active = 0
        self._closed = False
        self._error: BaseException | None = None

    def work(self) -> None:
        """Compute pieces until none is left or the job is closed; jobs that a piece starts run in its own thread."""
        function, args, rows, step = self._function, self._args, self._rows, self._step
        _inside.job = True
        try:
            while not self._closed:
                start = self._next()
                if start >= rows:
                    return
                function(*args, start, min(start + step, rows))
        finally:
            _inside.job = False

    def help(self) -> None:
        """What a thread of the pool does with a job: join it unless it is over."""
        with self._condition:
            if self._closed:
                return
            self._active += 1
        try:
            self.work()
        except BaseException as error:
            self._error = error
            self._closed = True
        finally:
            with self._condition:
                self._active -= 1
                self._condition.notify_all()

    def finish(self) -> None:
        """Let nobody join any more and wait for those who did; called by the owner however its own work ended."""
        with self._condition:
            self._closed = True
            while self._active:
                self._condition.wait()
        # A slot that still waits in the queue must not keep the arrays alive.
        self._args = ()

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


class _Pool:
    """Threads that wait for jobs and end with the process; it only ever grows."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._started = 0
        self._native_ids: list[int] = []
        self._lock = threading.Lock()
        self._caller: Place | None = None
        self._refused = False

    def submit(self, job: _Job, helpers: int) -> None:
        if self._started < helpers:
            with self._lock:
                while self._started < helpers:
                    try:
                        # Not `Thread.start`: it waits until the thread runs, for ever if memory ends before it does.
                        _thread.start_new_thread(self._serve, ())
                    except RuntimeError as error:  # the caller works too, and the next call tries again
                        if not self._refused:
                            logger.info("the system starts no more threads, so fewer compute: %s", error)
                        self._refused = True
                        break
                    self._started += 1
        if self._started <= _MOST_PLACED:
            self._place(current_place())
        for _ in range(min(helpers, self._started)):
            if self._queue.qsize() < _MOST_WAITING:
                self._queue.put(job)

    def _place(self, caller: Place | None) -> None:
        if caller is None or caller == self._caller:
            return
        with self._lock:  # two callers at once must not leave one's place beside the other's mask
            self._caller = caller
            keep_away(self._native_ids, caller)

    def _serve(self) -> None:
        with self._lock:
            self._native_ids.append(threading.get_native_id())
            if self._caller is not None:
                keep_away(self._native_ids[-1:], self._caller)
        while True:
            job = self._queue.get()
            job.help()
            del job


_pool = _Pool()
_num_threads: int | None = None  # found at first use
_requested: int | None = None  # by set_num_threads, kept in a forked child


def _after_fork() -> None:
    """The child has none of the parent's threads, and locks may have been held: start afresh."""
    global _pool, _num_threads
    _pool = _Pool()
    _num_threads = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _available_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        with contextlib.suppress(OSError):  # a sandbox may forbid to ask
            return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _environment_limit(name: str) -> int | None:
    """A positive integer from the environment. OpenMP allows a list, one number per nesting level: the first counts."""
    text = os.environ.get(name, "").split(",")[0].strip()
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        if name == "OMP_NUM_THREADS":
            return None  # not ours to judge
        raise ValueError(f"{name} must be a positive integer, got {os.environ[name]!r}")
    return value


def _default_num_threads() -> int:
    own = _environment_limit("CROSSENT_NUM_THREADS")
    if own is not None:
        return own
    limits = [_available_processors()]
    openmp = _environment_limit("OMP_NUM_THREADS")
    if openmp is not None:
        limits.append(openmp)
    return min(limits)


def get_num_threads() -> int:
    """Number of threads that the kernels use.

    Returns
    -------
    int
        What `set_num_threads` asked for; else ``CROSSENT_NUM_THREADS``; else the smaller of ``OMP_NUM_THREADS`` and the
        number of processors that this process may run on. The environment is read at first use, and again in a forked
        child.

    Raises
    ------
    ValueError
        If ``CROSSENT_NUM_THREADS`` is not a positive integer.

    Examples
    --------
    >>> from crossent.kernels.threads import get_num_threads
    >>> get_num_threads() >= 1
    True
    """
    global _num_threads
    if _num_threads is None:
        _num_threads = _requested if _requested is not None else _default_num_threads()
    return _num_threads


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that the kernels use, for the whole process.

    Parameters
    ----------
    n : int or None
        At least 1; ``None`` goes back to the default of `get_num_threads`.

    Raises
    ------
    TypeError
        If ``n`` is neither an integer nor ``None``.
    ValueError
        If ``n`` is less than 1.

    Notes
    -----
    Losses and gradients have the same bits for any number of threads.

    Examples
    --------
    >>> from crossent.kernels.threads import get_num_threads, set_num_threads
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(None)
    """
    global _num_threads, _requested
    if n is not None:
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise TypeError(f"the number of threads must be an integer or None, got {type(n).__name__}")
        n = n.__index__()
        if n < 1:
            raise ValueError(f"the number of threads must be at least 1, got {n}")
    _requested = n
    _num_threads = n


def run_rows(function: RowFunction, rows: int, columns: int, args: tuple[Any, ...], multiple: int = 1) -> None:
    """Call ``function(*args, start, stop)`` over ranges that cover ``0:rows``, on several threads if that pays.

    Ranges start at multiples of ``multiple`` (rows that a kernel takes together).
    """
    elements = rows * columns
    threads = 1 if elements < SERIAL_ELEMENTS or getattr(_inside, "job", False) else get_num_threads()
    if threads == 1:
        function(*args, 0, rows)
        return
    step = max(rows // (threads * _PIECES_PER_THREAD), _PIECE_ELEMENTS // columns, 1)
    step = -(-step // multiple) * multiple
    pieces = -(-rows // step)
    if pieces == 1:
        function(*args, 0, rows)
        return
    job = _Job(function, args, rows, step)
    try:
        _pool.submit(job, min(threads, pieces) - 1)
        job.work()
    finally:
        job.finish()
    job.raise_error()


class OneThread(ThreadPoolExecutor):
    """An executor of one other thread; where the system starts none, what is submitted runs at once on the caller's.

    Parameters
    ----------
    name : str
        What the thread's name begins with.

    Examples
    --------
    >>> from crossent.kernels.threads import OneThread
    >>> with OneThread("square") as other:
    ...     other.submit(pow, 7, 2).result()
    49
    """

    def __init__(self, name: str) -> None:
        super().__init__(1, thread_name_prefix=name)
        self._refused = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the future of ``fn(*args, **kwargs)``."""
        if not self._refused:
            try:
                return super().submit(fn, *args, **kwargs)
            except RuntimeError as error:
                self._refused = True  # for good: the call waits in the queue, where a later thread would repeat it
                logger.info("the system starts no thread, so the caller's does the work: %s", error)
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
