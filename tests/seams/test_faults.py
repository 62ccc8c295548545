"""What happens to every kind of broken or odd input and storage; the table in docs/faults.md names these tests."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles.fake_teachers import FakeTeachers, files, picture, sample, write_pairs
from PIL import Image

from mobileclip2_lite.recipes import Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.shards.tars import ShardError, TarIndex, key_of
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.replay import replay

SETTINGS = Reinforce(teachers=("small", "large"), views=2)


def encoded(mode="RGB", fmt="PNG", size=(40, 30), **save):
    """A picture of any mode."""
    chance = np.random.default_rng(1)
    base = Image.fromarray(chance.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    if mode == "I;16":
        base = Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257)
    elif mode != "RGB":
        base = base.convert(mode)
    buffer = io.BytesIO()
    base.save(buffer, fmt, **save)
    return buffer.getvalue()


def through(tmp_path, *items):
    """Reinforce one shard of these samples; its manifest and the samples by uid."""
    write_pairs(tmp_path / "pairs", [list(items)])
    manifest = reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "out", ensemble=FakeTeachers())
    return manifest, {item.uid: item for item in shards.read_samples(tmp_path / "out" / "shard-000000.tar")}


ANIMATION = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]


def animated(fmt):
    buffer = io.BytesIO()
    ANIMATION[0].save(buffer, fmt, save_all=True, append_images=ANIMATION[1:], lossless=True)
    return buffer.getvalue()


ODD_PICTURES = {
    "1x1": ("jpg", lambda: picture(1, 1, 1)),
    "one row": ("png", lambda: encoded(size=(500, 1))),
    "grey": ("jpg", lambda: encoded("L", "JPEG")),
    "cmyk": ("jpg", lambda: encoded("CMYK", "JPEG")),
    "16-bit grey": ("png", lambda: encoded("I;16")),
    "palette": ("png", lambda: encoded("P")),
    "palette, transparent": ("png", lambda: encoded("P", transparency=b"\x00\x80" * 8)),
    "alpha": ("png", lambda: encoded("RGBA")),
    "bilevel": ("png", lambda: encoded("1")),
    "animated webp": ("webp", lambda: animated("WEBP")),
    "animated gif under a jpg name": ("jpg", lambda: animated("GIF")),
    "progressive": ("jpg", lambda: encoded(fmt="JPEG", progressive=True)),
}


@pytest.mark.parametrize("name", ODD_PICTURES)
def test_odd_pictures_are_read(tmp_path, name):
    ext, make = ODD_PICTURES[name]
    manifest, read = through(tmp_path, sample(1, image=make(), ext=ext), sample(2))
    assert (manifest["samples"], manifest["dropped"]) == (2, {})
    item = read[sample(1).uid]
    assert item.image == make(), "the picture is kept untouched"
    stock = np.asarray(
        Image.open(io.BytesIO(item.image)).convert("RGBA" if "palette" in name else "RGB").convert("RGB")
    )
    pixels = decoding.pixels(item.image)
    assert pixels.shape == stock.shape
    if name == "16-bit grey":  # PIL alone clips it to white
        grey = np.asarray(Image.open(io.BytesIO(item.image))) >> 8
        assert np.array_equal(pixels[..., 0], grey)
    else:
        assert np.array_equal(pixels, stock)
    view = item.views[0]
    assert (view.width, view.height) == pixels.shape[1::-1]
    row = FakeTeachers().embed_images(
        "small", torch.from_numpy(np.array(replay(pixels, view, 32))).permute(2, 0, 1)[None]
    )
    assert torch.allclose(row[0], item.embeddings["image/small"][0], atol=4e-3)


def test_animations_give_their_first_frame():
    for fmt in ("WEBP", "GIF"):
        assert decoding.pixels(animated(fmt))[0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)


def test_exif_rotation_is_not_applied(tmp_path):
    """Pixels as stored, as in the official trainer, so that its crop boxes mean the same here."""
    exif = Image.Exif()
    exif[274] = 6
    image = encoded(fmt="JPEG", size=(40, 20), exif=exif)
    manifest, read = through(tmp_path, sample(1, image=image))
    assert manifest["samples"] == 1
    assert decoding.pixels(image).shape == (20, 40, 3)
    assert read[sample(1).uid].views[0].width == 40


BROKEN_PICTURES = {
    "zero bytes": (lambda: b"", "no_image"),
    "garbage": (lambda: b"\x00\x01garbage" * 9, "not_an_image"),
    "html": (lambda: b"<html>404</html>", "not_an_image"),
    "truncated jpeg": (lambda: picture(1)[:-60], "broken_image"),
    "truncated after the header": (lambda: picture(1)[:200], "broken_image"),
    "truncated png": (lambda: encoded()[:-500], "broken_image"),
    "jpeg without a picture": (lambda: b"\xff\xd8\xff\xd9", "not_an_image"),
}


@pytest.mark.parametrize("name", BROKEN_PICTURES)
def test_broken_pictures_are_counted(tmp_path, name):
    make, reason = BROKEN_PICTURES[name]
    manifest, read = through(tmp_path, sample(1), sample(2, image=make()), sample(3))
    assert manifest["dropped"] == {reason: 1}
    assert set(read) == {sample(1).uid, sample(3).uid}


@pytest.mark.parametrize("fmt", ["PNG", "JPEG"])
def test_decompression_bombs_are_counted_and_not_opened(tmp_path, monkeypatch, fmt):
    bomb = encoded(fmt=fmt, size=(300, 300))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300 * 299)
    manifest, _ = through(tmp_path, sample(1), sample(2, image=bomb))
    assert manifest["dropped"] == {"image_bomb": 1}


def test_a_zero_byte_member_is_counted(tmp_path):
    from mobileclip2_lite.shards.tars import write_tar

    write_tar(tmp_path / "a.tar", [("u", {"jpg": b"", "txt": b"text"}), ("v", {"jpg": picture(1), "txt": b"text"})])
    assert [item.image for item in shards.read_pairs(tmp_path / "a.tar")] == [b"", picture(1)]
    with pytest.raises(decoding.BadImage, match="0 bytes"):
        decoding.pixels(b"")


TEXTS = {
    "10,000 characters": "word " * 2000,
    "control characters": "a\x00b\x07c\x1b[31md\r\n\te\x7f",
    "scripts": "日本語 العربية हिन्दी Ελληνικά עברית 한국어 ქართული ไทย 👩‍👩‍👧 e\u0301 \u202e",
    "quotes and tags": "\"'<b>&amp;</b>\\ {json} [x]",
    "byte order mark": "\ufefftext",
}


@pytest.mark.parametrize("name", TEXTS)
def test_odd_texts_come_back_unchanged(tmp_path, name):
    text = TEXTS[name]
    manifest, read = through(tmp_path, sample(1, text=text, syn_texts={"c": [text, ""]}), sample(2))
    assert manifest["dropped"] == {}
    item = read[sample(1).uid]
    assert (item.text, item.syn_texts) == (text, {"c": [text, ""]})
    [batch] = ReinforcedDataset(tmp_path / "out", 16, 2, captioners=("c",))
    assert text in batch.texts


@pytest.mark.parametrize("text", ["", "   ", "\n\t\u3000"])
def test_empty_captions_are_counted(tmp_path, text):
    manifest, _ = through(tmp_path, sample(1, text=text), sample(2))
    assert (manifest["samples"], manifest["dropped"]) == (1, {"empty_text": 1})


def test_text_that_is_not_utf8_is_counted(tmp_path):
    from mobileclip2_lite.shards.tars import write_tar

    write_tar(tmp_path / "a.tar", [("u", {"jpg": picture(1), "txt": b"\xff\xfe\x00"})])
    dropped = Counter()
    assert list(shards.read_pairs(tmp_path / "a.tar", dropped)) == []
    assert dropped == {"text_not_utf8": 1}
    with pytest.raises(ShardError, match="key 'u', member txt: not UTF-8"):
        list(shards.read_pairs(tmp_path / "a.tar"))


UIDS = [
    "a/b",
    "a.b.c",
    "../../etc/passwd",
    "https://x.org/ä.jpg?q=1&r=2",
    "日本語",
    "a%2Fb",
    "~",
    ".",
    "x" * 300,
    "a b",
]


def test_uids_with_slashes_dots_and_anything(tmp_path):
    import webdataset

    items = [sample(i, uid=uid) for i, uid in enumerate(UIDS)]
    assert len({key_of(uid) for uid in UIDS}) == len(UIDS)
    manifest, read = through(tmp_path, *items)
    assert manifest["samples"] == len(UIDS)
    assert set(read) == set(UIDS)
    assert {uid: read[uid].text for uid in UIDS} == {item.uid: item.text for item in items}
    stock = webdataset.WebDataset(str(tmp_path / "out" / "shard-000000.tar"), shardshuffle=False)
    assert len({found["__key__"] for found in stock}) == len(UIDS), "webdataset splits none of them"
    [batch] = ReinforcedDataset(tmp_path / "out", 16, len(UIDS))
    assert set(batch.uids) == set(UIDS)


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut short":
        data = data[: len(data) * 2 // 3]
    elif how == "cut at a member":
        entry = TarIndex(path)
        data = data[: entry.span(5, "jpg")[0] - 512]
    elif how == "flipped header":
        at = TarIndex(path).span(5, "jpg")[0] - 512
        data[at : at + 8] = b"\xff" * 8
    elif how == "no tar":
        data = bytearray(os.urandom(4096))
    else:
        data = bytearray()
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut short", "cut at a member", "flipped header", "no tar", "0 bytes"])
def test_damaged_tars(tmp_path, how):
    """Whole samples before the damage are used, the missing ones are counted; a loader says which file it is."""
    write_pairs(tmp_path / "pairs", [[sample(i) for i in range(8)], [sample(i) for i in range(8, 12)]])
    path = tmp_path / "pairs" / "shard-000000.tar"
    damage(path, how)
    with pytest.raises(ShardError, match=r"shard-000000\.tar.*(copy or make this shard again)"):
        list(shards.read_samples(path))
    manifest = reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "out", ensemble=FakeTeachers())
    lost = manifest["dropped"]["damaged_tar"]
    assert manifest["samples"] == 12 - lost
    # the sample before the damage goes too: whether it is whole cannot be known
    assert lost == {"cut short": 2, "cut at a member": 4, "flipped header": 4}.get(how, 8)
    damage(tmp_path / "out" / "shard-000001.tar", "0 bytes")
    with pytest.raises(ShardError, match=r"shard-000001\.tar"):
        list(ReinforcedDataset(tmp_path / "out", 16, manifest["samples"]))


def test_a_missing_pair_shard_is_an_error_that_names_it(tmp_path):
    write_pairs(tmp_path / "pairs", [[sample(1)], [sample(2)]])
    (tmp_path / "pairs" / "shard-000001.tar").unlink()
    with pytest.raises(FileNotFoundError, match="shard-000001"):
        reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "out", ensemble=FakeTeachers())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the limits of a Unix process")
def test_a_full_disk_stops_with_its_error_and_the_run_goes_on_later(tmp_path):
    """A limit on the size of files is the quota that a test may set."""
    import resource
    import signal

    small = [sample(i, image=picture(i, 12, 12)) for i in range(2)]
    large = [sample(i) for i in range(10, 40)]
    write_pairs(tmp_path / "pairs", [small, large])
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
            reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "out", ensemble=FakeTeachers())
        except OSError as error:
            code = 42 if error.errno in (errno.EFBIG, errno.ENOSPC) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"progress.json", "shard-000000.tar", "shard-000000.json"}, "the finished shard, and nothing half"
    reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "out", ensemble=FakeTeachers())
    reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "undisturbed", ensemble=FakeTeachers())
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from doubles.fake_teachers import FakeTeachers, files
from mobileclip2_lite.recipes import Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce

disk, pairs = Path(sys.argv[1]), Path(sys.argv[2])
for options in ("size=64k", "remount,ro", "remount,rw,size=4m"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(disk)], check=True)
    try:
        reinforce(Reinforce(views=2), pairs, disk / "out", ensemble=FakeTeachers())
        print("done", len(files(disk / "out")))
    except OSError as error:
        print(error)
"""


def test_a_small_file_system_runs_full_turns_read_only_and_grows(tmp_path):
    """The real thing, where the test may mount: in a mount name space of its own."""
    if shutil.which("unshare") is None:
        pytest.skip("no mount name spaces here")
    disk, pairs = tmp_path / "disk", tmp_path / "pairs"
    disk.mkdir()
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "none", str(disk)]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("may not mount here")
    write_pairs(pairs, [[sample(i, image=picture(i, 12, 12)) for i in range(2)], [sample(i) for i in range(10, 40)]])
    command = ["unshare", "-m", sys.executable, "-c", SMALL_DISK, str(disk), str(pairs)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    full, read_only, grown = done.stdout.splitlines()
    assert "No space left" in full
    assert "shard-000001.tar" in full
    assert "Read-only" in read_only
    assert grown == "done 5"


def test_a_read_only_target_is_an_error_at_once(tmp_path, monkeypatch):
    """Root writes through permissions, so the system's answer is given for it."""
    write_pairs(tmp_path / "pairs", [[sample(1)]])

    def refuse(path, flags, *rest):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=r"[Rr]ead-only.*out") as caught:
        reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "out", ensemble=FakeTeachers())
    assert caught.value.errno == errno.EROFS
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_where_the_target_should_be(tmp_path):
    write_pairs(tmp_path / "pairs", [[sample(1)]])
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(OSError, match="out"):
        reinforce(SETTINGS, tmp_path / "pairs", tmp_path / "out", ensemble=FakeTeachers())
