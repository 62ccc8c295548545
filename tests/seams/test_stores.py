"""The whole way on a bucket: every stage reads and writes there what it reads and writes on a disk, byte for byte."""

from __future__ import annotations

import io
import tarfile
import threading

import numpy as np
import pytest
from doubles.fake_teachers import FakeTeachers, files, picture, sample, write_pairs
from doubles.faulty_store import FAULTS, Faults, served
from doubles.tiny_training import settings, write_data, write_model

from mobileclip2_lite.captioning.stage import caption
from mobileclip2_lite.cli import main
from mobileclip2_lite.evaluation.public import open_set
from mobileclip2_lite.filtering.stage import filter_pairs, read_scores
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.pairs.collect import make_pairs, read_dropped
from mobileclip2_lite.recipes import Caption, Filter, Generate, Pairs, Reinforce, World
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.reports.inspection import inspect
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.shards.shrinking import shrink
from mobileclip2_lite.training.loop import train
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.store import _client

PAIRS = Pairs(source="emoji_world", count=40, samples_per_shard=16)
REINFORCE = Reinforce(teachers=("small", "large"), views=2)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return create_model(write_model(tmp_path_factory.mktemp("scorer") / "tiny-vit"))


@pytest.fixture(scope="module")
def captioner():
    import torch

    torch.manual_seed(0)
    return {"babbler": create_model("lite-coca")}


def way(start: str, scorer, captioner) -> dict[str, dict]:
    """Pairs, filtered, captioned, reinforced and made smaller, below a folder or a bucket; the manifests."""
    generate = Generate(captions=2, top_p=0.5, max_length=8)
    return {
        "pairs": make_pairs(PAIRS, f"{start}/pairs", world=World(names=20, image_size=48)),
        "filtered": filter_pairs(Filter(scorer="tiny-vit", keep=0.8), f"{start}/pairs", f"{start}/filtered", scorer),
        "captioned": caption(
            Caption(captioners=("x",), generate=generate),
            f"{start}/filtered",
            f"{start}/captioned",
            captioners=captioner,
        ),
        "reinforced": reinforce(REINFORCE, f"{start}/captioned", f"{start}/reinforced", ensemble=FakeTeachers()),
        "small": shrink(f"{start}/reinforced", f"{start}/small", side=24),
    }


def works(found: dict[str, bytes]) -> dict[str, str]:
    """Tars, manifests and lists; the records of single shards stay in a bucket and not everywhere on a disk."""
    kept = (".tar", "manifest.json", ".jsonl")
    return {name: sha256_bytes(data) for name, data in found.items() if name.endswith(kept)}


def batches(folder: str, workers: int) -> list:
    dataset = ReinforcedDataset(folder, 24, 8, captioners=("babbler",), workers=workers)
    return [
        (batch.uids, batch.syn_texts, batch.images.numpy(), batch.image_embeddings["small"].numpy())
        for batch in dataset
    ]


def test_every_stage_writes_to_a_bucket_what_it_writes_to_a_disk(store, tmp_path, scorer, captioner, capsys):
    local = way(str(tmp_path / "way"), scorer, captioner)
    store.faults = Faults(FAULTS, rate=0.2, budget=100, seed=5)
    assert way("s3://bucket/way", scorer, captioner) == local
    assert store.faults.done.total() > 20
    store.faults.kinds = ()
    for name in local:
        assert works(store.objects(f"way/{name}")) == works(files(tmp_path / "way" / name)), name
    puts = store.faults.requests["PUT"]
    assert way("s3://bucket/way", scorer, captioner) == local, "finished work is found"
    assert store.faults.requests["PUT"] == puts
    assert not store.forbidden
    assert list(read_scores("s3://bucket/way/filtered")) == list(read_scores(tmp_path / "way" / "filtered"))
    assert list(read_dropped("s3://bucket/way/pairs")) == list(read_dropped(tmp_path / "way" / "pairs"))

    for workers in (0, 2):
        here, there = batches(str(tmp_path / "way" / "reinforced"), 0), batches("s3://bucket/way/reinforced", workers)
        assert len(here) == len(there) == 4
        for one, other in zip(here, there, strict=True):
            assert one[:2] == other[:2]
            assert all(np.array_equal(a, b) for a, b in zip(one[2:], other[2:], strict=True))

    looks = [inspect(folder, verify=True) for folder in (tmp_path / "way" / "reinforced", "s3://bucket/way/reinforced")]
    assert not looks[1]["problems"]
    assert {k: v for k, v in looks[0].items() if k not in ("path", "text")} == {
        k: v for k, v in looks[1].items() if k not in ("path", "text")
    }
    main(["inspect", "s3://bucket/way/small", "--html", str(tmp_path / "page.html")])
    assert "s3://bucket/way/small" in capsys.readouterr().out
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_pairs_are_made_of_tars_in_a_bucket(store, tmp_path):
    write_pairs(tmp_path / "web", [[sample(10 * g + i) for i in range(4)] for g in range(3)])
    write_pairs(place_of("s3://bucket/web"), [[sample(10 * g + i) for i in range(4)] for g in range(3)])
    local = make_pairs(Pairs(source=str(tmp_path / "web" / "shard-{000000..000002}.tar"), count=0), tmp_path / "pairs")
    for number, name in enumerate(
        ("s3://bucket/web/shard-{000000..000002}.tar", "s3://bucket/web/*.tar", "s3://bucket/web")
    ):
        made = make_pairs(Pairs(source=name, count=0), tmp_path / f"pairs-{number}")
        assert made["key"] == local["key"], "known by their content, wherever they lie"
        assert made["source"] == name
        assert works(files(tmp_path / f"pairs-{number}")).keys() == works(files(tmp_path / "pairs")).keys()
        assert made["shards"] == local["shards"]
    lone = make_pairs(Pairs(source="s3://bucket/web/*.tar?split=all", count=3), "s3://bucket/three")
    assert lone["samples"] == 3, "from bucket to bucket"


def test_pairs_are_made_of_parquet_in_a_bucket(store, tmp_path):
    import pyarrow
    from pyarrow import parquet

    for number, split in enumerate(("train", "train", "test")):
        rows = {"image": [picture(10 * number + i) for i in range(3)], "text": [f"text {number} {i}" for i in range(3)]}
        path = tmp_path / "rows" / split / f"part-{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table(rows), path)
        (place_of("s3://bucket/rows") / split / path.name).write_bytes(path.read_bytes())
    local = make_pairs(Pairs(source=str(tmp_path / "rows"), count=0), tmp_path / "pairs")
    made = make_pairs(Pairs(source="s3://bucket/rows", count=0), tmp_path / "made")
    assert (made["samples"], made["split"], made["left_out"]) == (6, "train", {"test": 1})
    assert [made[name] for name in ("samples", "shards")] == [local[name] for name in ("samples", "shards")]


def test_pairs_are_made_of_tars_on_a_web_server(tmp_path, monkeypatch):
    pytest.importorskip("obstore", reason="the extra 'scale' is not installed")
    monkeypatch.setenv("MOBILECLIP2_LITE_CACHE", str(tmp_path / "cache"))
    write_pairs(tmp_path / "web", [[sample(10 * g + i) for i in range(4)] for g in range(2)])
    local = make_pairs(Pairs(source=str(tmp_path / "web"), count=0), tmp_path / "pairs")
    with served(tmp_path) as address:  # a server that knows no ranges, as Python's
        made = make_pairs(Pairs(source=f"{address}/web/shard-{{000000..000001}}.tar", count=0), tmp_path / "made")
        with pytest.raises(OSError, match=r"lists no files: name them, as in .*\.tar"):
            make_pairs(Pairs(source=f"{address}/nothing", count=0), tmp_path / "nothing")
    assert made["shards"] == local["shards"]


def test_a_public_test_set_is_read_from_a_bucket(store):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(3):
            for name, data in ((f"{number}.jpg", picture(number)), (f"{number}.cls", str(number % 2).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    folder = place_of("s3://bucket/wds_two")
    for name, data in {
        "test/nshards.txt": b"1",
        "test/0.tar": buffer.getvalue(),
        "dataset_type.txt": b"classification",
        "classnames.txt": b"one\ntwo",
        "zeroshot_classification_templates.txt": b"a photo of a {c}",
    }.items():
        (folder / name).write_bytes(data)
    found = open_set("s3://bucket/wds_two")
    assert (found.name, found.class_names) == ("two", ("one", "two"))
    assert [example.label for example in found.examples()] == [0, 1, 0]


def test_a_training_reads_a_bucket_with_loader_processes(store, tmp_path):
    model, data = write_model(tmp_path / "model"), write_data(tmp_path / "data")
    for path in data.iterdir():
        (place_of("s3://bucket/data") / path.name).write_bytes(path.read_bytes())
    short = {"samples": 48, "workers": 1}
    here = train(settings(model, **short), data, tmp_path / "here", seed=0, progress=False)
    there = train(settings(model, **short), "s3://bucket/data", tmp_path / "there", seed=0, progress=False)
    assert (there / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()


def test_a_training_that_streams_comes_through_keys_that_expire(store, tmp_path, monkeypatch):
    """A key is good for eight requests of the training and its loader; whoever renews it is a little late."""
    model, data = write_model(tmp_path / "model"), write_data(tmp_path / "data")
    for path in data.iterdir():
        (place_of("s3://bucket/data") / path.name).write_bytes(path.read_bytes())
    chosen = settings(model, samples=48, workers=1, checkpoint_every=1)
    here = train(chosen, data, tmp_path / "here", seed=0, progress=False)
    keys, served = tmp_path / "keys", [0]
    form = "[default]\naws_access_key_id = AKIAX\naws_secret_access_key = secret\naws_session_token = {}\n"
    keys.write_text(form.format(0), "utf-8")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    _client.cache_clear()  # which has the keys of before

    def deny(request) -> str | None:
        served[0] += 1
        token = served[0] // 8
        if served[0] % 8 == 0:
            threading.Timer(0.2, lambda: keys.write_text(form.format(token), "utf-8")).start()
        return None if request.headers["x-amz-security-token"] == str(token) else "expired"

    store.faults.deny = deny
    train(chosen, "s3://bucket/data", "s3://bucket/student", seed=0, progress=False)
    store.faults.deny = lambda request: None
    assert store.faults.done["expired"] >= 2
    assert store.objects("student")["model.safetensors"] == (here / "model.safetensors").read_bytes()


def test_several_processes_reinforce_from_bucket_to_bucket(store, tmp_path):
    groups = [[sample(10 * g + i) for i in range(4)] for g in range(3)]
    write_pairs(tmp_path / "pairs", groups)
    write_pairs(place_of("s3://bucket/pairs"), groups)
    reinforce(REINFORCE, tmp_path / "pairs", tmp_path / "out", ensemble=FakeTeachers())
    two = Spread(workers=2, shared=True, lease=30)
    reinforce(REINFORCE, "s3://bucket/pairs", "s3://bucket/out", ensemble=FakeTeachers(), spread=two)
    assert works(store.objects("out")) == works(files(tmp_path / "out"))


def test_a_damaged_object_is_counted_as_a_damaged_file_is(store, tmp_path):
    groups = [[sample(10 * g + i) for i in range(4)] for g in range(2)]
    write_pairs(tmp_path / "pairs", groups)
    for path in (tmp_path / "pairs").iterdir():
        data = path.read_bytes()
        (place_of("s3://bucket/pairs") / path.name).write_bytes(
            data[: len(data) // 2] if "1.tar" in path.name else data
        )
    found = reinforce(REINFORCE, "s3://bucket/pairs", "s3://bucket/out", ensemble=FakeTeachers())
    assert found["samples"] + found["dropped"]["damaged_tar"] == 8


def test_no_word_of_a_finished_set_holds_a_key(store):
    write_pairs(place_of("s3://bucket/pairs"), [[sample(1), sample(2)]])
    reinforce(REINFORCE, "s3://bucket/pairs", "s3://bucket/out", ensemble=FakeTeachers())
    for name, data in store.objects("out").items():
        for secret in (store.environment["AWS_ACCESS_KEY_ID"], store.environment["AWS_SECRET_ACCESS_KEY"]):
            assert secret.encode() not in data, name
