"""A page of the book: a notebook as it was run, or a document, in HTML that needs no other file, no script and no web.

It looks as the reports do, follows the reader's light or dark setting, and reads on a phone: what is wider than the
page (code, tables, formulas) is moved by itself. Formulas become MathML, which browsers draw without a library.
Figures keep their white ground, on which their black text was drawn.
"""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from mobileclip2_lite.reports.page import STYLE

NEEDED = "the book needs {}: pip install 'mobileclip2_lite[notebooks]'"
HEADING = re.compile(r'<h2 id="([^"]+)">(.*?)</h2>', re.DOTALL)


class Place(NamedTuple):
    """A line of the contents beside every page."""

    words: str
    address: str
    """As seen from the page; empty for the page itself."""


def body(notebook: dict[str, Any]) -> str:
    """A notebook's cells in HTML.

    Raises:
        ModuleNotFoundError: nbconvert or latex2mathml is not installed.
        ValueError: a formula cannot be read.
    """
    exporter = _exporter()
    import nbformat

    whole = nbformat.reads(json.dumps(notebook), as_version=4)  # which joins texts that Jupyter stores line by line
    text, _ = exporter.from_notebook_node(whole)
    return text


@functools.cache
def _exporter() -> Any:
    try:
        from nbconvert import HTMLExporter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(NEEDED.format("nbconvert")) from error
    quiet = {"exclude_input_prompt": True, "exclude_output_prompt": True}
    return HTMLExporter(template_name="basic", filters={"markdown2html": markdown}, **quiet)


def markdown(text: str) -> str:
    """Markdown as HTML, with formulas as MathML and tables in boxes that can be moved sideways.

    Raises:
        ModuleNotFoundError: latex2mathml is not installed.
        ValueError: a formula cannot be read.
    """
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    renderer = IPythonRenderer(escape=False, exclude_anchor_links=True)
    renderer.block_math = lambda tex: f'<div class="formula" tabindex="0">{formula(tex, "block")}</div>'
    renderer.inline_math = formula
    renderer.heading = lambda words, level, **_: f'<h{level} id="{anchor(words)}">{words}</h{level}>\n'
    made = MarkdownWithMath(renderer=renderer).render(text)
    made = made.replace("<table>", '<div class="scroll prose" tabindex="0"><table>')
    return made.replace("</table>", "</table></div>")


def anchor(words: str) -> str:
    """A heading's place in its page, named as GitHub does."""
    plain = html.unescape(re.sub(r"<[^>]+>", "", words)).strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))


def formula(tex: str, display: str = "inline") -> str:
    """A formula as MathML.

    Raises:
        ModuleNotFoundError: latex2mathml is not installed.
        ValueError: the formula cannot be read.
    """
    try:
        from latex2mathml.converter import convert
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(NEEDED.format("latex2mathml")) from error
    try:
        return convert(tex.strip(), display=display)
    except Exception as error:  # its errors have no common kind
        raise ValueError(f"the formula ${tex.strip()}$ cannot be read ({type(error).__name__}): correct it") from error


def whole(title: str, inside: str, contents: Sequence[Sequence[Place]] = (), way: str = "") -> str:
    """A page.

    Args:
        title: for the browser's tab.
        inside: the page's body in HTML.
        contents: of the book in groups, for wide windows; below the page itself stand its own headings.
        way: links to the pages before and after, in HTML; stands above and below the body.
    """
    beside = f'<nav class="book" aria-label="contents">{_contents(contents, inside)}</nav>\n' if contents else ""
    steps = f'<nav class="way">{way}</nav>\n' if way else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}{_code_style()}{BOOK_STYLE}</style>\n</head>\n<body>\n"
        f"{beside}<main>\n{steps}{inside}\n{steps}</main>\n</body>\n</html>\n"
    )


def _contents(groups: Sequence[Sequence[Place]], inside: str) -> str:
    return "".join(_group(places, inside) for places in groups if places)


def _group(places: Sequence[Place], inside: str) -> str:
    lines = []
    for words, address in places:
        if address:
            lines.append(f'<li><a href="{html.escape(address)}">{html.escape(words)}</a></li>')
            continue
        below = "".join(f'<li><a href="#{place}">{text}</a></li>' for place, text in HEADING.findall(inside))
        lines.append(f'<li aria-current="page"><strong>{html.escape(words)}</strong><ul>{below}</ul></li>')
    return f"<ul>{''.join(lines)}</ul>"


def _code_style() -> str:
    """Colours of code, for light and dark."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=name, nobackground=True) for name in ("default", "github-dark"))
    rules = [part.get_style_defs(".highlight") for part in (light, dark)]
    return f"{rules[0]}\n@media (prefers-color-scheme: dark) {{ {rules[1]} }}\n"


BOOK_STYLE = """
main { max-width: 62rem; }
h3 { font-size: 1.08rem; margin: 1.6rem 0 .4rem; }
p, ul, ol { max-width: 46rem; }
li { margin: .25rem 0; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 10px; }
pre code { padding: 0; background: none; font-size: inherit; overflow-wrap: normal; }
.highlight pre, .output_text pre { margin: .7rem 0; white-space: pre; font-size: .78rem; }
.highlight, .highlight pre { background: var(--code); }
.highlight { border-radius: 12px; }
.output_text pre { background: none; border-left: 3px solid var(--line); border-radius: 0; color: var(--soft); }
.output_markdown { border-left: 3px solid var(--accent); padding-left: 1rem; margin: .9rem 0; }
.formula { overflow-x: auto; overflow-y: hidden; padding: .4rem 0; margin: .7rem 0; max-width: 46rem; }
math { font-size: 1.08em; }
munderover > :nth-child(2) { padding-top: .2em; }
munderover > :nth-child(3) { padding-bottom: .2em; }
td img { min-width: 8rem; }
.scroll.prose { width: fit-content; max-width: 100%; }
.prose th, .prose td { text-align: left; }
.prose th:first-child { position: static; }
.prose td { min-width: 6.5rem; }
.prose td[style*="right"] { min-width: 0; white-space: nowrap; }
.prose tbody tr:nth-child(even) { background: color-mix(in srgb, var(--code) 55%, transparent); }
.way { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; font-size: .9rem; padding: .6rem 0;
  border-bottom: 1px solid var(--line); }
main > .way:last-child { border: 0; border-top: 1px solid var(--line); margin-top: 3rem; }
nav.book { display: none; }
@media (min-width: 75rem) {
  body { display: grid; grid-template-columns: 17rem minmax(0, 1fr); }
  nav.book { display: block; position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.2rem 1rem;
    border-right: 1px solid var(--line); font-size: .86rem; }
  nav.book ul { list-style: none; margin: 0 0 1.2rem; padding: 0; }
  nav.book ul ul { margin: 0; padding-left: .8rem; border-left: 2px solid var(--line); }
  nav.book a { text-decoration: none; }
  main { margin: 0 auto; width: 100%; padding: 1.5rem 1.6rem 4rem; } }
@media (max-width: 40rem) { .output_png { overflow-x: auto; } .output_png img { max-width: 38rem; } }
@media print { nav { display: none !important; } }
"""
