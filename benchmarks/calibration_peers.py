"""Other libraries' calibrators behind one signature: fit on logits and labels, predict probabilities of new logits."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import crossent as ce
from crossent import sklearn as cs

__all__ = ["PEERS", "Probabilities", "ece_contenders", "methods", "smooth_contenders", "versions"]

PEERS = (
    "scikit-learn",
    "netcal",
    "probmetrics",
    "torchmetrics",
    "uncertainty-calibration",
    "betacal",
    "abstention",
    "dirichletcal",
    "pycalib",
    "relplot",
    "numpy",
    "torch",
)

Probabilities = np.ndarray[Any, Any]
Method = Callable[[Probabilities, Probabilities, Probabilities], Probabilities]


def versions() -> dict[str, str]:
    """Return the installed versions of the peers."""
    found = {}
    for name in PEERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


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


def _abstention(name: str, **options: Any) -> Method:
    def run(z: Probabilities, y: Probabilities, new: Probabilities) -> Probabilities:
        from abstention import calibration

        fitted = getattr(calibration, name)(**options)(z, np.eye(z.shape[1])[y])
        return np.asarray(fitted(new))

    return run


def _dirichletcal(z: Probabilities, y: Probabilities, new: Probabilities) -> Probabilities:
    from dirichletcal.calib.fulldirichlet import FullDirichletCalibrator

    model = FullDirichletCalibrator(reg_lambda=1e-3, reg_mu=1e-3)
    model.fit(np.asarray(ce.softmax(z)), y)
    return np.asarray(model.predict_proba(np.asarray(ce.softmax(new))))


def _pycalib_binning(z: Probabilities, y: Probabilities, new: Probabilities) -> Probabilities:
    from pycalib.models import BinningCalibration

    p, q = np.asarray(ce.softmax(z)), np.asarray(ce.softmax(new))
    columns = [
        BinningCalibration(n_bins=15, strategy="quantile").fit(p[:, k], (y == k).astype(int)).predict_proba(q[:, k])
        for k in range(p.shape[1])
    ]
    out = np.stack([column[:, 1] if column.ndim == 2 else column for column in columns], axis=1)
    return out / out.sum(axis=1, keepdims=True)


def _ours(make: Callable[[], Any]) -> Method:
    return lambda z, y, new: make().fit(z, y).predict_proba(new)


def methods() -> dict[str, tuple[Method, dict[str, Method]]]:
    """Return ours and the peers' versions of every calibrator; imports decide which peers there are.

    All with their libraries' defaults, except where a name says otherwise.
    """
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
        found["Platt"][1]["probmetrics, on probabilities"] = _probmetrics("platt")
        found["isotonic"][1]["probmetrics"] = _probmetrics("isotonic")
    with contextlib.suppress(ImportError):
        import betacal  # noqa: F401

        found["beta"][1]["betacal, one-vs-rest"] = _betacal
    with contextlib.suppress(ImportError):
        import abstention  # noqa: F401

        every: dict[str, Any] = {"bias_positions": "all"}
        found["bias-corrected temperature"][1]["abstention"] = _abstention("TempScaling", **every)
        found["vector"][1]["abstention"] = _abstention("VectorScaling")
    with contextlib.suppress(ImportError):
        _mend_dirichletcal()
        found["Dirichlet"][1]["dirichletcal, ODIR 1e-3"] = _dirichletcal
    with contextlib.suppress(ImportError):
        import pycalib.models  # noqa: F401

        found["histogram"][1]["pycalib, 15 quantiles"] = _pycalib_binning
    return found


def _mend_dirichletcal() -> None:
    """Import it with what JAX, scikit-learn and SciPy no longer have: `jax.config`, positional `classes`, `pinv2`."""
    import jax
    import scipy.linalg
    from sklearn.preprocessing import label_binarize

    module: Any = types.ModuleType("jax.config")
    module.config = jax.config
    sys.modules.setdefault("jax.config", module)
    from dirichletcal.calib import multinomial

    scipy.linalg.pinv2 = scipy.linalg.pinv
    multinomial.label_binarize = lambda y, classes: label_binarize(y, classes=classes)


def ece_contenders(p: Any, y: Any) -> dict[str, Callable[[], object]]:
    """Return the peers' binned top-label errors of probabilities, 15 bins."""
    contenders: dict[str, Callable[[], object]] = {}
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
    with contextlib.suppress(ImportError):
        import relplot

        contenders["relplot"] = lambda: relplot.metrics.binnedECE(p.max(axis=1), p.argmax(axis=1) == y, nbins=15)
    return contenders


def smooth_contenders(p: Any, y: Any) -> dict[str, Callable[[], object]]:
    """Return the peers' smooth top-label errors of probabilities."""
    contenders: dict[str, Callable[[], object]] = {}
    with contextlib.suppress(ImportError):
        import relplot

        contenders["relplot"] = lambda: relplot.smECE(p.max(axis=1), p.argmax(axis=1) == y)
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
