"""Pages in a browser: whatever names files have, nothing stands over anything else or reaches out of the window."""

from __future__ import annotations

import io

import numpy as np
import pytest
from doubles.browser import chromium
from PIL import Image

from mobileclip2_lite.reports.page import Cards, Heading, Picture, Pictures, Table, Text, to_html

LONG = "1332823164_c70a5d930e_with_a_name_that_has_no_space_anywhere.jpg"

OVERLAPS = """() => {
  const boxes = [...document.querySelectorAll("figcaption, img, h1, h2, p")].map((node) => {
    const range = document.createRange();  // what is drawn, which may be more than the element's own box
    range.selectNodeContents(node);
    return node.tagName === "IMG" ? node.getBoundingClientRect() : range.getBoundingClientRect();
  });
  const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => over(a, b))).length;
}"""
"""How many pairs of texts and pictures stand over each other."""


FOCUSED = """() => {
  const here = document.activeElement;
  return [here.ariaLabel || here.querySelector("img")?.alt, getComputedStyle(here).outlineStyle];
}"""
"""What the keyboard has reached: its name, and the style of the ring around it."""


def test_a_path_may_go_on_in_a_new_line_and_no_address_is_broken():
    picture = Picture("a", b"", "a/b.png", "0.5 a/b.png, [c](https://d/e) `f/g`", "h/i.png")
    found = to_html("t", [Pictures([picture], small=True)])
    assert '0.5 a/<wbr>b.png, <a href="https://d/e">c</a> <code>f/<wbr>g</code></figcaption>' in found
    assert '<a href="h/i.png">' in found


@pytest.mark.slow
def test_long_names_stay_in_their_places(tmp_path):
    data = io.BytesIO()
    Image.fromarray(np.full((90, 160, 3), 120, np.uint8)).save(data, "PNG")
    thumbnails = [Picture(LONG, data.getvalue(), LONG, f"0.{number}23 {LONG}", LONG) for number in range(9)]
    blocks = [
        Text(f"50 images in `{LONG}/{LONG}`, {LONG}{LONG}."),
        Heading(LONG),
        Pictures(thumbnails, small=True),
        Cards([(LONG, LONG, LONG)]),
        Pictures(thumbnails[:2], caption=LONG),
        Table(["reason", "files", "names"], [["unreadable", "2", f"{LONG}, {LONG}"]]),
    ]
    (tmp_path / "page.html").write_text(to_html(LONG, blocks), "utf-8")
    with chromium() as browser:
        for width in (1280, 400):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto((tmp_path / "page.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(OVERLAPS) == 0
            page.screenshot(path=str(tmp_path / f"{width}.png"), full_page=True)
        reached = []
        for _ in range(len(thumbnails) + 3):  # two of them come again, then the table
            page.keyboard.press("Tab")
            reached.append(page.evaluate(FOCUSED))
        assert [name for name, _ in reached] == [LONG] * 11 + ["table: reason, files, names"]
        assert {ring for _, ring in reached} == {"solid"}, "where the keyboard is can be seen"
