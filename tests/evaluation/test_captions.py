"""Caption metrics: every number of a small example by hand, the truth of clean captions, reports of folders."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import re
from pathlib import Path

import pytest
from doubles.captions import COCO_CASES
from PIL import Image

from mobileclip2_lite import emoji_world
from mobileclip2_lite.emoji_world import Background, Scene, Thing
from mobileclip2_lite.evaluation.caption_truth import named, stated, truth, words
from mobileclip2_lite.recipes import World
from mobileclip2_lite.reports.captions import (
    caption_report,
    clip_scores,
    diversity,
    measure_captions,
    object_scores,
    reference_scores,
    report_table,
)
from mobileclip2_lite.shards import samples as shards

WORLD = World(names=0, max_objects=4)
LITE = World(image_size=48)
TEACHER = "lite-teacher-conv"


def thing(name: str, x: float, y: float, tint: str | None = None) -> Thing:
    return Thing(name, "", x, y, 0.3, 0.0, 0.0, tint)


def scene(*things: Thing) -> Scene:
    return Scene("by-hand", things, Background("plain", "white", "grey", 0.0, 1.0, 0))


DOG_CAT_BUS = scene(thing("dog", 0.2, 0.2, "red"), thing("cat", 0.8, 0.3), thing("bus", 0.3, 0.9, "blue"))
"""The dog is left of the cat and above the bus, the cat is above the bus (dx 0.5, dy 0.6)."""


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [emoji_world.scene(LITE, "train", index) for index in range(200)]


# --- what a text says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a hot dog and a dog", {"hot dog", "dog"}),
        ("a hot dog", {"hot dog"}),
        ("a hot, dog", {"dog"}),
        ("two dogs, cherries and three geese", {"dog", "cherries", "goose"}),
        ("maple leaves by boxes of tomatoes", {"maple leaf", "tomato"}),
        ("a jack - o - lantern and a T-Shirt", {"jack-o-lantern", "t-shirt"}),
        ("a rescue worker 's helmet", {"rescue worker's helmet"}),
        ("IMG_2041_red_apple.jpg", {"red apple"}),
        ("an apple, a doghouse and catnip", set()),
        ("orange books", {"books"}),
        ("an orange book", {"orange book"}),
        ("a small airplane departure", {"airplane departure"}),
        ("a small airplane", {"small airplane"}),
    ],
)
def test_the_longest_name_counts(text, expected):
    assert named(text, WORLD) == expected


def test_the_names_are_those_of_the_world():
    assert named("a hot dog", LITE) == {"dog"}  # the lite world knows no hot dog


def test_tints_belong_to_the_object_directly_behind_them():
    said = stated("a red dog, an orange book, a small blue cat, yellow, a bus on a green background", WORLD)
    assert said.colours == {("red", "dog"), ("blue", "cat")}
    assert said.objects == {"dog", "orange book", "cat", "bus"}
    assert stated("orange books", WORLD).colours == {("orange", "books")}


def test_relations_mean_the_same_both_ways():
    ways = (
        "a dog to the left of a red cat",
        "a cat to the right of the dog",
        "a dog is on the left of a small cat",
    )
    assert {stated(text, WORLD).relations for text in ways} == {frozenset({("dog", "left", "cat")})}
    chain = stated("a dog above a cat and a cat to the right of jeans", WORLD)
    assert chain.relations == {("dog", "above", "cat"), ("jeans", "left", "cat")}
    assert not stated("a dog above. a cat", WORLD).relations
    assert not stated("a dog, above a hot cat", WORLD).relations


def test_places_are_read_after_the_name():
    said = stated("a dog at the top left, a cat in the middle and a bus is at the right", WORLD)
    assert said.places == {("dog", "top left"), ("cat", "middle"), ("bus", "right")}
    assert not stated("a dog at the left of a cat on the beach", WORLD).places


def test_size_words_are_read_as_what_is_true():
    text = "a small airplane at the top"
    small, plain = scene(thing("small airplane", 0.5, 0.2)), scene(thing("airplane", 0.5, 0.2))
    assert stated(text, WORLD, small).objects == {"small airplane"}
    assert stated(text, WORLD, plain).objects == {"airplane"}
    assert stated(text, WORLD, plain).places == {("airplane", "top")}


def test_words_are_plain():
    assert words("IMG_20: A t-shirt, isn't it?  Éclair!") == [
        "img",
        "20",
        "a",
        "t",
        "shirt",
        "isn",
        "t",
        "it",
        "éclair",
    ]


# --- truth ----------------------------------------------------------------------------------------------------------


def test_truth_of_a_scene():
    true = truth(DOG_CAT_BUS)
    assert true.objects == {"dog", "cat", "bus"}
    assert true.colours == {("red", "dog"), ("blue", "bus")}
    assert true.relations == {("dog", "left", "cat"), ("dog", "above", "bus"), ("cat", "above", "bus")}
    assert true.places == {("dog", "top left"), ("cat", "top right"), ("bus", "bottom left")}


def test_every_score_of_a_small_example():
    cat = scene(thing("cat", 0.5, 0.5))
    captions = [
        [
            "a blue dog to the left of a cat and a cat below a yellow bus",  # dog, cat, bus; 1 of 2 relations
            "a red dog at the top left and a lion face at the bottom",  # dog and something else; 1 of 2 places
        ],
        ["a cat in the middle"],
        [],
    ]
    scores = object_scores(captions, [DOG_CAT_BUS, cat, cat], WORLD)
    assert scores == {
        "objects_precision": 5 / 6,  # (3 + 1 + 1) of (3 + 2 + 1) named
        "objects_recall": 5 / 7,  # of (3 + 3 + 1) there
        "objects_coverage": 1.0,  # 3 of 3 and 1 of 1; the image without captions does not count
        "colours_precision": 1 / 3,  # blue dog, yellow bus, red dog
        "colours_recall": 1 / 4,  # red dog and blue bus, twice
        "colours_unbound_precision": 2 / 3,  # blue is there and yellow is not; red is there
        "colours_unbound_recall": 2 / 4,
        "relations_precision": 1 / 2,
        "relations_recall": 1 / 4,  # three objects take two, twice; one object none
        "places_precision": 2 / 3,
        "places_recall": 2 / 7,
        "located_recall": 4 / 7,  # dog and cat by the relation, dog and cat by places
    }


def test_a_third_relation_is_not_more_than_all():
    text = "a dog to the left of a cat, a cat above a bus and a bus below a dog"
    scores = object_scores([[text]], [DOG_CAT_BUS], WORLD)
    assert (scores["relations_precision"], scores["relations_recall"]) == (1.0, 1.0)


@pytest.mark.parametrize("world", [LITE, WORLD], ids=["lite", "all names"])
@pytest.mark.parametrize("style", emoji_world.STYLES)
def test_clean_captions_are_true_and_say_all(world, style):
    pictures = [emoji_world.scene(world, "train", index) for index in range(400)]
    scores = object_scores([[emoji_world.caption(p, style, v) for v in (0, 1)] for p in pictures], pictures, world)
    always = ("objects_precision", "objects_recall", "objects_coverage", "colours_precision", "colours_recall")
    by_style = {
        "short": (),
        "relational": ("relations_precision", "relations_recall", "places_precision", "located_recall"),
        "detailed": ("places_precision", "places_recall", "located_recall"),
    }
    said = (*always, "colours_unbound_precision", "colours_unbound_recall", *by_style[style])
    assert {key: scores[key] for key in said} == dict.fromkeys(said, 1.0)
    if style == "short":
        assert scores["relations_precision"] is None
        assert scores["places_precision"] is None
        assert scores["located_recall"] == 0


def test_exchanged_colours_change_nothing_but_bound_colours():
    pictures = emoji_world.binding_set(LITE, 60)
    right = object_scores([[text] for text in pictures.positives], pictures.images.scenes, LITE)
    wrong = object_scores([[text] for text in pictures.negatives], pictures.images.scenes, LITE)
    changed = {key for key in right if right[key] != wrong[key]}
    assert changed == {"colours_precision", "colours_recall"}
    assert (right["colours_precision"], wrong["colours_precision"], wrong["colours_recall"]) == (1, 0, 0)


def test_exchanged_objects_change_nothing_but_relations():
    pictures = emoji_world.relations_set(LITE, 60)
    right = object_scores([[text] for text in pictures.positives], pictures.images.scenes, LITE)
    wrong = object_scores([[text] for text in pictures.negatives], pictures.images.scenes, LITE)
    changed = {key for key in right if right[key] != wrong[key]}
    assert changed == {"relations_precision", "relations_recall", "located_recall"}
    assert (right["relations_precision"], wrong["relations_precision"], wrong["relations_recall"]) == (1, 0, 0)


def test_captions_of_another_scene_score_near_nothing(scenes):
    captions = [emoji_world.captions(picture) for picture in scenes]
    scores = object_scores(captions[1:] + captions[:1], scenes, LITE)
    assert max(value for key, value in scores.items() if "unbound" not in key) < 0.05
    assert min(object_scores(captions, scenes, LITE)[key] for key in ("objects_precision", "colours_precision")) == 1


def test_unknown_words_do_not_matter(scenes):
    for picture in scenes:
        for text in emoji_world.captions(picture):
            more = f"Wow! Frobnicated quux: {re.sub(' and ', ' plus the splendid zorp and ', text)}, buy 3 gizmos - now"
            assert stated(more, LITE, picture) == stated(text, LITE, picture)


def test_wrong_lists_are_refused():
    with pytest.raises(ValueError, match="1 images with captions but 2 scenes"):
        object_scores([["a dog"]], [DOG_CAT_BUS] * 2, WORLD)
    with pytest.raises(ValueError, match="list of captions for every image"):
        diversity(["a dog"])
    with pytest.raises(ValueError, match="1 images with captions but 0 references"):
        reference_scores([["a dog"]], [])
    with pytest.raises(ValueError, match="give world="):
        measure_captions([["a dog"]], scenes=[DOG_CAT_BUS])
    with pytest.raises(ValueError, match="give images="):
        measure_captions([["a dog"]], teachers=(TEACHER,))


# --- references -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COCO_CASES)
def test_cider_d_and_bleu_are_those_of_coco(name):
    captions, references = COCO_CASES[name]
    path = Path(__file__).parents[1] / "golden" / "captions.json"
    wanted = json.loads(path.read_text("utf-8"))["coco"][name]
    found = reference_scores([[caption] for caption in captions], references)
    assert found["cider"] == pytest.approx(sum(wanted["cider"]) / len(captions), abs=1e-8)
    for n, value in enumerate(wanted["bleu"], 1):
        assert found[f"bleu_{n}"] in (None, pytest.approx(value, abs=1e-8))
    assert found["bleu_1"] is not None


def test_cider_and_bleu_by_hand():
    scores = reference_scores([["Red dog!"], ["red cat"]], [["red dog"], ["blue cat"]])
    # Every word is in the references of one image of two or of none, so all weigh ln 2. CIDEr, 10 times the mean of the
    # cosines of 1- to 4-grams: 10 (1 + 1 + 0 + 0) / 4 = 5 and 10 (1/2 + 0 + 0 + 0) / 4 = 1.25.
    assert scores["cider"] == pytest.approx((5 + 1.25) / 2)
    assert scores["bleu_1"] == pytest.approx(3 / 4)
    assert scores["bleu_2"] == pytest.approx(math.sqrt(3 / 4 * 1 / 2))
    assert (scores["bleu_3"], scores["bleu_4"]) == (None, None)  # no caption has three words


def test_the_references_themselves_score_highest_and_foreign_words_nothing():
    references = [["a red dog on grass"], ["two blue cats at night"], ["the yellow bus is late"]]
    same = reference_scores([[f"  {own[0].upper()}. "] for own in references], references)
    assert same == pytest.approx({"cider": 10, "bleu_1": 1, "bleu_2": 1, "bleu_3": 1, "bleu_4": 1})
    foreign = reference_scores([["frobnicated quux zorp gizmo plugh"]] * 3, references)
    assert foreign == pytest.approx(dict.fromkeys(same, 0), abs=1e-3)
    assert reference_scores([["a red dog on grass"]], references[:1])["cider"] is None  # one image has no weights


def test_cider_of_several_captions_is_the_mean_of_each_alone(scenes):
    references = [emoji_world.captions(picture) for picture in scenes[:20]]
    first = [[emoji_world.caption(picture, "short", 8)] for picture in scenes[:20]]
    second = [[emoji_world.caption(picture, "detailed", 8)] for picture in scenes[:20]]
    both = [one + other for one, other in zip(first, second, strict=True)]
    alone = [reference_scores(captions, references)["cider"] for captions in (first, second)]
    assert reference_scores(both, references)["cider"] == pytest.approx(sum(alone) / 2)
    uneven = reference_scores([*first[:10], *([[]] * 10)], references)["cider"]
    rest = reference_scores([*([[]] * 10), *first[10:]], references)["cider"]
    assert (uneven + rest) / 2 == pytest.approx(alone[0])


# --- diversity ------------------------------------------------------------------------------------------------------


def test_diversity_by_hand():
    captions = [["a dog", "A dog."], ["a cat and a dog", "dog"], []]
    entropy = -(0.8 * math.log2(0.8) + 0.2 * math.log2(0.2))  # the dog in four captions, the cat in one
    expected = {
        "length": (2 + 2 + 5 + 1) / 4,
        "unique": 3 / 4,
        "vocabulary": 4,
        "entropy": entropy,
        "distinct_1": (2 / 4 + 4 / 6) / 2,
        "distinct_2": (1 / 2 + 4 / 4) / 2,
        "distinct_3": 1.0,
        "corpus_distinct_1": 4 / 10,
        "corpus_distinct_2": 4 / 6,
        "corpus_distinct_3": 1.0,
    }
    for world in (None, WORLD):
        found = diversity(captions, world)
        assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_self_bleu_by_hand():
    # each against the other: 4 of 5 words, 3 of 4 pairs, 2 of 3 triples, 1 of 2 quadruples
    found = diversity([["a red dog runs home", "a red dog runs away"]])["self_bleu"]
    assert found == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert diversity([["a red dog runs home"] * 5])["self_bleu"] == pytest.approx(1)
    assert diversity([["a red dog runs home", "two blue cats sleep here"]])["self_bleu"] < 1e-3
    assert diversity([["a red dog runs home"]])["self_bleu"] is None


def test_entropy_counts_names_where_the_world_is_known():
    captions = [["a splendid dog", "a hot dog"], ["a dog on the beach", "a cat"]]
    assert diversity(captions, WORLD)["entropy"] == pytest.approx(1.5)  # dog 2, hot dog 1, cat 1
    # dog 3, splendid, hot, beach, cat 1 each
    assert diversity(captions)["entropy"] == pytest.approx(-(3 / 7 * math.log2(3 / 7) + 4 / 7 * math.log2(1 / 7)))
    assert diversity([["a dog", "dogs"]], WORLD)["entropy"] == 0


def test_empty_captions_are_measured():
    pictures = [DOG_CAT_BUS] * 3
    nothing = measure_captions([[], [], []], pictures, WORLD)
    assert nothing["captions"] == nothing["images"] == nothing["vocabulary"] == 0
    assert {value for key, value in nothing.items() if key not in ("captions", "images", "vocabulary")} == {None}
    blank = measure_captions([["", " ?! "]] * 3, pictures, WORLD)
    assert (blank["objects_precision"], blank["objects_recall"], blank["length"]) == (None, 0, 0)
    assert (blank["cider"], blank["bleu_1"]) == (0, None)
    mixed = measure_captions([[""], ["a red dog and a bus", ""], []], pictures, WORLD)
    assert (mixed["images"], mixed["captions"], mixed["length"]) == (2, 3, 2)
    assert (mixed["objects_precision"], mixed["objects_recall"]) == (1, 2 / 9)
    assert measure_captions([["a dog"]], references=[[""]])["bleu_1"] is None


# --- CLIP score and reports -----------------------------------------------------------------------------------------


def write_folder(folder, samples) -> None:
    folder.mkdir()
    half = len(samples) // 2
    for number, part in enumerate((samples[:half], samples[half:])):
        shards.write_shard(folder / f"shard-{number:06d}.tar", part)


def captioned(picture: Scene, other: Scene) -> shards.Sample:
    buffer = io.BytesIO()
    Image.fromarray(emoji_world.render(picture, 48)).save(buffer, "PNG")
    return shards.Sample(
        uid=picture.uid,
        image=buffer.getvalue(),
        ext="png",
        text=emoji_world.alt_text(picture, LITE),
        meta={"scene": picture.uid},
        syn_texts={"astray": [emoji_world.caption(other, "short", 3)], "true": emoji_world.captions(picture)[:2]},
    )


@pytest.fixture(scope="module")
def samples(scenes) -> list[shards.Sample]:
    return [captioned(*two) for two in itertools.pairwise(scenes[:25])]


@pytest.fixture(scope="module")
def folder(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("captioned") / "shards"
    write_folder(path, samples)
    return path


@pytest.fixture(scope="module")
def report(folder):
    return caption_report(folder, LITE, teachers=(TEACHER,))


def test_a_report_has_a_row_for_each_captioner_and_what_to_compare_with(report, scenes, samples):
    rows = report["rows"]
    assert list(rows) == ["alt-text", "astray", "true", "all captioners", "clean captions"]
    assert (report["samples"], report["dropped"], report["references"]) == (24, {}, "clean")
    assert [row["captions"] for row in rows.values()] == [24, 24, 48, 72, 120]
    assert rows["true"]["objects_precision"] == rows["clean captions"]["colours_precision"] == 1
    assert rows["astray"]["objects_precision"] < 0.1 < rows["alt-text"]["objects_precision"] < 1
    assert rows["all captioners"]["objects_coverage"] == 1
    assert rows["astray"]["cider"] < 2 < rows["clean captions"]["cider"] < 10  # they are not the references themselves
    assert rows["true"]["bleu_4"] == pytest.approx(1)  # and these are
    weighted = (24 * rows["astray"]["cider"] + 48 * rows["true"]["cider"]) / 72
    assert rows["all captioners"]["cider"] == pytest.approx(weighted)
    by_hand = measure_captions([sample.syn_texts["true"] for sample in samples], scenes[:24], LITE)
    assert {key: rows["true"][key] for key in by_hand} == pytest.approx(by_hand)


def test_the_clip_score_knows_the_right_caption(report, scenes, samples):
    rows = report["rows"]
    assert rows["clean captions"][f"clip_{TEACHER}"] > rows["astray"][f"clip_{TEACHER}"] + 0.1
    captions = [sample.syn_texts["true"] for sample in samples]
    images = [emoji_world.render(picture, 48) for picture in scenes[:24]]
    assert clip_scores(captions, images, (TEACHER,)) == pytest.approx({TEACHER: rows["true"][f"clip_{TEACHER}"]})


def test_the_table_shows_every_row_and_the_report_is_json(report):
    assert json.loads(json.dumps(report)) == report
    table = report_table(report)
    for name in report["rows"]:
        assert len(re.findall(rf"^\| {name} \|", table, re.MULTILINE)) == 4
    lines = [line for line in table.splitlines() if line.startswith("| true |")]
    assert lines[0].startswith("| true | 100.0 | 100.0 | 100.0 |")
    assert f"{report['rows']['true']['cider']:.3f}" in lines[1]
    for first, second in zip(table.splitlines(), table.splitlines()[1:], strict=False):
        assert not (first.startswith("|") and second.startswith("|")) or first.count("|") == second.count("|")


def test_a_report_of_other_data_has_no_truth(folder):
    found = caption_report(folder, most=10)
    assert (found["samples"], found["references"], found["teachers"]) == (10, "none", [])
    assert list(found["rows"]) == ["alt-text", "astray", "true", "all captioners"]
    assert not [key for row in found["rows"].values() for key in row if "object" in key or "cider" in key]
    assert "Truth" not in report_table(found)
    texts = caption_report(folder, references="text")["rows"]
    assert "cider" not in texts["alt-text"]
    assert texts["true"]["cider"] > texts["astray"]["cider"]


def test_captions_of_part_of_the_images_and_bad_pictures(samples, tmp_path):
    part = [dataclasses.replace(sample, syn_texts={}) for sample in samples[:8]]
    part += [dataclasses.replace(sample, syn_texts={"": sample.syn_texts["true"]}) for sample in samples[8:16]]
    part[0] = dataclasses.replace(part[0], image=b"no picture")
    write_folder(tmp_path / "part", part)
    found = caption_report(tmp_path / "part", LITE, teachers=(TEACHER,))
    assert (found["samples"], found["dropped"]) == (15, {"not_an_image": 1})
    assert list(found["rows"]) == ["alt-text", "(unnamed)", "clean captions"]
    assert (found["rows"]["(unnamed)"]["images"], found["rows"]["(unnamed)"]["captions"]) == (8, 16)
    assert found["rows"]["(unnamed)"]["objects_recall"] == found["rows"]["(unnamed)"]["objects_coverage"] == 1
    assert caption_report(tmp_path / "part", LITE, most=0)["samples"] == 15  # the same samples, teachers or not


def test_a_report_says_what_it_cannot_do(folder, samples, tmp_path):
    with pytest.raises(ValueError, match="'clean' needs a world"):
        caption_report(folder, references="clean")
    with pytest.raises(ValueError, match=r"uid train-0-120-0, `scene`.*24 names.*leave the world out"):
        caption_report(folder, World(names=24))
    write_folder(tmp_path / "bad", [dataclasses.replace(sample, image=b"") for sample in samples[:2]])
    with pytest.raises(ValueError, match="no sample could be read"):
        caption_report(tmp_path / "bad")
    with pytest.raises(FileNotFoundError):
        caption_report(tmp_path / "nowhere")
