"""A test set embedded tar by tar gives the numbers of one process, goes on after a stop, and is shared by workers."""

from __future__ import annotations

import shutil

import pytest
from doubles.tiny_training import write_model

from mobileclip2_lite.cli import main
from mobileclip2_lite.evaluation import parts, twins
from mobileclip2_lite.evaluation.public import evaluate_sets
from mobileclip2_lite.evaluation.sets import evaluate_set
from mobileclip2_lite.evaluation.wds_sets import open_wds
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.recipes import World
from mobileclip2_lite.shards.tars import write_tar
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.folder import StageMismatch


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny-vit")


@pytest.fixture(scope="module")
def wds(tmp_path_factory):
    """A classification set in three tars, one of which holds no image at all."""
    folder = twins.write_twins(tmp_path_factory.mktemp("twins"), World(names=6, image_size=32, max_objects=2), 8)["wds"]
    count = int((folder / "test" / "nshards.txt").read_text())
    write_tar(folder / "test" / f"{count}.tar", [("none", {"cls": b"1"})])
    shutil.copy(folder / "test" / "0.tar", folder / "test" / f"{count + 1}.tar")
    (folder / "test" / "nshards.txt").write_text(str(count + 2))
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_the_numbers_are_those_of_one_process(wds, model, tmp_path, workers):
    loaded, test_set = create_model(model), open_wds(wds)
    whole = evaluate_set(loaded, test_set)
    assert whole["dropped"] == {"no_image": 1}
    found = evaluate_sets(loaded, [wds], parts=tmp_path / "parts", spread=Spread(workers=workers))
    assert found["results"] == [whole]


def test_a_stopped_run_embeds_only_what_is_missing(wds, model, tmp_path, monkeypatch):
    loaded, test_set = create_model(model), open_wds(wds)
    real, seen = parts.embed, []

    def stopping(*arguments):
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(parts, "embed", stopping)
    with pytest.raises(KeyboardInterrupt):
        parts.evaluate_in_parts(loaded, test_set, tmp_path)
    found = parts.evaluate_in_parts(loaded, test_set, tmp_path)
    assert len(seen) == 1 + len(test_set.parts)
    assert found == evaluate_set(loaded, test_set)
    assert parts.evaluate_in_parts(loaded, test_set, tmp_path) == found
    assert len(seen) == 1 + len(test_set.parts), "what is finished is found"
    other = create_model(write_model(tmp_path / "other", seed=1))
    with pytest.raises(StageMismatch):
        parts.evaluate_in_parts(other, test_set, tmp_path)


def test_from_bucket_to_bucket_by_the_command(store, wds, model, tmp_path, capsys):
    from mobileclip2_lite.work.place import place_of

    for path in wds.rglob("*"):
        if path.is_file():
            (place_of("s3://bucket/wds_emoji") / path.relative_to(wds)).write_bytes(path.read_bytes())
    words = ["evaluate", str(model), "--set", "s3://bucket/wds_emoji", "--allow-drawn"]
    main(words)
    whole = capsys.readouterr().out
    main([*words, "--parts", "s3://bucket/parts", "--shared"])
    assert capsys.readouterr().out == whole
    assert not store.forbidden
    assert any(name.endswith("safetensors") for name in store.objects("parts"))


def test_what_cannot_be_shared_is_refused(wds, model, tmp_path, capsys):
    for words, said in (
        (["--set", str(wds), "--workers", "2"], "need a folder that all of them see"),
        (["--workers", "2"], "go with --set"),
        (["--set", str(tmp_path), "--parts", str(tmp_path / "parts")], ""),
    ):
        with pytest.raises(SystemExit):
            main(["evaluate", str(model), *words, "--allow-drawn"])
        assert said in capsys.readouterr().err
