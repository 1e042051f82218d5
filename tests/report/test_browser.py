"""The page in a real browser: no error on its console, tables that sort, pictures that render."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from browser import NEEDS_CHROMIUM, chromium

from .test_page import pages

PDFTOTEXT = shutil.which("pdftotext")
pytestmark = NEEDS_CHROMIUM

# Reports to the window around it: a browser's own window is never narrower than 500 pixels, a frame may be.
PROBE = """
const violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
addEventListener("load", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const sorted = [];
  const cells = [...document.querySelectorAll(".matrix td.right")];
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
  const boxes = [...document.querySelectorAll(".scroll")];
  const found = {
    sorted,
    shades: cells.map((cell) => getComputedStyle(cell).backgroundColor),
    pictures: [...document.images].map((image) => image.complete && image.naturalWidth > 0),
    drawn: [...document.images].map((image) => image.currentSrc),
    width: innerWidth,
    reach: document.documentElement.scrollWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    page: getComputedStyle(document.body).backgroundColor,
    reached: boxes.map((box) => (box.focus(), document.activeElement === box)),
    scrolled: boxes.map((box) => (box.scrollLeft = 9999, box.scrollLeft + box.clientWidth >= box.scrollWidth - 1)),
  };
  setTimeout(() => parent.postMessage(JSON.stringify({...found, violations}), "*"));  // violations are told later
});
"""
FRAME = """
<body style="margin: 0">
<script>addEventListener("message", (event) => { document.body.dataset.probe = event.data; });</script>
<iframe src="page.html" style="width: {width}px; height: 900px; border: 0"></iframe>
</body>
"""
DARK = "--blink-settings=preferredColorScheme=0"


def with_script(page: str, script: str) -> str:
    """The page with one more script, which its policy knows; it is the first to run."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = page.replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    return page.replace("<style>", f"<script>{script}</script><style>", 1)


def open_page(page: str, folder: Path, width: int, *options: str) -> tuple[dict[str, Any], str]:
    """What the probe found in the page at a width, and what the browser logged."""
    (folder / "page.html").write_text(with_script(page, PROBE))
    frame = folder / "frame.html"
    frame.write_text(FRAME.replace("{width}", str(width)))
    window = f"--window-size={max(width, 500)},900"
    done = chromium(folder, window, *options, "--virtual-time-budget=3000", "--dump-dom", frame.as_uri())
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found.group(1))), done.stderr


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize("kind", ["fit", "predictions", "comparison"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_works_in_a_browser(kind: str, width: int, rendered: dict[str, str], tmp_path: Path) -> None:
    found, log = open_page(rendered[kind], tmp_path, width)
    assert "CONSOLE" not in log
    assert found["violations"] == []
    assert found["width"] == width
    assert found["reach"] <= width  # what is wider scrolls in a box of its own
    assert found["pictures"]
    assert all(found["pictures"])
    assert not found["dark"]
    assert len(found["reached"]) >= 4
    assert all(found["reached"])
    assert all(found["scrolled"])
    assert bool(found["shades"]) == (kind != "comparison")
    assert "rgba(0, 0, 0, 0)" not in found["shades"]
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


def test_a_dark_page_has_dark_pictures(rendered: dict[str, str], tmp_path: Path) -> None:
    light, _ = open_page(rendered["fit"], tmp_path, 1280)
    dark, log = open_page(rendered["fit"], tmp_path, 1280, DARK)
    assert "CONSOLE" not in log
    assert dark["dark"]
    assert all(dark["pictures"])
    assert (light["page"], dark["page"]) == ("rgb(255, 255, 255)", "rgb(18, 22, 29)")
    sources = re.findall(r'<source srcset="([^"]*)"[^>]*><img src="([^"]*)"', rendered["fit"])
    assert dark["drawn"] == [html.unescape(source) for source, _ in sources]
    assert light["drawn"] == [html.unescape(source) for _, source in sources]


@pytest.mark.parametrize("kind", ["fit", "comparison"])
def test_a_printed_page_loses_nothing(kind: str, rendered: dict[str, str], tmp_path: Path) -> None:
    path, pdf = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(rendered[kind])
    done = chromium(tmp_path, DARK, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", path.as_uri())
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF"), done.stderr[-2000:]
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 7
    if PDFTOTEXT is None:
        pytest.skip("pdftotext is not installed (Debian: apt-get install poppler-utils)")
    printed = subprocess.run([PDFTOTEXT, "-bbox", str(pdf), "-"], capture_output=True, text=True, check=True).stdout
    size = re.search(r'<page width="([\d.]+)" height="([\d.]+)"', printed)
    assert size
    words = re.findall(
        r'<word xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">(.*?)</word>', printed
    )
    for left, top, right, bottom, word in words:
        assert 0 <= float(left) < float(right) <= float(size[1]), word
        assert 0 <= float(top) < float(bottom) <= float(size[2]), word
    # Every number of every table that is not folded away is on paper, and what only a screen needs is not.
    paper = [html.unescape(word) for *_, word in words]
    unfolded = re.sub(r"<details>.*?</details>", "", rendered[kind], flags=re.DOTALL)
    cells = re.findall(r'<t[dh][^>]*class="n"[^>]*>([\d.e+-]+)</t[dh]>', unfolded)
    assert len(cells) > 50
    assert set(cells) <= set(paper)
    assert "Skip" not in paper


def test_the_probe_sees_a_broken_page(rendered: dict[str, str], tmp_path: Path) -> None:
    broken = with_script(rendered["predictions"], "missing()")
    broken = re.sub(r"data:image/svg\+xml;base64,[^\"]{20}", "data:image/svg+xml;base64,", broken)
    broken = broken.replace("overflow-x: auto", "overflow-x: visible").replace('tabindex="0"', "")
    found, log = open_page(broken, tmp_path, 400)
    assert "missing is not defined" in log
    assert not all(found["pictures"])
    assert not any(found["reached"])


INTRUDERS = {
    "script": ("<script>document.title = 'taken'</script>", "script-src-elem"),
    "handler": ('<p class="scroll" tabindex="0" onfocus="document.title = 1"></p>', "script-src-attr"),
    "style sheet": ("<style>main { display: none }</style>", "style-src-elem"),
    "style": ('<b style="color: red">b</b>', "style-src-attr"),
    "picture": ('<img src="https://example.invalid/a.png" alt="">', "img-src"),
    "base": ('<base href="https://example.invalid/">', "base-uri"),
}


@pytest.mark.parametrize("name", INTRUDERS)
def test_the_policy_stops_what_is_not_of_the_page(name: str, rendered: dict[str, str], tmp_path: Path) -> None:
    tag, directive = INTRUDERS[name]
    found, _ = open_page(rendered["predictions"].replace("</header>", tag + "</header>"), tmp_path, 1280)
    assert found["violations"] == [directive]
