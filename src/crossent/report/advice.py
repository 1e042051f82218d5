"""What to do next: rules, each with its reason. They read the report's numbers and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from .commands import Commands
from .words import count, percent, short

Summary = dict[str, Any]

SUSPICIOUS_LABEL = 0.02
SUSPICIOUS_PREDICTION = 0.9
LEARNED = 0.5
MISLABELLED = 0.1
RARE = 0.5
COSTLY = 1.5
OVERFITTED = 1.5
MISJUDGED = 1.2


def advice(report: Summary) -> list[dict[str, Any]]:
    """Return what a person could do, most urgent first: ``{"rule", "title", "reason", "rows", "command"}``."""
    found = [*_useless(report), *_impossible(report), *_scale(report), *_calibration(report)]
    found += [*_outliers(report), *_labels(report)]
    found += [*_threshold(report), *_slices(report), *_classes(report), *_confusion(report), *_overfitting(report)]
    if found:
        return found
    reason = "the loss beats the prior, confidences are as good as these rows can tell, and no class stands out"
    return [{"rule": "nothing", "title": "Nothing stands out", "reason": reason, "rows": [], "command": None}]


def _rule(
    rule: str, title: str, reason: str, rows: list[int] | None = None, command: str | None = None
) -> dict[str, Any]:
    return {"rule": rule, "title": title, "reason": reason, "rows": rows or [], "command": command}


def _useless(report: Summary) -> Iterator[dict[str, Any]]:
    if report["loss"]["explained"] is not None and report["loss"]["explained"] < 0:
        yield _rule(
            "worse-than-prior",
            "Do not use these probabilities yet",
            "always predicting the class shares would have a lower loss; check that columns and labels belong together",
            command=Commands(report).choose_strength(),
        )


def _impossible(report: Summary) -> Iterator[dict[str, Any]]:
    rows = report["loss"]["impossible_rows"]
    if rows:
        yield _rule(
            "impossible",
            "Never say 0",
            f"{count(rows, 'row')} had a label that was called impossible, which makes the loss infinite; write "
            "probabilities with more digits, or smooth them",
            [entry["row"] for entry in report["surprising"] if entry["loss"]["nats"] == "inf"],
        )


def _scale(report: Summary) -> Iterator[dict[str, Any]]:
    if report["kind"] == "predictions" and any("declared logits" in text for text in report["warnings"]):
        yield _rule(
            "probabilities-as-logits",
            "Check whether these are logits",
            "every row lies between 0 and 1 and sums to 1, as probabilities do, and a softmax of them is far too "
            "cautious; read them with --probabilities",
            command=Commands(report).again("--probabilities", without="--logits"),
        )


def _calibration(report: Summary) -> Iterator[dict[str, Any]]:
    state = report["honesty"]
    temperature = state["temperature"]
    if temperature and temperature["gain_lower"] > 0 and temperature["gain"] > 0.005 * report["loss"]["nats"]:
        kind = "over" if temperature["value"] > 1 else "under"
        yield _rule(
            "recalibrate",
            f"Divide the logits by {temperature['value']:.2f}",
            f"the predictions are {kind}confident; this one number takes {temperature['gain']:.3g} nats off the loss "
            "and changes no prediction",
            command=Commands(report).calibrate(),
        )
    elif state["p_value"] is not None and state["p_value"] < 0.01:
        yield _rule(
            "recalibrate-further",
            "Calibrate with more than a temperature",
            f"confidences differ from frequencies by more than chance (p = {state['p_value']:.2g}), and no single "
            "temperature repairs that; try vector scaling or beta calibration on held-out rows",
            command=Commands(report).calibrate(),
        )


def _threshold(report: Summary) -> Iterator[dict[str, Any]]:
    state = report["two_classes"]
    if state is None or state["costs"]["false_negative"] != state["costs"]["false_positive"]:
        return
    entry = next(entry for entry in report["per_class"] if entry["label"] == state["positive"])
    if state["share"] < 0.5 and entry["recall"] < LEARNED:
        yield _rule(
            "threshold",
            f"Say what a missed {short(state['positive'])} costs",
            f"{percent(entry['recall'])} of its rows have a probability above 0.5; where a missed one costs more than "
            "a false alarm, act below that: --cost-false-negative and --cost-false-positive give the threshold",
            command=Commands(report).price(state["positive"]),
        )


def _outliers(report: Summary) -> Iterator[dict[str, Any]]:
    found = [entry for entry in report["surprising"] if entry["outlying"]]
    if found:
        first = found[0]["outlying"]
        rows = [entry["row"] for entry in found]
        yield _rule(
            "outlying-values",
            f"Check the values of {count(len(rows), 'row')}",
            f"column {short(first['column'])} holds {first['value']:.6g} in row {rows[0]}, {first['deviations']:.0f} "
            "robust standard deviations from the median; a wrong value looks like this",
            rows,
            Commands(report).show(rows),
        )


def _labels(report: Summary) -> Iterator[dict[str, Any]]:
    # Of a class that the model seldom predicts, a surprising row is one that it missed.
    # Nor are so many of a class's rows labelled wrong: ten of 25 rare positives are rows that the model cannot find.
    learned = {entry["label"]: entry["rows"] for entry in report["per_class"] if (entry["recall"] or 0) >= LEARNED}
    suspects = [
        entry
        for entry in report["surprising"]
        if entry["label"] in learned
        and entry["outlying"] is None
        and entry["label_probability"] < SUSPICIOUS_LABEL
        and entry["prediction_probability"] > SUSPICIOUS_PREDICTION
    ]
    of_class = Counter(entry["label"] for entry in suspects)
    few = {label for label, number in of_class.items() if number <= max(1, MISLABELLED * learned[label])}
    rows = [entry["row"] for entry in suspects if entry["label"] in few]
    if rows:
        yield _rule(
            "suspect-labels",
            f"Look at the {'label' if len(rows) == 1 else 'labels'} of {count(len(rows), 'row')}",
            f"the model is more than {100 * SUSPICIOUS_PREDICTION:.0f} % sure of another class there; wrong labels "
            "look like this, and so do the model's worst mistakes",
            rows,
            Commands(report).show(rows),
        )


def _slices(report: Summary) -> Iterator[dict[str, Any]]:
    for entry in report["slices"]["worse"] if report["slices"] else []:
        # Rows that the predictions know to be hard are no fault of theirs.
        if entry["loss"] > MISJUDGED * entry["expected"]:
            yield _rule(
                "slice",
                f"Look at the rows where {short(entry['slice'])}",
                f"they cost {entry['loss']:.2f} nats, where the predictions expect {entry['expected']:.2f} and the "
                f"other rows cost {entry['others']:.2f}: something there differs from what was learned",
                entry["worst"],
                Commands(report).show(entry["worst"]),
            )
            return


def _classes(report: Summary) -> Iterator[dict[str, Any]]:
    counts = sorted(entry["rows"] for entry in report["classes"] if entry["rows"])
    middle = counts[len(counts) // 2]
    shown = report["loss"]["nats"]
    if shown == "inf" or shown == 0:
        return
    rows = {entry["label"]: entry["rows"] for entry in report["classes"]}
    for k in report["costliest_classes"][:3]:
        entry = report["per_class"][k]
        value = entry["loss"]["nats"]
        if rows[entry["label"]] < RARE * middle and (value == "inf" or value > COSTLY * shown):
            yield _rule(
                "collect",
                f"Collect more rows of {short(entry['label'])}",
                f"it is rare ({count(rows[entry['label']], 'row')}, half of the classes have {middle:,} or more) and "
                f"costs {value:.2f} nats a row, where the mean is {shown:.2f}",
                command=Commands(report).learning_curve(),
            )


def _confusion(report: Summary) -> Iterator[dict[str, Any]]:
    wrong = report["accuracy"]["rows"] - report["accuracy"]["right"]
    pairs = report["confusion"]["most_confused"]
    if pairs and wrong >= 10 and pairs[0]["rows"] > 0.25 * wrong and len(report["per_class"]) > 2:
        pair = pairs[0]
        yield _rule(
            "confusion",
            f"Tell {short(pair['label'])} from {short(pair['prediction'])}",
            f"{percent(pair['rows'] / wrong)} of all mistakes take the one for the other; look for a feature that "
            "separates them, or ask whether they are one class",
        )


def _overfitting(report: Summary) -> Iterator[dict[str, Any]]:
    training = report["training_loss"] if report["optimiser"] else None  # trees always fit their own rows closely
    if training and report["loss"]["nats"] != "inf" and training["nats"] != "inf":
        gap = report["loss"]["nats"] - training["nats"]
        if report["loss"]["nats"] > OVERFITTED * training["nats"] and gap > 0.02:
            commands = Commands(report)
            chosen = report["card"]["C_chosen"]
            yield _rule(
                "overfitting",
                "Train on more rows, or fewer columns" if chosen else "Penalise more, or train on more rows",
                f"the loss on rows trained on is {gap:.3g} nats lower"
                + ("" if chosen else "; lower --C, or let --sweep choose it"),
                command=commands.choose_strength() or commands.learning_curve(),
            )
