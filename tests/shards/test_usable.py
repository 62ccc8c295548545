"""The gate of usable samples, and the names that captions and embeddings have."""

import io
import pickle
from collections import Counter

import numpy as np
import pytest
from doubles.fake_teachers import sample
from doubles.source_files import tar_of
from PIL import Image

from mobileclip2_lite.pairs.collect import Dropped
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.keys import caption_key, captioner_of, embedding_key, kind_and_teacher, teachers_of
from mobileclip2_lite.shards.tars import ShardError, write_tar
from mobileclip2_lite.shards.usable import usable
from mobileclip2_lite.views.decoding import BadImage, pixels
from mobileclip2_lite.views.view import SourceMismatch
from mobileclip2_lite.work.bad_sample import BadSample


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("need_text", [True, False])
def test_every_sample_is_given_or_counted_once(tmp_path, threads, need_text):
    members = {number: shards.members(sample(number)) for number in range(5)}
    members[1]["jpg"] = b"no image"
    members[2] = shards.members(sample(2, meta={"sha256": "0" * 64}))
    members[3]["txt"] = b" \n"
    members[4]["json"] = members[0]["json"]
    write_tar(tmp_path / "a.tar", [*((f"key{n}", parts) for n, parts in members.items()), ("key5", {"txt": b"alone"})])
    dropped = Counter()
    found = list(usable(tmp_path / "a.tar", dropped, need_text, threads=threads))
    reasons = dict.fromkeys(("not_an_image", "hash_mismatch", "duplicate_uid", "no_image"), 1)
    assert dropped == reasons | ({"empty_text": 1} if need_text else {})
    assert [item.index for item in found] == ([0] if need_text else [0, 3])
    assert found[0].members == members[0]
    assert found[0].sample.uid == sample(0).uid
    assert np.array_equal(found[0].pixels, pixels(members[0]["jpg"]))


def test_what_prepare_cannot_use_is_counted_too(tmp_path):
    shards.write_shard(tmp_path / "a.tar", [sample(number) for number in range(3)])

    def prepare(item):
        if item.index == 1:
            raise SourceMismatch("another image")
        return item.sample.uid

    dropped = Counter()
    found = [item.prepared for item in usable(tmp_path / "a.tar", dropped, prepare=prepare)]
    assert found == [sample(0).uid, sample(2).uid]
    assert dropped == {"source_mismatch": 1}


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (BadImage("broken_image", "cut short"), "broken_image", "broken_image: cut short"),
        (SourceMismatch("60 x 44"), "source_mismatch", "60 x 44"),
        (ShardError("bad_json", "cut short", "a.tar, key 'x'"), "bad_json", "a.tar, key 'x': cut short"),
        (ShardError("damaged_tar", "damaged", "a.tar"), "damaged_tar", "a.tar: damaged"),
        (Dropped("no_text"), "no_text", "no_text"),
    ],
)
def test_bad_samples_have_a_reason_and_come_whole_through_a_pickle(error, reason, message):
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert isinstance(one, BadSample)
        assert type(one) is type(error)
        assert (one.reason, str(one), one.where) == (reason, message, error.where)


@pytest.mark.parametrize("member", ["jpeg", "jfif", "jpe", "avif", "jp2", "tif", "gif", "bmp", "ppm", "apng"])
def test_images_of_every_ending_are_used_untouched_in_tars_that_other_people_made(tmp_path, member):
    """`pairs` writes jpg, png and webp; a stage that is given someone else's tars reads what `pairs` would read."""
    forms = {"avif": "AVIF", "jp2": "JPEG2000", "tif": "TIFF", "gif": "GIF", "bmp": "BMP", "ppm": "PPM", "apng": "PNG"}
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).save(
        buffer, forms.get(member, "JPEG")
    )
    if member == "avif" and "AVIF" not in Image.OPEN:
        pytest.skip("this Pillow reads no AVIF")
    tar_of(tmp_path / "a.tar", {f"1.{member.upper()}": buffer.getvalue(), "1.txt": b"a text"})
    dropped = Counter()
    (item,) = usable(tmp_path / "a.tar", dropped)
    assert (dropped, item.pixels.shape) == ({}, (12, 16, 3))
    kept = {"jpeg": "jpg", "jfif": "jpg", "jpe": "jpg"}.get(member, member)
    assert shards.members(item.sample)[kept] == buffer.getvalue()


def test_keys_are_taken_apart_as_they_were_put_together():
    assert captioner_of(caption_key("a_b@2")) == "a_b@2"
    assert captioner_of(caption_key("")) == ""
    assert captioner_of("syn_text") == ""
    assert captioner_of("other") is None
    assert kind_and_teacher(embedding_key(caption_key("c"), "hub/model")) == ("syn_text_c", "hub/model")
    assert teachers_of(["image/b", "text/b", "image/a/c", "syn_text_c/b"]) == ["b", "a/c"]
