"""Tars as people make them: every sample is found once, whatever stands between, beside or behind its members."""

from __future__ import annotations

import io
import mmap
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileclip2_lite.shards.tar_members import list_samples
from mobileclip2_lite.shards.tars import ShardError, TarIndex, mapped, read_tar, unpacked


def tar_bytes(members, form=tarfile.PAX_FORMAT, encoding="utf-8") -> bytes:
    """(name, content) as files; (name, content, kind) as links to the member that `content` names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding=encoding, errors="surrogateescape") as tar:
        for name, content, *kind in members:
            entry = tarfile.TarInfo(name)
            if kind:
                entry.type, entry.linkname = kind[0], content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def samples(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    """By the reader, after the index has been seen to say the same."""
    found = list(read_tar(path))
    index = TarIndex(path)
    assert index.keys == [key for key, _ in found]
    for number, (_, members) in enumerate(found):
        assert {name: bytes(index.member(number, name)) for name in index.extensions(number)} == members
    return found


def pair(key: str) -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", f"image {key}".encode()), (f"{key}.txt", f"text {key}".encode())]


def whole(*keys: str) -> list[tuple[str, dict[str, bytes]]]:
    return [(key, {"jpg": f"image {key}".encode(), "txt": f"text {key}".encode()}) for key in keys]


def test_names_that_begin_with_a_dot_are_no_part_of_a_sample(tmp_path):
    members = []
    for key in ("a", "sub/b"):
        for name, data in pair(key):
            folder, _, base = name.rpartition("/")
            members += [(f"{folder}/._{base}".lstrip("/"), b"\0\5\x16\7"), (name, data)]
    members += [(".DS_Store", b"x"), ("__MACOSX/._a.jpg", b"x"), (".git/c.jpg", b"x"), (".git/c.txt", b"x")]
    path = write(tmp_path / "a.tar", tar_bytes(members))
    assert samples(path) == whole("a", "sub/b")
    dotted = write(tmp_path / "b.tar", tar_bytes([(f"./{name}", data) for name, data in pair("a")]))
    assert [key for key, _ in samples(dotted)] == ["./a"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("marks", [0, 1, 40])
def test_tars_put_together_are_read_to_the_last(tmp_path, form, marks):
    """`cat a.tar b.tar c.tar`, with any number of empty blocks between, also where names are long."""
    keys = ["a", "b" * 90 + "/" + "b" * 60, "c"]
    data = (bytes(512 * marks)).join(tar_bytes(pair(key), form) for key in keys)
    assert samples(write(tmp_path / "all.tar", data)) == whole(*keys)


def test_what_follows_an_end_mark_and_is_no_tar_is_damage(tmp_path):
    path = write(tmp_path / "a.tar", tar_bytes(pair("a")) + b"junk" * 300)
    with pytest.raises(ShardError, match="no tar header at byte"):
        list(read_tar(path))
    with pytest.raises(ShardError, match="no tar header at byte"):
        TarIndex(path)
    dropped = Counter()
    list(read_tar(path, dropped))
    assert dropped == {"damaged_tar": 1}


def test_links_are_the_members_that_they_mean(tmp_path):
    members = [*pair("a"), ("b.jpg", "a.jpg", tarfile.LNKTYPE), ("b.txt", b"text b")]
    members += [("sub/c.jpg", "../b.jpg", tarfile.SYMTYPE), ("sub/c.txt", b"text c")]
    members += [("d.jpg", "late.jpg", tarfile.SYMTYPE), ("d.txt", b"text d"), ("late.jpg", b"image late")]
    members += [("e.jpg", "/etc/passwd", tarfile.SYMTYPE), ("e.txt", b"text e")]
    members += [("f.jpg", "f.jpg", tarfile.SYMTYPE), ("f.txt", b"text f")]
    found = dict(samples(write(tmp_path / "a.tar", tar_bytes(members))))
    assert found["b"] == {"jpg": b"image a", "txt": b"text b"}
    assert found["sub/c"] == {"jpg": b"image a", "txt": b"text c"}
    assert found["d"] == {"jpg": b"image late", "txt": b"text d"}
    assert found["e"] == {"txt": b"text e"}, "nothing outside the tar is read"
    assert found["f"] == {"txt": b"text f"}, "a link to itself ends"


def test_members_of_a_sample_may_lie_apart(tmp_path):
    apart = [pair(key)[place] for place in (0, 1) for key in "abc"]
    assert samples(write(tmp_path / "a.tar", tar_bytes(apart))) == whole("a", "b", "c")


def test_a_key_that_comes_again_is_another_sample(tmp_path):
    twice = [*pair("a"), *pair("b"), ("a.jpg", b"other"), ("a.txt", b"words")]
    found = samples(write(tmp_path / "a.tar", tar_bytes(twice)))
    assert found == [*whole("a", "b"), ("a", {"jpg": b"other", "txt": b"words"})]
    both = [("a.jpg", b"1"), ("a.jpg", b"2"), ("a.txt", b"3"), ("a.txt", b"4")]
    found = samples(write(tmp_path / "b.tar", tar_bytes(both)))
    assert [sorted(members) for _, members in found] == [["jpg", "txt"], ["jpg", "txt"]]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["i.1.jpg", "i.1.txt", "i.2.jpg", "i.2.txt"], {"i.1": "jpg txt", "i.2": "jpg txt"}),
        (["i.v1.5.png", "i.v1.5.txt"], {"i.v1.5": "png txt"}),
        (["i.1.jpg", "i.1.json", "i.2.jpg", "i.2.json"], {"i.1": "jpg json", "i.2": "jpg json"}),
        (["i.jpg", "i.txt", "i.2.jpg", "i.2.txt"], {"i": "jpg txt", "i.2": "jpg txt"}),
        (["i.jpg", "i.txt", "i.seg.png", "i.depth.tif"], {"i": "jpg txt seg.png depth.tif"}),
        (["i.jpg", "i.txt", "i.seg.png", "i.seg.json"], {"i": "jpg txt seg.png seg.json"}),
        (["i.image.jpg", "i.caption.txt"], {"i": "jpg txt"}),
        (["i.image.jpg", "i.txt"], {"i": "jpg txt"}),
        (["i.jpg", "i.txt", "i.syn.json", "i.paug.json", "i.emb.safetensors"], None),
    ],
)
def test_where_a_key_ends(tmp_path, names, wanted):
    found = samples(write(tmp_path / "a.tar", tar_bytes([(name, name.encode()) for name in names])))
    wanted = wanted or {"i": " ".join(name.removeprefix("i.") for name in names)}
    assert {key: " ".join(members) for key, members in found} == wanted


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_names_that_are_no_utf8(tmp_path, form):
    names = ["caf\udce9", "plain", "\udcf1o" + "x" * 60]
    members = [
        member for name in names for member in pair("k") for member in [(member[0].replace("k", name), member[1])]
    ]
    if form == tarfile.PAX_FORMAT:
        data = tar_bytes(members, form)
    else:
        data = tar_bytes(members, form, "latin-1" if form == tarfile.USTAR_FORMAT else "utf-8")
    assert [key for key, _ in samples(write(tmp_path / "a.tar", data))] == names


def lists(data: bytes):
    with mmap.mmap(-1, max(len(data), 1024)) as memory:
        memory.write(data)
        return list_samples(memory, "x.tar")


@settings(max_examples=60, deadline=None)
@given(st.permutations([member for key in "abcd" for member in pair(key)]), st.integers(0, 3))
def test_the_order_of_members_does_not_matter(order, split):
    data = b"".join(tar_bytes(part) for part in (order[: 2 * split], order[2 * split :]))
    found = lists(data)
    assert found.damage is None
    assert sorted(key for key, _ in found.samples) == ["a", "b", "c", "d"]
    assert all(sorted(members) == ["jpg", "txt"] for _, members in found.samples)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 511, 512, 513, 1024, 5120]), min_size=1, max_size=6))
def test_members_of_any_length_are_found_where_they_are(sizes):
    """Tars go by blocks of 512 bytes: a member that fills its last block has no padding behind it."""
    contents = [bytes([65 + k]) * size for k, size in enumerate(sizes)]
    data = tar_bytes([(f"{k}.txt", content) for k, content in enumerate(contents)])
    found = lists(data)
    assert found.damage is None
    spans = [members["txt"] for _, members in found.samples]
    assert [data[offset : offset + size] for offset, size in spans] == contents


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 6 * 1024 + 1024), st.integers(0, 255), st.sampled_from(["cut", "flip"]))
def test_damage_is_said_or_does_not_matter(at, value, how):
    """Cut anywhere or with any byte changed: whole samples, or damage that is named; never another error."""
    data = bytearray(tar_bytes([member for key in "abc" for member in pair(key)]))
    at = min(at, len(data) - 1)
    if how == "cut":
        data = data[:at]
    else:
        data[at] = value
    found = lists(bytes(data))
    if how == "cut" and 1024 <= at < 6 * 1024 + 512:  # six members, and one block of zeros that ends them
        assert found.damage is not None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "no tar but a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(4000), "no tar but a zip file"),
        (b"<!DOCTYPE html>" + bytes(4000), "no tar but a web page"),
        (b"\x28\xb5\x2f\xfd" + bytes(4000), "no tar but compressed with zstd"),
    ],
)
def test_something_else_under_a_tars_name_is_named(tmp_path, data, words):
    path = write(tmp_path / "a.tar", data)
    with pytest.raises(ShardError, match=words):
        TarIndex(path)
    dropped = Counter()
    assert list(read_tar(path, dropped)) == []
    assert dropped == {"damaged_tar": 1}


@pytest.mark.parametrize("key", ["BZ1", "BZh9", "PK", "PAR1", "Rar!", "7z", "version https", "%PDF"])
def test_a_first_name_that_begins_like_something_else_is_a_name(tmp_path, key):
    path = write(tmp_path / "a.tar", tar_bytes(pair(key)))
    assert samples(path) == whole(key)
    data, cut = unpacked(path)
    with data:
        assert (list_samples(data, "a.tar").samples[0][0], cut) == (key, "")


def test_members_that_are_no_files_or_have_holes_are_no_part_of_a_sample(tmp_path):
    """Devices, pipes, folders, GNU's sparse files, links to nothing and in circles; the others are found."""
    buffer = io.BytesIO()
    kinds = (tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE)
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number, kind in enumerate(kinds):
            entry = tarfile.TarInfo(f"odd{number}.jpg")
            entry.type = kind
            tar.addfile(entry)
        for name, target in (("a", "b"), ("b", "a"), ("c", "c"), ("d", "/etc/passwd"), ("e", "../../x")):
            entry = tarfile.TarInfo(f"{name}.jpg")
            entry.type, entry.linkname = tarfile.SYMTYPE, f"{target}.jpg"
            tar.addfile(entry)
        for name, content in pair("good"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    assert samples(write(tmp_path / "a.tar", buffer.getvalue())) == whole("good")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("folder", ["/absolute/", "../../up/", ".//twice//", "d" * 90 + "/", "v1.0/2023.01/"])
def test_names_are_keys_and_nothing_is_unpacked(tmp_path, form, folder):
    keys = [f"{folder}{name}" for name in ("a", "n" * 80)]
    found = samples(write(tmp_path / "a.tar", tar_bytes([one for key in keys for one in pair(key)], form)))
    assert found == whole(*keys)


def test_a_file_too_small_for_a_tar(tmp_path):
    with pytest.raises(ShardError, match="not a tar or empty"):
        mapped(write(tmp_path / "a.tar", b"x"))


def test_a_shard_that_is_gone_is_named_with_what_to_do(tmp_path):
    for read in (mapped, TarIndex):
        with pytest.raises(
            FileNotFoundError, match=r"shard-000000\.tar does not exist; .*copy or make this shard again"
        ):
            read(tmp_path / "shard-000000.tar")
