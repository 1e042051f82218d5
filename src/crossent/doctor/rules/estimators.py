"""Rules on scikit-learn, XGBoost and LightGBM: what is scored, and what an objective returns."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..records import Arguments, Function, LossCall
from .base import Context, Found, Rule

__all__ = ["RULES"]


class MarginsAsProbabilities(Rule):
    code = "XE701"
    name = "margins-as-probabilities"
    severity = "error"
    summary = "Margins (decision_function, output_margin, raw_score) are scored as probabilities."
    harm = (
        "A margin is a logit: 0 means a probability of one half. log_loss refuses numbers outside [0, 1] or clips"
        " them; a margin of 0.2, that is a probability of 0.55, is scored as 0.2."
    )
    mend = "Use predict_proba, or scipy.special.expit of the margin (softmax for several classes)."
    ignore_when = "The margins were turned into probabilities in a way that the linter does not see."
    bad = """\
from sklearn.metrics import log_loss


def score(model, X, y):
    return log_loss(y, model.decision_function(X))
"""
    good = """\
from sklearn.metrics import log_loss


def score(model, X, y):
    return log_loss(y, model.predict_proba(X))
"""
    demonstration = """\
import numpy as np

margin = np.array([0.2, 0.8, -0.5])
print("probabilities", (1 / (1 + np.exp(-margin))).round(3).tolist())
print("read as they are", margin.tolist())
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        if call.loss.library == "sklearn" and call.prediction is not None and call.prediction.value.kind == "margin":
            where = context.where(call.prediction.value, call.node)
            yield Found(call.node, f"margins{where} go into {call.loss.name}, which takes probabilities")


class LabelsAsProbabilities(Rule):
    code = "XE702"
    name = "predicted-labels-as-probabilities"
    severity = "error"
    summary = "log_loss or brier_score_loss gets predicted classes (predict) and not probabilities (predict_proba)."
    harm = (
        "Every wrong row then costs -log(2.2e-16) = 36.04 and every right one 0: the number is 36.04 times the "
        "error rate."
    )
    mend = "Use predict_proba."
    ignore_when = "Never, as far as we know."
    bad = """\
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

model = LogisticRegression()


def score(X, y):
    return log_loss(y, model.predict(X))
"""
    good = """\
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

model = LogisticRegression()


def score(X, y):
    return log_loss(y, model.predict_proba(X))
"""
    demonstration = """\
from sklearn.metrics import log_loss

y, p = [1, 0, 1, 1], [0.9, 0.2, 0.7, 0.4]
print(f"of probabilities {log_loss(y, p):.3f}, of classes {log_loss(y, [float(q > 0.5) for q in p]):.3f}")
"""

    def loss(self, call: LossCall, context: Context) -> Iterator[Found]:
        found = call.prediction
        if call.loss.library == "sklearn" and found is not None and found.value.kind in ("predicted", "labels"):
            where = context.where(found.value, call.node)
            yield Found(call.node, f"predicted classes{where} go into {call.loss.name}, which takes probabilities")


class ObjectiveWithoutHessian(Rule):
    code = "XE703"
    name = "objective-without-hessian"
    severity = "error"
    summary = "An objective given to XGBoost or LightGBM does not return a gradient and a Hessian."
    harm = (
        "A boosting library asks the objective for 2 arrays: the first and the second derivative with respect to "
        "the margin. One array (a loss, or probabilities) fails when it is unpacked, or for 2 rows is taken apart"
        " in silence."
    )
    mend = "Return (gradient, hessian), for the logistic loss (p - y, p * (1 - p))."
    ignore_when = "Never, as far as we know."
    bad = """\
import numpy as np
import xgboost as xgb


def logistic(preds, dtrain):
    p = 1 / (1 + np.exp(-preds))
    return p - dtrain.get_label()


def train(params, dtrain):
    return xgb.train(params, dtrain, obj=logistic)
"""
    good = """\
import numpy as np
import xgboost as xgb


def logistic(preds, dtrain):
    p = 1 / (1 + np.exp(-preds))
    return p - dtrain.get_label(), p * (1 - p)


def train(params, dtrain):
    return xgb.train(params, dtrain, obj=logistic)
"""
    demonstration = """\
import numpy as np

preds, y = np.array([0.3, -1.2, 2.0]), np.array([1, 0, 1])
p = 1 / (1 + np.exp(-preds))
try:
    grad, hess = p - y
except ValueError as error:
    print(error)
grad, hess = p - y, p * (1 - p)
print(grad.round(3).tolist(), hess.round(3).tolist())
"""

    def call(self, node: ast.Call, name: str, arguments: Arguments, context: Context) -> Iterator[Found]:
        if not name.startswith(("xgboost.", "lightgbm.")):
            return
        for key in ("obj", "fobj", "objective"):
            given = arguments.keywords.get(key)
            if given is not None and given.value.kind == "function" and isinstance(given.value.payload, Function):
                for returned in _returns(given.value.payload):
                    if not _may_be_a_pair(returned):
                        where = f"(line {returned.lineno})"
                        yield Found(given.node, f"the objective does not return a gradient and a Hessian {where}")
                        return


def _returns(function: Function) -> list[ast.expr]:
    """Return the expressions that a function returns, without those of functions inside."""
    if isinstance(function.node, ast.Lambda):
        return [function.node.body]
    found: list[ast.expr] = []
    waiting: list[ast.AST] = list(function.node.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Return) and node.value is not None:
            found.append(node.value)
        elif not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))
    return found


def _may_be_a_pair(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List):
        return len(node.elts) == 2 or any(isinstance(element, ast.Starred) for element in node.elts)
    return not isinstance(node, ast.BinOp | ast.UnaryOp | ast.Compare | ast.Constant)


RULES: tuple[type[Rule], ...] = (MarginsAsProbabilities, LabelsAsProbabilities, ObjectiveWithoutHessian)
