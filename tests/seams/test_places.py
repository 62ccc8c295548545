"""Every command with a store's address in every place of a path: it works there, or a sentence says what to do."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest
from doubles.every_input import fill
from doubles.faulty_store import faulty_store

from mobileclip2_lite import cli, recipes
from mobileclip2_lite.cli.places import WRITTEN
from mobileclip2_lite.costs import deployed
from mobileclip2_lite.deployment.export import ExportRow
from mobileclip2_lite.evaluation.own_images import evaluate_zero_shot
from mobileclip2_lite.models.photo_teachers import save
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.reports.numbers import evaluated_seeds
from mobileclip2_lite.studies.photo_teachers import images_with_texts
from mobileclip2_lite.work.place import StorePath, here, made_here, place_of
from mobileclip2_lite.work.store import Clash, _client

B = "s3://bucket"
SHORT = "--samples 8 --batch-size 8 --workers 0"
WORKS = {
    "pairs": [("out", "pairs @pairs --source {b}/images?text=folder --count 0", "pairs/manifest.json")],
    "filter": [("pairs out html", "filter {b}/pairs @kept --scorer {b}/student --html @kept.html", "kept.html")],
    "caption": [
        (
            "pairs out",
            "caption {b}/pairs @told --captioners {b}/coca --generate.captions 1 --generate.max-length 6",
            "told/manifest.json",
        )
    ],
    "captions": [("path output", "captions {b}/data --output @captions.json", "captions.json")],
    "reinforce": [
        ("pairs out", "reinforce {b}/pairs @stored --teachers {b}/student --views 1", "stored/manifest.json")
    ],
    "train": [
        (
            "data out",
            f"train {{b}}/data @trained --model {{b}}/student {SHORT}",
            "trained/model.safetensors",
        ),
        (
            "held_out",
            f"train {{b}}/pairs @coca --model {{b}}/coca {SHORT} --distill 0 --views weak --captioning 2 "
            "--held-out {b}/pairs",
            "coca/model.safetensors",
        ),
    ],
    "inspect": [("path html", "inspect {b}/data --html @inspected.html", "inspected.html")],
    "hold-out": [("pairs train test", "hold-out {b}/pairs @train @test --count 3", "test/manifest.json")],
    "join": [
        (
            "official out images links",
            "join {b}/published @joined --teachers first 6 second 4 --images {b}/loose --links @links.csv",
            "links.csv",
        )
    ],
    "shrink": [("reinforced out", "shrink {b}/new/stored @small --side 32", "small/manifest.json")],
    "evaluate": [
        (
            "images output",
            "evaluate {b}/student --set {b}/pairs {b}/images {b}/said.json --images {b}/images --output @sets.json",
            "sets.json",
        ),
        ("parts", "evaluate {b}/student --set {b}/wds_two --parts @parts", "parts/two-test/manifest.json"),
    ],
    "plan": [("rates", "plan --rates {b}/rates.json --recipe paper_12m", None)],
    "export": [("out images", "export {b}/student @towers --images {b}/images", "towers/export.json")],
    "compare": [
        (
            "out",
            "compare {b}/student --out @compared --precisions fp32 --renders 1 --scenes 4 --world.names 6",
            "compared/student/image.onnx",
        )
    ],
    "search": [
        (
            "folder image html",
            "search {b}/images red --image {b}/images/cat/0.png --model {b}/new/towers --html @found.html",
            "found.html",
        )
    ],
    "playground": [
        (
            "out album runtime",
            "playground {b}/new/towers @page --album {b}/images --runtime {b}/runtime",
            "page/index.html",
        )
    ],
}
"""Command -> the parameters that get a store's address, the words, and what lies in the bucket then below `new/`."""
ELSEWHERE = {
    "run": {"out": "test_a_run_in_a_bucket_goes_on_there"},
    "report": {"folder": "test_a_run_in_a_bucket_goes_on_there"},
    "headline": {"run": "test_a_run_in_a_bucket_goes_on_there"},
    "temperature": {"data": "test_stores.py reads reinforced folders there"},
    "photo-teachers": dict.fromkeys(("captions", "held_out", "place"), "test_photo_teachers_read_and_write_there"),
}
"""Parameters that other tests try."""


def parameters(kind: str) -> dict[str, dict[str, inspect.Parameter]]:
    """Command -> its parameters whose annotation names a kind."""
    every = cli.commands(recipes.tiny()).functions
    return {
        name: {key: one for key, one in inspect.signature(function).parameters.items() if kind in str(one.annotation)}
        for name, function in every.items()
    }


def test_every_path_of_every_command_is_tried_with_a_store_or_says_why_not():
    functions = cli.commands(recipes.tiny()).functions
    for command, found in parameters("Path").items():
        tried = {name for names, *_ in WORKS.get(command, ()) for name in names.split()} | ELSEWHERE.get(
            command, {}
        ).keys()
        refused = getattr(functions[command], "needs_disk", {})
        assert not tried & refused.keys(), command
        assert found.keys() == tried | refused.keys(), f"{command}: try it here, or mark it with needs_disk"
        assert all(re.search(r": (name|leave)", why) for why in refused.values()), "each says what to do"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A bucket with something for every command, and the store."""
    base = tmp_path_factory.mktemp("places")
    with faulty_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        patch.setenv("MOBILECLIP2_LITE_CACHE", str(base / "cache"))
        _client.cache_clear()
        fill(base / "disk")
        upload(base / "disk")
        yield store
    _client.cache_clear()


def upload(disk: Path, below: str = "") -> None:
    """All files of a folder into the bucket."""
    for path in sorted(disk.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            place_of(f"{B}/{below}{path.relative_to(disk).as_posix()}").write_bytes(path.read_bytes())


def exported_before(loaded, folder: Path, **_) -> list[ExportRow]:
    """What `export` wrote, for `compare`: to export takes long."""
    shutil.copytree(here(f"{B}/new/towers"), folder)
    return [ExportRow(**row) for row in json.loads((folder / "export.json").read_text())["files"]]


@pytest.mark.parametrize(
    ("words", "made"), [(words, made) for cases in WORKS.values() for _, words, made in cases], ids=lambda one: None
)
def test_it_works_with_addresses_alone(bucket, tmp_path, monkeypatch, words, made):
    monkeypatch.chdir(tmp_path)
    if words.split()[0] in ("export", "compare", "search", "playground"):
        pytest.importorskip("onnxscript", reason="needs the extra `export`")
    monkeypatch.setattr(deployed, "export_onnx", exported_before)
    cli.main(re.sub(r"@(?=\w)", f"{B}/new/", words).format(b=B).split())
    if made:
        assert made in bucket.objects("new"), sorted(bucket.objects("new"))
    assert not list(tmp_path.iterdir()), "nothing here, least of all a folder named s3:"
    assert not bucket.forbidden


@pytest.mark.slow
def test_a_run_in_a_bucket_goes_on_there(bucket, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "part")
    for path in tmp_path.glob("part/*"):
        if path.name.startswith(("evaluation", "report", "figures")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(tmp_path / "part" / "control-seed0")
    upload(tmp_path / "part", "run/")
    shutil.rmtree(tmp_path / "part")
    cli.main(["run", "--recipe", "tiny", "--out", f"{B}/run"])
    said = capsys.readouterr().out
    assert "reinforce: done before" in said
    assert f"{B}/run/report.html" in said
    found = bucket.objects("run")
    assert json.loads(found["evaluation.json"]) == json.loads((tiny_run / "evaluation.json").read_text())
    assert {"report.html", "report.md", "control-seed0/model.safetensors", "figures/measures.png"} <= found.keys()
    assert evaluated_seeds(place_of(f"{B}/run")) == list(recipes.tiny().seeds)
    bucket.lose("run/report.html")
    cli.main(["report", f"{B}/run", "--recipe", "tiny"])
    assert bucket.objects("run")["report.html"]
    cli.main(["headline", f"{B}/run", "--recipe", "tiny", "--results", str(tmp_path / "results")])
    assert json.loads((tmp_path / "results" / "run_tiny.json").read_text())["seeds"] == list(recipes.tiny().seeds)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_photo_teachers_read_and_write_there(bucket, monkeypatch, tmp_path):
    assert len(list(images_with_texts(f"{B}/pairs"))) == 8
    loaded = create_model(f"{B}/student")
    folder = save("photo-teacher-names", loaded, {"fitted_on": {}}, place_of(f"{B}/new/photo-teacher-names"))
    assert create_model(str(folder)).preprocess == loaded.preprocess


@pytest.mark.parametrize("command", sorted(cli.commands(recipes.tiny()).functions))
def test_where_only_a_disk_will_do_a_sentence_says_so_first(bucket, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    before = dict(bucket.faults.requests)
    function = cli.commands(recipes.tiny()).functions[command]
    refused = getattr(function, "needs_disk", {})
    written = [name for name in parameters("Path")[command] if name in WRITTEN and name not in refused]
    for name, address, said in [
        *((name, f"{B}/x", refused[name]) for name in refused),
        *((name, "https://127.0.0.1:9/x", "can only be read: name a bucket or a folder to write") for name in written),
        *((name, "s4://bucket/x", "did you mean s3://bucket/x?") for name in parameters("Path")[command]),
    ]:
        with pytest.raises(SystemExit) as ended:
            cli.main(words_for(command, name, address))
        assert ended.value.code == 2
        assert said in (error := capsys.readouterr().err), error
    assert dict(bucket.faults.requests) == before
    assert not list(tmp_path.iterdir())


def words_for(command: str, name: str, address: str) -> list[str]:
    """A call of a command in which one parameter is an address and all others that it needs are something."""
    words, options = [command], []
    for key, one in inspect.signature(cli.commands(recipes.tiny()).functions[command]).parameters.items():
        value = address if key == name else {"int": "1"}.get(str(one.annotation), "nothing")
        if "Positional" in str(one.annotation):
            words += [value] if key == name or one.default is inspect.Parameter.empty else []
        elif key == name or one.default is inspect.Parameter.empty:
            options += [f"--{key.replace('_', '-')}", value]
    return [*words, *options]


def written(target: StorePath, files: dict[str, str], error: type[Exception] | None = None) -> None:
    """Make files of a folder, and fail or not when all are made."""
    with made_here(target) as made:
        for name, text in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(text)
        if error:
            raise error


def test_a_folder_is_created_whole_or_not_at_all(bucket, tmp_path):
    target = place_of(f"{B}/whole")
    for _ in range(2):  # the same again is no error
        written(target, {"deep/a.txt": "one", ".hidden": "not for others"})
    assert bucket.objects("whole") == {"deep/a.txt": b"one"}
    with pytest.raises(Clash, match=r"whole/deep/a\.txt is there already and differs"):
        written(target, {"a.txt": "comes first by name", "deep/a.txt": "two"})
    with pytest.raises(KeyError):
        written(target, {"b.txt": "half"}, error=KeyError)
    assert bucket.objects("whole") == {"deep/a.txt": b"one"}
    assert (here(target) / "deep" / "a.txt").read_text() == "one"
    assert here(tmp_path / "nothing") == tmp_path / "nothing"
    with pytest.raises(FileNotFoundError, match="s3://bucket/none does not exist"):
        here(f"{B}/none")


def test_images_of_a_bucket_are_told_by_their_tags(bucket):
    found = evaluate_zero_shot(create_model(f"{B}/student"), f"{B}/images")
    assert (found["images"], found["chance"]) == (6, 0.5)
