"""Teachers and folders of pairs for the tests: cheap, exact, and telling one picture and one text from another."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.randomness import rng, stable_uid


class FakeTeachers(torch.nn.Module):
    """The interface of `models.ensemble.TeacherEnsemble`: linear maps of pixels, hashes of texts."""

    names = ("small", "large")
    logit_scales = {"small": 50.0, "large": 70.0}  # noqa: RUF012

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.maps = torch.nn.ParameterDict(
            {
                "small": torch.randn(3 * 64, 32, generator=generator),
                "large": torch.randn(3 * 64, 24, generator=generator),
            }
        )
        self.delay = delay

    def image_size(self, name: str) -> int:
        return {"small": 32, "large": 48}[name]

    def interpolation(self, name: str) -> str:
        return {"small": "bilinear", "large": "bicubic"}[name]

    def embed_images(self, name: str, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, self.image_size(name), self.image_size(name))
        pooled = torch.nn.functional.adaptive_avg_pool2d(images.float() / 255 - 0.5, 8).flatten(1)
        return torch.nn.functional.normalize(pooled @ self.maps[name], dim=1)

    def embed_texts(self, name: str, texts: list[str]) -> torch.Tensor:
        dimension = self.maps[name].shape[1]
        rows = [np.random.default_rng(_number(text)).normal(size=dimension) for text in texts]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(rows)).float(), dim=1)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "little")


def picture(number: int, width: int = 60, height: int = 44, **save) -> bytes:
    """A smooth picture that differs from any other number's, as JPEG or as `save` says."""
    small = rng("picture", number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, **{"format": "JPEG", **save})
    return buffer.getvalue()


def sample(number: int, captions: int = 2, image: bytes | None = None, **fields) -> shards.Sample:
    """A captioned pair whose texts say its number."""
    image = picture(number) if image is None else image
    syn = {"c": [f"caption {i} of {number}" for i in range(captions)]} if captions else {}
    values = {"uid": stable_uid(f"sample-{number}"), "image": image, "ext": "jpg", "text": f"text {number}"}
    return shards.Sample(**{**values, "meta": {"source": f"sample-{number}"}, "syn_texts": syn, **fields})


def write_pairs(folder: Path, groups: list[list[shards.Sample]]) -> Path:
    """A folder of pair shards with its manifest, as the pairs stage leaves it."""
    work = Work(folder, "pairs", 1, {"groups": [len(group) for group in groups]})
    records = []
    for number, group in enumerate(groups):
        name = f"shard-{number:06d}.tar"
        info = shards.write_shard(folder / name, group)
        records.append({"name": name, "sha256": info.sha256, "samples": info.samples, "dropped": {}})
    work.commit(shards=records)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """All files of a folder with their bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
