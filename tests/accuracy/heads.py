"""What is not the softmax loss of logits: the sigmoid link, probabilities, statistics, products, distances."""

from __future__ import annotations

from typing import Any

import adversarial
import numpy as np
import oracle
from oracle import Options, Row, Term, mp, mpf

import crossent as ce
from crossent.numpy.evaluator import make_map
from crossent.numpy.options import Options as NumpyOptions

from . import families
from .errors import Errors, Key
from .judge import DTYPES, largest_multiplier, slack_of

CE: tuple[Term, ...] = oracle.CROSS_ENTROPY
SIGMOID_LOSSES: list[tuple[ce.Loss, tuple[Term, ...]]] = [
    (ce.CrossEntropy(), CE),
    (ce.Focal(2.0), (("focal", 1.0, 2.0),)),
    (ce.Focal(0.1), (("focal", 1.0, 0.1),)),
]
MAPS: list[dict[str, Any]] = [
    {},
    {"softcap": 30.0},
    {"temperature": 0.7},
    {"prior": np.array([0.01])},
    {"softcap": 5.0, "temperature": 2.0, "prior": np.array([0.3]), "prior_strength": -0.5},
]


def sigmoid(full: bool) -> dict[Key, Errors]:
    """Binary losses of every size of logit, both labels, positive weights, smoothing, soft targets and maps."""
    found = {}
    for loss, terms in SIGMOID_LOSSES:
        for dtype in DTYPES:
            errors = found[repr(loss), "sigmoid link", np.dtype(dtype).name] = Errors.of(terms, dtype)
            z = adversarial.entries(dtype)
            z = np.concatenate([z, z * np.asarray(3, dtype)]) if full else z[::2]
            for target in (0, 1):
                for pos_weight in (1.0, 1e-15, 1e15):
                    _judge_sigmoid(errors, loss, terms, z, target, {"pos_weight": pos_weight})
            softened = [(0.25, {}), (0.0, {"label_smoothing": 0.1}), (1.0, {"label_smoothing": 1e-20})]
            smooth = found[repr(loss), "sigmoid link, soft or smoothed", np.dtype(dtype).name] = Errors.of(terms, dtype)
            for target, options in softened:
                _judge_sigmoid(smooth, loss, terms, z, target, options)
            mapped = found[repr(loss), "sigmoid link behind maps", np.dtype(dtype).name] = Errors.of(terms, dtype)
            for options in MAPS[1:]:
                for target in (0, 1):
                    _judge_mapped(mapped, loss, terms, z, target, options)
    return found


def _judge_sigmoid(
    errors: Errors, loss: ce.Loss, terms: tuple[Term, ...], z: np.ndarray, target: float, options: dict[str, Any]
) -> None:
    pos_weight = options.get("pos_weight", 1.0)
    smoothing = options.get("label_smoothing", 0.0)
    given = Options(terms=terms, weight=[1.0, pos_weight], label_smoothing=smoothing)
    exact = [oracle.sigmoid_row(x, target, given) for x in z]
    slack = slack_of(2, z.dtype.type, largest_multiplier(terms, np.stack([0 * z, z], axis=1), pos_weight))
    given_target = np.full(z.size, target, int if type(target) is int else z.dtype)
    asked = {"loss": loss, "link": "sigmoid", "reduction": "none", **options}
    value, gradient = ce.value_and_grad(z, given_target, **asked)
    diagonal = ce.value_grad_hess(z, given_target, **asked).hess
    errors.judge((value, gradient, diagonal), exact, z.dtype.type, slack)


def _judge_mapped(
    errors: Errors, loss: ce.Loss, terms: tuple[Term, ...], z: np.ndarray, label: int, maps: dict[str, Any]
) -> None:
    """The loss of the map's rounded output, and its gradient times the map's exact slope."""
    dtype = z.dtype.type
    output = make_map(NumpyOptions(link="sigmoid", **maps), 1).forward(z[:, None].astype(np.float64), None)
    rows, steepest = [], 1.0 / min(1.0, maps.get("temperature", 1.0))
    for before, after in zip(z, output[:, 0].astype(dtype), strict=True):
        row = oracle.sigmoid_row(after, label, Options(terms))
        with mp.workdps(400):
            slope = 1 / mpf(maps.get("temperature", 1.0))
            if "softcap" in maps:
                slope *= mp.sech(mpf(float(before)) / mpf(maps["softcap"])) ** 2
            row.gradient, row.gradient_scale = (
                [g * slope for g in row.gradient],
                [g * slope for g in row.gradient_scale],
            )
        rows.append(row)
    slack = slack_of(2, dtype, steepest * largest_multiplier(terms, np.stack([0 * z, output[:, 0]], axis=1)))
    options = {"loss": loss, "link": "sigmoid", "reduction": "none", **maps}
    result = ce.value_and_grad(z[:, None], np.full((z.size, 1), label), **options)
    errors.judge(result, rows, dtype, slack)


def probabilities(repeats: int) -> dict[Key, Errors]:
    """Losses of probabilities and log-probabilities: ``-w log p`` of labels, ``-Σ t log p``, and binary."""
    found = {}
    for dtype in DTYPES:
        errors = {
            link: found.setdefault(("CrossEntropy()", f"link {link}", np.dtype(dtype).name), Errors.of(CE, dtype))
            for link in ("probability", "log_probability", "binary_probability")
        }
        for seed in range(repeats):
            rng = np.random.default_rng([seed, 17])
            p = rng.dirichlet(np.full(5, (0.02, 0.5, 5.0)[seed % 3]), 3).astype(dtype)
            p = np.maximum(p, dtype(1e-20))  # 1e15 / p is a gradient, and float32's
            t = (rng.integers(0, 5, (3, 5)) / dtype(16)).astype(dtype)
            y, weight = rng.integers(0, 5, 3), 10.0 ** rng.uniform(-15, 15, 5)
            hard = [_of_probabilities(row, np.eye(5)[k] * weight, False) for row, k in zip(p, y, strict=True)]
            options = {"reduction": "none", "link": "probability"}
            slack = slack_of(5, dtype, weight.max())
            errors["probability"].judge(ce.value_and_grad(p, y, weight=weight, **options), hard, dtype, slack)
            soft = [_of_probabilities(row, target, False) for row, target in zip(p, t, strict=True)]
            errors["probability"].judge(ce.value_and_grad(p, t, **options), soft, dtype, slack_of(5, dtype))
            logs, options = np.log(p), {"reduction": "none", "link": "log_probability"}
            soft = [_of_probabilities(row, target, True) for row, target in zip(logs, t, strict=True)]
            errors["log_probability"].judge(ce.value_and_grad(logs, t, **options), soft, dtype, slack_of(5, dtype))
            q, binary = rng.random(5).astype(dtype), rng.integers(0, 2, 5)
            q[0] = np.nextafter(dtype(1), dtype(0))
            rows = [_of_entry(mpf(float(x)), int(k)) for x, k in zip(q, binary, strict=True)]
            result = ce.value_and_grad(q, binary, reduction="none", link="binary_probability")
            errors["binary_probability"].judge(result, rows, dtype, slack_of(2, dtype))
    return found


def _of_entry(p: Any, label: int) -> Row:
    with mp.workdps(oracle.GUARD_DIGITS):
        value, gradient = (-mp.log(p), -1 / p) if label else (-mp.log(1 - p), 1 / (1 - p))
        return Row(value, [gradient], [], value, [abs(gradient)])


def _of_probabilities(values: Any, target: Any, are_logs: bool) -> Row:
    """``Σ t_k s_k`` with ``s = -log p``, and ``-t_k / p_k``; of log-probabilities ``s = -values`` and ``-t_k``."""
    with mp.workdps(oracle.GUARD_DIGITS):
        v, t = ([x if isinstance(x, mpf) else mpf(float(x)) for x in a] for a in (values, target))
        pairs = list(zip(v, t, strict=True))
        value = sum(b * (-a if are_logs else -mp.log(a)) for a, b in pairs if b)
        gradient = [-b if are_logs else -b / a for a, b in pairs]
        return Row(mpf(value), gradient, [], mpf(value), [abs(g) for g in gradient])


def statistics(rows: int) -> dict[Key, Errors]:
    """Log-sum-exp, entropy and log-probability, all as values."""
    found = {}
    for dtype in DTYPES:
        errors = found["statistics", "statistics", np.dtype(dtype).name] = Errors.of(CE, dtype)
        for family in families.HARD:
            for problem in family.problems(dtype, rows, limited=True):
                got = ce.statistics(problem.logits, problem.target)
                for i, (z, y) in enumerate(zip(problem.logits, problem.target, strict=True)):
                    if not np.isfinite(z).all():
                        continue
                    slack = slack_of(len(z), dtype, largest_multiplier((("entropy", 1.0, 0.0),), z[None]))
                    for name, row in _statistics_of(z, int(y)).items():
                        errors.judge(([getattr(got, name)[i]],), [row], dtype, slack, 1)
    return found


def _statistics_of(z: np.ndarray, label: int) -> dict[str, Row]:
    with mp.workdps(oracle.GUARD_DIGITS + 20 + int(float(z.max() - z.min()) / 2)):
        exact = [mpf(float(x)) for x in z]
        surprisals = oracle.surprisals(exact)
        top, least = max(exact), min(surprisals)
        entropy = sum(mp.exp(-s) * s for s in surprisals)
        return {
            "lse": Row(top + least, value_scale=abs(top) + least),
            "entropy": Row(entropy, value_scale=entropy),
            "log_prob": Row(-surprisals[label], value_scale=surprisals[label]),
        }


def products(rows: int) -> dict[Key, Errors]:
    """Hessian times a vector, in ulps of ``p_k (|v_k| + Σ_j p_j |v_j|)``, with the bars of the diagonal."""
    found = {}
    for dtype in DTYPES:
        errors = found["CrossEntropy()", "Hessian times a vector", np.dtype(dtype).name] = Errors.of(CE, dtype)
        for family in (families.HARD[0], families.HARD[1], families.HARD[3]):
            for problem in family.problems(dtype, rows, limited=True):
                rng = np.random.default_rng(3)
                vector = rng.normal(size=problem.logits.shape).astype(dtype)
                got = ce.hessian_vector_product(problem.logits, problem.target, vector, reduction="sum")
                exact = []
                for z, y, v in zip(problem.logits, problem.target, vector, strict=True):
                    product = oracle.hessian_vector_product(z, int(y), v)
                    with mp.workdps(400):
                        p = [mp.exp(-s) for s in oracle.surprisals([mpf(float(x)) for x in z])]
                        size = [abs(mpf(float(x))) for x in v]
                        mean = sum(a * b for a, b in zip(p, size, strict=True))
                        scale = [a * (b + mean) for a, b in zip(p, size, strict=True)]
                    exact.append(Row(mpf(0), hessian=product, value_scale=mpf(1), hessian_scale=scale))
                nothing = np.zeros(len(got)), np.zeros((len(got), 0)), got
                for row in exact:
                    row.gradient = []
                errors.judge(nothing, exact, dtype, slack_of(5, dtype, 4.0))
        del errors.ulps["value"]  # there is none to judge
        errors.by_itself = errors.by_magnitudes = 0
    return found


def distances(repeats: int) -> dict[Key, Errors]:
    """Entropy of flat and of peaked distributions; divergences have a module of their own."""
    found = {}
    for dtype in DTYPES:
        errors = found["information", "information measures", np.dtype(dtype).name] = Errors.of(CE, dtype)
        for seed in range(repeats):
            rng = np.random.default_rng([seed, 19])
            p = rng.dirichlet(np.full(6, (0.05, 1.0, 10.0)[seed % 3])).astype(dtype)
            p = np.maximum(p, np.finfo(dtype).smallest_normal)
            with mp.workdps(oracle.GUARD_DIGITS):
                entropy = Row(oracle.entropy(p), value_scale=abs(oracle.entropy(p)))
            errors.judge(([ce.entropy(p)],), [entropy], dtype, slack_of(6, dtype), 1)
    return found
