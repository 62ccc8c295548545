"""Splits: no scene, background, image or sentence of the test occurs in training or validation."""

import dataclasses
import re

import numpy as np
import pytest

from mobileclip2_lite import emoji_world
from mobileclip2_lite.emoji_world.scenes import TINTS
from mobileclip2_lite.emoji_world.wording import WORDINGS
from mobileclip2_lite.recipes import World

WORLD = World()
SETS = {
    "zero-shot": lambda split: emoji_world.zero_shot_set(WORLD, 2, split=split),
    "retrieval": lambda split: emoji_world.retrieval_set(WORLD, 200, split=split),
    "binding": lambda split: emoji_world.binding_set(WORLD, 60, split=split),
    "relations": lambda split: emoji_world.relations_set(WORLD, 60, split=split),
}


def _training():
    for seed in (0, 101):  # students' and a teacher's web
        world = dataclasses.replace(WORLD, seed=seed)
        for split in ("train", "annotated", "train-elsewhere"):
            yield from (emoji_world.scene(world, split, index) for index in range(300))


def test_train_val_and_test_share_no_scene_background_or_render():
    def parts(scenes, images):
        return (
            {dataclasses.replace(scene, uid="") for scene in scenes},
            {scene.background for scene in scenes},
            {image.tobytes() for image in images},
        )

    train = list(_training())
    some = train[::10]
    found = [parts(train, [emoji_world.render(scene, WORLD.image_size) for scene in some])]
    for split in emoji_world.SPLITS:
        sets = [make(split).images for make in SETS.values()]
        scenes = [scene for images in sets for scene in images.scenes]
        found.append(parts(scenes, [image for images in sets for image in images]))
    for kind in range(3):
        for k, first in enumerate(found):
            for second in found[k + 1 :]:
                assert not first[kind] & second[kind]


@pytest.mark.parametrize("name", SETS)
def test_an_unknown_split_is_an_error(name):
    with pytest.raises(ValueError, match="split 'train': one of"):
        SETS[name]("train")


def _frames(wording):
    return [frame for field in wording for frame in field]


def test_the_three_wordings_share_no_frame():
    sets = {name: {*_frames(wording)} - {*wording.kinds} for name, wording in WORDINGS.items()}
    assert not sets["learned"] & sets["test"]
    assert not sets["learned"] & sets["val"]
    assert not sets["val"] & sets["test"]
    kinds = [set(wording.kinds) for wording in WORDINGS.values()]
    assert not kinds[0] & (kinds[1] | kinds[2])
    assert not kinds[1] & kinds[2]


def test_no_test_caption_can_have_been_trained_on():
    """Also not of another scene: with names and tints taken out, no sentence of the test occurs in training."""

    names = sorted((name.name for name in emoji_world.names(WORLD.names)), key=len, reverse=True)
    thing = re.compile(rf"\b(an? )?((small|large) )?(({'|'.join(TINTS)}) )?({'|'.join(map(re.escape, names))})\b")

    def bare(text):
        return thing.sub("X", text)

    seen = set()
    for scene in list(_training())[::5]:
        seen |= {bare(text) for text in emoji_world.captions(scene)}
        seen |= {bare(text) for text in emoji_world.captions_in(scene, "learned")}
    _, captions = emoji_world.retrieval_set(WORLD, 100, split="test")
    assert not seen & {bare(text) for own in captions for text in own}


@pytest.mark.parametrize("wording", WORDINGS)
def test_every_object_is_named_with_its_tint_in_every_wording(wording):
    for index in range(60):
        scene = emoji_world.scene(WORLD, "train", index)
        for text in emoji_world.captions_in(scene, wording):
            assert all((f"{thing.tint} {thing.name}" if thing.tint else thing.name) in text for thing in scene.things)
            assert "{" not in text
            assert not re.search(r"\ba [aeiou]", text), text
    with pytest.raises(ValueError, match="style 'haiku'"):
        emoji_world.worded(scene, "haiku", wording)


def test_hard_negatives_differ_only_in_what_belongs_to_what():
    def words(text):
        return sorted(word for word in text.split() if word not in ("a", "an"))

    for make in (emoji_world.binding_set, emoji_world.relations_set):
        for split in emoji_world.SPLITS:
            _, positives, negatives = make(WORLD, 20, split=split)
            for right, wrong in zip(positives, negatives, strict=True):
                assert right != wrong
                assert words(right) == words(wrong)


def test_annotated_captions_are_worded_as_asked():
    plain = emoji_world.annotated_dataset(WORLD, 4, ("short",))
    learned = emoji_world.annotated_dataset(WORLD, 4, ("short",), wording="learned")
    assert plain["uid"][:] == learned["uid"][:]
    scenes = [emoji_world.scene_of(WORLD, uid) for uid in learned["scene"][:]]
    assert learned["text"][:] == [emoji_world.worded(scene, "short", "learned") for scene in scenes]
    assert plain["text"][:] == [emoji_world.caption(scene, "short") for scene in scenes]
    with pytest.raises(ValueError, match="wording = 'latin'"):
        emoji_world.annotated_dataset(WORLD, 4, wording="latin")


def test_the_stream_mixes_wordings_and_its_pictures_stay():
    plain = list(emoji_world.training_stream(WORLD, 0, 40, 1.0))
    mixed = list(emoji_world.training_stream(WORLD, 0, 40, 1.0, 0.5))
    same = [a[1] == b[1] for a, b in zip(plain, mixed, strict=True)]
    assert 5 < sum(same) < 35
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(plain, mixed, strict=True))
