"""What a file is in truth: by its first bytes, whatever its name says."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
from PIL import Image

from mobileclip2_lite.work.kinds import HEAD, kind_in_truth


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "a text")
    return buffer.getvalue()


KNOWN = {
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 605000000\n",
    "a zip file": zipped(),
    "compressed with gzip": gzip.compress(b"a"),
    "compressed with bzip2": bz2.compress(b"a"),
    "compressed with xz": lzma.compress(b"a"),
    "compressed with zstd": b"\x28\xb5\x2f\xfd\x04",
    "a web page": b"<!DOCTYPE html>\n<html>",
    "a web page or a server's answer": b"\xef\xbb\xbf\n<HTML lang='en'>",
}


@pytest.mark.parametrize("words", KNOWN)
def test_what_has_another_kind_is_named(words):
    assert kind_in_truth(KNOWN[words]).startswith(words)
    assert kind_in_truth(memoryview(KNOWN[words])[:HEAD]).startswith(words)


def plain(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, form)
    return buffer.getvalue()


def a_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"))
    return buffer.getvalue()


OWN = [*map(plain, ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO")), a_tar(), b"", b"file_name,text\n"]
OWN += [
    b'{"file_name": "0.jpg"}\n',
    b'{"message": "a dog"}\n',
    b'{"error_message": null}\n',
    b"[1]",
    "file_name".encode("utf-16"),
    b"a < b,html\n",
]


@pytest.mark.parametrize("data", OWN)
def test_what_is_read_here_is_nothing_else(data):
    assert kind_in_truth(data) == ""
