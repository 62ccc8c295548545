"""The report of a run made by hand, whose numbers are known."""

import dataclasses
import html
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from mobileclip2_lite import emoji_world
from mobileclip2_lite.models.zoo import create_model, save_model
from mobileclip2_lite.recipes import tiny
from mobileclip2_lite.reports import figures, page
from mobileclip2_lite.reports import run as report
from mobileclip2_lite.reports import run_pictures as report_pictures
from mobileclip2_lite.shards.samples import Sample, write_shard
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.randomness import rng

TEACHERS = ("conv", "mci")
SCORES = {"control": [0.10, 0.14], "student": [0.50, 0.54]}
MEASURES = ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1", "binding", "relations", "zero_shot_grey")


def recipe():
    return dataclasses.replace(tiny(), seeds=(0, 1))


def unit(generator, rows):
    return torch.nn.functional.normalize(torch.randn(rows, 16, generator=generator), dim=-1)


def reinforced(folder, count=12):
    """A shard of `count` pairs; the teachers believe pair 3 most and pair 5 least."""
    settings, generator, samples = recipe(), torch.Generator().manual_seed(0), []
    for index in range(count):
        scene = emoji_world.scene(settings.world, "train", index)
        buffer = io.BytesIO()
        Image.fromarray(emoji_world.render(scene, 64)).save(buffer, "PNG")
        digest = sha256_bytes(buffer.getvalue())
        views = [draw(rng(index, v), 64, 64, settings.reinforce.augment, digest) for v in range(3)]
        embeddings = {}
        for name in TEACHERS:
            text = unit(generator, 1)
            image = {3: text, 5: -text}.get(index, unit(generator, 1))
            embeddings |= {f"text/{name}": text, f"image/{name}": image.repeat(3, 1)}
        text = emoji_world.alt_text(scene, settings.world)
        samples.append(Sample(f"{index:04d}", buffer.getvalue(), "png", text, {}, {}, views, embeddings))
    info = write_shard(folder / "shard-000000.tar", samples)
    shards = [{"name": "shard-000000.tar", "sha256": info.sha256, "samples": info.samples, "dropped": {}}]
    teachers = [{"name": name, "logit_scale": 50.0} for name in TEACHERS]
    Work(folder, "reinforce", 1, {}).commit(shards=shards, teachers=teachers)
    return samples


@pytest.fixture(scope="module")
def loaded():
    torch.manual_seed(0)
    return create_model("lite-mci-s")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, loaded):
    folder = tmp_path_factory.mktemp("run")
    reinforced(folder / "reinforced")
    scores = {kind: [dict.fromkeys(MEASURES, value) for value in values] for kind, values in SCORES.items()}
    for kind, seeds in scores.items():
        for seed, values in enumerate(seeds):
            save_model(loaded, folder / f"{kind}-seed{seed}")
            lines = [{"step": 1, "samples": 64, "loss": 4.1}]
            for step, share in ((16, 0.4), (32, 1.0)):
                lines += [{"step": step, "evaluation": {"zero_shot": share * values["zero_shot"]}}]
            lines[-1]["samples"] = 2_048
            log = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / f"{kind}-seed{seed}" / "log.jsonl").write_text(log, "utf-8")
    scores["teachers"] = {name: dict.fromkeys(MEASURES, 0.8 + 0.1 * i) for i, name in enumerate(TEACHERS)}
    (folder / "evaluation.json").write_text(json.dumps(scores), "utf-8")
    (folder / "timings.json").write_text('{"pairs": 20.0, "reinforce": 60.0, "train student": 120.0}', "utf-8")
    report.write_report(folder, recipe(), dict.fromkeys(TEACHERS, loaded))
    return folder


def test_the_result_is_one_sentence(run_folder):
    lead = (run_folder / "report.md").read_text("utf-8").split("\n")[2]
    assert "beats the control" in lead
    assert "52.0 ± 2.8 % against 12.0 ± 2.8 % right (+40.0 points, 14 times the larger standard deviation" in lead
    assert "same 2,048 seen samples" in lead


def test_a_loss_and_a_single_seed_are_told_honestly(run_folder):
    worse = {kind: [{"zero_shot": value}] for kind, value in (("control", 0.3), ("student", 0.2))}
    text = report.summary(worse, recipe(), run_folder)[0].text
    assert "does not beat the control" in text
    assert "20.0 % against 30.0 % right (-10.0 points; one seed, so without a deviation)" in text
    noisy = {"control": [{"zero_shot": 0.2}, {"zero_shot": 0.3}], "student": [{"zero_shot": 0.3}, {"zero_shot": 0.35}]}
    assert "is not clearly better than the control" in report.summary(noisy, recipe(), run_folder)[0].text


def test_table_has_chance_control_student_difference_and_teachers(run_folder):
    markdown = (run_folder / "report.md").read_text("utf-8")
    names = recipe().world.names
    row = f"| zero-shot, top-1 | 12.0 ± 2.8 | **52.0 ± 2.8** | +40.0 | {100 / names:.1f} | 80.0 | 90.0 |"
    assert row in markdown.split("\n")
    assert "| +40.0 | 50.0 |" in next(line for line in markdown.split("\n") if "attribute binding |" in line)


def test_every_picture_is_there_and_attributed(run_folder):
    markdown = (run_folder / "report.md").read_text("utf-8")
    links = re.findall(r"\(figures/([\w-]+\.png)\)", markdown)
    written = {path.name for path in (run_folder / "figures").iterdir()}
    assert set(links) == written
    assert len(written) >= 12
    for name in written:
        Image.open(run_folder / "figures" / name).verify()
    assert markdown.count("OpenMoji") >= 4
    assert markdown.count("CC BY-SA 4.0") >= 4


def test_html_needs_no_other_file(run_folder):
    html = (run_folder / "report.html").read_text("utf-8")
    sources = re.findall(r'src="([^"]{,40})', html)
    assert len(sources) >= 12
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<script" not in html
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    assert all(f'alt="{alt}"' not in html for alt in ("", " "))
    assert len(html) < 1_500_000
    assert str(run_folder) not in html


def test_learning_curve_reads_what_every_seed_has(run_folder):
    samples, runs = report.curve(run_folder, "student", recipe(), "zero_shot")
    assert samples == [16 * 64, 2_048]
    assert runs == [pytest.approx([0.2, 0.5]), pytest.approx([0.216, 0.54])]
    assert report.curve(run_folder, "student", recipe(), "retrieval_i2t_r1") == ([], [[], []])
    with pytest.raises(FileNotFoundError, match="train the student with seed 7"):
        report.curve(run_folder, "student", dataclasses.replace(recipe(), seeds=(7,)), "zero_shot")


def test_learning_curves_say_that_they_are_of_validation_images_and_guess_as_those_do(run_folder):
    _, axes = figures.figure()
    series = report.validation_curves(run_folder, recipe(), "zero_shot", axes)
    assert series["student"] == report.curve(run_folder, "student", recipe(), "zero_shot")
    assert axes.get_ylabel() == "right on validation images (%)"
    _, axes = figures.figure()
    line = {"step": 32, "samples": 2_048, "evaluation": {"retrieval_t2i_r1": 0.5}}
    one = dataclasses.replace(recipe(), seeds=(0,))
    for kind in ("control", "student"):
        log = run_folder.parent / "one" / f"{kind}-seed0" / "log.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(json.dumps(line) + "\n", "utf-8")
    report.validation_curves(run_folder.parent / "one", one, "retrieval_t2i_r1", axes)
    assert axes.get_title(loc="left") == "text to image, R@1 of 24 scenes"
    guess = next(drawn for drawn in axes.lines if drawn.get_label() == "chance")
    assert guess.get_ydata()[0] == pytest.approx(100 / 24), "not that of the 48 scenes of the test split"
    assert [drawn.get_label() for drawn in axes.lines] == ["control", "student", "chance"], "nothing of the test split"


def test_stored_samples_are_the_most_and_the_least_believed(tmp_path):
    samples = reinforced(tmp_path)
    blocks = report_pictures.stored(tmp_path)
    tables = [block for block in blocks if isinstance(block, page.Table)]
    assert [table.rows[0][1] for table in tables] == [f"“{samples[3].text}”", f"“{samples[5].text}”"]
    own, best = tables[0].rows[1][1], tables[0].rows[2][1]
    assert float(own.split()[0]) > 99
    assert best.startswith(f"“{samples[3].text}” 100 %")
    assert len(next(block for block in blocks if isinstance(block, page.Pictures)).items) == 1 + 3


def test_shards_of_the_official_layout_are_named(tmp_path):
    Work(tmp_path, "reinforce", 1, {"layout": "datacompdr"}).commit(shards=[], teachers=[])
    (text,) = report_pictures.stored(tmp_path)
    assert "official layout" in text.text


def test_answers_are_marked_by_the_truth(loaded):
    world = recipe().world
    scenes = report_pictures.answers({"model": loaded}, world, renders=2, count=5)
    assert len({scene["name"] for scene in scenes}) == 5
    assert all(scene["image"].shape == (report_pictures.SIDE, report_pictures.SIDE, 3) for scene in scenes)
    assert all(len(set(scene["answers"]["model"])) == 3 for scene in scenes)
    again = report_pictures.answers({"model": loaded}, world, renders=2, count=5)
    assert [s["answers"] for s in scenes] == [s["answers"] for s in again]
    gallery = report_pictures.predictions({"model": loaded}, world, renders=2)
    for picture, ((_, answer, right),) in gallery.items:
        assert right == (answer.split(", then ")[0] == picture.caption)


def test_a_missing_part_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"evaluation\.json"):
        report.write_report(tmp_path, recipe())


def test_page_escapes_what_users_write():
    blocks = [page.Text("a <b> & **bold** `x<y` [site](https://a.org)"), page.Table(["", "n"], [["a|b", "<i>"]])]
    html = page.to_html("T <1>", blocks)
    assert "a &lt;b&gt; &amp; <strong>bold</strong> <code>x&lt;y</code>" in html
    assert '<a href="https://a.org">site</a>' in html
    assert "<title>T &lt;1&gt;</title>" in html
    assert "| a\\|b | <i> |" in page.to_markdown("T", blocks)


def test_a_users_words_are_no_markup():
    words = "a **b** `c` [d](https://e.org) \\* <f>"
    blocks = [page.Text(page.verbatim(words)), page.Code("two   columns\n<g> **h**")]
    shown = page.to_html(page.verbatim(words), blocks)
    assert not [mark for mark in ("<strong>", "<code>", "<a href") if mark in shown]
    assert html.unescape(re.search("<p>(.*)</p>", shown)[1]) == words
    assert html.unescape(re.search("<title>(.*)</title>", shown)[1]) == words
    assert "<pre>two   columns\n&lt;g&gt; **h**</pre>" in shown
    assert "```\ntwo   columns\n" in page.to_markdown("t", blocks)


def test_gallery_marks_with_signs():
    picture = page.Picture("p", report_pictures.as_png(np.zeros((4, 4, 3), np.uint8)), "a dog", "dog")
    gallery = page.Gallery([(picture, [("control", "cat", False), ("student", "dog", True)])])
    assert "| dog | ✗ cat | ✓ dog |" in page.to_markdown("T", [gallery])
    assert '<dd class="right">✓ dog</dd>' in page.to_html("T", [gallery])
