"""A folder with something small for every command to read."""

from __future__ import annotations

import json
from pathlib import Path

from doubles.fake_teachers import picture
from doubles.official import official_sample, write_tar
from doubles.tiny_training import write_captioner, write_data, write_model

from mobileclip2_lite import recipes
from mobileclip2_lite.costs.published import published_rates
from mobileclip2_lite.costs.rates import write_rates
from mobileclip2_lite.deployment import playground
from mobileclip2_lite.pairs.collect import make_pairs


def fill(disk: Path) -> None:
    """Models, pairs, reinforced and published shards, images, test sets, a runtime and rates."""
    write_model(disk / "student")
    write_captioner(disk / "coca")
    write_data(disk / "data", 16)
    make_pairs(recipes.Pairs(count=8, samples_per_shard=4), disk / "pairs", world=recipes.lite().world)
    for number in range(3):
        for kind in ("cat", "dog"):
            path = disk / "images" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(10 * number + len(kind) + ord(kind[0]), format="PNG"))
    rows = [{"image_file": f"cat/{n}.png", "description": f"cat {n}", "split": "test"} for n in range(2)]
    (disk / "said.json").write_text(json.dumps(rows))
    for name in playground.RUNTIME:
        (disk / "runtime").mkdir(exist_ok=True)
        (disk / "runtime" / name).write_bytes(b"not run here")
    (disk / "loose").mkdir()
    published = {f"uid{n}": official_sample(n, image=False)[0] for n in range(3)}
    for number in range(2):
        (disk / "loose" / f"uid{number}.jpg").write_bytes(picture(number))
    write_tar(disk / "published" / "00000000.tar", published)
    labelled = {str(n): {"jpg": picture(n), "cls": str(n % 2).encode()} for n in range(3)}
    write_tar(disk / "wds_two" / "test" / "0.tar", labelled)
    for name, text in {
        "test/nshards.txt": "1",
        "dataset_type.txt": "classification",
        "classnames.txt": "one\ntwo",
        "zeroshot_classification_templates.txt": "a photo of a {c}",
    }.items():
        (disk / "wds_two" / name).write_text(text)
    write_rates(published_rates(recipes.paper_12m()), disk / "rates.json")
