"""A Chromium that is installed already, without a window; a test that asks for it is skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser of playwright's."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Chromium, e.g. apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=list(QUIET))
        except sync_api.Error as error:  # a half installed one, or no sandbox and no way around it
            pytest.skip(f"{program} does not start here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
