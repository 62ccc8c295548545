"""The playground in a browser: what it runs on, files that are let go over it, and what it answers."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DROP = """async ([selector, kind, bytes, event]) => {
  const files = new DataTransfer();
  if (bytes) files.items.add(new File([Uint8Array.from(bytes)], "dropped", { type: kind }));
  const place = document.querySelector(selector);
  const init = { bubbles: true, cancelable: true };
  if (event === "paste") return place.dispatchEvent(new ClipboardEvent("paste", { ...init, clipboardData: files }));
  place.dispatchEvent(new DragEvent("dragover", { ...init, dataTransfer: files }));
  return place.dispatchEvent(new DragEvent("drop", { ...init, dataTransfer: files }));
}"""
"""What a browser does when a file is let go over a place, or pasted into it; true where nobody took the event."""


def runtime() -> Path:
    """The folder of onnxruntime-web, or a skip that says how to get it."""
    from mobileclip2_lite.deployment import playground

    given = os.environ.get("MOBILECLIP2_LITE_ORT_WEB")
    folder = Path(given) if given else ROOT / "runs" / "npm" / "package" / "dist"
    if not all((folder / file).is_file() for file in playground.RUNTIME):
        pytest.skip(f"needs onnxruntime-web in {folder}: `make playground` fetches it")
    return folder


def drop(page, selector: str, image, event: str = "drop", kind: str = "image/png") -> bool:
    """Let an image (array), bytes or nothing go over a place of a page; true where nobody took it."""
    from PIL import Image

    data = io.BytesIO()
    if isinstance(image, bytes):
        data.write(image)
    elif image is not None:
        Image.fromarray(image).save(data, "PNG")
    return page.evaluate(DROP, [selector, kind, list(data.getvalue()) or None, event])


def bars(page) -> dict[str, float]:
    """What the playground answers: name -> share in percent, in the order shown."""
    rows = page.locator(".bar").all()
    return {
        row.locator("span").nth(0).inner_text(): float(row.locator("span").nth(1).inner_text()[:-2]) for row in rows
    }


def first_bar(page, name: str) -> None:
    """Wait until a name is the most probable one."""
    page.wait_for_function("name => document.querySelector('.bar span')?.innerText === name", arg=name)
