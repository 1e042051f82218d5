"""Tasks over the parts of a collection: a call for each part, a tree that adds, and what to do about losses.

Tasks know how their inputs are made. If a worker goes, the scheduler has its parts read and prepared again by others,
and then what was in flight. Where that is not enough (a part was in flight on too many workers that died),
`in_spite_of_losses` prepares everything anew, up to `ATTEMPTS` times. Without a ``distributed.Client`` the same tasks
run on Dask's threads.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

try:
    import dask
except ImportError as error:
    raise ImportError("Dask collections need Dask: pip install 'crossent[distributed]'") from error

from crossent.errors import refuse

FAN_IN = 4
"""Results that one task of a tree adds: FAN_IN - 1 arrays arrive at each of log(parts) / log(FAN_IN) levels, which is
least for 3, and no more for 4 than for 2, with fewer tasks."""
INLINE_BYTES = 1 << 16
"""Arguments up to this size go along with each call, which is cheaper than a task that workers fetch them from."""
ATTEMPTS = 3
SILENT = "1 PiB"
"""The size of a graph at which Dask warns, while parameters are sent in it: there they can be sent again."""

Tasks = Sequence[Any]
"""`dask.delayed` objects, one for each part."""


class WorkersLost(RuntimeError):
    """Workers were lost, and with them what Dask could not make again."""


def on_each(function: Callable[..., Any], *arguments: Any) -> Tasks:
    """Return the calls of a function on each item of its first argument.

    Of other lists it gets the item of the same place. What is large is one task, which all calls read.
    """
    first = arguments[0]
    columns = [a if isinstance(a, list | tuple) else [_shared(a)] * len(first) for a in arguments]
    return _calls(function, list(zip(*columns, strict=True)))


def _calls(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> Tasks:
    """Return a call for each item, under numbered keys of one name: so the scheduler knows that they are alike."""
    call, name = dask.delayed(function, pure=False), f"{function.__name__}-{uuid.uuid4().hex}"
    return [call(*items, dask_key_name=(name, i)) for i, items in enumerate(arguments)]


def _shared(argument: Any) -> Any:
    if getattr(argument, "nbytes", 0) <= INLINE_BYTES:
        return argument
    return dask.delayed(argument, name=f"argument-{uuid.uuid4().hex}", traverse=False)


def keep(tasks: Tasks) -> Tasks:
    """Keep the results of tasks where they are made."""
    return dask.persist(*tasks, optimize_graph=False)


def compute(tasks: Tasks, combine: Callable[[list[Any]], Any]) -> Any:
    """Return what `combine` makes of all results, `FAN_IN` at a time, in order."""
    while True:
        tasks = _calls(combine, [(list(tasks[i : i + FAN_IN]),) for i in range(0, len(tasks), FAN_IN)])
        if len(tasks) == 1:
            return tasks[0].compute(optimize_graph=False)


@contextmanager
def sending() -> Iterator[None]:
    """Send parameters within graphs; turn what distributed raises where work or its data are gone into one error."""
    distributed = sys.modules.get("distributed")
    lost: tuple[type[BaseException], ...] = ()
    if distributed is not None:
        lost = (distributed.KilledWorker, CancelledError)
    try:
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": SILENT}):
            yield
    except lost as error:
        raise WorkersLost(str(error)) from error


def count_workers() -> int:
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return 1
    try:
        return max(1, len(distributed.default_client().nthreads()))
    except ValueError:  # there is no client
        return 1


def in_spite_of_losses(run: Callable[[], Any], again: Callable[[], None]) -> Any:
    """Return what `run` computes; where workers were lost with what Dask cannot make again, after `again`."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with sending():
                return run()
        except WorkersLost as error:
            if attempt == ATTEMPTS:
                raise WorkersLost(
                    refuse(
                        "each partition must fit a worker's memory, and come from what can be read again",
                        f"workers lost {ATTEMPTS} times, at last with {error}",
                        "divide the collection into smaller partitions, or give workers more memory",
                    )
                ) from error
        again()
    return None
