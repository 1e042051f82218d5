"""Graphs of tasks over the parts of a collection: a call for each part, a tree that adds, and what to do about losses.

Tasks know how their inputs are made. If a worker goes, the scheduler has its parts read and prepared again by others,
and then what was in flight. Where that is not enough (a part was in flight on too many workers that died),
`in_spite_of_losses` prepares everything anew, up to `ATTEMPTS` times. Without a ``distributed.Client`` the same graphs
run on Dask's threads.
"""

from __future__ import annotations

import itertools
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

try:
    import dask
    import dask.threaded
    from dask.base import DaskMethodsMixin
    from dask.delayed import single_key
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


class WorkersLost(RuntimeError):
    """Workers were lost, and with them what Dask could not make again."""


class Tasks(DaskMethodsMixin):
    """Some keys of a graph, as a Dask collection: `persist` keeps their results where they are made, `compute` returns
    that of the only one."""

    __dask_scheduler__ = staticmethod(dask.threaded.get)

    def __init__(self, graph: Mapping[Any, Any], keys: list[Any]) -> None:
        self.graph = graph
        self.keys = keys

    def __dask_graph__(self) -> Mapping[Any, Any]:
        return self.graph

    def __dask_keys__(self) -> list[Any]:
        return self.keys

    def __dask_tokenize__(self) -> Any:
        return tuple(self.keys)

    @staticmethod
    def __dask_optimize__(graph: Any, keys: Any, **_: Any) -> Any:
        return graph

    def __dask_postcompute__(self) -> Any:
        return single_key, ()

    def __dask_postpersist__(self) -> Any:
        return Tasks._of_persisted, (self.keys,)

    @staticmethod
    def _of_persisted(graph: Mapping[Any, Any], keys: list[Any], **_: Any) -> Tasks:
        return Tasks({key: graph[key] for key in keys}, keys)

    def kept(self) -> Tasks:
        """Keep the results where they are made."""
        kept: Tasks = self.persist(optimize_graph=False)
        return kept

    def combined(self, combine: Callable[[list[Any]], Any]) -> Any:
        """Compute what `combine` makes of all results, `FAN_IN` at a time, in order."""
        graph, keys, token = dict(self.graph), self.keys, uuid.uuid4().hex
        for level in itertools.count():
            groups = [keys[i : i + FAN_IN] for i in range(0, len(keys), FAN_IN)]
            keys = [(f"{combine.__name__}-{token}", level, i) for i in range(len(groups))]
            graph.update((key, (combine, group)) for key, group in zip(keys, groups, strict=True))
            if len(keys) == 1:
                break
        return Tasks(graph, keys).compute(optimize_graph=False)


def on_each(function: Callable[..., Any], first: Tasks, *arguments: Any) -> Tasks:
    """Return the calls of a function on each result of `first`.

    Of other `Tasks` and of lists it gets the item of the same place. What is large is one task, which all calls read.
    """
    token = uuid.uuid4().hex
    graph = dict(first.graph)
    columns: list[Any] = []
    for i, argument in enumerate(arguments):
        if isinstance(argument, Tasks):
            graph.update(argument.graph)
            columns.append(argument.keys)
        elif isinstance(argument, list):
            columns.append(argument)
        elif getattr(argument, "nbytes", 0) > INLINE_BYTES:
            graph[f"argument-{token}-{i}"] = argument
            columns.append(itertools.repeat(f"argument-{token}-{i}"))
        else:
            columns.append(itertools.repeat(argument))
    keys = [(f"{function.__name__}-{token}", i) for i in range(len(first.keys))]
    graph.update((key, (function, *call)) for key, *call in zip(keys, first.keys, *columns, strict=False))
    return Tasks(graph, keys)


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
