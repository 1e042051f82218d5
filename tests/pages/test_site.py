"""The site that `make docs` builds, in a headless Chromium: links, anchors, the console, widths, search."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from browser import NEEDS_CHROMIUM, chromium

import crossent as ce

SITE = Path(os.environ.get("CROSSENT_SITE", "")).resolve()
pytestmark = NEEDS_CHROMIUM
of_the_site = pytest.mark.skipif("CROSSENT_SITE" not in os.environ, reason="`make test-docs` builds and tests the site")

# Opens each page in a frame, one after the other, searches on the last, and sends what it finds. The picture makes the
# browser wait for that.
PROBE = """
<body style="margin: 0"><img src="/wait"><main></main><script>
async function open(page) {
  const frame = document.createElement("iframe");
  frame.style = "width: WIDTHpx; height: 900px; border: 0";
  const loaded = new Promise((resolve) => { frame.onload = resolve; });
  frame.src = page;
  document.querySelector("main").replaceChildren(frame);
  await loaded;
  return frame;
}
async function search(word) {
  const inside = (await open(`site/index.html?q=${word}`)).contentDocument;
  for (let i = 0; i < 300; i++) {
    const told = inside.querySelector(".md-search-result__meta").textContent;
    if (/match|No /.test(told)) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return [...inside.querySelectorAll(".md-search-result__link")].map((link) => link.getAttribute("href"));
}
(async () => {
  const found = {};
  for (const page of PAGES) {
    const frame = await open(page);
    const inside = frame.contentDocument;
    found[page.slice("site/".length)] = {
      reach: inside.documentElement.scrollWidth,
      ids: [...inside.querySelectorAll("[id]")].map((element) => element.id),
      links: [...inside.querySelectorAll("a[href]")].map((link) => link.getAttribute("href")),
      pictures: [...inside.images].map((image) => image.naturalWidth > 0),
      loads: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
    };
  }
  const searches = {};
  for (const word of WORDS) searches[word] = await search(word);
  await fetch("/found", {method: "POST", body: JSON.stringify({pages: found, searches})});
})();
</script></body>
"""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; takes what the probe found, and answers the request for /wait only then."""

    found: Any = None
    done = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/wait":
            self.done.wait(200)
            self.send_error(404)
        else:
            super().do_GET()

    def do_POST(self) -> None:
        Handler.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.done.set()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(site: Path, folder: Path) -> Iterator[str]:
    """The address of a server that shows the folder, with the site in `site`: a page may look into its frames there."""
    (folder / "site").symlink_to(site)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass
class Look:
    """What the probe found on each page, by its path, and for each word; and what the browser logged."""

    pages: dict[str, dict[str, Any]]
    searches: dict[str, list[str]]
    errors: list[str]
    address: str


def look(site: Path, folder: Path, width: int, words: Iterable[str] = ()) -> Look:
    """Open every page of a site at a width, and search for the words."""
    names = sorted(f"site/{path.relative_to(site)}" for path in site.rglob("*.html") if path.name != "404.html")
    probe = PROBE.replace("PAGES", json.dumps(names)).replace("WORDS", json.dumps(list(words)))
    (folder / "probe.html").write_text(probe.replace("WIDTH", str(width)))
    Handler.found = None
    Handler.done.clear()
    with served(site, folder) as address:
        log = chromium(folder, "--dump-dom", f"{address}/probe.html").stderr
    assert Handler.found, log[-2000:]
    errors = [line for line in log.splitlines() if "CONSOLE" in line and "/wait" not in line]
    return Look(errors=errors, address=address, **Handler.found)


def dead_links(site: Path, pages: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """The links within a site that lead to no file or to no element, with their pages."""
    dead = []
    for page, each in pages.items():
        for link in each["links"]:
            path, anchor = urldefrag(unquote(link))
            if re.match(r"[a-z]+:", path):  # another site, or mail
                continue
            target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
            is_dead_anchor = anchor and target in pages and anchor not in pages[target]["ids"]
            if not (site / target).is_file() or is_dead_anchor:
                dead.append((page, link))
    return dead


def wider(found: Look, width: int) -> list[str]:
    return [page for page, each in found.pages.items() if each["reach"] > width]


def without_picture(found: Look) -> list[str]:
    return [page for page, each in found.pages.items() if not all(each["pictures"])]


def loaded_from_elsewhere(found: Look) -> list[str]:
    here = (found.address, "data:")
    return [url for each in found.pages.values() for url in each["loads"] if not url.startswith(here)]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Look:
    return look(SITE, tmp_path_factory.mktemp("wide"), 1280, ["Dirichlet", "qqxyzzy"])


@of_the_site
def test_the_pages_are_whole(wide: Look) -> None:
    assert len(wide.pages) > 30
    assert wide.errors == []
    assert without_picture(wide) == []
    assert loaded_from_elsewhere(wide) == []
    assert wider(wide, 1280) == []
    assert sum(len(each["pictures"]) for each in wide.pages.values()) >= 5


@of_the_site
def test_no_link_or_anchor_is_dead(wide: Look) -> None:
    assert dead_links(SITE, wide.pages) == []
    assert sum(len(each["links"]) for each in wide.pages.values()) > 1000


@of_the_site
def test_every_public_name_has_an_entry(wide: Look) -> None:
    ids = {identifier for each in wide.pages.values() for identifier in each["ids"]}
    names = {*ce.__all__} - {"__version__", "information"}  # a module, whose functions have entries
    assert [name for name in sorted(names) if f"crossent.{name}" not in ids] == []


@of_the_site
def test_the_search_finds_a_word(wide: Look) -> None:
    assert any("calibration.html" in result for result in wide.searches["Dirichlet"])
    assert wide.searches["qqxyzzy"] == []


@of_the_site
def test_no_page_is_wider_than_a_telephone(tmp_path: Path) -> None:
    assert wider(look(SITE, tmp_path, 400), 400) == []


def test_the_probe_sees_a_broken_site(tmp_path: Path) -> None:
    site, folder = tmp_path / "broken", tmp_path / "folder"
    site.mkdir()
    folder.mkdir()
    (site / "a.html").write_text(
        '<!doctype html><p id="here" style="width: 500px"><a href="nowhere.html"></a><a href="b.html#gone"></a>'
        '<a href="#here"></a>'
        '<img src="none.png" alt=""><script src="http://127.0.0.1:9/a.js"></script>'
    )
    (site / "b.html").write_text("<script>missing()</script>")
    found = look(site, folder, 400)
    assert any("missing is not defined" in line for line in found.errors)
    assert dead_links(site, found.pages) == [("a.html", "nowhere.html"), ("a.html", "b.html#gone")]
    assert wider(found, 400) == without_picture(found) == ["a.html"]
    assert loaded_from_elsewhere(found) == ["http://127.0.0.1:9/a.js"]
