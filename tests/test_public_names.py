"""The names that do not change, their signatures, their examples, and what importing them costs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import crossent as ce

REQUIRED = inspect.Parameter.empty
SHARED = {
    "sample_weight": None,
    "label_smoothing": 0.0,
    "ignore_index": -100,
    "reduction": "mean",
    "normalizer": None,
    "on_empty": "nan",
    "temperature": None,
    "prior": None,
    "prior_strength": 1.0,
    "softcap": None,
    "axis": -1,
}
DENSE = {"loss": None, "weight": None, "margin": None, **SHARED}
BINARY = {"loss": None, "weight": None, "pos_weight": None, **SHARED}
EITHER = {"link": "softmax", "loss": None, "weight": None, "pos_weight": None, "margin": None, **SHARED}
LINEAR = {name: default for name, default in EITHER.items() if name != "axis"} | {"linear_bias": None}
KEPT_FROM_PROBABILITIES = {
    name: SHARED[name] for name in ("sample_weight", "ignore_index", "reduction", "normalizer", "on_empty", "axis")
}
# function: (positional parameters, keyword-only parameters that it must have, with their defaults)
FUNCTIONS: dict[str, tuple[list[str], dict[str, object]]] = {
    "cross_entropy": (["logits", "target"], DENSE),
    "binary_cross_entropy_with_logits": (["logits", "target"], BINARY),
    "focal_loss": (
        ["logits", "target"],
        {"gamma": 2.0, "alpha": None, "link": "softmax", **SHARED, "normalizer": "count"},
    ),
    "distillation_loss": (["logits", "teacher"], {"temperature": 1.0, "sample_weight": None, "reduction": "mean"}),
    "nll_loss": (["log_probs", "target"], {"weight": None, **KEPT_FROM_PROBABILITIES}),
    "cross_entropy_from_probabilities": (["probs", "target"], {"weight": None, **KEPT_FROM_PROBABILITIES}),
    "binary_cross_entropy": (["probs", "target"], {"weight": None, **KEPT_FROM_PROBABILITIES}),
    "value_and_grad": (["logits", "target"], EITHER),
    "value_grad_hess": (["logits", "target"], EITHER),
    "hessian_vector_product": (["logits", "target", "vector"], EITHER),
    "linear_cross_entropy": (["input", "linear_weight", "target"], LINEAR),
    "linear_value_and_grad": (["input", "linear_weight", "target"], LINEAR),
    "statistics": (["logits", "target"], {"temperature": None, "prior": None, "softcap": None, "axis": -1}),
    "linear_statistics": (["input", "linear_weight", "target"], {"linear_bias": None}),
    "softmax": (["logits"], {"axis": -1}),
    "log_softmax": (["logits"], {"axis": -1}),
    "logsumexp": (["logits"], {"axis": -1}),
    "sigmoid": (["logits"], {}),
    "log_sigmoid": (["logits"], {}),
    "softplus": (["logits"], {}),
    "entropy": (["p"], {"base": "nats"}),
    "kl_divergence": (["p", "q"], {"base": "nats"}),
    "js_divergence": (["p", "q"], {"base": "nats"}),
    "perplexity": (["cross_entropy"], {"base": "nats"}),
    "information.cross_entropy": (["p", "q"], {"base": "nats"}),
    "information.mutual_information": (["joint"], {"base": "nats"}),
    "set_num_threads": (["n"], {}),
}
LOSSES = {
    "CrossEntropy": [],
    "Focal": ["gamma"],
    "Poly1": ["c"],
    "GeneralizedCrossEntropy": ["q"],
    "ZPenalty": ["coefficient"],
    "EntropyPenalty": ["coefficient"],
    "Brier": [],
}


def lookup(name: str) -> object:
    found: object = ce
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature(name: str) -> None:
    positional, keywords = FUNCTIONS[name]
    parameters = inspect.signature(lookup(name)).parameters  # type: ignore[arg-type]
    allowed = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    assert [p.name for p in parameters.values() if p.kind in allowed] == positional
    assert all(p.kind in (*allowed, inspect.Parameter.KEYWORD_ONLY) for p in parameters.values())
    for keyword, default in keywords.items():
        assert keyword in parameters, f"{name} lacks {keyword}"
        assert parameters[keyword].default == default


def test_order_of_keywords() -> None:
    """Help reads the same everywhere: `cross_entropy`'s keywords in the order of its documentation."""
    order = [
        *("logits", "target", "loss", "weight", "sample_weight", "label_smoothing", "ignore_index", "reduction"),
        *("normalizer", "on_empty", "temperature", "prior", "prior_strength", "margin", "softcap", "axis"),
    ]
    assert list(inspect.signature(ce.cross_entropy).parameters) == order


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str) -> None:
    kind = getattr(ce, name)
    assert list(inspect.signature(kind).parameters) == LOSSES[name]
    loss = kind(*[0.5 for _ in LOSSES[name]])
    assert eval(repr(loss), vars(ce)) == loss
    assert len({loss, kind(*[0.5 for _ in LOSSES[name]])}) == 1
    with pytest.raises((AttributeError, TypeError)):
        loss.scale = 2.0  # immutable


def test_losses_add_scale_and_print() -> None:
    loss = ce.Focal(2.0) + ce.ZPenalty(1e-4)
    assert repr(loss) == "Focal(gamma=2.0) + ZPenalty(coefficient=0.0001)"
    assert eval(repr(2.0 * loss), vars(ce)) == 2.0 * loss == loss * 2.0
    for wrong in (lambda: loss + 1, lambda: loss * loss, lambda: "2" * loss):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError, match="finite"):
        _ = float("inf") * loss


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ce.Focal(-1.0), "gamma"),
        (lambda: ce.Focal(float("nan")), "gamma"),
        (lambda: ce.Focal("2"), "gamma"),
        (lambda: ce.Poly1(float("inf")), "c must"),
        (lambda: ce.GeneralizedCrossEntropy(0.0), "q must"),
        (lambda: ce.GeneralizedCrossEntropy(1.5), "q must"),
        (lambda: ce.ZPenalty(None), "coefficient"),
        (lambda: ce.EntropyPenalty(float("nan")), "coefficient"),
        (lambda: ce.Distillation(0.0), "temperature"),
    ],
)
def test_wrong_parameters_of_losses(make, words) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        make()


def test_everything_public_is_listed_and_documented() -> None:
    public = {
        name for name, value in vars(ce).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public | {"__version__", "information"} == set(ce.__all__)
    for name in public:
        documentation = inspect.getdoc(getattr(ce, name)) or ""
        assert len(documentation) > 40, f"{name} has no docstring"
        if inspect.isfunction(getattr(ce, name)):
            assert ">>>" in documentation, f"{name} has no example"


MODULES = sorted(
    module.name for module in pkgutil.walk_packages(ce.__path__, "crossent.") if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["crossent", *MODULES])
def test_examples(name: str) -> None:
    """Every example in a docstring runs and prints what it shows."""
    if "keras" in name.split("."):
        pytest.importorskip("keras", reason="Keras is not installed: examples with it are not run")
    module = importlib.import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=options)
    report: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def run_python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_brings_in_no_framework() -> None:
    code = "import sys, json, crossent; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    loaded = set(json.loads(run_python(code)))
    unwanted = {"numba", "llvmlite", "torch", "jax", "tensorflow", "cupy", "scipy", "sklearn", "pandas", "polars"}
    assert loaded & (unwanted | {"matplotlib", "rich", "typer", "jinja2", "pyarrow", "safetensors"}) == set()


def test_import_is_quick() -> None:
    """At most 0.15 s more than NumPy; processor time, the best of five, for a machine that does other things too."""
    code = "import time, numpy; start = time.process_time(); import crossent; print(time.process_time() - start)"
    assert min(float(run_python(code)) for _ in range(5)) <= 0.15


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import logging
notices = []
class Keep(logging.Handler):
    def emit(self, record):
        notices.append(record.getMessage())
logging.getLogger("crossent").addHandler(Keep())
import numpy as np, crossent as ce
for dtype in (np.float32, np.float64):
    for link, target in (("softmax", [2, 0]), ("sigmoid", np.ones((2, 3), dtype=int))):
        value, grad = ce.value_and_grad(np.array([[1, 2, 3], [2, 1, 3]], dtype=dtype), target, link=link)
        print(float(value))
ce.linear_value_and_grad(np.eye(3), np.eye(3), [0, 1, 2])
assert "numba" not in {name for name, module in sys.modules.items() if module is not None}
print(len(notices), notices)
"""


def test_everything_works_without_numba_with_one_notice() -> None:
    *values, notices = run_python(WITHOUT_NUMBA).splitlines()
    assert float(values[2]) == pytest.approx(0.9076059644443804, rel=1e-15, abs=0)
    assert float(values[0]) == pytest.approx(0.9076059644443804, rel=1e-6, abs=0)
    assert notices.startswith("1 "), notices
    assert "slower" in notices
