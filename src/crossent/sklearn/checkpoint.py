"""The state of a fit in a file, so that a fit that was killed goes on where it was.

The file is safetensors: the parameters and, where it is another point, the best ones so far; a JSON object in the
header says of which fit it is and what the solver needs besides. It is written beside its place, flushed to the disk
and renamed, so that there is a whole one at any time.

What a killed fit had proved is kept only if the first evaluation gives back the very bits that it had, so the data
and the arithmetic are the same. If it gives them back up to rounding (another processor, say), the fit goes on from the
parameters, but proves everything anew; if not, the data are others and the checkpoint is refused. So no checkpoint can
make a certificate false.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from crossent.errors import refuse
from crossent.files import Busy, locked, write_together

from .objective import Array, Evaluation, LinearObjective

if TYPE_CHECKING:
    from .solvers import Monitor

HEADER_ENTRY = "crossent.checkpoint"
FORMAT_VERSION = 1
SAME_LOSS = 1e-4
"""Losses of the same data at the same parameters differ less, relatively, whatever processor computed them in
float32."""
OTHERWISE = "remove the file, or pass another path"


def identify(objective: LinearObjective) -> dict[str, Any]:
    """Return what tells a fit from another, as JSON values; features are told apart by the loss they lead to."""
    target = objective.target
    return {
        "rows": objective.num_rows,
        "features": objective.num_features,
        "outputs": objective.num_outputs,
        "dtype": str(objective.X.dtype),
        "precision": str(objective.dtype),
        "link": target.link,
        "loss": objective.terms.tolist(),
        "label_smoothing": target.label_smoothing,
        "fit_intercept": objective.fit_intercept,
        "class_weight": None if target.class_weight is None else _digest(target.class_weight),
        "labels": _digest(target.values),
        "sample_weight": _digest(objective.row_weight),
    }


def _digest(array: NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()


@dataclass(frozen=True)
class _State:
    """A moment between two iterations."""

    at: Evaluation
    best: Evaluation
    solver: dict[str, Any]


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
        self._latest: _State | None = None
        self._written = time.monotonic()
        self._found: tuple[dict[str, NDArray[Any]], dict[str, Any]] | None = None
        self._exists = False
        if self._path.exists():
            self._found = self._read()
            self._exists = self._found is not None

    def _read(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        tensors, content = read_checkpoint(self._path)
        theirs = content["fit"]
        differing = [name for name in self._fit if theirs.get(name) != self._fit[name]]
        if not differing:
            return tensors, content["solver"]
        if content["finished"]:
            return None
        name = differing[0]
        what = f"{name} {theirs.get(name)!r} where this fit has {self._fit[name]!r}"
        if name in ("labels", "sample_weight", "class_weight"):
            what = f"another {name}" if name != "labels" else "other labels"
        raise ValueError(refuse("a checkpoint must be of this fit", f"{str(self._path)!r} with {what}", OTHERWISE))

    def resume(self, monitor: Monitor, step: object) -> Evaluation | None:
        """Put a solver back to where the file says, and return the point evaluated; None if there is no file."""
        if self._found is None:
            return None
        tensors, solver = self._found
        self._found = None
        objective = monitor.objective
        if solver["precision"] != str(objective.dtype):
            objective.promote()
        objective.evaluations = solver["evaluations"]
        objective.hessian_products = solver["hessian_products"]
        at = objective.evaluate(tensors["theta"])
        if not abs(at.data_loss - solver["data_loss"]) <= SAME_LOSS * abs(solver["data_loss"]):
            got = (
                f"{str(self._path)!r} whose loss on other data was {solver['data_loss']:.9g} ({at.data_loss:.9g} here)"
            )
            raise ValueError(refuse("a checkpoint must be of this fit", got, OTHERWISE))
        same = at.data_loss == solver["data_loss"] and _digest(at.data_gradient) == solver["data_gradient"]
        monitor.continue_from(
            solver["history"],
            best=objective.evaluate(tensors["best"]) if "best" in tensors else at,
            dual=float(solver["dual"]) if same else -math.inf,
        )
        for name, value in solver["step"].items():
            if name in vars(step):
                setattr(step, name, value)
        return at

    def note(self, monitor: Monitor, step: object, at: Evaluation) -> None:
        """Keep the state between two iterations in mind, and write it if the interval has passed."""
        objective = monitor.objective
        solver = {
            "precision": str(objective.dtype),
            "evaluations": objective.evaluations,
            "hessian_products": objective.hessian_products,
            "dual": monitor.dual,
            "history": list(monitor.history),
            "step": {name: v for name, v in vars(step).items() if isinstance(v, int | float)},
        }
        self._latest = _State(at, at if monitor.best is None else monitor.best, solver)
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
        tensors: dict[str, Array] = {"theta": state.at.theta}
        if state.best.theta is not state.at.theta and not np.array_equal(state.best.theta, state.at.theta):
            tensors["best"] = state.best.theta
        solver = {
            **state.solver,
            "data_loss": state.at.data_loss,
            "data_gradient": _digest(state.at.data_gradient),
        }
        content = {"format_version": FORMAT_VERSION, "fit": self._fit, "finished": finished, "solver": solver}
        file = save({name: np.ascontiguousarray(t) for name, t in tensors.items()}, {HEADER_ENTRY: json.dumps(content)})
        try:
            write_together({self._path: file})
        except OSError as error:
            why = error.strerror or error
            warnings.warn(f"no checkpoint could be written to {str(self._path)!r}: {why}", RuntimeWarning, stacklevel=2)
        else:
            self._exists = True
        self._written = time.monotonic()


def read_checkpoint(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the tensors and the JSON object of a checkpoint.

    Raises
    ------
    ValueError
        If the file is damaged, none of crossent's, or of a newer version.
    """
    asked, other = "a checkpoint must be a file that a fit wrote", "pass another path"
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(HEADER_ENTRY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping: keys() only)
        content = json.loads(text or "null")
        if not isinstance(content, dict):
            raise ValueError(refuse(asked, f"{str(path)!r}, a safetensors file of another kind", other))
        if content["format_version"] > FORMAT_VERSION:
            raise ValueError(refuse(asked, f"{str(path)!r} from a newer crossent", "upgrade crossent"))
        known = {name: content[name] for name in ("fit", "finished", "solver")}
        shape = (known["fit"]["outputs"], known["fit"]["features"] + 1)
        if any(tensor.shape != shape or tensor.dtype != np.float64 for tensor in tensors.values()):
            raise KeyError("theta")
    except (SafetensorError, OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(refuse(asked, f"{str(path)!r}, which is none, damaged or cut short", other)) from error
    return tensors, known
