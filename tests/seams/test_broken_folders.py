"""Every command on folders that something happened to: a sentence that names the file, never a traceback or a loss."""

from __future__ import annotations

import errno
import resource
import shutil
from pathlib import Path

import pytest
from doubles.every_input import fill

from mobileclip2_lite import cli, recipes
from mobileclip2_lite.costs.plan import plan
from mobileclip2_lite.costs.published import published_rates
from mobileclip2_lite.reports.numbers import read_json
from mobileclip2_lite.training.stopping import Diverged, stopped_at
from mobileclip2_lite.work.files import write_atomic
from mobileclip2_lite.work.folder import StageMismatch, Work, read_manifest
from mobileclip2_lite.work.json_lines import append_lines, read_lines
from mobileclip2_lite.work.place import place_of

SHORT = "--samples 8 --batch-size 8 --workers 0"
READERS = {
    "filter": ("pairs", "filter {d}/pairs {o}/kept --scorer {d}/student"),
    "caption": ("pairs", "caption {d}/pairs {o}/told --captioners {d}/coca --generate.max-length 6"),
    "captions": ("data", "captions {d}/data"),
    "reinforce": ("pairs", "reinforce {d}/pairs {o}/stored --teachers {d}/student --views 1"),
    "train": ("data", f"train {{d}}/data {{o}}/model --model {{d}}/student {SHORT}"),
    "rehearse": ("data", f"train {{d}}/data {{o}}/model --model {{d}}/student {SHORT} --captioners short --dry-run"),
    "inspect": ("data", "inspect {d}/data --html {o}/page.html"),
    "hold-out": ("pairs", "hold-out {d}/pairs {o}/train {o}/test --count 2"),
    "evaluate": ("pairs", "evaluate {d}/student --set {d}/pairs --output {o}/sets.json"),
    "pairs": ("pairs", "pairs {o}/pairs --source {d}/pairs --count 0"),
}
"""What reads a folder of shards, by name: the folder, and the words."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Path:
    """Something for every command; read it only."""
    folder = tmp_path_factory.mktemp("broken") / "disk"
    fill(folder)
    return folder


def call(words: str, disk: Path, out: Path, capsys) -> tuple[int, str]:
    """A command's exit status and what it said; an error that is no sentence is raised."""
    status = 0
    try:
        cli.main(words.format(d=disk, o=out).split())
    except SystemExit as ended:
        status = int(ended.code or 0)
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize("name", [name for name in READERS if name != "pairs"])  # which takes any folder of tars
@pytest.mark.parametrize("content", ["half", "[]", "{}"])
def test_a_manifest_cut_in_half_is_named(disk, tmp_path, capsys, name, content):
    folder, words = READERS[name]
    shutil.copytree(disk, tmp_path / "disk")
    manifest = tmp_path / "disk" / folder / "manifest.json"
    manifest.write_text(manifest.read_text()[: manifest.stat().st_size // 2] if content == "half" else content)
    status, said = call(words, tmp_path / "disk", tmp_path / "out", capsys)
    assert status == 2, said
    assert str(manifest) in said or f"{folder}" in said
    assert not list((tmp_path / "out").rglob("*.tar")), "nothing is made of it"


@pytest.mark.parametrize("name", READERS)
def test_a_shard_of_no_bytes_is_counted_or_named(disk, tmp_path, capsys, name):
    folder, words = READERS[name]
    shutil.copytree(disk, tmp_path / "disk")
    shard = tmp_path / "disk" / folder / "shard-000001.tar"
    shard.write_bytes(b"")
    status, said = call(words, tmp_path / "disk", tmp_path / "out", capsys)
    assert status in (0, 1, 2), said
    assert status == 0 or shard.name in said, said
    counted = [path for path in (tmp_path / "out").rglob("manifest.json") if "damaged_tar" in path.read_text()]
    assert status or name in ("captions", "inspect", "rehearse", "evaluate") or counted, said


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("captions", "rehearse")])
def test_an_output_that_cannot_be_made_is_named(disk, capsys, name):
    status, said = call(READERS[name][1], disk, Path("/proc/nobody"), capsys)
    assert (status, "/proc/nobody" in said) == (2, True), said


def test_a_note_of_what_is_made_that_was_cut_short_is_named(tmp_path):
    work = Work(tmp_path, "pairs", 1, {"count": 1})
    work.begin()
    note = tmp_path / "progress.json"
    for content, what in ((note.read_text()[:20], "is not valid JSON"), ("[1]", "holds a list")):
        note.write_text(content)
        with pytest.raises(ValueError, match=rf"progress\.json {what}.*remove it"):
            work.done()
    note.unlink()
    work.commit(shards=[])
    with pytest.raises(StageMismatch, match="count: 1 there, 2 asked for"):
        Work(tmp_path, "pairs", 1, {"count": 2}).done()
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match=r"manifest\.json has no `key`.*run its stage again"):
        Work(tmp_path / "next", "caption", 1, {}, {"pairs": tmp_path})
    assert read_manifest(tmp_path) == {}
    (tmp_path / "evaluation.json").write_text('{"control"')
    with pytest.raises(ValueError, match=r"evaluation\.json is not valid JSON"):
        read_json(tmp_path / "evaluation.json")


def test_a_line_is_added_whole_or_not_at_all(tmp_path):
    path = append_lines(tmp_path / "rows.jsonl", [{"row": 1}])
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, limits[1]))
    try:
        with pytest.raises(OSError, match=r"rows\.jsonl") as full:
            append_lines(path, [{"row": 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    append_lines(path, [{"row": 3}])
    assert [line["row"] for line in read_lines(path)] == [1, 3]


@pytest.mark.parametrize("name", ["caption", "filter", "reinforce"])
def test_a_disk_that_is_full_ends_a_stage_with_its_file_and_it_goes_on_later(disk, tmp_path, capsys, name):
    words, out = READERS[name][1], tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, limits[1]))  # a note fits, a shard does not
    try:
        status, said = call(words, disk, out, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 2, said
    assert "too large" in said
    assert ".tar" in said
    assert not [path for path in out.rglob("*") if path.suffix in (".tar", ".partial")]
    assert call(words, disk, out, capsys)[0] == 0
    assert call(words, disk, tmp_path / "undisturbed", capsys)[0] == 0
    made = [
        {path.name: path.read_bytes() for path in place.rglob("*.tar")} for place in (out, tmp_path / "undisturbed")
    ]
    assert made[0] == made[1]


def test_what_a_stopped_training_left_is_told_as_it_is(tmp_path):
    assert "the checkpoint stands, and the same command goes on" in str(stopped_at(tmp_path, 7, 9, [5, 7]))
    refused = str(stopped_at(tmp_path, 7, 9, [5]))
    assert "could not be written, that of step 5 stands, and free some space" in refused
    assert "could not be written, there is none" in str(stopped_at(tmp_path, 7, 9, []))


@pytest.mark.parametrize(("error", "status"), [(Diverged("nan at step 3"), 2), (KeyboardInterrupt(), 130)])
def test_ends_of_a_command_are_sentences(disk, tmp_path, capsys, monkeypatch, error, status):
    def ending(*_, **__):
        raise error

    monkeypatch.setattr("mobileclip2_lite.training.loop.train", ending)
    found, said = call(READERS["train"][1], disk, tmp_path, capsys)
    assert found == status
    assert ("nan at step 3" if status == 2 else "the same command goes on") in said


def test_a_result_is_not_lost_for_want_of_a_folder(tmp_path):
    write_atomic(tmp_path / "not" / "yet" / "there.json", b"{}")
    assert [path.name for path in (tmp_path / "not" / "yet").iterdir()] == ["there.json"]


@pytest.mark.parametrize("url", ["s3://", "s3:", "gs:///", "s3:/"])
def test_an_address_without_a_bucket_is_refused(url):
    with pytest.raises(ValueError, match=r"names no bucket: write (s3|gs)://BUCKET/FOLDER"):
        place_of(url)
    assert place_of("s3://bucket/").store.url == "s3://bucket"


def test_rates_of_another_recipe_are_refused_by_name():
    with pytest.raises(ValueError, match=r"no rate of .*lite-captioner.*plan --measure"):
        plan(recipes.tiny(), published_rates(recipes.paper_12m()))
