"""The committed comparison of calibrators keeps its promise, and docs/calibration.md shows what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "calibration.json").read_text())
RECORDS = RESULTS["quality"]["records"]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("calibration_tables", "calibration_verdict", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)


# Where crossent is worse, as docs/calibration.md says: nothing else, and nothing that has been mended.
WORSE = {
    ("lenet-5-cifar-10", "second half fits", "vector", "probmetrics, svs"),
    ("lenet-5-cifar-10", "random half 2 fits", "vector", "probmetrics, svs"),
    ("wideresnet-16-4-cifar-100", "second half fits", "beta", "betacal, one-vs-rest"),
}


def test_no_other_calibrator_is_worse_than_a_peers() -> None:
    """The paired 95 % interval of the log-loss difference does not lie above the margin, on any split."""
    margin = RESULTS["quality"]["margin"]
    assert 0 < margin <= 1e-5
    worse, compared = set(), 0
    for record in RECORDS:
        for peer, entry in record["peers"].items():
            compared += "error" not in entry
            intervals = [entry.get("interval"), entry.get("floored", {}).get("interval")]
            if any(found is not None and found[0] > margin for found in intervals):
                worse.add((record["data"], record["split"], record["method"], peer))
    assert worse == WORSE
    page = (ROOT / "docs" / "calibration.md").read_text("utf-8")
    assert f"Crossent is worse in {len(WORSE)} of the {compared} comparisons" in page


def test_every_calibrator_has_a_peer_and_every_data_set_its_reverse_split() -> None:
    for data in {record["data"] for record in RECORDS}:
        here = [record for record in RECORDS if record["data"] == data]
        assert {"first half fits", "second half fits"} <= {record["split"] for record in here}
    compared = {r["method"] for r in RECORDS if any("error" not in entry for entry in r["peers"].values())}
    assert compared == {record["method"] for record in RECORDS}
    assert len(compared) == 9


def test_each_part_has_its_own_date_and_machine() -> None:
    for part in ("speed", "quality"):
        assert RESULTS[part]["date"] > "2026"
        assert RESULTS[part]["machine"]["versions"]["scikit-learn"]


@pytest.mark.usefixtures("benchmarks")
def test_the_page_shows_these_results() -> None:
    import calibration_tables

    text = (ROOT / "docs" / "calibration.md").read_text("utf-8")
    assert calibration_tables.page(RESULTS, text) == text
    changed = json.loads(json.dumps(RESULTS))
    changed["quality"]["records"][0]["crossent"] += 0.1
    assert calibration_tables.page(changed, text) != text


@pytest.mark.usefixtures("benchmarks")
def test_the_verdict() -> None:
    from calibration_verdict import MARGIN, verdict

    assert verdict({"interval": [-1.0, -0.5]}) == "better"
    assert verdict({"interval": [0.5, 1.0]}) == "worse"
    assert verdict({"interval": [-0.5, 1.0]}) == "not told apart"
    assert verdict({"interval": [0.4 * MARGIN, 0.5 * MARGIN]}) == "the same"
    assert verdict({"rows at infinity": 1}) == "better"
