"""What a file is in truth, where it is not what its name says: by its first bytes, with what to do about it.

Paper: none; ours. Tables, tars, weights and images are asked here before their reader says that they are damaged:
people have pages of HTML in place of a download, pointers of Git LFS, and archives under other names. Opens no file.
"""

from __future__ import annotations

import re

HEAD = 64
"""Bytes of a file's beginning that are enough."""
_BY_START = {
    rb"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`, or fetch the file itself",
    rb"PK\x03\x04": "a zip file: unpack it (a spreadsheet: save it as CSV)",
    rb"\x1f\x8b": "compressed with gzip: unpack it",
    rb"BZh[1-9]1AY&SY": "compressed with bzip2: unpack it",
    rb"\xfd7zXZ\0": "compressed with xz: unpack it",
    rb"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    rb"\x04\x22\x4d\x18": "compressed with lz4: unpack it",
    rb"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it",
    rb"Rar!\x1a\x07": "a RAR archive: unpack it",
    rb"PAR1[\x00-\x1f]": "a parquet file: give it the suffix .parquet",
    rb"SQLite format 3\0": "an SQLite database: write its rows as CSV",
    rb"%PDF-\d": "a PDF",
}
"""How each begins (a regular expression), and what it is, with what to do."""
_PAGES = (b"<!doctype", b"<html", b"<?xml")


def kind_in_truth(head: bytes | memoryview) -> str:
    """What a file with this beginning is, in words that follow "it is", and the remedy; empty if it is nothing known.

    Args:
        head: the first `HEAD` bytes, or more.
    """
    head = bytes(head[:HEAD])
    if found := next((words for start, words in _BY_START.items() if re.match(start, head)), ""):
        return found
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES):
        return "a web page or a server's answer, not the file itself: fetch it again (does it ask for a login?)"
    return ""
