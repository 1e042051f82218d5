"""The state of a fit in a file, so that a fit that was killed goes on where it was.

The file is sealed: the parameters, the history and the few numbers of the solver, a JSON object that says of which fit
they are, and a digest of it all. It is written beside its place, flushed to the disk and renamed, so that there is a
whole one at any time.

What a killed fit had proved is not in it. It names the points where the best F and the best bound were found, and both
are computed from the data again. So no checkpoint can make a certificate false, whatever it says.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.errors import refuse
from crossent.files import Busy, locked, write_together
from crossent.sealed import SealError, seal, unseal

from .arrays import Array
from .blocks import BlockedRows
from .interface import Objective
from .method import Pace
from .plan import tuned
from .solvers import Solver, State

HEADER_ENTRY = "crossent.checkpoint"
FORMAT_VERSION = 2
COUNTS = ("iteration", "evaluations", "hessian_products")
HISTORY = ("iteration", "objective", "gradient_norm", "duality_gap", "evaluations", "hessian_products", "seconds")
"""The columns of the history as an array; a gap of None is NaN there."""
CONTENT = ("fit", "finished", "precision", "data_loss", "evaluations", "hessian_products")
POINTS = ("best", "bound")
"""What is an array only if it is another point than theta."""
MOST = 1 << 53
"""Counts are smaller, and so exact in float64."""
DIGESTED = {"labels": "other labels", "sample_weight": "another sample_weight", "class_weight": "another class_weight"}
"""What a file knows by a digest alone, in words."""
SAME_LOSS = 1e-4
"""Losses of the same data at the same parameters differ less, relatively, whatever processor computed them in
float32."""
OTHERWISE = "remove the file, or pass another path"


def identify(objective: BlockedRows) -> dict[str, Any]:
    """Return what tells a fit from another, as JSON values; features are told apart by the loss they lead to."""
    target = objective.target
    return {
        "rows": objective.num_rows,
        "features": objective.num_features,
        "outputs": objective.num_outputs,
        "dtype": str(objective.X.dtype),
        "precision": str(objective.dtype),
        "link": target.link,
        "loss": objective.loss.table(),
        "label_smoothing": target.label_smoothing,
        "fit_intercept": objective.fit_intercept,
        "class_weight": None if target.class_weight is None else _digest(target.class_weight),
        "labels": _digest(target.values),
        "sample_weight": _digest(objective.row_weight),
    }


def _digest(array: NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Saved:
    """A solver's state as a file holds it."""

    fit: dict[str, Any]  # what `identify` returns, and more like it
    finished: bool
    precision: str  # of the products
    data_loss: float  # the data's part of F at theta
    evaluations: int
    hessian_products: int
    theta: Array  # (K, D + 1)
    best: Array | None  # where F was less
    bound: Array | None  # where the dual bound was better
    history: list[dict[str, Any]]
    pace: Pace

    def seal(self) -> bytes:
        """Return the file."""
        content = {name: getattr(self, name) for name in CONTENT}
        rows = [[math.nan if entry[name] is None else entry[name] for name in HISTORY] for entry in self.history]
        tensors = {"theta": self.theta, "history": np.array(rows, float), "pace": np.array(self.pace, float)}
        tensors |= {name: getattr(self, name) for name in POINTS if getattr(self, name) is not None}
        return seal(HEADER_ENTRY, FORMAT_VERSION, content, tensors)


@contextmanager
def exclusive(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Keep the checkpoint of a fit, if it has one, from every other fit while this one runs.

    Raises
    ------
    ValueError
        If another fit keeps it.
    """
    with ExitStack() as held:
        if path is not None:
            try:
                held.enter_context(locked(Path(path)))
            except Busy as error:
                got = f"{str(path)!r}, which another fit is keeping"
                raise ValueError(refuse("a checkpoint must be of one fit", got, "pass another path")) from error
            except OSError:
                pass  # no file can be created there: writing the checkpoint will say so
        yield


class Checkpoint:
    """A file that a fit's state goes to every so often.

    Parameters
    ----------
    path : str or path
        Its folder is made if it is missing.
    interval : float
        The least seconds between two writes.
    fit : dict
        What `identify` returns, and more like it.

    Raises
    ------
    ValueError
        If there is a file, and it is damaged, no checkpoint, or of another fit that has not finished.
    """

    def __init__(self, path: str | os.PathLike[str], interval: float, fit: dict[str, Any]) -> None:
        self._path = Path(path)
        self._interval = interval
        self._fit = json.loads(json.dumps(fit))
        self._latest: Saved | None = None
        self._written = time.monotonic()
        self._found: Saved | None = None
        self._exists = False
        if self._path.exists():
            self._found = self._read()
            self._exists = self._found is not None

    def _read(self) -> Saved | None:
        found = read_checkpoint(self._path)
        theirs = found.fit
        differing = [name for name in self._fit if theirs.get(name) != self._fit[name]]
        if not differing:
            return found
        if found.finished:
            return None
        name = differing[0]
        what = DIGESTED.get(name, f"{name} {theirs.get(name)!r} where this fit has {self._fit[name]!r}")
        raise self._of_another_fit(f"with {what}")

    def _of_another_fit(self, how: str) -> ValueError:
        return ValueError(refuse("a checkpoint must be of this fit", f"{str(self._path)!r} {how}", OTHERWISE))

    def resume(self, solver: Solver) -> State | None:
        """Return the state that the file says a solver was in, evaluated anew; None if there is no file."""
        saved, self._found = self._found, None
        if saved is None:
            return None
        objective = solver.objective
        if saved.precision == "float64" and objective.can_promote:
            objective.promote()
        with np.errstate(over="ignore", invalid="ignore"):  # at points that are no fit's
            at = objective.evaluate(saved.theta)
            best, proof = (None if point is None else objective.evaluate(point) for point in (saved.best, saved.bound))
        if not abs(at.data_loss - saved.data_loss) <= SAME_LOSS * abs(saved.data_loss):
            raise self._of_another_fit(f"whose loss on other data was {saved.data_loss:.9g} ({at.data_loss:.9g} here)")
        objective.count_from(saved.evaluations, saved.hessian_products)
        return solver.resume(at, best, proof, saved.history, saved.pace)

    def note(self, state: State, objective: Objective) -> None:
        """Keep the state between two iterations in mind, and write it if the interval has passed.

        What L-BFGS has learned is not kept: a fit that goes on learns the curvature again.
        """
        theta = state.at.theta
        self._latest = Saved(
            self._fit,
            False,
            str(objective.dtype),
            state.at.data_loss,
            objective.evaluations,
            objective.hessian_products,
            theta,
            _elsewhere(None if state.best is None else state.best.theta, theta),
            _elsewhere(state.bound.theta, theta),
            list(state.history),
            state.method if isinstance(state.method, Pace) else Pace(),
        )
        if time.monotonic() - self._written >= self._interval:
            self._write(finished=False)

    def close(self, finished: bool) -> None:
        """Bring the file up to date at the end of a fit, if there is one or the interval has passed."""
        if self._exists or time.monotonic() - self._written >= self._interval:
            self._write(finished)

    def _write(self, finished: bool) -> None:
        state = self._latest
        if state is None:
            return
        try:
            write_together({self._path: replace(state, finished=finished).seal()})
        except OSError as error:
            why = error.strerror or error
            warnings.warn(f"no checkpoint could be written to {str(self._path)!r}: {why}", RuntimeWarning, stacklevel=2)
        else:
            self._exists = True
        self._written = time.monotonic()


def _elsewhere(point: Array | None, theta: Array) -> Array | None:
    return None if point is None or np.array_equal(point, theta) else point


def read_checkpoint(path: Path) -> Saved:
    """Return what a checkpoint says.

    Raises
    ------
    ValueError
        If the file is damaged, none of crossent's or of another version, or says what no fit would.
    """
    try:
        return _state_of(*unseal(path, HEADER_ENTRY, FORMAT_VERSION, anew="remove it and fit again"))
    except SealError as error:
        got = f"{str(path)!r}, and {error}"
        raise ValueError(refuse("a checkpoint must be a file that a fit wrote", got, "pass another path")) from error


def _state_of(content: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Saved:
    """Return the state that a file holds; raise SealError if it is none that a fit can be in."""
    known: dict[str, Any] = {name: content.get(name) for name in CONTENT}
    _require(tensors.keys() - POINTS == {"theta", "history", "pace"}, "names of its arrays")
    _require(all(tensor.dtype == np.float64 for tensor in tensors.values()), "dtypes of its arrays")
    fit, history, pace = known["fit"], tensors["history"], tensors["pace"]
    _require(isinstance(fit, dict) and all(_is_count(fit.get(name), 1) for name in ("outputs", "features")), "fit")
    points: dict[str, Any] = {name: tensors.get(name) for name in ("theta", *POINTS)}
    for name, point in points.items():
        if point is not None:
            _require(point.shape == (fit["outputs"], fit["features"] + 1) and bool(np.isfinite(point).all()), name)
    _require(type(known["finished"]) is bool, "mark of a finished fit")
    _require(known["precision"] in ("float32", "float64"), "precision")
    _require(type(known["data_loss"]) is float and math.isfinite(known["data_loss"]), "loss")
    _require(all(_is_count(known[name]) for name in ("evaluations", "hessian_products")), "numbers of passes")
    _require(history.ndim == 2 and len(history) > 0 and history.shape[1] == len(HISTORY), "history")
    entries: list[dict[str, Any]] = [dict(zip(HISTORY, row, strict=True)) for row in history.tolist()]
    _require(all(_is_entry(entry, place) for place, entry in enumerate(entries)), "history")
    _require(pace.shape == (len(Pace._fields),) and _is_pace(*pace.tolist()), "numbers of the solver")
    for entry in entries:
        entry.update({name: int(entry[name]) for name in COUNTS})
        if math.isnan(entry["duality_gap"]):
            entry["duality_gap"] = None
    first_norm, last_norm, steps, oversampling = pace.tolist()
    return Saved(**known, **points, history=entries, pace=Pace(first_norm, last_norm, int(steps), oversampling))


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise SealError(f"no fit writes its {what}")


def _is_count(value: object, least: int = 0) -> bool:
    return type(value) is int and least <= value < MOST


def _is_entry(entry: dict[str, float], place: int) -> bool:
    """Whether a line of the history can be that of an iteration; gradients and gaps may overflow."""
    counts = [entry[name] for name in COUNTS]
    return (
        all(0 <= count < MOST and count == math.floor(count) for count in counts)
        and entry["iteration"] == place
        and math.isfinite(entry["objective"])
        and entry["gradient_norm"] >= 0
        and not entry["duality_gap"] < 0
        and 0 <= entry["seconds"] < math.inf
    )


def _is_pace(first_norm: float, last_norm: float, steps: float, oversampling: float) -> bool:
    norms = first_norm >= 0 and last_norm >= 0
    return (
        norms and 0 <= steps < MOST and steps == math.floor(steps) and tuned().oversampling <= oversampling < math.inf
    )
