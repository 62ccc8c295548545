"""The embedded world: the same everywhere, disjoint from its test sets, and true to what its texts say."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from mobileclip2_lite import emoji_world
from mobileclip2_lite.recipes import AltText, lite

WORLD = lite().world
CLEAN = dataclasses.replace(WORLD, alt_text=AltText(0, 0, 0, 0, 1, 0))


def test_scene_follows_from_seed_split_and_index():
    again = emoji_world.scene(dataclasses.replace(WORLD, image_size=200), "train", 7)
    assert emoji_world.scene(WORLD, "train", 7) == again
    assert emoji_world.scene(WORLD, "train", 8) != again
    assert emoji_world.scene(dataclasses.replace(WORLD, seed=1), "train", 7) != again


def test_scene_has_the_promised_form():
    counts = set()
    for index in range(300):
        picture = emoji_world.scene(WORLD, "train", index)
        counts.add(len(picture.things))
        assert len({thing.name for thing in picture.things}) == len(picture.things)
        assert all(0 < thing.x < 1 and 0 < thing.y < 1 and 0.2 < thing.size < 1 for thing in picture.things)
        assert picture.background.kind in ("plain", "striped", "gradient", "noisy")
    assert counts == {1, 2, 3}


def test_render_is_the_same_scene_at_every_size():
    for index in range(8):
        picture = emoji_world.scene(WORLD, "train", index)
        small, large = emoji_world.render(picture, 64), emoji_world.render(picture, 256)
        assert small.shape == (64, 64, 3)
        assert small.dtype == np.uint8
        shrunk = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
        assert np.abs(shrunk - small).mean() < 9
        assert np.array_equal(small, emoji_world.render(picture, 64))


def test_an_object_is_drawn_where_the_scene_says():
    for index in range(20):
        picture = emoji_world.scene(WORLD, "train", index, objects=(1,))
        empty = emoji_world.render(dataclasses.replace(picture, things=()), 96)
        changed = np.abs(emoji_world.render(picture, 96).astype(int) - empty).sum(2) > 30
        rows, columns = np.nonzero(changed)
        (thing,) = picture.things
        assert abs(columns.mean() / 96 - thing.x) < 0.2
        assert abs(rows.mean() / 96 - thing.y) < 0.2
        assert np.ptp(columns) / 96 < thing.size * 1.5


def test_tint_gives_the_object_the_named_colour():
    name = next(n for n in emoji_world.names() if n.name == "egg")
    pale = emoji_world.Background("plain", "white", "white", 0, 3, 1)
    for colour in ("red", "green", "blue"):
        thing = emoji_world.Thing(name.name, name.icon, 0.5, 0.5, 0.8, 0.0, 0.0, tint=colour)
        centre = emoji_world.render(emoji_world.Scene("x", (thing,), pale), 64)[28:36, 28:36].mean((0, 1))
        assert np.argmax(centre) == ("red", "green", "blue").index(colour)


def test_no_test_picture_occurs_in_training():
    def key(picture):
        return dataclasses.replace(picture, uid="")

    training = [emoji_world.scene(WORLD, "train", index) for index in range(3000)]
    training += [emoji_world.scene(WORLD, "train-elsewhere", index) for index in range(1000)]
    scenes, grounds = {key(p) for p in training}, {p.background.seed for p in training}
    things = {thing for p in training for thing in p.things}
    assert len(scenes) == len(training)
    for pictures in (
        emoji_world.zero_shot_set(WORLD, 5).images,
        emoji_world.retrieval_set(WORLD, 300).images,
        emoji_world.binding_set(WORLD, 100).images,
        emoji_world.relations_set(WORLD, 100).images,
    ):
        assert not scenes & {key(p) for p in pictures.scenes}
        assert not grounds & {p.background.seed for p in pictures.scenes}
        assert not things & {thing for p in pictures.scenes for thing in p.things}


def test_names_have_a_fixed_order_and_drawings():
    every = emoji_world.names()
    assert len(every) > 700
    assert len({name.name for name in every}) == len(every) == len({name.icon for name in every})
    assert emoji_world.names(120) == every[:120]
    assert [name.name for name in every[:5]] == ["stadium", "onion", "eagle", "candy", "window"]
    with pytest.raises(ValueError, match=r"World\.names = 5000"):
        emoji_world.names(5000)


def test_alt_text_has_the_set_noise():
    def about_the_picture(text, picture):
        return any(word in text.replace("_", " ") for thing in picture.things for word in thing.name.split())

    world = dataclasses.replace(WORLD, alt_text=AltText(mismatch=0.3, filename=0.2, boilerplate=0, fragment=0))
    pictures = [emoji_world.scene(world, "train", index) for index in range(2000)]
    texts = [emoji_world.alt_text(picture, world) for picture in pictures]
    right = np.mean([about_the_picture(text, picture) for text, picture in zip(texts, pictures, strict=True)])
    files = np.mean([text.endswith(("jpg", "png", "jpeg")) for text in texts])
    assert abs(1 - right - 0.3) < 0.04
    assert abs(files - 0.2) < 0.03


def test_clean_captions_name_every_object_with_its_tint():
    for index in range(100):
        picture = emoji_world.scene(WORLD, "train", index)
        for text in emoji_world.captions(picture):
            assert all(thing.name in text for thing in picture.things)
            assert all(f"{thing.tint} {thing.name}" in text for thing in picture.things if thing.tint)
    with pytest.raises(ValueError, match="style 'haiku'"):
        emoji_world.caption(picture, "haiku")


def test_relations_are_true_and_their_negatives_are_not():
    found = emoji_world.relations_set(WORLD, 60)
    assert len(found.images) == len(found.positives) == 60
    for picture, positive, negative in zip(found.images.scenes, found.positives, found.negatives, strict=True):
        first, second = picture.things
        assert positive.index(first.name) < positive.index(second.name)
        assert ("left" in positive) == (first.x < second.x and abs(first.x - second.x) > abs(first.y - second.y))
        assert ("above" in positive) == (first.y < second.y and abs(first.y - second.y) > abs(first.x - second.x))
        assert sorted(positive.split()) == sorted(negative.split())
        assert negative.index(second.name) < negative.index(first.name)


def test_binding_negatives_exchange_the_colours():
    found = emoji_world.binding_set(WORLD, 40)
    for picture, positive, negative in zip(found.images.scenes, found.positives, found.negatives, strict=True):
        first, second = picture.things
        assert first.tint != second.tint
        assert f"{first.tint} {first.name}" in positive
        assert f"{second.tint} {first.name}" in negative


@pytest.mark.parametrize("shift", emoji_world.SHIFTS)
def test_shifts_change_the_pictures_and_keep_the_labels(shift):
    plain, shifted = emoji_world.zero_shot_set(WORLD, 1), emoji_world.zero_shot_set(WORLD, 1, shift)
    assert np.array_equal(plain.labels, shifted.labels)
    assert [p.things[-1] for p in plain.images.scenes] == [p.things[-1] for p in shifted.images.scenes]
    assert np.abs(plain.images[3].astype(int) - shifted.images[3]).mean() > 2
    if shift in ("grey", "sketch"):
        assert np.ptp(shifted.images[3], axis=2).max() == 0


def test_pairs_dataset_looks_like_a_users_own():
    rows = emoji_world.pairs_dataset(WORLD, 6)
    assert len(rows) == 6
    assert rows.column_names == ["uid", "image", "text", "scene"]
    streamed = list(emoji_world.pairs_dataset(WORLD, 6, streaming=True))
    assert [row["text"] for row in streamed] == rows["text"][:]
    assert np.array_equal(np.asarray(streamed[4]["image"]), np.asarray(rows[4]["image"]))
    rows = list(rows)
    assert set(rows[0]) == {"uid", "image", "text", "scene"}
    assert rows[0]["image"].size == (WORLD.image_size, WORLD.image_size)
    assert len({row["uid"] for row in rows}) == 6
    assert rows[2]["text"] == emoji_world.alt_text(emoji_world.scene(WORLD, "train", 2), WORLD)


def test_training_stream_of_clean_captions_names_what_is_seen():
    pairs = list(emoji_world.training_stream(CLEAN, 10, 30, captions=1.0))
    assert len(pairs) == 20
    for index, (pixels, text) in enumerate(pairs, 10):
        picture = emoji_world.scene(CLEAN, "train", index)
        assert np.array_equal(pixels, emoji_world.render(picture, CLEAN.image_size))
        assert all(thing.name in text for thing in picture.things)


def test_a_scene_is_found_by_its_uid():
    for split in ("train", "annotated"):
        picture = emoji_world.scene(WORLD, split, 12)
        assert emoji_world.scene_of(WORLD, picture.uid) == picture
    for wrong in ("retrieval-0-120-12", "train-9-120-12", "row 0"):
        with pytest.raises(ValueError, match="not a training or annotated scene"):
            emoji_world.scene_of(WORLD, wrong)


def test_a_text_fits_what_it_names():
    picture = emoji_world.zero_shot_set(WORLD, 1).images.scenes[0]
    name = picture.things[0].name
    assert emoji_world.fits(f"IMG_12_{name.replace(' ', '_')}.jpg", picture)
    assert not emoji_world.fits(f"un{name}like thing", picture)
    share = np.mean([emoji_world.fits(emoji_world.alt_text(s, WORLD), s) for s in _scenes(1_000)])
    assert 0.65 < share < 1 - WORLD.alt_text.mismatch + 0.05


def _scenes(count: int) -> list:
    return [emoji_world.scene(WORLD, "train", index) for index in range(count)]


def test_scenes_are_cheap():
    pictures = [emoji_world.scene(WORLD, "train", index) for index in range(300)]
    for picture in pictures:  # draws every icon once, which is not what is timed
        emoji_world.render(picture, 64)
    best = min(_seconds(pictures) for _ in range(3))
    assert len(pictures) / best > 500


def _seconds(pictures) -> float:
    start = time.process_time()
    for picture in pictures:
        emoji_world.render(emoji_world.scene(WORLD, "train", int(picture.uid.rsplit("-", 1)[1])), 64)
    return time.process_time() - start
