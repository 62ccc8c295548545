"""What the training's tests share: a tiny model and a tiny reinforced folder, both written as a user's would be."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mobileclip2_lite import recipes
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.tokenizer import prefix_tokenizer
from mobileclip2_lite.models.zoo import build, save_model
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.feeding import PreparedBatch, Tokens, feed
from mobileclip2_lite.training.loop import Run, train
from mobileclip2_lite.training.step import Stepper
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.randomness import stable_uid

TEACHERS = {"first": 12, "second": 20}
"""Teacher -> dimension."""
SIZE = 16
"""Side of the student's images."""


def model_config() -> dict:
    """A CLIP with a ViT (no batch norm, so that a batch's samples do not see each other) and a causal text tower."""
    vision = {"image_size": SIZE, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 24, "vocab_size": 600, "width": 32, "heads": 2, "layers": 1}
    return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "custom_text": True}


def write_model(folder: Path, seed: int = 0, **text) -> Path:
    """A model folder with random weights."""
    torch.manual_seed(seed)
    config = model_config()
    config["text_cfg"].update(text)
    preprocess = Preprocess(SIZE, (0, 0, 0), (1, 1, 1), "bilinear")
    loaded = LoadedModel(build(config), preprocess, prefix_tokenizer(600, 24))
    return save_model(loaded, folder, name="tiny-vit")


def captioner_config(context: int = 24) -> dict:
    """A CoCa as open_clip makes it: ViT with attentional pooling, causal text tower with a class token, decoder."""
    vision = {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2, "output_tokens": True}
    text = {"context_length": context, "vocab_size": 600, "width": 32, "heads": 2, "layers": 2}
    return {
        "embed_dim": 32,
        "vision_cfg": {**model_config()["vision_cfg"], **vision},
        "text_cfg": {**text, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": text,
        "custom_text": True,
    }


def write_captioner(folder: Path, seed: int = 0, context: int = 24) -> Path:
    """A captioner's folder with random weights."""
    torch.manual_seed(seed)
    preprocess = Preprocess(SIZE, (0, 0, 0), (1, 1, 1), "bilinear")
    loaded = LoadedModel(build(captioner_config(context)), preprocess, prefix_tokenizer(600, context))
    return save_model(loaded, folder, name="tiny-coca")


def write_data(folder: Path, count: int = 40) -> Path:
    """`count` samples in two shards, three views, two captioners' captions and two teachers' embeddings each."""
    folder.mkdir(parents=True, exist_ok=True)
    infos = []
    for number, rows in enumerate(np.array_split(np.arange(count), 2)):
        name = f"shard-{number:06d}.tar"
        info = shards.write_shard(folder / name, [sample(int(i)) for i in rows], storage="fp32")
        infos.append({"name": name, "sha256": info.sha256, "samples": info.samples, "dropped": {}})
    cards = [
        {"name": name, "logit_scale": 10.0 + size, "dimension": size, "image_size": SIZE, "interpolation": "bilinear"}
        for name, size in TEACHERS.items()
    ]
    Work(folder, "reinforce", 1, {"count": count}).commit(
        teachers=cards, captioners=["short", "long"], shards=infos, samples=count
    )
    return folder


def sample(number: int) -> shards.Sample:
    """A picture whose colour follows from its number, and rows that do, too."""
    chance = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(chance.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(file, "PNG")
    data = file.getvalue()
    digest = sha256_bytes(data)

    def unit(*shape: int) -> torch.Tensor:
        rows = torch.from_numpy(chance.normal(size=shape).astype(np.float32))
        return torch.nn.functional.normalize(rows, dim=-1)

    rows = {}
    for name, size in TEACHERS.items():
        rows |= {f"image/{name}": unit(3, size), f"text/{name}": unit(1, size)}
        rows |= {f"syn_text_{captioner}/{name}": unit(2, size) for captioner in ("short", "long")}
    captions = {"short": [f"number {number}", "a picture"], "long": [f"a longer text {number}"] * 2}
    views = [draw(chance, 20, 20, recipes.Augment(), digest) for _ in range(3)]
    meta = {"source": str(number), "width": 20, "height": 20, "sha256": digest}
    return shards.Sample(stable_uid(str(number)), data, "png", f"text of {number}", meta, captions, views, rows)


def settings(model: Path, **changes) -> recipes.Train:
    """A short training of that model: 5 steps of 16 over 40 samples, two and a half epochs."""
    base = recipes.Train(
        model=str(model), samples=80, batch_size=16, precision="fp32", workers=0, tracker="none", log_every=1,
        checkpoint_every=0,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def go(chosen: recipes.Train, data: Path, out: Path, **keywords) -> Path:
    """Train on the CPU with seed 0."""
    return train(chosen, data, out, **{"seed": 0, "device": "cpu", "progress": False, **keywords})


def first_batches(chosen: recipes.Train, data: Path, count: int = 1) -> tuple[Stepper, list[PreparedBatch]]:
    """A stepper and its first batches."""
    run = Run(chosen, data, Path("unused"), 0, Processes())
    fed = feed(run.stream(), Tokens(run.stepper.loaded.tokenizer, run.stepper.cut), torch.device("cpu"))
    found = [next(fed) for _ in range(count)]
    fed.close()
    return run.stepper, found
