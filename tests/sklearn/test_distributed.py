"""Softmax regression on Dask collections: the fit of the same rows in memory, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plans import tune
from regression_oracle import Problem, assert_certified, blobs, one_hot

from crossent.regression.data.distributed import DistributedObjective
from crossent.sklearn import SoftmaxRegression

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
import dask.array as da  # noqa: E402

X, LABELS = blobs(9000, 6, 4, seed=3, spread=0.7)
X = X * [1, 1, 10, 1, 0.1, 1] + [0, 100, 0, 0, 0, 0]
CHUNKS = (2500, 1000, 3100, 2400)
DX, DY = da.from_array(X, chunks=(CHUNKS, 6)), da.from_array(LABELS, chunks=(CHUNKS,))
# Made on the workers, many rows beside the sample for the preconditioner:
LARGE = (16000, 16000, 16000, 16000)


def large_block(place: int) -> np.ndarray:
    """Rows of 10 features and, last, a label of 3."""
    X, y = blobs(LARGE[place], 10, 3, seed=place, spread=0.2)
    return np.column_stack([X, y])


def drawn_block(place: int) -> np.ndarray:
    """The same, but other rows whenever it is computed."""
    data = large_block(place)
    return data + np.random.default_rng().normal(size=data.shape) * ([0.01] * 10 + [0])


def large_collections(block: Any = large_block) -> tuple[Any, Any]:
    blocks = [dask.delayed(block)(place) for place in range(len(LARGE))]
    data = da.concatenate([da.from_delayed(b, (n, 11), np.float64) for b, n in zip(blocks, LARGE, strict=True)])
    return data[:, :10], data[:, 10]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes of one thread, and a client. Stealing is off: it may move rows where that is quicker."""
    with (
        dask.config.set({"distributed.scheduler.work-stealing": False}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def client(cluster: Any) -> Any:
    """The client, once both workers are there: an earlier test may have killed one."""
    cluster.wait_for_workers(2, timeout=120)
    return cluster


@pytest.fixture(scope="module")
def undisturbed(cluster: Any) -> tuple[SoftmaxRegression, list[dict[Any, int]]]:
    """A fit to the large rows, and all that left a worker meanwhile: bytes by key, one entry for each transfer."""
    model = SoftmaxRegression(0.01).fit(*large_collections())
    logs = cluster.run(lambda dask_worker: [dict(entry["keys"]) for entry in dask_worker.transfer_outgoing_log])
    return model, [sizes for log in logs.values() for sizes in log]


def test_a_cluster_finds_what_memory_finds(undisturbed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tune(monkeypatch, whole_work=0)  # a whole Hessian is formed in memory only
    model, _ = undisturbed
    data = np.concatenate([large_block(place) for place in range(len(LARGE))])
    X, y = data[:, :10], data[:, 10].astype(int)
    assert_certified(model, Problem(X, one_hot(y, 3), 0.01))
    local = SoftmaxRegression(0.01).fit(X, y)
    assert abs(model.n_iter_ - local.n_iter_) <= 1
    np.testing.assert_allclose(model.coef_, local.coef_, atol=1e-3)
    assert model.classes_.tolist() == [0, 1, 2]


def test_rows_stay_where_they_are(undisturbed: Any) -> None:
    model, transfers = undisturbed
    sums = 8 * 3 * 11
    seen: dict[str, int] = {}
    for sizes in transfers:
        for key, size in sizes.items():
            name = str(key[0] if isinstance(key, tuple) else key).rpartition("-")[0]
            seen[name] = seen.get(name, 0) + 1
            assert name not in ("read_rows", "Part", "hessian"), "rows left their worker"
            if name in ("evaluate", "product", "add"):
                assert size <= 3 * sums + 1000
            elif name in ("every", "join"):  # the sample: 4096 rows, or for their even distance up to twice that
                assert size <= 2 * 4096 * (10 + 1 + 1) * 8
    assert seen["add"] >= model.history_[-1]["evaluations"]
    assert seen["join"] == 1


class Loss:
    """A callback that loses a worker with rows after the second iteration: at rest, or while it evaluates."""

    def __init__(self, client: Any, grave: Path, *, in_flight: bool) -> None:
        self._client, self._in_flight, self._grave = client, in_flight, grave

    def __call__(self, entry: dict[str, Any]) -> None:
        if entry["iteration"] != 1:
            return
        if self._in_flight:
            self._client.run(die_in_the_next_evaluation, str(self._grave))
        else:
            held = self._client.has_what()  # a worker may have none of the rows
            worker = next(name for name, keys in held.items() if any("Part-" in str(key) for key in keys))
            (pid,) = self._client.run(os.getpid, workers=[worker]).values()
            os.kill(pid, signal.SIGKILL)
            self._grave.write_text(str(pid))

    @property
    def lost(self) -> int:
        """The process that was killed."""
        return int(self._grave.read_text())


def die_in_the_next_evaluation(grave: str) -> None:
    """Run on all workers: SIGKILL comes to the first that has evaluated a part, before it can hand the result on."""
    from crossent.regression.objective import LinearObjective

    evaluate = LinearObjective.evaluate

    def killed(self: LinearObjective, theta: np.ndarray) -> Any:
        found = evaluate(self, theta)
        try:
            with open(grave, "x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return found
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    LinearObjective.evaluate = killed  # type: ignore[method-assign]


def is_gone(process: int) -> bool:
    """Whether a process has ended, or ends within seconds: its parent may not have asked for its status yet."""
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("in_flight", [False, True], ids=["rows", "work in flight"])
def test_a_killed_worker_changes_nothing(client: Any, undisturbed: Any, in_flight: bool, tmp_path: Path) -> None:
    expected, _ = undisturbed
    loss = Loss(client, tmp_path / "grave", in_flight=in_flight)
    model = SoftmaxRegression(0.01, callback=loss).fit(*large_collections())
    assert is_gone(loss.lost)
    assert len(model.history_) > 3  # there was work to do without it
    assert model.duality_gap_ <= model.tol
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    np.testing.assert_array_equal(model.intercept_, expected.intercept_)
    assert model.duality_gap_ == expected.duality_gap_


def test_what_dask_cannot_make_again_is_prepared_anew(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 1:
            held = client.run_on_scheduler(
                lambda dask_scheduler: [k for k in dask_scheduler.tasks if "Part-" in str(k)]
            )
            client.cancel([distributed.Future(key, client) for key in held], force=True)
            cancelled.extend(held)

    prepared = []
    prepare = DistributedObjective._prepare
    monkeypatch.setattr(DistributedObjective, "_prepare", lambda self: (prepare(self), prepared.append(self.num_rows)))
    cancelled: list[Any] = []
    model = SoftmaxRegression(0.001, callback=cancel).fit(DX, DY)
    assert len(cancelled) == len(CHUNKS)  # and none of earlier fits, which keep nothing
    assert prepared == [len(X)] * 2
    assert_certified(model, Problem(X, one_hot(LABELS, 4), 0.001))


def test_rows_that_are_drawn_anew_end_the_fit(client: Any, tmp_path: Path) -> None:
    """A lost worker's partitions hold other rows on the next, and neither answer nor certificate is about either."""
    loss = Loss(client, tmp_path / "grave", in_flight=False)
    with pytest.raises(
        ValueError, match=r"^a partition must hold the same rows .*; got other rows in partition \d than"
    ):
        SoftmaxRegression(0.01, callback=loss).fit(*large_collections(drawn_block))
    assert is_gone(loss.lost)
