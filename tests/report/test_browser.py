"""The page in a real browser: no error on its console, tables that sort, pictures that render."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from crossent.report import compare_predictions, render_html, summarize_fit, summarize_predictions
from crossent.tabular import fit_table

from .test_sections import NASTY, predictions, table

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)")

PROBE = """
<script>
addEventListener("load", () => {
  const sorted = [];
  for (const table of document.querySelectorAll("table.sortable")) {
    const button = table.querySelectorAll("thead button")[1];
    button.focus();
    const focused = document.activeElement === button;
    const states = [];
    for (let i = 0; i < 2; i++) {
      button.click();
      states.push([...table.tBodies[0].rows].map((row) => row.cells[1].textContent));
    }
    sorted.push({focused, states, state: button.closest("th").getAttribute("aria-sort")});
  }
  document.body.dataset.probe = JSON.stringify({
    sorted,
    pictures: [...document.images].map((image) => image.complete && image.naturalWidth > 0),
    width: innerWidth,
    reach: document.documentElement.scrollWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
  });
});
</script>
"""


def open_page(page: str, folder: Path, width: int) -> tuple[dict[str, Any], str]:
    """What the probe found in the page at a width, and what the browser logged."""
    path = folder / "page.html"
    path.write_text(page.replace("</body>", PROBE + "</body>"))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=3000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found.group(1))), done.stderr


def pages() -> dict[str, str]:
    nasty = predictions(300, names=(f"class {NASTY}", "b", "c"))
    return {
        "fit": render_html(summarize_fit(fit_table(table(), "t.csv", "y", calibration_size=0.3))),
        "predictions": render_html(summarize_predictions(nasty)),
        "comparison": render_html(compare_predictions(predictions(300), predictions(300, sharpness=2.0))),
    }


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize("kind", ["fit", "predictions", "comparison"])
@pytest.mark.parametrize("width", [500, 1280])
def test_the_page_works_in_a_browser(kind: str, width: int, rendered: dict[str, str], tmp_path: Path) -> None:
    found, log = open_page(rendered[kind], tmp_path, width)
    assert "CONSOLE" not in log
    assert found["pictures"]
    assert all(found["pictures"])
    assert found["reach"] <= found["width"]
    assert found["sorted"]
    for entry in found["sorted"]:
        rising, falling = entry["states"]
        assert entry["focused"]
        assert entry["state"] == "descending"
        assert sorted(rising) == sorted(falling)
        numbers = [float(text) for text in rising if re.fullmatch(r"[\d.]+", text)]
        if len(numbers) == len(rising):
            assert numbers == sorted(numbers)
            assert [float(text) for text in falling] == sorted(numbers, reverse=True)
        else:
            assert rising == falling[::-1] or len(set(rising)) < len(rising)


def test_the_probe_sees_a_broken_page(rendered: dict[str, str], tmp_path: Path) -> None:
    broken = rendered["predictions"].replace("</main>", "<script>missing()</script></main>")
    broken = re.sub(r"data:image/svg\+xml;base64,[^\"]{20}", "data:image/svg+xml;base64,", broken)
    found, log = open_page(broken, tmp_path, 1280)
    assert "CONSOLE" in log
    assert not all(found["pictures"])
