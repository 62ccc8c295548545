"""How many texts the samples of a folder have: real ones, and captions by captioner.

No paper section. A stage counts each sample that it writes; a shard's record and the folder's manifest say the sums.
Reads and writes no files. Taught by notebooks/35_reinforce.ipynb.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mobileclip2_lite.shards.samples import Sample


@dataclass
class TextCount:
    """Texts of some samples."""

    real: int = 0
    """Texts that belong to the images."""
    captions: Counter[str] = field(default_factory=Counter)
    """Captioner -> captions that it wrote; 0 where it was asked and wrote nothing."""

    def add(self, sample: Sample) -> None:
        """Count one sample's."""
        self.real += len(sample.texts)
        for captioner, texts in sample.syn_texts.items():
            self.captions[captioner] += len(texts)

    def to_json(self) -> dict[str, Any]:
        """What a shard's record says: `texts`, `captions` by captioner, and who captioned."""
        captions = dict(sorted(self.captions.items()))
        return {"texts": self.real, "captions": captions, "captioners": list(captions)}


def total_texts(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a manifest says: `captioners`, and `texts` and `captions` if every shard's record has them.

    Records of earlier versions, which an interrupted run may have left, do not count texts.
    """
    captioners = {name for record in records for name in record.get("captioners", [])}
    found: dict[str, Any] = {"captioners": sorted(captioners)}
    if all("texts" in record for record in records):
        captions: Counter[str] = Counter()
        for record in records:
            captions.update(record["captions"])
        found |= {"texts": sum(record["texts"] for record in records), "captions": dict(sorted(captions.items()))}
    return found
