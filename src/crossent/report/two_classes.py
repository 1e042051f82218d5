"""What predictions of two classes are worth as decisions: curves with their areas, thresholds, costs and lift.

One class is the *positive* one, the one that is looked for. A threshold t calls a row positive where p(positive) >= t.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from ..errors import refuse
from ..imbalance import decision_value, realised_cost, thresholds
from ..metrics import reliability_curve
from ..tabular.errors import InputError, name_list

__all__ = ["EVEN", "Decision", "two_classes"]

Summary = dict[str, Any]
Float64 = NDArray[np.float64]

AREA_LEVEL = 0.95
SHARE_LEVEL = 0.9
BINS = 10
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LIFTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# A curve is drawn through so many points at most.
CURVE_POINTS = 200


class Decision(NamedTuple):
    """What is decided between two classes.

    Attributes
    ----------
    positive : str or None
        The class that is looked for; None: the second.
    false_negative, false_positive : float > 0
        What it costs to miss a positive, and to call a negative positive.
    """

    positive: str | None = None
    false_negative: float = 1.0
    false_positive: float = 1.0

    def checked(self, classes: tuple[str, ...]) -> Decision:
        """Return the decision with its positive class named.

        Raises
        ------
        InputError
            If there are not two classes or none of that name, or a cost is not positive.
        """
        self.check_costs()
        if len(classes) != 2:
            raise InputError(refuse("costs and a positive class need two classes", f"{len(classes)}"))
        if self.positive is None:
            return self._replace(positive=classes[1])
        if self.positive not in classes:
            asked = f"the positive class must be one of {name_list(list(classes))}"
            raise InputError(refuse(asked, repr(self.positive)))
        return self

    def check_costs(self) -> None:
        """Refuse costs that are not positive numbers.

        Raises
        ------
        InputError
        """
        for name in ("false_negative", "false_positive"):
            cost = getattr(self, name)
            if not (math.isfinite(cost) and cost > 0):
                raise InputError(refuse(f"the cost of a {name.replace('_', ' ')} must be a positive number", cost))


EVEN = Decision()
"""The second class is looked for, and both mistakes cost the same."""


def two_classes(
    classes: tuple[str, ...], codes: NDArray[np.intp], probabilities: Float64, decision: Decision
) -> Summary | None:
    """Return the part of the report on two classes; None where there are more, or the rows have one label only.

    Parameters
    ----------
    classes : tuple of str
    codes : array (N,)
        Class indices.
    probabilities : array (N, K)
    decision : Decision
    """
    if len(classes) != 2:
        if decision != EVEN:
            decision.checked(classes)
        return None
    decision = decision.checked(classes)
    place = classes.index(str(decision.positive))
    truth, p = codes == place, probabilities[:, place]
    if truth.all() or not truth.any():
        return None
    return {
        "positive": classes[place],
        "negative": classes[1 - place],
        "rows": int(truth.sum()),
        "share": float(truth.mean()),
        "roc": _roc(truth, p),
        "precision_recall": _precision_recall(truth, p),
        "reliability": _reliability(codes, probabilities, place),
        "scores": _scores(truth, p),
        "thresholds": [_at(truth, p, t) for t in THRESHOLDS],
        "lift": _lift(truth, p),
        "costs": _costs(truth, p, decision),
    }


def _roc(truth: NDArray[np.bool_], p: Float64) -> Summary:
    """Return the curve, and its area with DeLong's interval (1988) on the logit scale."""
    false, true, _ = roc_curve(truth, p)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    ranks = rankdata(p)
    # The share of negatives below each positive, and of positives above each negative; a tie counts half.
    below = (ranks[truth] - rankdata(p[truth])) / negatives
    above = 1 - (ranks[~truth] - rankdata(p[~truth])) / positives
    area = float(below.mean())
    variance = sum(float(np.var(part, ddof=1)) / len(part) for part in (below, above) if len(part) > 1)
    return {"area": area, **_logit_interval(area, math.sqrt(variance)), "points": _thinned(false, true)}


def _precision_recall(truth: NDArray[np.bool_], p: Float64) -> Summary:
    """Return the curve, and the average precision with the logit interval of Boyd, Eng and Page (2013)."""
    precision, recall, _ = precision_recall_curve(truth, p)
    area = float(average_precision_score(truth, p))
    error = math.sqrt(area * (1 - area) / truth.sum())
    return {"area": area, **_logit_interval(area, error), "points": _thinned(recall[::-1], precision[::-1])}


def _logit_interval(value: float, error: float) -> Summary:
    """Return the interval of a number in (0, 1) with this standard error; None at the ends, where it has no width."""
    if not 0 < value < 1 or error == 0:
        return {"lower": None, "upper": None, "level": AREA_LEVEL}
    logit, reach = math.log(value / (1 - value)), NormalDist().inv_cdf(0.5 + AREA_LEVEL / 2) * error
    reach /= value * (1 - value)
    lower, upper = (1 / (1 + math.exp(-x)) for x in (logit - reach, logit + reach))
    return {"lower": lower, "upper": upper, "level": AREA_LEVEL}


def _thinned(x: Float64, y: Float64) -> list[list[float]]:
    """Return points of a curve, at most `CURVE_POINTS`, evenly spread over its length."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    wanted = np.linspace(0, length[-1], CURVE_POINTS)
    chosen = np.unique(np.concatenate([np.searchsorted(length, wanted), [len(x) - 1]]))
    return [[float(a), float(b)] for a, b in zip(x[chosen], y[chosen], strict=True)]


def _reliability(codes: NDArray[np.intp], probabilities: Float64, place: int) -> list[Summary]:
    """Return the share of positives beside their mean probability, bin by bin over the whole of 0 to 1."""
    options: dict[str, Any] = {"labels": np.arange(2), "bins": BINS, "level": SHARE_LEVEL, "pos_label": place}
    curve = reliability_curve(codes, probabilities, **options)
    return [
        {
            "lower": float(curve.edges[b]),
            "upper": float(curve.edges[b + 1]),
            "rows": int(curve.counts[b]),
            "probability": float(curve.confidence[b]),
            "share": float(curve.accuracy[b]),
            "share_lower": float(curve.lower[b]),
            "share_upper": float(curve.upper[b]),
        }
        for b in np.flatnonzero(curve.counts)
    ]


def _scores(truth: NDArray[np.bool_], p: Float64) -> Summary:
    """Return how many rows of each class have which probability."""
    edges = np.linspace(0, 1, 2 * BINS + 1)
    counts = {name: np.histogram(p[rows], edges)[0] for name, rows in (("positive", truth), ("negative", ~truth))}
    return {"edges": edges.tolist(), **{name: count.tolist() for name, count in counts.items()}}


def _at(truth: NDArray[np.bool_], p: Float64, threshold: float) -> Summary:
    """Return what calling rows positive from a threshold on does; the net benefit is Vickers and Elkin's (2006)."""
    called = p >= threshold
    hits, alarms = int((called & truth).sum()), int((called & ~truth).sum())
    rows = len(truth)
    return {
        "threshold": threshold,
        "called": hits + alarms,
        "hits": hits,
        "false_alarms": alarms,
        "precision": hits / (hits + alarms) if hits + alarms else None,
        "recall": hits / int(truth.sum()),
        "net_benefit": hits / rows - alarms / rows * threshold / (1 - threshold),
    }


def _lift(truth: NDArray[np.bool_], p: Float64) -> list[Summary]:
    """Return how many of the positives are among the rows of highest probability."""
    order = np.argsort(-p, kind="stable")
    found = []
    for share in LIFTS:
        rows = round(share * len(p))
        if rows:
            precision = float(truth[order[:rows]].mean())
            recall = float(truth[order[:rows]].sum() / truth.sum())
            found.append({"share": share, "rows": rows, "recall": recall, "lift": precision / float(truth.mean())})
    return found


def _costs(truth: NDArray[np.bool_], p: Float64, decision: Decision) -> Summary:
    """Return the cost a row at the threshold that costs ask of honest probabilities, and at others."""
    miss, alarm = decision.false_negative, decision.false_positive
    matrix = np.array([[0.0, alarm], [miss, 0.0]])
    asked = float(min(thresholds(matrix).probabilities, default=1.0))  # none if a miss costs next to nothing

    def cost(threshold: float) -> float:
        return realised_cost(truth, p >= threshold, matrix)

    order = np.argsort(p, kind="stable")
    missed = np.concatenate([[0], np.cumsum(truth[order])])  # at a threshold above the first k rows
    alarms = (~truth).sum() - np.concatenate([[0], np.cumsum(~truth[order])])
    between = np.concatenate([[True], np.diff(p[order]) > 0, [True]])  # equal probabilities stay together
    totals = np.where(between, miss * missed + alarm * alarms, math.inf)
    k = int(np.argmin(totals))
    return {
        "false_negative": miss,
        "false_positive": alarm,
        "threshold": asked,
        "at_threshold": cost(asked),
        "at_half": cost(0.5),
        "never": cost(math.inf),
        "always": cost(0.0),
        "best_threshold": float(p[order[k]]) if k < len(p) else None,
        "at_best": float(totals[k] / len(p)),
        # Beside taking the most probable class; with equal costs that is the decision.
        "value": None
        if miss == alarm
        else decision_value(truth.astype(np.intp), np.stack([1 - p, p], axis=1), matrix)._asdict(),
    }
