"""The one kind of error for a sample that cannot be used: every stage counts such samples by reason and goes on."""

from __future__ import annotations


class BadSample(ValueError):
    """An image, record or sample that cannot be used.

    Args:
        reason: the short word under which it is counted, `broken_image` for example.
        detail: what is wrong, for people.
        where: file or shard, key and member; "" where the code that found it does not know.
    """

    def __init__(self, reason: str, detail: str = "", where: str = "") -> None:
        super().__init__(reason, detail, where)
        self.reason, self.detail, self.where = reason, detail, where

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.detail) if part) or self.reason

    def __reduce__(self) -> tuple:  # subclasses have other arguments, and workers send errors to their parent
        return _again, (type(self), self.reason, self.detail, self.where)


def _again(kind: type[BadSample], reason: str, detail: str, where: str) -> BadSample:
    error = kind.__new__(kind)
    BadSample.__init__(error, reason, detail, where)
    return error
