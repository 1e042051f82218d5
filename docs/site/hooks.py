"""What mkdocs does to a page besides: formulas become MathML, roles and links to the repository's files become links.

The pages are written for GitHub as well, which draws formulas and follows links to files by itself. MathML is drawn by
the browser, so the site needs neither a script nor fonts for its formulas.
"""

from __future__ import annotations

import html
import posixpath
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
FUNCTION = re.compile(r"(<mi>(?:log|ln|exp|max)</mi>)(?=<m(?:i|n|sub|subsup|frac|row)>)")
THIN_SPACE = r'\1<mspace width="0.167em"/>'
OUTSIDE = re.compile(r"\]\(((?:\.\./)+[^)\s#]+)")
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):<code>~?([\w.]+)</code>")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Point links that leave docs/ to the files in the repository."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, found[1]))
        return found[0] if path.startswith("docs/") else f"]({config.extra['repository']}/blob/main/{path}"

    return OUTSIDE.sub(link, markdown)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Write formulas as MathML, and the roles of docstrings as links into the reference."""
    module = "crossent" if page.file.name == "numpy" else f"crossent.{page.file.name}"

    def formula(found: re.Match[str]) -> str:
        tag, latex = found.groups()
        drawn = convert(html.unescape(latex), display="block" if tag == "div" else "inline")
        return f'<{tag} class="formula">{FUNCTION.sub(THIN_SPACE, drawn)}</{tag}>'

    def role(found: re.Match[str]) -> str:
        path = found[1] if found[1].startswith("crossent.") else f"{module}.{found[1]}"
        return f'<autoref identifier="{path}" optional><code>{path.rpartition(".")[2]}</code></autoref>'

    return ROLE.sub(role, FORMULA.sub(formula, content))
