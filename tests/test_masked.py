"""Masked arrays are refused by one sentence, at every door: what lies under a mask is no number."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

import crossent as ce
import crossent.metrics as cm
import crossent.sklearn as cs
from crossent.masked import refuse_masked

RNG = np.random.default_rng(0)
N, K, D = 24, 3, 2
Z = RNG.normal(size=(N, K))
P = np.asarray(ce.softmax(Z))
Q = np.asarray(ce.softmax(Z[::-1]))
Y = np.arange(N) % K
B = (Y == 0).astype(np.int64)
LABELS = np.arange(K)
S = RNG.uniform(0.5, 1.0, N)
X = RNG.normal(size=(N, D))
W = RNG.normal(size=(K, D))
V = RNG.normal(size=(N, K))
PER_CLASS = np.array([0.2, 0.3, 0.5])
EDGES = np.array([0.0, 0.5, 1.0])


class Case(NamedTuple):
    """A valid call: what is called, its arrays by name, and its other arguments."""

    call: Callable[..., Any]
    arrays: dict[str, Any]
    others: Mapping[str, Any] = MappingProxyType({})


MAPS = {"sample_weight": S, "prior": PER_CLASS}
SOFTMAX = {"target": Y, "weight": PER_CLASS, "margin": PER_CLASS, **MAPS}
SIGMOID = {"target": np.eye(K)[Y], "weight": PER_CLASS, "pos_weight": PER_CLASS, **MAPS}
HEAD = {"input": X, "linear_weight": W, "linear_bias": PER_CLASS}
TRUTH = {"y_true": Y, "y_prob": P, "labels": LABELS, "sample_weight": S}
TEACHER = {"indices": np.argsort(Z, axis=1)[:, :2], "probabilities": np.full((N, 2), 0.4)}


def top_k(logits: Any, indices: Any, probabilities: Any) -> Any:
    return ce.distillation_loss(logits, ce.TopK(indices, probabilities))


def both_links(name: str, arguments: dict[str, Any]) -> dict[str, Case]:
    """Cases of a function with the softmax link and with the sigmoid link."""
    call = getattr(ce, name)
    return {
        name: Case(call, {**arguments, **SOFTMAX}),
        f"{name}.sigmoid": Case(call, {**arguments, **SIGMOID}, {"link": "sigmoid"}),
    }


NUMPY = {
    "cross_entropy": Case(ce.cross_entropy, {"logits": Z, **SOFTMAX}),
    "binary_cross_entropy_with_logits": Case(ce.binary_cross_entropy_with_logits, {"logits": Z, **SIGMOID}),
    "focal_loss": Case(ce.focal_loss, {"logits": Z, "target": Y, "alpha": PER_CLASS, "margin": PER_CLASS, **MAPS}),
    "focal_loss.sigmoid": Case(
        ce.focal_loss, {"logits": Z, "target": np.eye(K)[Y], "pos_weight": PER_CLASS, **MAPS}, {"link": "sigmoid"}
    ),
    "distillation_loss": Case(ce.distillation_loss, {"logits": Z, "teacher": V, **MAPS}),
    "TopK": Case(top_k, {"logits": Z, **TEACHER}),
    "nll_loss": Case(ce.nll_loss, {"log_probs": np.log(P), "target": Y, "weight": PER_CLASS, "sample_weight": S}),
    "cross_entropy_from_probabilities": Case(
        ce.cross_entropy_from_probabilities, {"probs": P, "target": Q, "weight": PER_CLASS, "sample_weight": S}
    ),
    "binary_cross_entropy": Case(
        ce.binary_cross_entropy, {"probs": P, "target": Q, "weight": PER_CLASS, "sample_weight": S}
    ),
    **both_links("value_and_grad", {"logits": Z}),
    **both_links("value_grad_hess", {"logits": Z}),
    **both_links("hessian_vector_product", {"logits": Z, "vector": V}),
    **both_links("linear_cross_entropy", HEAD),
    **both_links("linear_value_and_grad", HEAD),
    "linear_statistics": Case(ce.linear_statistics, {**HEAD, "target": Y, "prior": PER_CLASS}),
    "statistics": Case(ce.statistics, {"logits": Z, "target": Y, "prior": PER_CLASS}),
    **{
        name: Case(getattr(ce, name), {"logits": Z})
        for name in ("softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid", "softplus")
    },
    "entropy": Case(ce.entropy, {"p": P}),
    "kl_divergence": Case(ce.kl_divergence, {"p": P, "q": Q}),
    "js_divergence": Case(ce.js_divergence, {"p": P, "q": Q}),
    "perplexity": Case(ce.perplexity, {"cross_entropy": S}),
}
INFORMATION = {
    **{name: NUMPY[name] for name in ("entropy", "kl_divergence", "js_divergence", "perplexity")},
    "cross_entropy": Case(ce.information.cross_entropy, {"p": P, "q": Q}),
    "mutual_information": Case(ce.information.mutual_information, {"joint": P / N}),
    "bits_per_token": Case(ce.information.bits_per_token, {"nats": S}),
    "bits_per_byte": Case(ce.information.bits_per_byte, {"nats": S}, {"tokens": 2, "byte_count": 3}),
    "bits_per_dimension": Case(ce.information.bits_per_dimension, {"nats": S}, {"dimensions": 3}),
}
METRICS = {
    **{
        name: Case(getattr(cm, name), TRUTH)
        for name in ("accuracy", "brier_score", "log_loss", "perplexity", "ranked_probability_score", "spherical_score")
    },
    **{
        name: Case(getattr(cm, name), {**TRUTH, "bins": EDGES})
        for name in ("calibration_error", "calibration_interval", "calibration_test", "reliability_curve")
    },
    "reliability_diagram": Case(cm.reliability_diagram, {**TRUTH, "bins": EDGES}, {"ax": None}),
    "score_decomposition": Case(cm.score_decomposition, {**TRUTH, "bins": EDGES}, {"method": "bins"}),
    "skill_score": Case(cm.skill_score, {**TRUTH, "reference": PER_CLASS}),
    "wilson_interval": Case(cm.wilson_interval, {"share": S, "rows": 10 * S}, {"level": 0.9}),
}


def fit(estimator: Any) -> Callable[..., Any]:
    return lambda **arrays: estimator().fit(**arrays)


def estimators() -> Iterator[tuple[str, Case]]:
    data = {"X": X, "y": Y, "sample_weight": S}
    models = {
        "SoftmaxRegression": cs.SoftmaxRegression,
        "SoftmaxRegressionCV": lambda: cs.SoftmaxRegressionCV(Cs=[0.1, 1.0], cv=2),
        "CalibratedClassifier": lambda: cs.CalibratedClassifier(cs.SoftmaxRegression(), cv=2),
        "PriorCorrectedClassifier": lambda: cs.PriorCorrectedClassifier(cs.SoftmaxRegression()),
        "TunedDecision": lambda: cs.TunedDecision(cs.SoftmaxRegression(), cost=1 - np.eye(K), cv=2),
    }
    for name, make in models.items():
        yield f"{name}.fit", Case(fit(make), data)
        model = make().fit(X, Y)
        yield f"{name}.score", Case(model.score, data)
        yield f"{name}.predict", Case(model.predict, {"X": X})
        yield f"{name}.predict_proba", Case(model.predict_proba, {"X": X})
        if isinstance(model, cs.SoftmaxRegression):
            for method in ("predict_log_proba", "decision_function", "logits"):
                yield f"{name}.{method}", Case(getattr(model, method), {"X": X})
            yield f"{name}.row_losses", Case(model.row_losses, {"X": X, "y": Y})
            yield f"{name}.summary", Case(model.summary, data)
    yield "SoftmaxRegression.y", Case(fit(cs.SoftmaxRegression), {"X": X, "y": P})
    yield (
        "SoftmaxRegression.y sets",
        Case(fit(lambda: cs.SoftmaxRegression(link="sigmoid")), {"X": X, "y": np.eye(K)[Y]}),
    )
    yield "softmax_regression_path", Case(cs.softmax_regression_path, {**data, "Cs": np.array([0.1, 1.0])})
    calibrators = (
        "BetaCalibration BiasCorrectedTemperatureScaling DirichletCalibration HistogramBinning IsotonicCalibration "
        "MatrixScaling PlattScaling TemperatureScaling VectorScaling"
    )
    for name in calibrators.split():
        make = getattr(cs, name)
        yield f"{name}.fit", Case(fit(make), {"logits": Z, "y": Y, "sample_weight": S})
        model = make().fit(Z, Y)
        if name != "PlattScaling":  # whose option `score` hides the method
            yield f"{name}.score", Case(model.score, {"X": Z, "y": Y, "sample_weight": S})
        yield f"{name}.predict", Case(model.predict, {"logits": Z})
        yield f"{name}.predict_proba", Case(model.predict_proba, {"logits": Z})


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # 24 rows are few for some calibrators
    SKLEARN = dict(estimators())
TABLES = {"numpy": NUMPY, "information": INFORMATION, "metrics": METRICS, "sklearn": SKLEARN}
TAKES_NO_ARRAYS = {
    ce: set(vars(ce.losses)) | {"get_num_threads", "set_num_threads"},
    cm: {
        "CalibrationInterval",
        "ReliabilityCurve",
        "ScoreDecomposition",
        "reliability_diagram_from_estimator",
    },  # results
    cs: {"CoefficientSummary", "ParquetRows", "RegressionPath", "to_onnx"},
}


def masked_forms(array: np.ndarray) -> dict[str, Any]:
    """The array as NumPy's masked arrays and as what holds them."""
    mask = np.zeros(array.shape, bool)
    mask.flat[0] = True
    forms = {
        "nothing masked": np.ma.masked_array(array),
        "masked": np.ma.masked_array(array, mask),
        "objects": np.ma.masked_array(array, mask).astype(object),
        "list": [np.ma.masked, *list(array)[1:]],
    }
    if array.ndim == 2:
        forms["list"] = [np.ma.masked_array(row, m) for row, m in zip(array, mask, strict=True)]
        forms["tuple of lists"] = tuple([np.ma.masked, *row[1:]] for row in array.tolist())
    else:
        held = np.empty(len(array), object)
        held[:] = array.tolist()
        held[0] = np.ma.masked
        forms["array of objects"] = held
    return forms


CALLS = [
    pytest.param(case, name, id=f"{table}-{label}-{name}")
    for table, cases in TABLES.items()
    for label, case in cases.items()
    for name in case.arrays
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("case", "name"), CALLS)
def test_a_masked_argument_is_refused_by_one_sentence(case: Case, name: str) -> None:
    for form, value in masked_forms(np.asarray(case.arrays[name])).items():
        with pytest.raises(
            TypeError, match="plain numbers; got a masked array; fill it, or leave its rows out"
        ) as error:
            case.call(**{**case.arrays, name: value}, **case.others)
        assert "\n" not in str(error.value), form


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("table", TABLES)
def test_the_same_calls_without_a_mask_are_answered(table: str) -> None:
    for case in TABLES[table].values():
        case.call(**case.arrays, **case.others)


@pytest.mark.parametrize("module", [ce, ce.information, cm, cs], ids=lambda module: module.__name__)
def test_every_public_function_is_in_the_table(module: Any) -> None:
    table = {ce: NUMPY, ce.information: INFORMATION, cm: METRICS, cs: SKLEARN}[module]
    known = {label.partition(".")[0] for label in table} | TAKES_NO_ARRAYS.get(module, set())
    missing = {name for name in module.__all__ if callable(getattr(module, name))} - known
    assert not missing


def test_masked_class_weights_are_refused() -> None:
    with pytest.raises(TypeError, match="class_weight must be plain numbers; got a masked array"):
        cs.SoftmaxRegression(class_weight={0: 1.0, 1: np.ma.masked, 2: 1.0}).fit(X, Y)


def test_the_table_names_every_array_of_a_signature() -> None:
    """An array that is added to a function must join the table: only options that are no arrays may be missing."""
    options = (
        "axis alpha base clip gamma link loss label_smoothing ignore_index reduction normalizer on_empty temperature "
        "prior_strength softcap tokens byte_count dimensions binning norm kind method score level draws seed "
        "squared_error debiased ax name color validate unit pos_label scale"
    )
    for table, module in ((NUMPY, ce), (INFORMATION, ce.information), (METRICS, cm)):
        for name in set(table) & set(module.__all__) - {"TopK"}:
            parameters = set(inspect.signature(getattr(module, name)).parameters) - set(options.split())
            tried = [case.arrays for label, case in table.items() if label.partition(".")[0] == name]
            assert parameters <= set().union(*tried), name


def test_what_holds_no_mask_passes() -> None:
    for value in (None, 3, "text", [1, 2], [[1.0], [2.0]], {"a": 1.0}, np.array(["a", None], object), Z, [Z[0], Z[1]]):
        refuse_masked(value, "value")
