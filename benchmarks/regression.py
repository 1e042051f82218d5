"""Softmax regression beside scikit-learn's solvers and cyanure: seconds to a relative excess of 1e-4.

python benchmarks/regression.py [--only NAME ...] [--solvers NAME ...] [--quick]

Every contender is fitted at the loosest `tol` of a ladder that reaches an excess of `EXCESS` over the optimum, as an
objective of its own in float64 judges its coefficients. Each fit has a process of its own. Every contender is given the
data as float32 and as float64, and the better of the two counts. scikit-learn runs twice:
as pip installs it, and with SciPy's BLAS limited to one thread (NumPy's and SciPy's wheels bring two thread pools that
fight); the better of the two counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from regression_problems import PROBLEMS, Problem, judge

RESULTS = Path(__file__).parent / "results" / "regression.json"
EXCESS = 1e-4
PROVED = 1e-6
"""The gap to which f* of a large problem is known."""
AGREE = 1e-8
"""Two solvers must find optima this close, relatively, before anything is judged by them."""
LADDER = [float(f"{factor}e-{power}") for power in range(1, 10) for factor in (3, 1)]
FIRST_PLACE = 4  # 1e-3
SOLVERS = ("crossent", "lbfgs", "newton-cg", "newton-cholesky", "sag", "saga", "cyanure")
BLAS = ("default", "scipy on one thread")
DTYPES = ("float64", "float32")
REPEATS = 25
ROUNDS = 7
QUICK_SECONDS = 0.1
"""Where crossent takes less, contenders are timed again in so many rounds."""
ENOUGH_SECONDS = 2.0
"""Fits of one process are repeated up to `REPEATS` times within about this time."""
DENSE_HESSIAN_BYTES = 2 << 30
START_SECONDS = 5.0
SLOWER = 15.0
"""A fit that takes so many times crossent's seconds is not waited for,"""
SLOWER_LARGE = 6.0
"""and of a large problem one that takes so many times them."""
SEARCHES = 4.0
"""The tolerance of a contender is searched for within so many times the limit of one fit."""


def fit(X: np.ndarray, y: np.ndarray, C: float, solver: str, tol: float) -> tuple[np.ndarray, np.ndarray, int, Any]:
    """Return coefficients, intercepts, iterations and, of crossent, its certificate and counts."""
    if solver == "crossent":
        from crossent.sklearn import SoftmaxRegression

        model = SoftmaxRegression(C, tol=tol).fit(X, y)
        last = model.history_[-1]
        counts = {"evaluations": last["evaluations"], "hessian_products": last["hessian_products"]}
        return model.coef_, model.intercept_, model.n_iter_, {"duality_gap": model.duality_gap_, **counts}
    if solver == "cyanure":
        from cyanure.estimators import Classifier

        model = Classifier(
            loss="multiclass-logistic",
            penalty="l2",
            lambda_1=1.0 / (C * len(X)),
            fit_intercept=True,
            tol=tol,
            max_iter=5000,
            verbose=False,
        )
        model.fit(X, y)
        coef = np.asarray(model.coef_)
        coef = coef if coef.shape[1] == X.shape[1] else coef.T  # (D, K) in cyanure 1.2
        return coef, np.ravel(model.intercept_), 0, None
    from sklearn.linear_model import LogisticRegression

    is_binary = len(np.unique(y)) == 2  # of which scikit-learn fits the difference of the logits, at 2 C for the same
    C = 2 * C if is_binary else C
    model = LogisticRegression(C=C, solver=solver, tol=tol, max_iter=100_000, random_state=0).fit(X, y)
    coef, intercept = model.coef_, model.intercept_
    if is_binary:
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    return coef, intercept, int(np.max(model.n_iter_)), None


def limit_scipy_blas() -> None:
    """Give SciPy's BLAS one thread, so that its pool does not fight with NumPy's."""
    import scipy.linalg  # noqa: F401  # loads the BLAS to limit
    from threadpoolctl import ThreadpoolController

    pools = ThreadpoolController()
    limited = [info["filepath"] for info in pools.info() if "scipy" in info["filepath"]]
    pools.select(filepath=limited).limit(limits=1)


def work(task: dict[str, Any]) -> dict[str, Any]:
    """Fit as `task` says, in this process."""
    problem = PROBLEMS[task["problem"]]
    X, y = problem.load()
    if task.get("dtype"):
        X = X.astype(task["dtype"])
    if task["blas"] != "default":
        limit_scipy_blas()
    seconds: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if task["solver"] == "crossent":
            few = np.concatenate([np.flatnonzero(y == label)[:2] for label in range(int(y.max()) + 1)])
            fit(X[few], y[few], 1.0, "crossent", 0.1)  # kernels are compiled once and cached for later processes
        while len(seconds) < task["repeats"] and sum(seconds) < ENOUGH_SECONDS:
            start = time.perf_counter()
            coef, intercept, iterations, extra = fit(X, y, problem.C, task["solver"], task["tol"])
            seconds.append(time.perf_counter() - start)
    objective = judge(X, y, problem.C, coef, intercept)
    out = {"seconds": statistics.median(seconds), "fits": len(seconds), "objective": objective}
    return {**out, "iterations": iterations, **(extra or {})}


def run_task(limit: float, **task: Any) -> dict[str, Any] | None:
    """Run `work` in a process of its own; None if it takes longer than `limit` seconds or fails."""
    command = [sys.executable, __file__, "--task", json.dumps(task)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0:
        print(f"    {task['solver']} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def optimum(problem: Problem) -> dict[str, float]:
    """Return f*, the less of what crossent and scikit-learn's newton-cg find, and their relative difference.

    Of a large problem, a proved lower bound of f* and how near it is: excesses over it are excesses over f* or more.
    """
    if problem.large:  # a second solver would take an hour; the dual bound, a proof, stands in for it
        task = {"problem": problem.name, "blas": "default", "repeats": 1}
        proved = run_task(3600, **task, solver="crossent", tol=PROVED)
        if proved is None:
            raise SystemExit(f"no optimum of {problem.name}: the fit failed")
        return {"objective": proved["objective"] * (1 - proved["duality_gap"]), "gap": proved["duality_gap"]}
    task = {"problem": problem.name, "blas": "default", "repeats": 1, "dtype": "float64"}
    ours = run_task(3600, **task, solver="crossent", tol=3e-9)
    for tol in (1e-8, 1e-9, 1e-10):
        theirs = run_task(3600, **task, solver="newton-cg", tol=tol)
        if ours is None or theirs is None:
            raise SystemExit(f"no optimum of {problem.name}: a solver failed")
        least = min(ours["objective"], theirs["objective"])
        disagreement = abs(ours["objective"] - theirs["objective"]) / least
        if disagreement <= AGREE:
            break
    return {"objective": least, "disagreement": disagreement}


def contend(problem: Problem, solver: str, best: float, limit: float, quick: bool) -> dict[str, Any]:
    """Return the quicker of the fits to float32 and to float64 that reach the excess, or the nearer if none does."""
    fits = [contend_in(dtype, problem, solver, best, limit, quick) for dtype in DTYPES]
    reached = [fit for fit in fits if fit["reached"]]
    return (
        min(reached, key=lambda fit: fit["seconds"])
        if reached
        else min(fits, key=lambda fit: fit.get("excess", np.inf))
    )


def contend_in(dtype: str, problem: Problem, solver: str, best: float, limit: float, quick: bool) -> dict[str, Any]:
    """Return the fit at the loosest tolerance that reaches the excess, or the best that the time limit allowed."""
    task = {"problem": problem.name, "solver": solver, "dtype": dtype}

    setups = BLAS if solver not in ("crossent", "cyanure") else BLAS[:1]

    deadline = time.perf_counter() + SEARCHES * limit

    def attempt(place: int, blas: str = setups[-1], repeats: int = 1) -> dict[str, Any] | None:
        left = min(limit, deadline - time.perf_counter())
        if left <= 0:
            return None
        found = run_task(left, **task, tol=LADDER[place], blas=blas, repeats=repeats)
        if found is None:
            return None
        return {**found, "tol": LADDER[place], "blas": blas, "excess": found["objective"] / best - 1}

    place = FIRST_PLACE
    tried = attempt(place)
    while tried is not None and tried["excess"] > EXCESS and place + 1 < len(LADDER):
        following = attempt(place + 1)
        if following is None:
            break
        place, tried = place + 1, following
    if tried is None or tried["excess"] > EXCESS:
        return {"solver": solver, "dtype": dtype, "reached": False, "limit": limit, **(tried or {})}
    while place > 0 and place <= FIRST_PLACE:  # looser ones were not tried yet
        looser = attempt(place - 1)
        if looser is None or looser["excess"] > EXCESS:
            break
        place, tried = place - 1, looser
    repeats = 1 if quick or problem.large else REPEATS
    timed = [again for blas in setups if (again := attempt(place, blas, repeats)) is not None]
    timed = [again for again in timed if again["excess"] <= EXCESS] or [tried]
    quickest = min(timed, key=lambda fit: fit["seconds"])
    return {"solver": solver, "dtype": dtype, "reached": True, "limit": limit, **quickest}


def time_in_turns(problem: Problem, fits: dict[str, dict[str, Any]]) -> None:
    """Time quick fits again, all contenders in turns: on a shared machine minutes differ more than solvers do."""
    entries = [*fits.values(), *(fit["certified"] for fit in fits.values() if "certified" in fit)]
    seconds: list[list[float]] = [[] for _ in entries]
    for _ in range(ROUNDS):
        for entry, times in zip(entries, seconds, strict=True):
            task = {key: entry[key] for key in ("solver", "tol", "blas", "dtype")}
            again = run_task(60.0, problem=problem.name, repeats=REPEATS, **task)
            if again is not None:
                times.append(again["seconds"])
    for entry, times in zip(entries, seconds, strict=True):
        entry["seconds"] = statistics.median(times or [entry["seconds"]])


def products(problem: Problem) -> float:
    """Return the seconds of one evaluation's two products, all cores: the floor of anything that evaluates f."""
    X, y = problem.load()
    num_classes = int(y.max()) + 1
    weight = np.ones((num_classes, X.shape[1]), dtype=X.dtype)
    logits = X @ weight.T
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        np.matmul(X, weight.T, out=logits)
        np.matmul(logits.T, X, out=weight)
        weight.fill(1.0)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def too_large(problem: Problem, solver: str) -> bool:
    """Whether the solver's own Hessian would not fit."""
    X, y = problem.load()
    return solver == "newton-cholesky" and 8 * (len(np.unique(y)) * (X.shape[1] + 1)) ** 2 > DENSE_HESSIAN_BYTES


def measure(
    problem: Problem, solvers: list[str], record: dict[str, Any], quick: bool, limit: float | None
) -> Iterator[None]:
    """Fill the record of one problem, and yield whenever something was added that should be kept."""
    X, y = problem.load()
    print(f"{problem.name}: {X.shape[0]} × {X.shape[1]}, K={len(np.unique(y))}, {X.dtype}, C={problem.C}", flush=True)
    record |= {"rows": len(X), "features": X.shape[1], "classes": len(np.unique(y)), "dtype": str(X.dtype)}
    record |= {"C": problem.C, "products": products(problem)}
    if "optimum" not in record:
        record["optimum"] = optimum(problem)
    yield
    if record["optimum"].get("disagreement", 0.0) > AGREE:
        print(f"  the two optima differ by {record['optimum']['disagreement']:.1e}, more than {AGREE:g}", flush=True)
    record.setdefault("fits", {})
    for solver in solvers:
        if too_large(problem, solver):
            record["fits"][solver] = {"solver": solver, "reached": False, "why": "its Hessian does not fit in memory"}
            continue
        best = record["optimum"]["objective"]
        ours = record["fits"].get("crossent", {}).get("seconds", 3600.0)
        seconds = limit or START_SECONDS + max(3.0, (SLOWER_LARGE if problem.large else SLOWER) * ours)
        entry = contend(problem, solver, best, seconds, quick)
        if solver == "crossent":
            repeats = 1 if quick or problem.large else REPEATS
            task = {"solver": solver, "tol": EXCESS, "blas": "default", "dtype": entry["dtype"]}
            certified = run_task(seconds, problem=problem.name, repeats=repeats, **task)
            if certified is not None:
                entry["certified"] = {**task, **certified, "excess": certified["objective"] / best - 1}
        record["fits"][solver] = entry
        found = f"{entry['seconds']:.3f} s, excess {entry['excess']:.1e}" if "seconds" in entry else "nothing"
        print(
            f"  {solver}: {found}, tol {entry.get('tol')}, {entry.get('blas')}, reached {entry['reached']}", flush=True
        )
        yield
    fits = {solver: record["fits"][solver] for solver in solvers if record["fits"][solver]["reached"]}
    if not quick and "crossent" in fits and fits["crossent"]["seconds"] < QUICK_SECONDS:
        time_in_turns(problem, fits)
        yield


def keep(part: str, record: dict[str, Any]) -> None:
    """Put a record that is of no problem into the results, and print it."""
    results = json.loads(RESULTS.read_text())
    results[part] = record
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(record))


def main() -> None:
    """Measure, keep the results, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(PROBLEMS), help="problems, by name")
    parser.add_argument("--solvers", nargs="*", default=list(SOLVERS), help="contenders, by name")
    parser.add_argument("--limit", type=float, help="seconds for one fit [default: 15 times crossent's, at least 3]")
    parser.add_argument("--quick", action="store_true", help="one fit each")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        print(json.dumps(work(json.loads(chosen.task))))
        return
    from run import machine

    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"problems": {}}
    results["machine"], results["date"] = machine(), date.today().isoformat()
    for name in chosen.only:
        record = results["problems"].setdefault(name, {})
        for _ in measure(PROBLEMS[name], chosen.solvers, record, chosen.quick, chosen.limit):
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    import regression_tables

    regression_tables.write(results)


if __name__ == "__main__":
    main()
