"""Golden identities: what earlier versions wrote must be found finished by later ones.

`golden/identities.json` holds the keys of every stage's work, the SHA-256 of one shard of each stage, the first draws
of every seeded choice and the options of every command, as recorded before the package was sorted into folders. A stage
whose bytes are meant to change raises its `VERSION` and its lines are recorded anew, with a word in docs/lab_log.md:

    python -m pytest tests/seams/test_identities.py --record-identities
"""

from __future__ import annotations

import dataclasses
import json
import platform
import re
from pathlib import Path

import PIL
import pytest
import torch
from doubles.fake_teachers import FakeTeachers, sample, write_pairs

from mobileclip2_lite import recipes
from mobileclip2_lite.captioning.stage import caption
from mobileclip2_lite.cli import main
from mobileclip2_lite.emoji_world import alt_text, captions, retrieval_set, scene, zero_shot_set
from mobileclip2_lite.filtering.stage import filter_pairs
from mobileclip2_lite.pairs.collect import make_pairs
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards.datacompdr import write_official
from mobileclip2_lite.shards.joining import join
from mobileclip2_lite.shards.order import Order
from mobileclip2_lite.shards.shrinking import shrink
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.training.step import torch_seed
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.views.view import pack
from mobileclip2_lite.work.files import canonical, sha256_bytes, sha256_file
from mobileclip2_lite.work.folder import Work
from mobileclip2_lite.work.randomness import pick, rng, stable_uid

GOLDEN = Path(__file__).parents[1] / "golden" / "identities.json"
COMMANDS = (
    "run",
    "report",
    "recipes",
    "pairs",
    "filter",
    "caption",
    "captions",
    "reinforce",
    "inspect",
    "train",
    "temperature",
    "evaluate",
    "latency",
    "plan",
    "export",
    "search",
)


def small() -> recipes.Recipe:
    """Recipe `tiny` with as few pairs as give two shards."""
    tiny = recipes.tiny()
    return dataclasses.replace(tiny, pairs=dataclasses.replace(tiny.pairs, count=12, samples_per_shard=8))


def earlier_trainings() -> dict[str, recipes.Train]:
    """The two trainings as they were when the keys were recorded: a recipe's values may change, a key may not.

    Fields that came later are at their defaults, which is what such a training meant by leaving them out.
    """
    shared = recipes.Train(
        model="lite-mci-s",
        samples=2_048,
        batch_size=64,
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.05,
        workers=0,
    )
    return {
        "control": dataclasses.replace(shared, distill=0.0, views="weak"),
        "student": dataclasses.replace(shared, distill=1.0, logit_scales=(("small", 50.0), ("large", 70.0))),
    }


class _Asked(Exception):
    """Ends a stage as soon as its work is known."""


def key_of(monkeypatch, run) -> str:
    """The key of the work that a stage looks for, without doing it."""
    keys = []

    def asked(work):
        keys.append(work.key)
        raise _Asked

    with monkeypatch.context() as patch:
        patch.setattr(Work, "done", asked)
        with pytest.raises(_Asked):
            run()
    return keys[0]


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """Pairs, filtered, captioned, reinforced (by fake teachers), shrunk and joined, each in its folder."""
    recipe, folder = small(), tmp_path_factory.mktemp("chain")
    make_pairs(recipe.pairs, folder / "pairs", world=recipe.world)
    filter_pairs(dataclasses.replace(recipe.filter, keep=0.5), folder / "pairs", folder / "filtered")
    caption(recipe.caption, folder / "filtered", folder / "captioned")
    write_pairs(folder / "made-up", [[sample(n) for n in range(4)], [sample(n) for n in range(4, 7)]])
    settings = recipes.Reinforce(views=3, storage="int8")
    reinforce(settings, folder / "made-up", folder / "reinforced", ensemble=FakeTeachers())
    shrink(folder / "reinforced", folder / "shrunk", side=32)
    (folder / "official").mkdir()
    generator = torch.Generator().manual_seed(0)
    made = [
        dataclasses.replace(
            sample(n, captions=0),
            views=[draw(rng(0, "views", str(n)), 60, 44, recipes.Augment(), sha256_bytes(sample(n).image))],
            embeddings={
                "image/a": torch.randn(1, 6, generator=generator),
                "text/a": torch.randn(1, 6, generator=generator),
            },
        )
        for n in range(3)
    ]
    write_official(folder / "official" / "0.tar", made, ["a"])
    join(folder / "official", folder / "joined", {"a": 6}, logit_scales={"a": 70.0})
    return folder


def test_finished_work_of_earlier_versions_is_found(chain, golden, monkeypatch):
    recipe = small()
    found = {
        name: json.loads((chain / name / "manifest.json").read_text("utf-8"))["key"]
        for name in ("pairs", "filtered", "captioned", "reinforced", "shrunk", "joined")
    }
    found["reinforced by the embedded teachers"] = key_of(
        monkeypatch, lambda: reinforce(recipe.reinforce, chain / "captioned", chain / "r")
    )
    for kind, settings in earlier_trainings().items():
        found[kind] = key_of(monkeypatch, lambda s=settings, k=kind: train(s, chain / "reinforced", chain / k, seed=0))
    golden("keys", found)


def test_shards_of_every_stage_have_the_bytes_that_they_had(chain, golden):
    found = {
        name: sha256_file(next(iter(sorted((chain / name).glob("*.tar")))))
        for name in ("pairs", "filtered", "captioned", "reinforced", "shrunk", "joined")
    }
    golden("bytes", found, exact=machine())


def machine() -> str:
    """What a JPEG's and an embedding's last bits depend on."""
    return (
        f"{platform.system()} {platform.machine()}, Pillow {PIL.__version__}, torch {torch.__version__.split('+')[0]}"
    )


def test_every_seeded_choice_is_what_it_was(golden):
    world = recipes.tiny().world
    first, picture = scene(world, "train", 0), scene(world, "retrieval", 3)
    order = Order([5, 4, 3], seed=1)
    view = draw(rng(0, "views", stable_uid("a")), 640, 480, recipes.Augment(flip=0.5, erase=0.5), "0" * 64)
    golden(
        "draws",
        {
            "rng": [int(x) for x in rng(0, "views", "uid").integers(0, 2**32, 3)],
            "pick": [pick(1000, 0, "caption", 1, "uid"), pick(7, 0, "turns", 0, "uid")],
            "stable_uid": stable_uid("emoji_world/a"),
            "torch_seed": [torch_seed(0, "start"), torch_seed(3, "step", 7)],
            "scene": sha256_bytes(canonical(first)),
            "alt_text": [alt_text(scene(world, "train", k), world) for k in range(6)],
            "captions": captions(picture),
            "zero_shot": sha256_bytes(canonical(zero_shot_set(world, 2, split="val").images.scenes)),
            "retrieval": sha256_bytes(canonical(retrieval_set(world, 3, split="val").images.scenes)),
            "view": json.loads(canonical(view)),
            "packed": pack([view]),
            "order": [list(order.at(epoch, place)) for epoch in range(2) for place in range(12)],
        },
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_of_a_command_is_lost(name, golden, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main([name, "--help"])
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9.-]*", capsys.readouterr().out)) - {"--no"}
    golden(f"options of {name}", sorted(options), at_least=True)
