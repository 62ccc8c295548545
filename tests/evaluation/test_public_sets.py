"""Readers of public test sets: each form's twin is read, measured and checked against the drawn world's measures."""

from __future__ import annotations

import csv
import dataclasses
import functools
import http.server
import io
import json
import os
import re
import tarfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobileclip2_lite import emoji_world
from mobileclip2_lite.evaluation import measures, public, twins
from mobileclip2_lite.evaluation.caption_files import open_captions
from mobileclip2_lite.evaluation.datacomp import SETS
from mobileclip2_lite.evaluation.measures import retrieval
from mobileclip2_lite.evaluation.sets import Example, TestSet, all_above, evaluate_set, readable
from mobileclip2_lite.evaluation.suite import flatten_captions
from mobileclip2_lite.evaluation.wds_sets import open_wds
from mobileclip2_lite.models.embedded import data_folder
from mobileclip2_lite.models.loaded import encode_images, encode_texts
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.pairs.holding_out import hold_out, samples, split, write_pairs
from mobileclip2_lite.recipes import Pairs, World
from mobileclip2_lite.shards.samples import Sample
from mobileclip2_lite.shards.tars import write_tar
from mobileclip2_lite.work.bad_sample import BadSample
from mobileclip2_lite.work.folder import read_manifest

WORLD = World(names=12, image_size=64, max_objects=2)
IMAGES = 12


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return twins.write_twins(tmp_path_factory.mktemp("twins"), WORLD, IMAGES)


@pytest.fixture(scope="module")
def teacher():
    return create_model(data_folder() / "teachers" / "lite-teacher-conv")


def decoded(test_set: TestSet) -> list[np.ndarray]:
    from mobileclip2_lite.views.decoding import pixels

    return [pixels(e.image if isinstance(e.image, bytes) else e.image.read_bytes()) for e in test_set.examples()]


# --- every form gives the numbers that the library's own measures give on the same images ----------------------------


def test_classification_twin_equals_the_worlds_own_measure(twin, teacher):
    test_set = open_wds(twin["wds"])
    assert (test_set.name, test_set.kind, test_set.split) == ("emoji", "classification", "test")
    images, labels, names = emoji_world.zero_shot_set(WORLD, 1)
    assert test_set.class_names == tuple(names)
    assert test_set.templates == emoji_world.TEMPLATES, "{c} stands for the name in CLIP-benchmark's files"
    assert [example.label for example in test_set.examples()] == labels.tolist()
    result = evaluate_set(teacher, test_set)
    classifier = measures.zero_shot_classifier(teacher, names, emoji_world.TEMPLATES)
    wanted = measures.zero_shot_accuracy(encode_images(teacher, decoded(test_set)), classifier, labels)
    assert result["measures"]["top1"] == wanted["top1"] > 0.5
    assert result["measures"]["mean_per_class_recall"] == pytest.approx(wanted["top1"]), "one image a class"
    assert (result["images"], result["classes"], result["chance"]["top1"]) == (12, 12, 1 / 12)
    assert len(images) == 12


@pytest.mark.parametrize("form", ["wds_retrieval", "karpathy"])
def test_retrieval_twins_equal_the_worlds_own_measure(twin, teacher, form):
    test_set = public.open_set(twin[form])
    captions = emoji_world.retrieval_set(WORLD, IMAGES).captions
    assert [list(example.texts) for example in test_set.examples()] == captions
    result = evaluate_set(teacher, test_set)
    texts, owner = flatten_captions(captions)
    images = encode_images(teacher, decoded(test_set))
    wanted = measures.retrieval(images, encode_texts(teacher, texts), owner, (1, 5, 10))
    assert {key: result["measures"][key] for key in wanted} == wanted
    assert result["measures"]["mean_r1"] == (wanted["i2t_r1"] + wanted["t2i_r1"]) / 2
    assert (result["images"], result["texts"], result["captions_an_image"]) == (IMAGES, 5 * IMAGES, [5, 5])
    assert result["split"] == ("karpathy test" if form == "karpathy" else "test")


def test_karpathys_splits_and_number_of_captions(twin):
    train = open_captions(twin["karpathy"], split="train")
    data = json.loads(twin["karpathy"].read_text("utf-8"))
    assert sum(1 for _ in train.examples()) == sum(row["split"] in ("train", "restval") for row in data["images"])
    assert {len(e.texts) for e in open_captions(twin["karpathy"], captions=2).examples()} == {2}
    with pytest.raises(ValueError, match="no row of the split 'dev'"):
        open_captions(twin["karpathy"], split="dev")


@pytest.mark.parametrize("form", ["docci", "dci"])
def test_long_captions(twin, teacher, form):
    test_set = public.open_set(twin[form])
    texts = [example.texts[0] for example in test_set.examples()]
    scenes = emoji_world.retrieval_set(WORLD, IMAGES).images.scenes
    assert texts == [twins.long_caption(scene) for scene in scenes]
    assert min(len(text.split()) for text in texts) > 35
    result = evaluate_set(teacher, test_set)
    assert (result["set"], result["split"], result["texts"]) == (form, "test", IMAGES)
    assert result["measures"]["t2i_r1"] > result["chance"]["t2i_r1"]


def test_captions_and_images_in_two_folders_by_name(twin, tmp_path):
    for example in list(open_captions(twin["docci"]).examples())[:3]:
        for folder, name, data in (
            ("image", example.image.name, example.image.read_bytes()),
            ("caption", f"{example.image.stem}.txt", example.texts[0].encode()),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_bytes(data)
    rows = list(public.open_set(tmp_path).examples())
    assert [row.texts for row in rows] == [e.texts for e in list(open_captions(twin["docci"]).examples())[:3]]
    assert all(row.image.is_file() for row in rows)


# --- hard negatives --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", twins.NEGATIVES)
def test_hard_negatives_differ_and_only_the_right_caption_is_true(kind):
    for scene, right, again, wrong in [next(twins.hard_negatives(WORLD, kind)) for _ in range(1)]:
        assert len({right, again, wrong}) == 3
        for thing in scene.things:
            assert thing.name in right
            assert thing.name in again
            if kind.endswith("_att") and kind != "add_att":
                assert f"{thing.tint} {thing.name}" in right
    rows = [row for row, _ in zip(twins.hard_negatives(WORLD, kind), range(20), strict=False)]
    names = {name.name for name in emoji_world.names(WORLD.names)}
    for scene, right, _, wrong in rows:
        shown = {thing.name for thing in scene.things}
        said = {name for name in names if f" {name} " in f" {wrong.replace(',', '')} "}
        match kind:
            case "replace_obj" | "add_obj":
                assert said - shown, "the wrong caption names what is not there"
            case "swap_att":
                first, second = scene.things
                assert f"{second.tint} {first.name}" in wrong
            case "replace_att" | "add_att":
                colour = next(word for word in wrong.split() if word in emoji_world.COLOURS)
                assert colour not in {thing.tint for thing in scene.things}
            case _:
                assert sorted(wrong.split()) == sorted(right.split()) or kind == "replace_rel"


def test_sugarcrepe_forms_are_measured_by_truth(twin):
    """A stand-in that knows the right captions gets everything right, one that knows the wrong ones nothing."""
    for kind in (*(f"sugarcrepe/{k}" for k in twins.NEGATIVES), *(f"sugarcrepe++/{k}" for k in twins.TWICE)):
        test_set = public.open_set(twin[kind])
        rows = list(test_set.examples())
        assert (test_set.kind, len(rows)) == ("hard_negatives", IMAGES)
        assert {len(row.texts) for row in rows} == {2 if "++" in kind else 1}
        assert all(row.image.is_file() for row in rows)
        one = dataclasses.replace(
            test_set, examples=lambda row=rows[0]: iter([row])
        )  # another's right may be its wrong
        right, wrong = evaluate_set(knows({*rows[0].texts}), one), evaluate_set(knows({*rows[0].negatives}), one)
        assert (right["measures"]["accuracy"], wrong["measures"]["accuracy"]) == (1.0, 0.0)
        if "++" in kind:
            assert right["measures"]["text_accuracy"] == 1.0
            assert right["chance"] == pytest.approx({"accuracy": 1 / 3, "text_accuracy": 1 / 3})


def knows(true: set[str]):
    """A model whose images and known texts point the same way, and every other text the other way."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def encode_image(self, images, normalize=False):
            return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)

        def encode_text(self, tokens, normalize=False):
            return torch.where(tokens[:, :1] == 1, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))

    model = create_model("lite-mci-s")
    return model._replace(model=Model(), tokenizer=lambda texts: torch.tensor([[int(text in true)] for text in texts]))


def test_a_holiday_folder_with_a_table_is_no_set_of_classes(tmp_path):
    for name in ("IMG_1.JPG", "beach/IMG_2.JPG", "old town/IMG_3.JPG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name, "JPEG")
    assert public.open_set(tmp_path).class_names == ("beach", "old town")
    (tmp_path / "Bilder.csv").write_text("file;text\nIMG_1.JPG;a dog\n", "utf-8")
    with pytest.raises(ValueError, match=r"Bilder\.csv is a table of images and texts: make pairs of it"):
        public.open_set(tmp_path)
    (tmp_path / "IMG_1.JPG").unlink()
    assert public.open_set(tmp_path).class_names == ("beach", "old town"), "a list of what lies in the folders"


@pytest.mark.parametrize("as_bytes", [False, True])
def test_rows_about_one_image_are_one_image_to_the_interval(twin, as_bytes):
    """As SugarCrepe has them: each image is asked about several times, by file or by bytes."""
    files = [row.image for row in open_captions(twin["sugarcrepe/swap_att"]).examples()][:6]
    images = [file.read_bytes() for file in files] if as_bytes else files
    rows = [Example(image, texts=(f"right {n}",), negatives=("no",)) for n, image in enumerate(images) for _ in "abc"]
    known = knows({"right 0", "right 1", "right 2", "right 3"})
    result = evaluate_set(known, TestSet("t", "hard_negatives", "all", "here", lambda: iter(rows)))
    hits = torch.tensor([1.0] * 12 + [0.5] * 6)  # of the last two it knows neither caption: a tie
    assert (result["images"], result["distinct_images"]) == (18, 6)
    assert result["measures"]["accuracy"] == pytest.approx(15 / 18)
    assert result["interval"]["accuracy"] == measures.interval(hits, [n for n in range(6) for _ in "abc"])
    low, high = measures.interval(hits)
    assert result["interval"]["accuracy"][0] < low < high < result["interval"]["accuracy"][1]


def test_all_above_equals_every_order_of_the_ties():
    generator = torch.Generator().manual_seed(0)
    right = torch.randint(0, 3, (200, 2), generator=generator).float()
    wrong = torch.randint(0, 3, (200, 2), generator=generator).float()
    orders = np.random.default_rng(0)
    noise = orders.random((400, 200, 4)) * 1e-3
    scores = np.concatenate([right.numpy(), wrong.numpy()], 1)[None] + noise
    simulated = (scores[..., :2].min(-1) > scores[..., 2:].max(-1)).mean()
    assert float(all_above(right, wrong).mean()) == pytest.approx(simulated, abs=0.01)


def test_rows_of_unequal_form_are_refused(twin, tmp_path):
    data = json.loads(twin["sugarcrepe/swap_att"].read_text("utf-8"))
    del data["3"]["negative_caption"]
    path = tmp_path / "swap_att.json"
    path.write_text(json.dumps(data), "utf-8")
    with pytest.raises(ValueError, match=r"swap_att.json: row 3 has no negative_caption"):
        list(open_captions(path, twin["sugarcrepe/swap_att"].parent).examples())


def test_unknown_files_are_named(tmp_path):
    (tmp_path / "x.json").write_text('[{"picture": "a.jpg"}]')
    with pytest.raises(ValueError, match=r"x.json is of no known form.*\['picture'\]"):
        open_captions(tmp_path / "x.json")
    (tmp_path / "y.json").write_text("{")
    with pytest.raises(ValueError, match=r"y.json is not valid JSON"):
        open_captions(tmp_path / "y.json")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        public.open_set(tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="of no known form"):
        public.open_set(tmp_path / "empty")


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_unreadable_and_missing_images_are_counted_by_reason(twin, teacher, tmp_path):
    def png(colour):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
        return buffer.getvalue()

    rows = [Example(png("red"), texts=("red",)), Example(b"<html>", texts=("x",)), Example(tmp_path / "gone.jpg")]
    result = evaluate_set(teacher, TestSet("t", "retrieval", "test", "here", lambda: iter(rows)))
    assert (result["images"], result["texts"], result["dropped"]) == (1, 1, {"not_an_image": 1, "no_image": 1})
    with pytest.raises(ValueError, match="no image of t could be read"):
        evaluate_set(teacher, TestSet("t", "retrieval", "test", "here", lambda: iter(rows[1:])))


def copy_wds(source, target, **changes):
    for path in source.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(changes.get(path.name.replace(".", "_"), path.read_bytes()))
    return target


def test_a_damaged_layout_is_an_error_with_a_remedy(twin, teacher, tmp_path):
    cut = (twin["wds"] / "test" / "1.tar").read_bytes()[:2000]
    cases = {
        "a": ({"1_tar": cut}, ValueError, r"test/1.tar is damaged"),
        "b": ({"nshards_txt": b"3"}, FileNotFoundError, r"no test/2.tar, though its nshards.txt counts it"),
        "c": ({"nshards_txt": b"many"}, ValueError, r"must hold the number of tars, not 'many'"),
        "d": ({"classnames_txt": b"cat\n"}, ValueError, r"outside its 1 class names"),
        "e": ({"classnames_txt": b""}, ValueError, r"names no classes"),
    }
    for name, (changes, error, message) in cases.items():
        folder = copy_wds(twin["wds"], tmp_path / name, **changes)
        with pytest.raises(error, match=message):
            evaluate_set(teacher, open_wds(folder))
    with pytest.raises(FileNotFoundError, match=r"no train/nshards\.txt"):
        open_wds(twin["wds"], "train")
    (tmp_path / "a" / "dataset_type.txt").write_text("multilabel\n")
    with pytest.raises(ValueError, match="is a multilabel set"):
        open_wds(tmp_path / "a")
    with pytest.raises(ValueError, match="without templates"):
        evaluate_set(teacher, open_wds(twin["wds_retrieval"]), ["{}"])


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (
            "a.json",
            '{"images": [{"filename": "x.jpg", "split": "test"}]}',
            r"a\.json: a row is not of the form.*sentences",
        ),
        ("a.json", '{"images": ["x.jpg"]}', r"a\.json: a row is not of the form"),
        ("a.json", '{"images": [{"filename": null, "split": "test", "sentences": [{"raw": 3}]}]}', r"a\.json: a row"),
        ("a.json", '{"images": ', r"a\.json is not valid JSON"),
        ("a.json", '[{"filename": "x.jpg", "caption": "y", "negative_caption": ""}]', r"row 0 has no negative_caption"),
        (
            "a.jsonl",
            '{"image_file": "x.jpg", "description": "y", "split": "test"}\n[1]\n',
            r"a\.jsonl: a row is not of",
        ),
        ("complete/1.json", "{broken", r"1\.json is not valid JSON"),
        ("complete/1.json", '{"image": "x.jpg", "short_caption": 7}', r"a row is not of the form"),
        ("complete/1.json", '[{"image": "x.jpg"}]', r"1\.json is not one of DCI's"),
    ],
)
def test_a_damaged_caption_file_is_named(tmp_path, name, content, match):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=match):
        open_captions(tmp_path if name.startswith("complete") else path)


def odd_set(folder, kind, members):
    """A set of one tar with the members given, in their order."""
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "nshards.txt").write_text("1")
    (folder / "dataset_type.txt").write_text(kind)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return open_wds(folder)


def shown(rows):
    return [(row.reason, row.where.rpartition(" ")[2]) if isinstance(row, BadSample) else row for row in rows]


def test_odd_members_and_samples_that_lack_something_are_counted(tmp_path):
    members = [
        ("._a.jpg", b"what macOS adds"),
        ("a.jpg", b"x"),
        ("c.cls", b"2"),  # its image stands elsewhere in the tar
        ("a.cls", b"1\n"),
        ("b.jpg", b"y"),
        ("b.cls", b"cat"),
        ("c.jpg", b"z"),
        ("d.cls", b"0"),
    ]
    rows = shown(odd_set(tmp_path / "names", "classification", members).examples())
    assert rows == [Example(b"x", label=1), Example(b"z", label=2), ("bad_label", "b"), ("no_image", "d")]
    members = [
        ("a.jpg", b"x"),
        ("a.txt", b"one\n\ntwo \n"),
        ("b.jpg", b"y"),
        ("c.jpg", b"z"),
        ("c.txt", b"\xff\xfe\xff"),
    ]
    captioned = odd_set(tmp_path / "captions", "retrieval", members)
    rows = shown(captioned.examples())
    assert rows == [Example(b"x", texts=("one", "two")), ("no_text", "b"), ("text_not_utf8", "c")]
    kept, dropped = [], Counter()
    assert list(readable(captioned.examples(), kept, dropped)) == []
    assert dropped == {"not_an_image": 1, "no_text": 1, "text_not_utf8": 1}


# --- from the web and the hub ----------------------------------------------------------------------------------------


def test_a_set_from_a_web_address(twin, teacher):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=twin["wds"].parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        from_web = evaluate_set(teacher, public.open_set(f"{address}/wds_emoji/"))
        with pytest.raises(FileNotFoundError, match=r"no test/nshards.txt"):
            open_wds(f"{address}/nothing")
        server.shutdown()
    here = evaluate_set(teacher, open_wds(twin["wds"]))
    assert {**from_web, "source": ""} == {**here, "source": ""}
    with pytest.raises(ConnectionError, match="can't be reached"):
        open_wds(address)


def test_a_set_from_the_hubs_cache(twin, teacher, monkeypatch, tmp_path):
    import huggingface_hub.constants

    home = tmp_path / "hub"
    snapshot = home / "datasets--clip-benchmark--wds_emoji" / "snapshots" / ("a" * 40)
    copy_wds(twin["wds"], snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for source in ("hf:clip-benchmark/wds_emoji", "https://huggingface.co/datasets/clip-benchmark/wds_emoji/tree/main"):
        test_set = public.open_set(source)
        assert (test_set.name, test_set.kind) == ("emoji", "classification")
    assert evaluate_set(teacher, test_set)["images"] == 12
    with pytest.raises(ConnectionError, match=r"wds_other: test/nshards.txt is not in the cache"):
        open_wds("hf:clip-benchmark/wds_other")


# --- the result ------------------------------------------------------------------------------------------------------


def test_the_result_says_on_what_it_was_measured(twin, teacher, tmp_path):
    sources = [twin["wds"], twin["sugarcrepe/swap_att"]]
    result = public.evaluate_sets(teacher, sources, tmp_path / "result.json", name="teacher")
    saved = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert saved == result
    assert saved["model"]["preprocess"] == teacher.preprocess.to_config()
    assert len(saved["model"]["sha256"]) == 64
    other = public.evaluate_sets(create_model("lite-mci-s"), [twin["sugarcrepe/swap_att"]])
    assert other["model"]["sha256"] != saved["model"]["sha256"]
    first = saved["results"][0]
    assert (first["set"], first["split"], first["templates"]) == ("emoji", "test", list(emoji_world.TEMPLATES))
    lines = list(public.result_lines(result))
    assert lines[0] == "emoji (test): 12 images"
    assert any("chance 0.5000" in line for line in lines)
    low, high = first["interval"]["top1"]
    assert low <= first["measures"]["top1"] <= high
    assert f"{first['measures']['top1']:.4f}   {low:.4f} to {high:.4f}   chance 0.0833" in lines[1], "95 %, over images"
    own = public.evaluate_sets(teacher, [twin["wds"]], templates=["the {}"])["results"][0]
    assert own["templates"] == ["the {}"]


def test_class_folders_are_a_set_too(twin, teacher, tmp_path):
    for example, name in zip(open_wds(twin["wds"]).examples(), open_wds(twin["wds"]).class_names, strict=True):
        (tmp_path / name.replace(" ", "_")).mkdir()
        (tmp_path / name.replace(" ", "_") / "0.jpg").write_bytes(example.image)
    result = public.evaluate_sets(teacher, [tmp_path], templates=emoji_world.TEMPLATES)["results"][0]
    assert result["measures"]["top1"] == evaluate_set(teacher, open_wds(twin["wds"]))["measures"]["top1"]


def test_datacomps_list_is_complete_and_says_what_is_measured():
    assert len(SETS) == 38
    assert len({one.key for one in SETS}) == 38
    assert sum(one.measured for one in SETS) == 33
    assert {one.hub for one in SETS if one.key == "vtab/cifar100"} == {"hf:djghosh/wds_vtab-cifar100_test"}
    assert public.datacomp_sources().count("hf:djghosh/wds_imagenet1k_test") == 1
    assert all(one.classes for one in SETS if one.metric == "top1")


def test_a_twin_of_another_size_is_another_set(tmp_path, twin):
    write_tar(tmp_path / "0.tar", [("a", {"cls": b"0", "jpg": b"x"})])
    small = twins.write_twins(tmp_path, dataclasses.replace(WORLD, names=6), 2)
    assert len(open_wds(small["wds"]).class_names) == 6


def test_the_command_measures_sets_and_writes_the_result(twin, tmp_path, capsys):
    from mobileclip2_lite.cli import main

    teacher = str(data_folder() / "teachers" / "lite-teacher-conv")
    out = tmp_path / "result.json"
    main(["evaluate", teacher, "--set", str(twin["wds"]), str(twin["docci"]), "--output", str(out)])
    assert [row["set"] for row in json.loads(out.read_text("utf-8"))["results"]] == ["emoji", "docci"]
    assert "emoji (test): 12 images" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["evaluate", teacher, "--output", str(out)])


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_class_folders_deeper_and_linked_are_those_of_own_images(tmp_path):
    def image(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)

    image(tmp_path / "set" / "val" / "cat" / "0.png")
    image(tmp_path / "set" / "val" / "hot_dog" / "deep" / "0.png")
    image(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "set" / "val" / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    found = public.open_set(tmp_path / "set")
    assert found.class_names == ("cat", "hot dog")
    assert [(example.image.name, example.label) for example in found.examples()] == [
        ("0.png", 0),
        ("1.png", 0),
        ("0.png", 1),
    ]
    assert len(list(found.examples())) == 3, "as often as wanted"
    image(tmp_path / "set" / "train" / "cat" / "0.png")
    image(tmp_path / "set" / "train" / "hot_dog" / "0.png")
    with pytest.raises(ValueError, match=r"holds folders of classes, \['train', 'val'\]: name one"):
        public.open_set(tmp_path / "set")


# --- a user's own images and captions ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Twelve drawn scenes with five captions each, as a folder of images with a table, and as pairs."""
    folder = tmp_path_factory.mktemp("own")
    scenes = emoji_world.retrieval_set(WORLD, 12)
    (folder / "set" / "images").mkdir(parents=True)
    rows = []
    for number, (image, texts) in enumerate(zip(scenes.images, scenes.captions, strict=True)):
        Image.fromarray(image).save(folder / "set" / "images" / f"{number}.png")
        rows += [(f"images/{number}.png", f"{text} {k}") for k, text in enumerate(texts)]
    with open(folder / "set" / "captions.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    make_pairs(Pairs(source=str(folder / "set"), count=0), folder / "pairs")
    return folder, list(scenes.images), rows


def test_own_pairs_are_measured_with_all_their_captions(own, teacher, tmp_path, capsys):
    from mobileclip2_lite.cli import main

    folder, images, rows = own
    result = evaluate_set(teacher, public.open_set(folder / "pairs"))
    assert (result["images"], result["texts"], result["captions_an_image"]) == (12, 60, [5, 5])
    owner = [int(Path(name).stem) for name, _ in rows]
    wanted = retrieval(
        encode_images(teacher, images), encode_texts(teacher, [text for _, text in rows]), owner, (1, 5, 10)
    )
    assert {key: result["measures"][key] for key in wanted} == pytest.approx(wanted)
    short = [torch.nn.functional.normalize(one[:, :8], dim=-1) for one in (encode_images(teacher, images),
             encode_texts(teacher, [text for _, text in rows]))]  # fmt: skip
    cut = evaluate_set(teacher, public.open_set(folder / "pairs"), dimensions=(8, 192))["by_dimensions"]
    found = retrieval(*short, owner, (1, 5, 10))
    assert {key: cut["8"][key] for key in found} == pytest.approx(found)
    assert cut["192"] == pytest.approx(result["measures"])
    with pytest.raises(ValueError, match="193 dimensions of embeddings that have 192"):
        evaluate_set(teacher, public.open_set(folder / "pairs"), dimensions=(193,))
    main(["hold-out", str(folder / "pairs"), str(tmp_path / "train"), str(tmp_path / "test"), "--count", "5"])
    sides = [{s.uid for s in samples(tmp_path / part)} for part in ("train", "test")]
    assert [len(side) for side in sides] == [7, 5]
    assert not sides[0] & sides[1]
    capsys.readouterr()
    words = ["evaluate", str(data_folder() / "teachers" / "lite-teacher-conv"), "--set", str(tmp_path / "test")]
    main([*words, "--dimensions", "16", "64"])
    said = capsys.readouterr().out
    assert "test (all): 5 images" in said
    assert re.search(r"the first 16 dimensions: i2t_r1 [01]\.\d{4}", said)
    main(["hold-out", str(folder / "pairs"), str(tmp_path / "train"), str(tmp_path / "test"), "--count", "5"])


def test_an_image_is_on_one_side_of_a_split_in_memory(tmp_path):
    pictures = [bytes([number]) * 4 for number in (1, 2, 3, 1, 2, 3)]  # each of them twice, as two samples
    found = [Sample(f"uid{number}", image, "jpg", "a text") for number, image in enumerate(pictures)]
    folder = write_pairs(tmp_path / "pairs", found, {"test": "twice"})
    for held_out in (1, 2, 3):
        training, held = split(folder, held_out)
        assert len(held) == held_out
        assert not {one.image for one in training} & {one.image for one in held}


def test_held_out_are_the_same_images_whatever_else_is_there(own, tmp_path):
    folder, _, _ = own
    _, held = split(folder / "pairs", 4)
    more, again = split(folder / "pairs", 6)
    assert {sample.uid for sample in held} < {sample.uid for sample in again}
    assert len(more) == 6
    train, test = hold_out(folder / "pairs", tmp_path / "train", tmp_path / "test", 4)
    assert {sample.uid for sample in samples(tmp_path / "test")} == {sample.uid for sample in held}
    order = [sample.uid for sample in samples(folder / "pairs")]
    left = [uid for uid in order if uid not in {sample.uid for sample in held}]
    assert [sample.uid for sample in samples(tmp_path / "train")] == left
    assert train["source"] == test["source"] == read_manifest(folder / "pairs")["source"]
    with pytest.raises(ValueError, match="12 of the 12 images"):
        hold_out(folder / "pairs", tmp_path / "a", tmp_path / "b", 12)
    with pytest.raises(ValueError, match="three folders"):
        hold_out(folder / "pairs", folder / "pairs", tmp_path / "b", 2)


def test_a_table_is_no_test_set_but_says_how_to_make_one(own, tmp_path):
    folder, _, _ = own
    for source in (folder / "set", folder / "set" / "captions.csv"):
        with pytest.raises(ValueError, match=r"captions\.csv is a table .* `mobileclip2-lite pairs OUT --source"):
            public.open_set(source)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "0.png")
    with pytest.raises(ValueError, match="one folder of images, 'images'"):
        public.open_set(tmp_path)
