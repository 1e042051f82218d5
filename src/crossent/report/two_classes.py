"""What predictions of two classes are worth as decisions: curves with their areas, thresholds, costs and lift.

One class is the *positive* one, the one that is looked for. A threshold t calls a row positive where p(positive) >= t.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

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
NO_INTERVAL: Summary = {"lower": None, "upper": None, "level": AREA_LEVEL}


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
    classes: tuple[str, ...],
    codes: NDArray[np.intp],
    probabilities: Float64,
    decision: Decision,
    weights: Float64 | None = None,
) -> Summary | None:
    """Return the part of the report on two classes; None where there are more, or the rows have one label only.

    Parameters
    ----------
    classes : tuple of str
    codes : array (N,)
        Class indices.
    probabilities : array (N, K)
    decision : Decision
    weights : array (N,), optional
        How much each row counts in shares and costs. The areas then have no intervals.
    """
    if len(classes) != 2:
        if decision != EVEN:
            decision.checked(classes)
        return None
    decision = decision.checked(classes)
    place = classes.index(str(decision.positive))
    truth, p = codes == place, probabilities[:, place]
    if weights is not None:  # what does not count must not draw a curve
        counted = weights > 0
        truth, p, weights = truth[counted], p[counted], weights[counted]
        codes, probabilities = codes[counted], probabilities[counted]
    if truth.all() or not truth.any():
        return None
    rows = Rows(truth, p, weights)
    return {
        "positive": classes[place],
        "negative": classes[1 - place],
        "rows": int(truth.sum()),
        "share": rows.share(truth),
        "roc": _roc(rows),
        "precision_recall": _precision_recall(rows),
        "reliability": _reliability(codes, probabilities, place, weights),
        "scores": _scores(truth, p),
        "thresholds": [_at(rows, t) for t in THRESHOLDS],
        "lift": _lift(rows),
        "costs": _costs(rows, decision),
    }


class Rows(NamedTuple):
    """Whether each row is positive, its probability of that, and how much it counts (None: all alike)."""

    truth: NDArray[np.bool_]
    p: Float64
    weights: Float64 | None

    def share(self, chosen: NDArray[np.bool_], of: NDArray[np.bool_] | None = None) -> float | None:
        """Return the share of chosen rows among those of `of`, by weight; None where these are none."""
        of = np.ones(len(chosen), dtype=np.bool_) if of is None else of
        mass = [np.sum(part) if self.weights is None else self.weights[part].sum() for part in (chosen & of, of)]
        return float(mass[0] / mass[1]) if mass[1] else None


def _roc(rows: Rows) -> Summary:
    """Return the curve, and its area with DeLong's interval (1988) on the logit scale."""
    truth, p, weights = rows
    false, true, _ = roc_curve(truth, p, sample_weight=weights)
    if weights is not None:
        return {"area": float(auc(false, true)), **NO_INTERVAL, "points": _thinned(false, true)}
    positives, negatives = int(truth.sum()), int((~truth).sum())
    ranks = rankdata(p)
    # The share of negatives below each positive, and of positives above each negative; a tie counts half.
    below = (ranks[truth] - rankdata(p[truth])) / negatives
    above = 1 - (ranks[~truth] - rankdata(p[~truth])) / positives
    area = float(below.mean())
    variance = sum(float(np.var(part, ddof=1)) / len(part) for part in (below, above) if len(part) > 1)
    return {"area": area, **_logit_interval(area, math.sqrt(variance)), "points": _thinned(false, true)}


def _precision_recall(rows: Rows) -> Summary:
    """Return the curve, and the average precision with the logit interval of Boyd, Eng and Page (2013)."""
    truth, p, weights = rows
    precision, recall, _ = precision_recall_curve(truth, p, sample_weight=weights)
    area = float(average_precision_score(truth, p, sample_weight=weights))
    error = math.sqrt(area * (1 - area) / truth.sum())
    ends = _logit_interval(area, error) if weights is None else NO_INTERVAL
    return {"area": area, **ends, "points": _thinned(recall[::-1], precision[::-1])}


def _logit_interval(value: float, error: float) -> Summary:
    """Return the interval of a number in (0, 1) with this standard error; None at the ends, where it has no width."""
    if not 0 < value < 1 or error == 0:
        return NO_INTERVAL
    logit, reach = math.log(value / (1 - value)), NormalDist().inv_cdf(0.5 + AREA_LEVEL / 2) * error
    reach /= value * (1 - value)
    lower, upper = (float(expit(x)) for x in (logit - reach, logit + reach))
    return {"lower": lower, "upper": upper, "level": AREA_LEVEL}


def _thinned(x: Float64, y: Float64) -> list[list[float]]:
    """Return points of a curve, at most `CURVE_POINTS`, evenly spread over its length."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    wanted = np.linspace(0, length[-1], CURVE_POINTS)
    chosen = np.unique(np.concatenate([np.searchsorted(length, wanted), [len(x) - 1]]))
    return [[float(a), float(b)] for a, b in zip(x[chosen], y[chosen], strict=True)]


def _reliability(codes: NDArray[np.intp], probabilities: Float64, place: int, weights: Float64 | None) -> list[Summary]:
    """Return the share of positives beside their mean probability, bin by bin over the whole of 0 to 1."""
    options: dict[str, Any] = {"labels": np.arange(2), "bins": BINS, "level": SHARE_LEVEL, "pos_label": place}
    curve = reliability_curve(codes, probabilities, sample_weight=weights, **options)
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


def _at(rows: Rows, threshold: float) -> Summary:
    """Return what calling rows positive from a threshold on does; the net benefit is Vickers and Elkin's (2006)."""
    truth, called = rows.truth, rows.p >= threshold
    hits, alarms = called & truth, called & ~truth
    benefit = float(rows.share(hits) or 0) - float(rows.share(alarms) or 0) * threshold / (1 - threshold)
    return {
        "threshold": threshold,
        "called": int(called.sum()),
        "hits": int(hits.sum()),
        "false_alarms": int(alarms.sum()),
        "precision": rows.share(truth, called),
        "recall": rows.share(called, truth),
        "net_benefit": benefit,
    }


def _lift(judged: Rows) -> list[Summary]:
    """Return how many of the positives are among the rows of highest probability."""
    order = np.argsort(-judged.p, kind="stable")
    found = []
    for share in LIFTS:
        rows = round(share * len(order))
        if rows:
            top = np.zeros(len(order), dtype=np.bool_)
            top[order[:rows]] = True
            recall = float(judged.share(top, judged.truth) or 0)
            lift = recall / float(judged.share(top) or 1)
            found.append({"share": share, "rows": rows, "recall": recall, "lift": lift})
    return found


def _costs(rows: Rows, decision: Decision) -> Summary:
    """Return the cost a row at the threshold that costs ask of honest probabilities, and at others."""
    truth, p, weights = rows
    mass = np.ones(len(p)) if weights is None else weights
    miss, alarm = decision.false_negative, decision.false_positive
    matrix = np.array([[0.0, alarm], [miss, 0.0]])
    asked = float(min(thresholds(matrix).probabilities, default=1.0))  # none if a miss costs next to nothing

    def cost(threshold: float) -> float:
        return realised_cost(truth, p >= threshold, matrix, weights)

    order = np.argsort(p, kind="stable")
    missed = np.concatenate([[0], np.cumsum((truth * mass)[order])])  # at a threshold above the first k rows
    right = np.concatenate([[0], np.cumsum((~truth * mass)[order])])
    alarms = right[-1] - right
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
        "at_best": float(totals[k] / mass.sum()),
        # Beside taking the most probable class; with equal costs that is the decision.
        "value": None
        if miss == alarm
        else decision_value(truth.astype(np.intp), np.stack([1 - p, p], axis=1), matrix, weights)._asdict(),
    }
