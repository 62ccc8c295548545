"""One page, two forms: blocks of text, tables and pictures as Markdown beside its pictures, and as one HTML file.

No paper section: this is how results are shown. Writes nothing itself: `to_markdown` and `to_html` return text, and
`pictures` what belongs into the folder beside the Markdown. The HTML needs no other file and no script, reads on a
phone as well as on a desk, and follows the reader's light or dark setting. Gives up: any layout beyond these blocks.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mobileclip2_lite.work.tables import markdown_table


@dataclass
class Heading:
    """Starts a section."""

    text: str


@dataclass
class Text:
    """A paragraph; `**bold**`, `` `code` `` and `[text](address)` are understood."""

    text: str
    lead: bool = False
    """The one sentence that the page is about."""


@dataclass
class Code:
    """Lines of text in columns, shown as they are."""

    text: str


@dataclass
class Cards:
    """Few numbers that matter: (label, value, remark)."""

    items: list[tuple[str, str, str]]


@dataclass
class Table:
    """Rows under a header; the first column names the row."""

    header: list[str]
    rows: list[list[str]]
    strong: int | None = None
    """Column set in bold."""
    prose: bool = False
    """The cells are text, not numbers."""
    closed: str | None = None
    """A summary that the HTML shows instead until it is opened."""


@dataclass
class Picture:
    """A PNG, or in HTML alone a JPEG, with the text that stands for it and the caption below it."""

    name: str
    png: bytes
    alt: str
    caption: str = ""
    link: str = ""
    """Where a click on it leads, in HTML."""


@dataclass
class Pictures:
    """Pictures side by side where there is room."""

    items: list[Picture]
    caption: str = ""
    small: bool = False
    """Thumbnails instead of figures."""


@dataclass
class Gallery:
    """Small pictures, each with verdicts: (who, answer, right or wrong or None)."""

    items: list[tuple[Picture, list[tuple[str, str, bool | None]]]] = field(default_factory=list)
    caption: str = ""


Block = Heading | Text | Code | Cards | Table | Picture | Pictures | Gallery


def pictures(blocks: Sequence[Block]) -> Iterator[Picture]:
    """Every picture of the page."""
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        elif isinstance(block, Pictures):
            yield from block.items
        elif isinstance(block, Gallery):
            yield from (picture for picture, _ in block.items)


ESCAPED = r"\\([\\`*\[\]])"
"""A mark of bold, code or links that stands for itself, as in Markdown."""


def verbatim(text: str) -> str:
    """Text of a user for any block: what would be read as bold, code or a link stays what it is."""
    return re.sub(r"([\\`*\[\]])", r"\\\1", text)


def sign(right: bool | None) -> str:
    """A tick, a cross or nothing: right and wrong without colour."""
    return {True: "✓ ", False: "✗ ", None: ""}[right]


def to_markdown(title: str, blocks: Sequence[Block], folder: str = "figures") -> str:
    """The page as Markdown that shows its pictures from `folder`."""
    return "\n\n".join([f"# {title}", *(_markdown(block, folder) for block in blocks)]) + "\n"


def _markdown(block: Block, folder: str) -> str:
    def image(picture: Picture) -> str:
        return f"![{picture.alt}]({folder}/{picture.name}.png)"

    match block:
        case Heading(text):
            return f"## {text}"
        case Text(text, lead):
            return f"**{text}**" if lead else text
        case Code(text):
            return f"```\n{text}\n```"
        case Cards(items):
            return "\n".join(f"- {label}: **{value}** ({remark})" for label, value, remark in items)
        case Table(header, rows, strong, prose):
            body = [[f"**{c}**" if i == strong else c for i, c in enumerate(row)] for row in rows]
            return markdown_table(header, body, len(header) if prose else 1)
        case Picture():
            return f"{image(block)}\n\n*{block.caption}*" if block.caption else image(block)
        case Pictures(items, caption):
            row, under = [image(picture) for picture in items], [picture.caption for picture in items]
            shown = markdown_table(row, [under], len(items))
            return f"{shown}\n\n*{caption}*" if caption else shown
        case Gallery(items, caption):
            who = [name for name, _, _ in items[0][1]] if items else []
            rows = (
                [image(p), p.caption, *(f"{sign(right)}{answer}" for _, answer, right in verdicts)]
                for p, verdicts in items
            )
            shown = markdown_table(["picture", "it shows", *who], rows, 2 + len(who))
            return f"{shown}\n\n*{caption}*" if caption else shown
    raise TypeError(f"not a block: {block!r}")


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """The page as one HTML file with its pictures inside."""
    body = "\n".join(_html(block) for block in blocks)
    name = re.sub(ESCAPED, r"\1", title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(name)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_inline(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _inline(text: str) -> str:
    text = html.escape(text)
    text = re.sub(ESCAPED, lambda found: f"&#{ord(found[1])};", text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2">\1</a>', text)


def _img(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    kind = "jpeg" if picture.png.startswith(b"\xff\xd8") else "png"
    shown = f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(picture.alt, quote=True)}">'
    return f'<a href="{html.escape(picture.link, quote=True)}">{shown}</a>' if picture.link else shown


def _figure(inside: str, caption: str, kind: str = "") -> str:
    broken = re.sub(r"(?<!<)/(?=[^<>]*(?:<|$))", "/<wbr>", _inline(caption))  # where a path may go on below
    under = f"<figcaption>{broken}</figcaption>" if caption else ""
    return f'<figure class="{kind}">{inside}{under}</figure>' if kind else f"<figure>{inside}{under}</figure>"


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{_inline(text)}</h2>"
        case Text(text, lead):
            return f'<p class="lead">{_inline(text)}</p>' if lead else f"<p>{_inline(text)}</p>"
        case Code(text):
            return f"<pre>{html.escape(text)}</pre>"
        case Cards(items):
            cards = (
                f'<div class="card"><div class="label">{_inline(label)}</div><div class="value">{_inline(value)}</div>'
                f'<div class="remark">{_inline(remark)}</div></div>'
                for label, value, remark in items
            )
            return f'<div class="cards">{"".join(cards)}</div>'
        case Table():
            return _html_table(block)
        case Picture():
            return _figure(_img(block), block.caption)
        case Pictures(items, caption, small):
            inside = "".join(_figure(_img(picture), picture.caption) for picture in items)
            return _figure(f'<div class="{"thumbs" if small else "row"}">{inside}</div>', caption, "group")
        case Gallery(items, caption):
            inside = "".join(_figure(_img(p) + _verdicts(verdicts), p.caption, "item") for p, verdicts in items)
            return _figure(f'<div class="gallery">{inside}</div>', caption, "group")
    raise TypeError(f"not a block: {block!r}")


def _verdicts(verdicts: Sequence[tuple[str, str, bool | None]]) -> str:
    kinds = {True: "right", False: "wrong", None: ""}
    rows = (
        f'<dt>{_inline(who)}</dt><dd class="{kinds[right]}">{sign(right)}{_inline(answer)}</dd>'
        for who, answer, right in verdicts
    )
    return f"<dl>{''.join(rows)}</dl>"


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in table.header)
    rows = []
    for row in table.rows:
        cells = (
            f"<td><strong>{_inline(cell)}</strong></td>" if i == table.strong else f"<td>{_inline(cell)}</td>"
            for i, cell in enumerate(row[1:], 1)
        )
        rows.append(f'<tr><th scope="row">{_inline(row[0])}</th>{"".join(cells)}</tr>')
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    named = html.escape(re.sub(ESCAPED, r"\1", f"table: {', '.join(filter(None, table.header))}"), quote=True)
    kind = "scroll prose" if table.prose else "scroll"
    whole = f'<div class="{kind}" tabindex="0" role="region" aria-label="{named}">{whole}</div>'
    return f"<details><summary>{_inline(table.closed)}</summary>{whole}</details>" if table.closed else whole


STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --paper: #ffffff; --ink: #1c1e21; --soft: #5d6470; --line: #dfe2e6;
  --accent: #0072b2; --right: #00684d; --wrong: #a84600; --code: #eef1f4; }
@media (prefers-color-scheme: dark) { :root { --ground: #14161a; --paper: #1c1f25; --ink: #e7e9ec; --soft: #a3abb6;
  --line: #343a43; --accent: #6bbbe8; --right: #4fd0a8; --wrong: #ff9a56; --code: #262b33; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: .5rem 0 1rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .7rem 0; }
.lead { font-size: 1.15rem; border-left: 4px solid var(--accent); padding-left: .9rem; }
a { color: var(--accent); }
code { background: var(--code); border-radius: 4px; padding: .08em .35em; font-size: .88em; overflow-wrap: anywhere; }
pre { background: var(--code); border-radius: 12px; padding: .9rem 1rem; overflow-x: auto; font-size: .88em; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; padding: .9rem 1rem; }
.card .label, .card .remark { color: var(--soft); font-size: .88rem; }
.card .value { font-size: 1.6rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: 12px;
  background: var(--paper); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); font-weight: 500; }
thead th { color: var(--soft); font-weight: 600; font-size: .82rem; white-space: normal; vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 0; }
.prose td, .prose thead th { text-align: left; white-space: normal; }
.prose code { white-space: normal; }
summary { cursor: pointer; color: var(--accent); margin: .8rem 0; }
figure { margin: 1.2rem 0; }
figure img { display: block; width: auto; max-width: 100%; height: auto; background: #fff; border-radius: 10px; }
figcaption { color: var(--soft); font-size: .86rem; margin-top: .45rem; max-width: 46rem; }
h1, h2, p, figcaption, dd, .card { overflow-wrap: anywhere; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 1rem; }
.row figure, .thumbs figure, .gallery figure { margin: 0; }
.row img { padding: .5rem; width: 100%; }
.thumbs { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.8rem, 1fr)); gap: .7rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); gap: .9rem; }
.thumbs img, .gallery img { width: 100%; }
figure a { display: block; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 6px; }
.item { background: var(--paper); border: 1px solid var(--line); border-radius: 12px; padding: .7rem; display: grid;
  grid-template-rows: auto auto 1fr; }
.item figcaption { order: -1; color: var(--ink); font-weight: 600; font-size: .95rem; margin: 0 0 .5rem; }
dl { margin: .6rem 0 0; font-size: .86rem; }
dt { color: var(--soft); font-size: .78rem; margin-top: .4rem; }
dd { margin: 0; }
.right { color: var(--right); font-weight: 600; }
.wrong { color: var(--wrong); }
@media (max-width: 40rem) { th, td { padding: .45rem .55rem; } .item { padding: .5rem; }
  th:first-child { white-space: normal; min-width: 6.5rem; }
  .gallery { grid-template-columns: repeat(2, 1fr); gap: .6rem; } }
@media print { body { background: #fff; } .scroll { overflow: visible; } }
"""
