"""How the report writes its numbers and words, the same in the terminal and in HTML."""

from __future__ import annotations

import math
import shlex
from typing import Any

from ..imbalance import DecisionValue


def loss(value: Any) -> str:
    """Return a loss with four decimals, or with an exponent where those would say nothing.

    Examples
    --------
    >>> loss(0.0912345), loss(0.0), loss("inf"), loss(None), loss(6.2e-8)
    ('0.0912', '0', '∞', '–', '6.2e-08')
    """
    if value is None:
        return "–"
    if value == "inf":
        return "∞"
    if value == 0:
        return "0"
    return f"{value:.4f}" if 0.001 <= value < 10_000 else f"{value:.1e}"


def percent(value: float | None) -> str:
    """Return a share in percent with one decimal, never rounded up to 100 or down to 0.

    Examples
    --------
    >>> percent(0.9714), percent(1.0), percent(0.99999), percent(None)
    ('97.1 %', '100 %', '>99.9 %', '–')
    """
    if value is None:
        return "–"
    if value in (0, 1):
        return f"{value:.0%}".replace("%", " %")
    if 0.9995 <= value < 1:
        return ">99.9 %"
    if 0 < value < 0.0005:
        return "<0.1 %"
    return f"{100 * value:.1f} %"


def probability(value: float) -> str:
    """Return a probability: three decimals, or the exponent where those would say 0 or 1.

    Examples
    --------
    >>> probability(0.25), probability(3.2e-7), probability(1.0), probability(0.99999)
    ('0.250', '3.2e-07', '1', '>0.999')
    """
    if value in (0, 1):
        return f"{value:.0f}"
    if value < 0.0005:
        return f"{value:.1e}"
    return ">0.999" if value >= 0.9995 else f"{value:.3f}"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> count(1, "row"), count(1797, "row"), count(2, "class", "classes")
    ('1 row', '1,797 rows', '2 classes')
    """
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def found(report: dict[str, Any]) -> list[str]:
    """Return what was read, in sentences."""
    data, imbalance = report["data"], report["imbalance"]
    most, least = imbalance["most_common"], imbalance["least_common"]
    classes = count(len(report["classes"]), "class", "classes")
    if report["kind"] == "fit":
        kinds = []
        read_as = "read as " if data["number_columns"] + data["category_columns"] != data["columns"] else ""
        if data["number_columns"]:
            kinds.append(f"{data['number_columns']:,} of numbers")
        if data["category_columns"]:
            kinds.append(f"{data['category_columns']:,} of categories")
        lines = [
            f"{count(data['rows'], 'row')}, {count(data['columns'], 'column')} ({read_as}{', '.join(kinds)}), "
            f"{classes}, {count(data['missing_cells'], 'missing cell')}.",
            f"{count(data['training_rows'], 'row')} to train and {data['test_rows']:,} to test "
            f"({'stratified, ' if data['stratified'] else ''}seed {data['seed']})."
            + (_folds(report["calibration"]) if report["calibration"] is not None else ""),
        ]
    else:
        lines = [f"{count(data['rows'], 'row')} of {report['declared']}, {classes}."]
    if imbalance["ratio"] == 1:
        lines.append(f"Balanced: {count(most['rows'], 'row')} of every class.")
    else:
        lines.append(
            f"Most common class {short(most['label'])} ({count(most['rows'], 'row')}), least common "
            f"{short(least['label'])} ({least['rows']:,}): {imbalance['ratio']:.3g} to 1."
        )
    return lines


def beside_baseline(report: dict[str, Any]) -> str:
    """Return how the loss compares with the baseline, in one sentence."""
    state = report["loss"]
    rows = state["impossible_rows"]
    if rows:
        verb = "has" if rows == 1 else "have"
        return (
            f"{count(rows, 'row')} {verb} a label that was given probability 0: the mean loss is infinite "
            f"({loss(state['floored']['nats'])} nats if 0 counts as {state['floored']['floor']:.2g}, half a row in "
            f"{report['accuracy']['rows']:,})."
        )
    if state["explained"] is None:
        return "The baseline is 0: all rows have the same label."
    if state["explained"] < 0:
        return f"Worse than the baseline: the loss is {percent(-state['explained'])} higher."
    return f"{percent(state['explained'])} of the baseline's loss is explained."


def good(report: dict[str, Any]) -> list[str]:
    """Return what the loss means, in sentences."""
    state = report["loss"]
    lines = [beside_baseline(report)]
    if state["nats"] != "inf":
        share, prior = math.exp(-state["nats"]), math.exp(-state["baseline"]["nats"])
        lines.append(
            f"The true label gets a probability of {percent(share)} on (geometric) average; knowing only how common "
            f"each class is, it would get {percent(prior)}. It is like guessing among {choices(state['nats'])} equally "
            f"likely classes, where the class shares alone leave {choices(state['baseline']['nats'])}."
        )
    return lines


def choices(nats: float) -> str:
    """Return how many equally likely classes a loss amounts to, ``e^nats``.

    Examples
    --------
    >>> choices(math.log(2)), choices(1000.0)
    ('2.00', '10^434')
    """
    return f"{math.exp(nats):.2f}" if nats < 20 else f"10^{nats / math.log(10):.0f}"


def honest(report: dict[str, Any]) -> list[str]:
    """Return whether confidences can be believed, in sentences."""
    bins, state = report["reliability"], report["honesty"]
    right, confidence = report["accuracy"]["value"], bins["mean_confidence"]
    gap = 100 * (confidence - right)
    side = "more" if gap > 0 else "less"
    lines = [
        f"The predictions are {percent(confidence)} sure on average and right in {percent(right)} of the rows: "
        + (f"{abs(gap):.1f} points {side} sure than right." if abs(gap) >= 0.05 else "as sure as they are right.")
    ]
    if state["interval"] is not None:
        ends = state["interval"]
        lines.append(
            f"Over {count(len(bins['bins']), 'bin')}, confidence and accuracy differ by {percent(ends['lower'])} to "
            f"{percent(ends['upper'])} (root mean square, {100 * ends['level']:.0f} % interval). "
            + _evidence(state["p_value"])
        )
    temperature = state["temperature"]
    if temperature is not None:
        value, gain = temperature["value"], temperature["gain"]
        if temperature["gain_lower"] > 0:
            verb = "sharpened" if value < 1 else "softened"
            lines.append(
                f"One number mends part of it: logits divided by {value:.2f} ({verb}) would save {gain:.3g} nats a row "
                f"(90 % interval {temperature['gain_lower']:.2g} to {temperature['gain_upper']:.2g}), measured on rows "
                "that the number was not fitted to. The predicted classes would stay the same."
            )
        else:
            lines.append(f"A temperature would gain nothing that these rows can show (best value {value:.2f}).")
    if report["calibration"] is not None:
        lines.append(calibrated(report["calibration"]))
    return lines


def decided(state: dict[str, Any]) -> list[str]:
    """Return what predictions of two classes are worth as decisions, in sentences; `state` is "two_classes"."""
    positive, negative = short(state["positive"]), short(state["negative"])
    roc, precision, costs = state["roc"], state["precision_recall"], state["costs"]
    lines = [
        f"A row of {positive} has a higher probability of it than one of {negative} in {percent(roc['area'])} of all "
        f"pairs (area under the ROC curve{_reach(roc)}).",
        f"Average precision {percent(precision['area'])}{_reach(precision)}, where {percent(state['share'])} of the "
        f"rows are {positive}.",
    ]
    if state["lift"]:
        top = next((e for e in state["lift"] if e["rows"] >= state["rows"]), state["lift"][-1])
        lines.append(
            f"The {percent(top['share'])} of the rows with the highest probability of {positive} hold "
            f"{percent(top['recall'])} of its rows, {top['lift']:.1f} times as many as by chance."
        )
    best = costs["best_threshold"]
    hindsight = "never acting" if best is None else f"acting from {probability(best)} on"
    lines += [
        f"If a missed {positive} costs {costs['false_negative']:g} and a false alarm {costs['false_positive']:g}, "
        f"honest probabilities ask to act from {probability(costs['threshold'])} on. On these rows that costs "
        f"{costs['at_threshold']:.4g} a row; never acting costs {costs['never']:.4g}, always acting "
        f"{costs['always']:.4g}.",
        *([str(DecisionValue(**costs["value"]))] if costs.get("value") else []),
        f"In hindsight {hindsight} would have been best, at {costs['at_best']:.4g} a row.",
    ]
    return lines


def _reach(area: dict[str, Any]) -> str:
    if area["lower"] is None:
        return ""
    return f", {100 * area['level']:.0f} % interval {percent(area['lower'])} to {percent(area['upper'])}"


def where(state: dict[str, Any] | None) -> list[str]:
    """Return which slices cost more than others, in a sentence; `state` is "slices"."""
    if state is None or not state["tested"]:
        return []
    test = f"Welch's t-test, Holm's correction, {100 * state['level']:.0f} %"
    tested = count(state["tested"], "slice")
    if not state["worse"]:
        return [f"None of {tested} of the rows costs more than the other rows beyond what chance explains ({test})."]
    return [
        f"These of {tested} of the rows cost more than the other rows by more than chance explains ({test}). Where the "
        "predictions expected about this loss, the rows are hard; where they expected less, the predictions are wrong "
        "about them."
    ]


def slice_lines(state: dict[str, Any] | None) -> list[tuple[str, ...]]:
    """Return slice, rows, loss there, of the others and expected, and p-value, as a table has them."""
    lines = [] if state is None else state["worse"]
    return [
        (
            short(entry["slice"]),
            f"{entry['rows']:,}",
            loss(entry["loss"]),
            loss(entry["others"]),
            loss(entry["expected"]),
            f"{entry['p_value']:.2g}",
        )
        for entry in lines
    ]


def driver_lines(state: dict[str, Any], most: int) -> list[tuple[str, ...]]:
    """Return column, nats gained and their interval, of the strongest columns."""
    return [
        (short(entry["column"]), f"{entry['gain']:+.4f}", f"{entry['lower']:+.4f} to {entry['upper']:+.4f}")
        for entry in state["columns"][:most]
    ]


def coefficient_lines(one: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return input, coefficient and interval; `one` is an entry of "coefficients"."""
    return [
        (
            short(entry["input"]),
            f"{entry['value']:+.3f}",
            "–" if entry["lower"] is None else f"{entry['lower']:+.3f} to {entry['upper']:+.3f}",
        )
        for entry in one["inputs"]
    ]


def learned(points: list[dict[str, Any]]) -> str:
    """Return what more rows brought, in a sentence; `points` is "learning_curve"."""
    half, whole = (point["test"]["nats"] for point in points[-2:])
    rows = f"From {points[-2]['rows']:,} to {count(points[-1]['rows'], 'row')} the test loss"
    if "inf" in (half, whole) or not half:
        return f"{rows} went from {loss(half)} to {loss(whole)} nats."
    verb = "fell" if whole < half else "rose"
    hope = "more rows would likely help" if whole < 0.98 * half else "more rows alone promise little"
    return f"{rows} {verb} from {loss(half)} to {loss(whole)} nats ({100 * (whole / half - 1):+.1f} %): {hope}."


def card_lines(card: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the model card without its columns, as names and values."""
    lines = [("date", card["date"])]
    if card["command"]:
        lines.append(("command", shlex.join(card["command"])))
    if "C" in card:
        chosen = " (chosen by cross-validation)" if card["C_chosen"] else ""
        lines += [("C", f"{card['C']:.4g}{chosen}"), ("link", card["link"]), ("seed", str(card["seed"]))]
        lines.append(("tolerance", f"{card['tolerance']:g}"))
    if "rounds" in card:
        lines += [("rounds of boosting", f"{card['rounds']:,}"), ("seed", str(card["seed"]))]
    if card["sha256"]:
        lines.append(("SHA-256 of the data", card["sha256"]))
    lines.append(("versions", ", ".join(f"{name} {text}" for name, text in card["versions"].items())))
    return lines


def calibrated(state: dict[str, Any]) -> str:
    """Return what calibration did, in words."""
    best = state["best_temperature"]
    if state["temperature"] == 1:
        value = "" if best is None else f" ({best:.2f})"
        rows = count(state["rows"], "row")
        return f"The model was left as it was trained: on {rows}, the best temperature{value} cannot be told from 1."
    before, after = state["before"], state["after"]
    errors = [percent(s["reliability"]["calibration_error"]) for s in (before, after)]
    return (
        f"The model was calibrated: its logits were divided by {state['temperature']:.3g}, the number nearest to 1 "
        f"that {count(state['rows'], 'row')} do not contradict"
        + ("" if best is None else f" (the best is {best:.3g})")
        + f". Test loss {loss(before['loss']['nats'])} → {loss(after['loss']['nats'])} nats, calibration error "
        f"{errors[0]} → {errors[1]}."
    )


def _folds(state: dict[str, Any]) -> str:
    if state["folds"] == 1:
        return f" The temperature comes from {count(state['rows'], 'row')} more, held out for it."
    return (
        f" The temperature comes from {state['rows']:,} of the rows to train, each judged by one of "
        f"{state['folds']} models, one that was not trained on it."
    )


def _evidence(p_value: float) -> str:
    if p_value < 0.01:
        return f"That is more than chance explains (p = {p_value:.1g})."
    if p_value < 0.1:
        return f"Chance alone seldom makes so much (p = {p_value:.2g})."
    return f"Calibrated predictions could look like this (p = {p_value:.2g})."


def optimiser(report: dict[str, Any]) -> str | None:
    """Return how the optimiser ended, in one sentence."""
    state = report["optimiser"]
    if state is None:
        return None
    iterations = count(state["iterations"], "iteration")
    if state["duality_gap"] is None:
        return f"{iterations}; no duality gap is known for this loss."
    verdict = "reached" if state["converged"] else "NOT reached: raise --max-iter"
    return (
        f"Duality gap {state['duality_gap']:.1e} after {iterations} (goal {state['tolerance']:.0e}, {verdict}): "
        "no weights lower the training objective by more than this share of it."
    )


def short(text: str, width: int = 60) -> str:
    """Return text, cut in its middle where it is longer than `width`: names often differ at their ends.

    Examples
    --------
    >>> short("a name"), short("a" * 50 + "b" * 50, 9)
    ('a name', 'aaaa…bbbb')
    """
    if len(text) <= width:
        return text
    kept = width - 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
