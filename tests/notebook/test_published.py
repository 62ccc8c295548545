"""Published notebooks hold nothing that needs the kernel that made them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mobileclip2_lite.notebook import published
from mobileclip2_lite.notebook.copies import read_notebook

NOTEBOOKS = sorted(Path(__file__).resolve().parents[2].glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_hold_nothing_that_needs_the_kernel_that_made_them(path):
    outputs = [output for cell in read_notebook(path)["cells"] for output in cell.get("outputs", [])]
    assert not [one for one in outputs if published.VIEW in one.get("data", {})], "make publish takes views out"


def test_publishing_takes_out_views_and_leaves_the_line_that_says_what_they_are(tmp_path):
    view = {published.VIEW: {"model_id": "x"}, "text/plain": "(a slider)"}
    outputs = [{"output_type": "display_data", "data": data} for data in (view, {"image/png": "abc"})]
    cells = [{"cell_type": "markdown", "source": "# A"}, {"cell_type": "code", "source": "1", "outputs": outputs}]
    (tmp_path / "00_a.ipynb").write_text(json.dumps({"cells": cells}), "utf-8")
    assert published.publish(tmp_path) == [tmp_path / "00_a.ipynb"]
    kept = json.loads((tmp_path / "00_a.ipynb").read_text("utf-8"))["cells"]
    assert [output["data"] for output in kept[1]["outputs"]] == [{"text/plain": "(a slider)"}, {"image/png": "abc"}]
    assert published.publish(tmp_path) == [], "done once"
    with pytest.raises(ValueError, match="give the folder that holds"):
        published.publish(tmp_path / "nowhere")


def test_what_a_cell_printed_is_one_output():
    def printed(text: str, name: str = "stdout") -> dict:
        return {"output_type": "stream", "name": name, "text": [text]}

    figure = {"output_type": "display_data", "data": {"image/png": "AAAA"}, "metadata": {}}
    outputs = [printed("a\n"), printed("b"), printed("\n"), printed("!", "stderr"), figure, printed("c\n")]
    made = published.without_views({"cells": [{"cell_type": "code", "outputs": outputs}]})["cells"][0]["outputs"]
    assert made == [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "b\n"]},
        printed("!", "stderr"),
        figure,
        printed("c\n"),
    ]
