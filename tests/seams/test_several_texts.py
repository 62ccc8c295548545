"""Five captions of one image, from the table to the batch: embedded all, drawn in turn, each with its own row."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from doubles.fake_teachers import FakeTeachers, sample, write_pairs
from doubles.tiny_training import TEACHERS as TRAINED
from doubles.tiny_training import go, settings, write_model
from doubles.tiny_training import sample as trained

from mobileclip2_lite.cli.summary import print_embedded
from mobileclip2_lite.recipes import Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards import embeddings as storage
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.shards.samples import read_samples, write_shard
from mobileclip2_lite.shards.shrinking import shrink
from mobileclip2_lite.work.folder import Work, read_manifest
from mobileclip2_lite.work.json_lines import read_lines

TEXTS = 3
TEACHERS = FakeTeachers.names


def several(number: int, **fields):
    """A sample with three texts that say its number."""
    one = sample(number, captions=0, **fields)
    texts = [f"text {number}.{k}" for k in range(TEXTS)]
    return dataclasses.replace(one, text=texts[0], meta={**one.meta, "texts": texts})


@pytest.fixture(scope="module")
def reinforced(tmp_path_factory):
    """Two shards: samples of three texts, and one with a single text."""
    folder = tmp_path_factory.mktemp("several")
    pairs = write_pairs(folder / "pairs", [[several(n) for n in range(4)], [several(4), sample(5, captions=0)]])
    settings = Reinforce(teachers=TEACHERS, views=2, storage="fp32", batch_size=8)
    reinforce(settings, pairs, folder / "out", ensemble=FakeTeachers())
    return folder / "out"


def test_every_real_text_is_embedded_in_its_own_row(reinforced):
    teachers = FakeTeachers()
    for shard in sorted(reinforced.glob("*.tar")):
        for one in read_samples(shard):
            for name in TEACHERS:
                assert torch.equal(one.embeddings[f"text/{name}"], teachers.embed_texts(name, one.texts))


def test_the_summary_says_how_many_texts_were_embedded(reinforced, tmp_path, capsys):
    manifest = read_manifest(reinforced)
    assert (manifest["samples"], manifest["texts"], manifest["captions"]) == (6, 5 * TEXTS + 1, {})
    print_embedded(manifest)
    assert capsys.readouterr().out == "  embedded by 2 teachers: 12 views, 16 real and 0 synthetic texts\n"
    captioned = write_pairs(tmp_path / "pairs", [[several(0), sample(1, captions=2)], [sample(2, captions=1)]])
    settings = Reinforce(teachers=("small",), views=1, batch_size=8)
    teachers = FakeTeachers()
    teachers.names = ("small",)
    manifest = reinforce(settings, captioned, tmp_path / "out", ensemble=teachers)
    print_embedded(manifest)
    said = "  embedded by 1 teacher: 3 views, 5 real and 3 synthetic texts (c 3)\n"
    assert capsys.readouterr().out == said
    assert shrink(tmp_path / "out", tmp_path / "small")["captions"] == {"c": 3}
    print_embedded({key: value for key, value in manifest.items() if key not in ("texts", "captions")})
    assert not capsys.readouterr().out, "of a folder that an earlier version made nothing is made up"


def test_all_texts_come_in_turn_and_bring_their_own_embedding(reinforced):
    data = ReinforcedDataset(reinforced, 32, 6, seed=1, drop_last=False)
    teachers, seen = FakeTeachers(), Counter()
    for epoch in range(2 * TEXTS):
        data.set_epoch(epoch)
        batch = data.batch(0)
        seen.update(batch.texts)
        for name in TEACHERS:
            torch.testing.assert_close(batch.text_embeddings[name], teachers.embed_texts(name, batch.texts))
    assert seen == {f"text {n}.{k}": 2 for n in range(5) for k in range(TEXTS)} | {"text 5": 2 * TEXTS}


def test_two_samples_of_one_image_share_an_id_and_others_do_not(tmp_path):
    one, other = several(0), sample(1, captions=0)
    twin = dataclasses.replace(several(0), uid="twin")
    pairs = write_pairs(tmp_path / "pairs", [[one, other], [twin]])
    settings = Reinforce(teachers=TEACHERS, views=1, batch_size=8)
    reinforce(settings, pairs, tmp_path / "out", ensemble=FakeTeachers())
    batch = ReinforcedDataset(tmp_path / "out", 32, 3).batch(0)
    ids = dict(zip(batch.uids, batch.image_ids.tolist(), strict=True))
    assert ids["twin"] == ids[one.uid] != ids[other.uid]


def test_a_training_on_one_image_in_two_shards_has_no_negatives(tmp_path):
    """Sixteen true texts of one image are nobody's negatives: what remains of each row is its own pair, with loss 0."""
    twins = [dataclasses.replace(trained(0), uid=f"twin-{n:02d}", text=f"text {n}") for n in range(16)]
    others = [trained(n) for n in range(16)]
    found = {}
    for name, some in (("one image", twins), ("sixteen images", others)):
        folder = tmp_path / name
        infos = []
        for number, part in enumerate((some[:8], some[8:])):
            info = write_shard(folder / f"shard-{number:06d}.tar", part, storage="fp32")
            infos.append({"name": f"shard-{number:06d}.tar", **info._asdict(), "dropped": {}})
        cards = [{"name": one, "logit_scale": 9.0, "dimension": size} for one, size in TRAINED.items()]
        Work(folder, "reinforce", 1, {"name": name}).commit(
            teachers=[{**card, "image_size": 16, "interpolation": "bilinear"} for card in cards],
            captioners=["short", "long"], shards=infos, samples=16,
        )  # fmt: skip
        asked = settings(write_model(tmp_path / "model"), samples=16, distill=0.0, captioners=())
        lines = read_lines(go(asked, folder, tmp_path / f"{name} trained") / "log.jsonl")
        found[name] = next(line["contrastive"] for line in lines if "contrastive" in line)
    assert found["one image"] == pytest.approx(0, abs=1e-6)
    assert found["sixteen images"] > 2


def test_a_folder_that_holds_only_the_first_texts_embedding_gives_that_text(reinforced, monkeypatch):
    rows = storage.header

    def first_only(data):
        return {n: p._replace(shape=(1, p.shape[1])) if n.startswith("text/") else p for n, p in rows(data).items()}

    monkeypatch.setattr(storage, "header", first_only)
    data = ReinforcedDataset(reinforced, 32, 6, drop_last=False)
    for epoch in range(TEXTS):
        data.set_epoch(epoch)
        assert set(data.batch(0).texts) == {"text 5", *(f"text {n}.0" for n in range(5))}
    assert np.isfinite(data.batch(0).text_embeddings["small"].numpy()).all()
