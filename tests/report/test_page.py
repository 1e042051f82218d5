"""The page itself: small whatever the data, readable in both themes, fit for a keyboard and a screen reader."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import re
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import numpy as np
import polars as pl
import pytest

from crossent.report import compare_predictions, rank_predictions, render_html, summarize_fit, summarize_predictions
from crossent.report.charts import DARK, LIGHT, Theme
from crossent.tabular import FitOptions, Predictions, fit_table, read_predictions

from .test_sections import predictions, table

MEGABYTE = 1_000_000


def random_predictions(rows: int, names: list[str], source: str = "p.csv") -> Predictions:
    rng = np.random.default_rng(0)
    prob = rng.random((rows, len(names)))
    prob /= prob.sum(axis=1, keepdims=True)
    codes = np.arange(rows) % len(names)
    losses = -np.log(prob[np.arange(rows), codes])
    return Predictions(source, "y", "probabilities", tuple(names), codes, losses, prob, [], [])


# -- size ----------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_rows_make_less_than_a_megabyte() -> None:
    assert len(render_html(summarize_predictions(predictions(100_000))).encode()) < MEGABYTE


def test_five_thousand_classes_make_less_than_a_megabyte_and_the_costliest_are_shown() -> None:
    judged = random_predictions(600, [f"class {k}" for k in range(5000)])
    report = summarize_predictions(judged)
    page = render_html(report)
    assert len(page.encode()) < MEGABYTE
    assert "The 100 classes of highest loss, of 5000" in page
    entries = [entry for entry in report["per_class"] if entry["loss"]]
    worst = max(entries, key=lambda entry: entry["loss"]["nats"])
    best = min(entries, key=lambda entry: entry["loss"]["nats"])
    assert f'title="{worst["label"]}"' in page
    assert f'title="{best["label"]}"' not in page
    both = compare_predictions(judged, judged)
    page = render_html(both)
    assert len(page.encode()) < MEGABYTE
    assert len(both["classes_shown"]) == 100
    assert worst["label"] in both["classes_shown"]


def test_names_and_cells_of_any_length_make_less_than_a_megabyte() -> None:
    names = [f"first {k} " + 5000 * "é<" + f" last {k}" for k in range(40)]
    judged = random_predictions(400, names, source="s" * 3000)
    others = pl.DataFrame({f"column {k} " + 5000 * "x": ["<cell> " + 100_000 * "y"] * 400 for k in range(30)})
    judged = Predictions(**{**judged.__dict__, "others": others, "notes": [9000 * "n"], "warnings": [9000 * "w"]})
    report = summarize_predictions(judged)
    for page in (render_html(report), render_html(compare_predictions(judged, judged))):
        assert len(page.encode()) < MEGABYTE
        assert html.escape("first 3 é<é<") in page  # a name is known by both of its ends
        assert "last 3<" in page
        assert html.escape("<cell> yyy") in page
    cells = report["surprising"][0]["cells"]
    assert len(cells) == 12
    assert all(len(value) == 200 for value in cells.values())
    assert report["per_class"][3]["label"] == names[3]  # the numbers keep it whole


def test_identifiers_stand_beside_surprising_rows() -> None:
    frame = pl.DataFrame(
        {
            "id": [f"IMG_{k}" for k in range(60)],
            "y": ["a", "b"] * 30,
            "prediction": ["a"] * 60,
            "p_a": [0.9] * 60,
            "p_b": [0.1] * 60,
        }
    )
    report = summarize_predictions(read_predictions(frame, "p.csv", "y", "probabilities", drop=["id"]))
    assert report["surprising"][0]["cells"] == {"id": "IMG_1"}
    wide = table(200).with_columns(id=pl.int_range(200).cast(pl.String))
    fitted = summarize_fit(fit_table(wide, "t", "y", FitOptions(drop=["id"])))
    assert [entry["cells"] for entry in fitted["surprising"]] == [
        {"id": str(entry["row"])} for entry in fitted["surprising"]
    ]


# -- contrast: WCAG AA, 4.5 to 1 for text, 3 to 1 for what a picture says ---------------------------------------------

CSS = (files("crossent.report") / "templates" / "report.css").read_text()
Colour = tuple[float, float, float]


def colour(text: str) -> Colour:
    if text.startswith("#"):
        return tuple(int(text[i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[return-value]
    return tuple(float(part) for part in text.split(","))  # type: ignore[return-value]


def variables(theme: int) -> dict[str, str]:
    found = dict(re.findall(r"--([\w-]+): ([^;]+);", re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[0]))
    if theme:
        found |= dict(re.findall(r"--([\w-]+): ([^;]+);", re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[1]))
    return found


def luminance(rgb: Colour) -> float:
    values = [v / 255 for v in rgb]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(first: Colour, second: Colour) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def over(above: Colour, below: Colour, alpha: float) -> Colour:
    return tuple(alpha * a + (1 - alpha) * b for a, b in zip(above, below, strict=True))  # type: ignore[return-value]


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast(colour("#000000"), colour("#ffffff")) == pytest.approx(21)
    assert contrast(colour("#777777"), colour("#ffffff")) == pytest.approx(4.48, abs=0.005)
    assert contrast(colour("#777777"), colour("#888888")) < 4.5


@pytest.mark.parametrize("theme", [0, 1])
def test_text_stands_out_from_its_background(theme: int) -> None:
    colours = variables(theme)
    for text in ("text", "soft", "link"):
        for ground in ("page", "panel"):
            assert contrast(colour(colours[text]), colour(colours[ground])) >= 4.5, (text, ground)
    assert contrast(colour(colours["text"]), colour(colours["alarm"])) >= 4.5
    assert contrast(colour(colours["alarm-line"]), colour(colours["page"])) >= 3


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize(("kind", "ink"), [("right", "main"), ("wrong", "wrong")])
def test_numbers_stand_out_from_the_cells_of_the_matrix(theme: int, kind: str, ink: str) -> None:
    colours = variables(theme)
    rule = re.search(
        rf"\.matrix \.{kind} \{{ background: rgba\(var\(--{ink}\), calc\((.\d+) \+ var\(--deep-{kind}\) \* ", CSS
    )
    assert rule
    least, most = float(rule[1]), float(rule[1]) + float(colours[f"deep-{kind}"])
    for share in np.linspace(least, most, 7):
        ground = over(colour(colours[ink]), colour(colours["page"]), float(share))
        assert contrast(colour(colours["text"]), ground) >= 4.5, share
    # Colour says something there: the deepest cell is told from the page.
    assert contrast(over(colour(colours[ink]), colour(colours["page"]), most), colour(colours["page"])) > 1.5


@pytest.mark.parametrize(("theme", "number"), [(LIGHT, 0), (DARK, 1)])
def test_charts_stand_out_from_the_page(theme: Theme, number: int) -> None:
    page = colour(variables(number)["page"])
    assert contrast(colour(theme.text), page) >= 4.5
    for ink in (theme.main, theme.second, theme.interval):
        assert contrast(colour(ink), page) >= 3, ink


# -- a keyboard, a screen reader -----------------------------------------------------------------------------------


class Outline(HTMLParser):
    """The tags with their attributes, and the chain of tags that each stands in."""

    VOID = ("meta", "img", "source", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.found: list[tuple[str, dict[str, str | None], list[tuple[str, dict[str, str | None]]]]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), list(self.open)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag


@cache
def pages() -> dict[str, str]:
    fitted: dict[str, Any] = summarize_fit(
        fit_table(table(), "t.csv", "y", FitOptions(calibration_size=0.2, strength=1e4))
    )
    return {
        "fit": render_html(fitted),
        "predictions": render_html(summarize_predictions(predictions(300))),
        "comparison": render_html(compare_predictions(predictions(300), predictions(300, sharpness=2.0))),
        "ranking": render_html(rank_predictions([predictions(300, sharpness=s) for s in (1.0, 2.0, 4.0)])),
    }


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize("kind", ["fit", "predictions", "comparison"])
def test_a_screen_reader_finds_its_way(kind: str, rendered: dict[str, str]) -> None:
    outline = Outline(rendered[kind])
    tags = [tag for tag, _, _ in outline.found]
    assert ("html", {"lang": "en"}, []) in outline.found
    assert tags.count("main") == tags.count("h1") == 1
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    pictures = [attributes for tag, attributes, _ in outline.found if tag == "img"]
    assert pictures
    assert all(len(attributes["alt"] or "") >= 20 for attributes in pictures)
    assert len({attributes["alt"] for attributes in pictures}) == len(pictures)
    heads = [(attributes, parents) for tag, attributes, parents in outline.found if tag == "th"]
    assert heads
    for attributes, parents in heads:
        inside = next(tag for tag, _ in reversed(parents) if tag in ("thead", "tbody"))
        assert attributes["scope"] == ("col" if inside == "thead" else "row")
    rows = [parents for tag, _, parents in outline.found if tag == "tr"]
    assert tags.count("table") == tags.count("thead") == len([1 for parents in rows if parents[-1][0] == "thead"])


@pytest.mark.parametrize("kind", ["fit", "predictions", "comparison"])
def test_a_keyboard_reaches_every_box_that_scrolls(kind: str, rendered: dict[str, str]) -> None:
    outline = Outline(rendered[kind])
    for tag, _, parents in outline.found:
        if tag == "table":
            box = parents[-1][1]
            assert box["class"] == "scroll"
            assert (box["tabindex"], box["role"]) == ("0", "region")
            assert len(box["aria-label"] or "") > 10
    targets = {attributes["id"] for _, attributes, _ in outline.found if "id" in attributes}
    links = [attributes["href"] for tag, attributes, _ in outline.found if tag == "a"]
    assert len(links) >= 5
    assert all(link is not None and link[1:] in targets for link in links)


# -- the content policy --------------------------------------------------------------------------------------------


def policy_of(page: str) -> dict[str, list[str]]:
    """The directives of the page's Content-Security-Policy."""
    outline = Outline(page)
    (found,) = (a["content"] or "" for _, a, _ in outline.found if a.get("http-equiv") == "Content-Security-Policy")
    return {name: sources for name, *sources in (directive.split() for directive in found.split(";"))}


@pytest.mark.parametrize("kind", ["fit", "predictions", "comparison", "ranking"])
def test_the_policy_knows_the_style_and_the_script_by_their_digests(kind: str, rendered: dict[str, str]) -> None:
    policy = policy_of(rendered[kind])
    for tag in ("style", "script"):
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", rendered[kind], re.DOTALL)
        assert rendered[kind].count(f"<{tag}") == len(texts) == 1
        digest = base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode()
        assert policy.pop(f"{tag}-src") == [f"'sha256-{digest}'"]
    nothing = ["'none'"]
    assert policy == {"default-src": nothing, "base-uri": nothing, "form-action": nothing, "img-src": ["data:"]}


@pytest.mark.parametrize("kind", ["fit", "predictions", "comparison", "ranking"])
def test_no_tag_has_a_style_or_a_script_of_its_own(kind: str, rendered: dict[str, str]) -> None:
    for tag, attributes, _ in Outline(rendered[kind]).found:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        assert not [value for value in attributes.values() if (value or "").strip().lower().startswith("javascript:")]


def test_cells_of_the_matrix_are_shaded_by_their_share(rendered: dict[str, str]) -> None:
    shades = {int(name): float(share) for name, share in re.findall(r"\.s(\d+) \{ --share: ([.\d]+); \}", CSS)}
    assert shades == {k: k / 20 for k in range(21)}
    report = summarize_fit(fit_table(table(), "t.csv", "y", FitOptions(calibration_size=0.2, strength=1e4)))
    cells = re.findall(r'<td class="(?:right|wrong)(?: zero)? s(\d+)">(\d+)</td>', rendered["fit"])
    counts = [n for row in report["confusion"]["matrix"] for n in row]
    rows = [entry["rows"] for entry in report["per_class"] for _ in report["per_class"]]
    assert [int(n) for _, n in cells] == counts
    for (name, _), n, of in zip(cells, counts, rows, strict=True):
        assert abs(shades[int(name)] - n / of) <= 0.05
        assert (name == "0") == (n == 0)
    assert f'<table class="matrix of{len(report["classes"])}">' in rendered["fit"]


def test_dark_pages_have_dark_pictures_and_print_has_not(rendered: dict[str, str]) -> None:
    sources = re.findall(r'<source srcset="([^"]*)" media="([^"]*)"><img src="([^"]*)"', rendered["fit"])
    assert len(sources) == rendered["fit"].count("<img")
    for dark, media, light in sources:
        assert media == "screen and (prefers-color-scheme: dark)"
        drawn = [base64.b64decode(uri.partition(",")[2]).decode() for uri in (light, dark)]
        assert LIGHT.main in drawn[0]
        assert DARK.main in drawn[1]
        assert LIGHT.main not in drawn[1]
