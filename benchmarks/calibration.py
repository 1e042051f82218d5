"""Time calibration beside scikit-learn, netcal, probmetrics and torchmetrics, and compare calibrators on real logits.

python benchmarks/calibration.py [speed] [quality --logits FOLDER] [--quick]

Peers that are not installed are left out. FOLDER holds .npz files of `predictions` (softmax outputs) and
`ground_truth`; the first half of the rows fits, the second judges. Writes results/calibration.json and the tables of
docs/calibration.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import crossent as ce
from crossent import metrics
from crossent import sklearn as cs

RESULTS = Path(__file__).parent / "results" / "calibration.json"
PEERS = (
    "scikit-learn",
    "netcal",
    "probmetrics",
    "torchmetrics",
    "uncertainty-calibration",
    "betacal",
    "numpy",
    "torch",
)
THREADS = 2
SLOW = 2.0
"""Seconds: a contender that takes longer is called once."""

Probabilities = np.ndarray[Any, Any]
Method = Callable[[Probabilities, Probabilities, Probabilities], Probabilities]


class _Logits:
    """A "classifier" whose input is its decision function, for scikit-learn's meta-estimator."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        from sklearn.base import BaseEstimator, ClassifierMixin

        class Base(ClassifierMixin, BaseEstimator):
            pass

        return Base().__sklearn_tags__()

    def __init__(self, classes: int) -> None:
        self.classes_ = np.arange(classes)
        self.n_features_in_ = classes

    def fit(self, *_: Any) -> _Logits:
        return self

    def decision_function(self, logits: Any) -> Any:
        return logits

    def predict(self, logits: Any) -> Any:
        return np.argmax(logits, axis=1)


def _sklearn(method: str) -> Method:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    def run(z: Probabilities, y: Probabilities, new: Probabilities) -> Probabilities:
        frozen = FrozenEstimator(_Logits(z.shape[1]))
        return CalibratedClassifierCV(frozen, method=method).fit(z, y).predict_proba(new)

    return run


def _netcal(make: Callable[[], Any]) -> Method:
    def run(z: Probabilities, y: Probabilities, new: Probabilities) -> Probabilities:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            model = make()
            model.fit(np.asarray(ce.softmax(z)), y)
            return np.asarray(model.transform(np.asarray(ce.softmax(new))))

    return run


def _probmetrics(name: str) -> Method:
    def run(z: Probabilities, y: Probabilities, new: Probabilities) -> Probabilities:
        from probmetrics.calibrators import get_calibrator

        with contextlib.redirect_stdout(io.StringIO()):
            model = get_calibrator(name)
            model.fit(np.asarray(ce.softmax(z)), y)
            return np.asarray(model.predict_proba(np.asarray(ce.softmax(new))))

    return run


def _betacal(z: Probabilities, y: Probabilities, new: Probabilities) -> Probabilities:
    from betacal import BetaCalibration

    p, q = np.asarray(ce.softmax(z)), np.asarray(ce.softmax(new))
    columns = [BetaCalibration("abm").fit(p[:, k], y == k).predict(q[:, k]) for k in range(p.shape[1])]
    out = np.stack(columns, axis=1)
    return out / out.sum(axis=1, keepdims=True)


def _ours(make: Callable[[], Any]) -> Method:
    return lambda z, y, new: make().fit(z, y).predict_proba(new)


def methods() -> dict[str, tuple[Method, dict[str, Method]]]:
    """Return ours and the peers' versions of every calibrator; imports decide which peers there are."""
    found: dict[str, tuple[Method, dict[str, Method]]] = {
        "temperature": (_ours(cs.TemperatureScaling), {"scikit-learn": _sklearn("temperature")}),
        "bias-corrected temperature": (_ours(cs.BiasCorrectedTemperatureScaling), {}),
        "vector": (_ours(cs.VectorScaling), {}),
        "matrix": (_ours(cs.MatrixScaling), {}),
        "Platt": (_ours(cs.PlattScaling), {"scikit-learn": _sklearn("sigmoid")}),
        "beta": (_ours(cs.BetaCalibration), {}),
        "Dirichlet": (_ours(cs.DirichletCalibration), {}),
        "isotonic": (_ours(cs.IsotonicCalibration), {"scikit-learn": _sklearn("isotonic")}),
        "histogram": (_ours(cs.HistogramBinning), {}),
    }
    with contextlib.suppress(ImportError):
        from netcal import binning, scaling

        found["temperature"][1]["netcal"] = _netcal(scaling.TemperatureScaling)
        found["vector"][1]["netcal, logistic"] = _netcal(scaling.LogisticCalibration)
        found["beta"][1]["netcal"] = _netcal(scaling.BetaCalibration)
        found["isotonic"][1]["netcal"] = _netcal(binning.IsotonicRegression)
        found["histogram"][1]["netcal"] = _netcal(lambda: binning.HistogramBinning(bins=15))
    with contextlib.suppress(ImportError):
        import probmetrics.calibrators  # noqa: F401

        found["temperature"][1]["probmetrics"] = _probmetrics("temp-scaling")
        found["vector"][1]["probmetrics, svs"] = _probmetrics("svs")
        found["matrix"][1]["probmetrics, sms"] = _probmetrics("sms")
        found["isotonic"][1]["probmetrics"] = _probmetrics("isotonic")
    with contextlib.suppress(ImportError):
        import betacal  # noqa: F401

        found["beta"][1]["betacal, one-vs-rest"] = _betacal
    return found


def quality(folder: Path, only: str | None = None) -> list[dict[str, Any]]:
    """Return per data set and method the held-out log loss of ours and of each peer, with paired intervals."""
    records = []
    for path in sorted(folder.glob("*.npz")):
        data = np.load(path)
        p, y = data["predictions"], data["ground_truth"].ravel().astype(int)
        with np.errstate(divide="ignore"):
            z = np.log(p.astype(np.float64))
        half = len(y) // 2
        draws = np.random.default_rng(0).integers(half, size=(2000, half))
        rows = np.arange(half)

        def losses(prob: Any, y: Any = y, half: int = half, rows: Any = rows) -> Any:
            with np.errstate(divide="ignore"):
                return -np.log(np.asarray(prob, dtype=np.float64)[rows, y[half:]])

        plain = losses(p[half:])
        for name, (ours, peers) in methods().items():
            if only not in (None, name):
                continue
            start = time.perf_counter()
            own = losses(ours(z[:half], y[:half], z[half:]))
            record: dict[str, Any] = {
                "data": path.stem,
                "method": name,
                "uncalibrated": float(plain.mean()),
                "crossent": float(own.mean()),
                "seconds": time.perf_counter() - start,
                "peers": {},
            }
            for peer, method in peers.items():
                start = time.perf_counter()
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        other = losses(method(z[:half], y[:half], z[half:]))
                except Exception as error:
                    record["peers"][peer] = {"error": f"{type(error).__name__}: {error}"[:200]}
                    continue
                difference = own - other
                entry: dict[str, Any] = {
                    "seconds": time.perf_counter() - start,
                    "rows at infinity": int(np.isinf(other).sum()),
                }
                if np.isfinite(difference).all():
                    means = difference[draws].mean(axis=1)
                    entry["loss"] = float(other.mean())
                    entry["difference"] = float(difference.mean())
                    entry["interval"] = np.quantile(means, [0.025, 0.975]).tolist()
                record["peers"][peer] = entry
            records.append(record)
            print(
                record["data"],
                name,
                round(record["crossent"], 5),
                {k: v.get("interval", v) for k, v in record["peers"].items()},
                flush=True,
            )
    return records


def _time(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return median seconds: contenders take turns, slow ones once."""
    seconds: dict[str, list[float]] = {}
    for name, call in contenders.items():
        try:
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                call()
            seconds[name] = [time.perf_counter() - start]
        except Exception as error:
            print("  left out:", name, type(error).__name__, str(error)[:120])
    for _ in range(rounds):
        for name in list(seconds):
            if seconds[name][0] < SLOW:
                time.sleep(0.05)
                start = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    contenders[name]()
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times[1:] or times) for name, times in seconds.items()}


def _sample(rows: int, classes: int, dtype: Any) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    logits = 2 * generator.standard_normal((rows, classes), dtype=dtype)
    return logits, (logits / 1.3 + generator.gumbel(size=logits.shape)).argmax(axis=1)


def speed(rounds: int, slow: bool) -> list[dict[str, Any]]:
    """Return one record a job with seconds by contender."""
    records = []

    def record(job: str, contenders: dict[str, Callable[[], object]], **more: Any) -> None:
        found = {"job": job, "seconds": _time(contenders, rounds), **more}
        records.append(found)
        print(job, {k: f"{v * 1e3:.4g} ms" for k, v in found["seconds"].items()}, more, flush=True)

    from sklearn.calibration import _TemperatureScaling
    from sklearn.metrics import log_loss as sklearn_log_loss

    for rows, classes in ((1_000_000, 10), (50_000, 1000)):
        z, y = _sample(rows, classes, np.float64)
        contenders: dict[str, Callable[[], object]] = {
            "crossent": lambda z=z, y=y: cs.TemperatureScaling().fit(z, y),
            "scikit-learn": lambda z=z, y=y: _TemperatureScaling().fit(z, y),
        }
        if classes == 10 or slow:
            contenders["netcal"] = lambda z=z, y=y: _fit_netcal(z, y)
            contenders["probmetrics"] = lambda z=z, y=y: _fit_probmetrics(z, y)
        model = cs.TemperatureScaling().fit(z, y)
        record(f"temperature, {rows} × {classes}", contenders, passes=model.n_passes_)
        if classes == 10:
            p = np.asarray(ce.softmax(z))
            record(f"ECE, {rows} × {classes}", _ece_contenders(p, y))
        else:
            vector = cs.VectorScaling().fit(z, y)
            job = f"vector, {rows} × {classes}"
            record(job, {"crossent": lambda z=z, y=y: cs.VectorScaling().fit(z, y)}, passes=vector.n_passes_)
            platt = cs.PlattScaling().fit(z, y)
            job = f"Platt, {rows} × {classes}"
            record(job, {"crossent": lambda z=z, y=y: cs.PlattScaling().fit(z, y)}, passes=platt.n_passes_)
            p, index = np.asarray(ce.softmax(z)), np.arange(rows)
            record(
                f"log loss, {rows} × {classes}",
                {
                    "crossent": lambda p=p, y=y: metrics.log_loss(y, p),
                    "crossent, validate=False": lambda p=p, y=y: metrics.log_loss(y, p, validate=False),
                    "reading the true entries": lambda p=p, y=y, i=index: p[i, y],
                    "one read (NumPy's sum)": lambda p=p: p.sum(),
                    "scikit-learn": lambda p=p, y=y: sklearn_log_loss(y, p),
                },
            )
    return records


def _fit_netcal(z: Any, y: Any) -> None:
    from netcal.scaling import TemperatureScaling

    TemperatureScaling().fit(np.asarray(ce.softmax(z)), y)


def _fit_probmetrics(z: Any, y: Any) -> None:
    from probmetrics.calibrators import get_calibrator

    get_calibrator("temp-scaling").fit(np.asarray(ce.softmax(z)), y)


def _ece_contenders(p: Any, y: Any) -> dict[str, Callable[[], object]]:
    contenders: dict[str, Callable[[], object]] = {"crossent": lambda: metrics.calibration_error(y, p, bins=15)}
    with contextlib.suppress(ImportError):
        import torch
        from torchmetrics.functional.classification import multiclass_calibration_error

        tensor, target = torch.from_numpy(p), torch.from_numpy(y)
        contenders["torchmetrics"] = lambda: multiclass_calibration_error(tensor, target, 10, n_bins=15)
        unchecked: Any = {"n_bins": 15, "validate_args": False}
        contenders["torchmetrics, unchecked"] = lambda: multiclass_calibration_error(tensor, target, 10, **unchecked)
    with contextlib.suppress(ImportError):
        from netcal.metrics import ECE

        contenders["netcal"] = lambda: ECE(15).measure(p, y)
    with contextlib.suppress(ImportError):
        uncertainty = _named_like_this_file()
        contenders["uncertainty-calibration"] = lambda: uncertainty.get_ece(p, y, num_bins=15)
    return contenders


def _named_like_this_file() -> Any:
    """Import uncertainty-calibration, whose module is called `calibration` too."""
    here = Path(__file__).parent.resolve()
    paths = sys.path[:]
    sys.path[:] = [path for path in paths if Path(path or ".").resolve() != here]
    try:
        return importlib.import_module("calibration")
    finally:
        sys.path[:] = paths


def _machine() -> dict[str, Any]:
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    versions = {}
    for name in PEERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def main() -> None:
    """Run the parts asked for and keep the other's earlier results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=[], help="speed, quality; speed by default")
    parser.add_argument("--logits", type=Path, help="folder of .npz files for quality")
    parser.add_argument("--only", help="one calibrator of quality, keeping the others' earlier results")
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--slow", action="store_true", help="also the peers that take minutes")
    chosen = parser.parse_args()
    parts = chosen.parts or (["speed", "quality"] if chosen.logits else ["speed"])
    if set(parts) - {"speed", "quality"} or ("quality" in parts and chosen.logits is None):
        parser.error("parts are speed and quality; quality needs --logits FOLDER")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"], results["date"] = _machine(), date.today().isoformat()
    ce.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    if "speed" in parts:
        before = os.getloadavg()[0]
        results["speed"] = speed(1 if chosen.quick else 5, chosen.slow)
        results["load"] = [before, os.getloadavg()[0]]
    if "quality" in parts:
        fresh = {(r["data"], r["method"]): r for r in quality(chosen.logits, chosen.only)}
        earlier = {(r["data"], r["method"]): r for r in results.get("quality", [])} if chosen.only else {}
        results["quality"] = list({**earlier, **fresh}.values())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    import calibration_tables

    print(calibration_tables.write(results))


if __name__ == "__main__":
    main()
