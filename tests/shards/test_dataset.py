"""The loader: every sample once an epoch on any ranks and workers, the right row of the right view, taken up midway."""

from __future__ import annotations

import dataclasses
import io
import pickle
import shutil
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from doubles.fake_teachers import FakeTeachers, files, picture, sample, write_pairs
from PIL import Image

from mobileclip2_lite.recipes import Reinforce, Train
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.shards import dataset as dataset_module
from mobileclip2_lite.shards import embeddings as storage
from mobileclip2_lite.shards import order as order_module
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.dataset import ReinforcedDataset
from mobileclip2_lite.shards.order import Order
from mobileclip2_lite.shards.shrinking import ShardShrinker, shrink
from mobileclip2_lite.shards.tars import ShardError, TarIndex
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.decoding import pixels
from mobileclip2_lite.views.replay import replay
from mobileclip2_lite.work.crew import Spread
from mobileclip2_lite.work.files import sha256_bytes

VIEWS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two shards of unequal size; sample 7 has no synthetic captions."""
    groups = [[sample(i, captions=0 if i == 7 else 2) for i in range(11)], [sample(i) for i in range(11, 24)]]
    pairs = write_pairs(tmp_path_factory.mktemp("pairs"), groups)
    out = tmp_path_factory.mktemp("reinforced")
    reinforce(Reinforce(teachers=("small", "large"), views=VIEWS), pairs, out, ensemble=FakeTeachers())
    return out


@pytest.fixture(scope="module")
def samples(folder):
    return {item.uid: item for name in shards.shard_names(folder) for item in shards.read_samples(folder / name)}


def contents(batches):
    """What batches hold, for comparison."""
    return [
        (batch.uids, batch.texts, batch.syn_texts, batch.images.sum().item(),
         {name: rows.tolist() for name, rows in batch.image_embeddings.items()})
        for batch in batches
    ]  # fmt: skip


def test_a_batch_holds_the_stored_rows_of_its_own_view_and_captions(folder, samples):
    dataset = ReinforcedDataset(folder, 32, 5, captioners=("c",), drop_last=False)
    for batch in dataset:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape[1:] == (3, 32, 32)
        for i, uid in enumerate(batch.uids):
            item = samples[uid]
            assert batch.texts[i] == item.text
            rows = item.embeddings["image/small"]
            [view] = [v for v in range(VIEWS) if torch.equal(batch.image_embeddings["small"][i], rows[v])]
            assert torch.equal(batch.image_embeddings["large"][i], item.embeddings["image/large"][view])
            expected = np.asarray(replay(pixels(item.image), item.views[view], 32))
            assert np.array_equal(batch.images[i].permute(1, 2, 0).numpy(), expected)
            assert torch.equal(batch.text_embeddings["large"][i], item.embeddings["text/large"][0])
            if item.syn_texts:
                caption = item.syn_texts["c"].index(batch.syn_texts[i])
                assert torch.equal(batch.syn_text_embeddings["small"][i], item.embeddings["syn_text_c/small"][caption])
            else:  # a sample without captions gives its own text again
                assert batch.syn_texts[i] == item.text
                assert torch.equal(batch.syn_text_embeddings["small"][i], item.embeddings["text/small"][0])


def test_the_teacher_sees_in_the_batch_what_it_embedded(folder):
    teachers = FakeTeachers()
    for batch in ReinforcedDataset(folder, 32, 8, teachers=("small",)):
        again = teachers.embed_images("small", batch.images)
        assert torch.allclose(again, batch.image_embeddings["small"], atol=4e-3)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 3])
def test_every_sample_once_an_epoch_on_any_ranks_and_workers(folder, samples, world_size, workers):
    common = {"teachers": (), "drop_last": False, "world_size": world_size, "workers": workers}
    if workers and world_size > 1:
        pytest.skip("the order does not depend on workers, as one rank shows")
    ranks = [ReinforcedDataset(folder, 16, 4, rank=rank, **common) for rank in range(world_size)]
    seen = Counter()
    for rank in ranks:
        batches = list(rank)
        assert len(batches) == len(rank)
        seen.update(uid for batch in batches for uid in batch.uids)
    assert seen == Counter(dict.fromkeys(samples, 1))


def test_workers_change_nothing_and_epochs_do(folder):
    one = contents(ReinforcedDataset(folder, 16, 4, captioners=("c",)))
    assert contents(ReinforcedDataset(folder, 16, 4, captioners=("c",), workers=3)) == one
    dataset = ReinforcedDataset(folder, 16, 4, captioners=("c",))
    dataset.set_epoch(1)
    assert contents(dataset) != one
    assert contents(ReinforcedDataset(folder, 16, 4, captioners=("c",), seed=1)) != one
    dataset.set_epoch(0)
    assert contents(dataset) == one


def test_ranks_share_each_step_as_one_process_would_have_it(folder):
    whole = [batch.uids for batch in ReinforcedDataset(folder, 16, 6, teachers=())]
    parts = [ReinforcedDataset(folder, 16, 3, teachers=(), rank=rank, world_size=2) for rank in (0, 1)]
    assert [a.uids + b.uids for a, b in zip(*parts, strict=True)] == whole


def test_all_views_come_once_before_any_comes_again(folder, samples):
    seen = {uid: [] for uid in samples}
    for epoch in range(2 * VIEWS):
        dataset = ReinforcedDataset(folder, 8, 6, epoch=epoch, teachers=("small",), drop_last=False)
        for batch in dataset:
            for uid, row in zip(batch.uids, batch.image_embeddings["small"], strict=True):
                rows = samples[uid].embeddings["image/small"]
                seen[uid].append(next(v for v in range(VIEWS) if torch.equal(row, rows[v])))
    assert all(sorted(views[:VIEWS]) == sorted(views[VIEWS:]) == list(range(VIEWS)) for views in seen.values())
    assert len({tuple(views) for views in seen.values()}) > 3, "not all in one order"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_taken_up_in_the_middle(folder, workers):
    make = lambda: ReinforcedDataset(folder, 16, 4, captioners=("c",), workers=workers)  # noqa: E731
    whole = contents(make())
    first = make()
    iterator = iter(first)
    head = [next(iterator), next(iterator)]
    state = first.state_dict()
    del iterator
    second = make()
    second.load_state_dict(state)
    assert contents(head) + contents(second) == whole
    assert contents(second) == whole, "after the rest of the epoch it starts from the front again"
    with pytest.raises(ValueError, match="step"):
        ReinforcedDataset(folder, 16, 5).load_state_dict(state)


def test_state_goes_from_one_process_to_two(folder):
    one = ReinforcedDataset(folder, 16, 4, teachers=())
    iterator = iter(one)
    next(iterator)
    rest = [batch.uids for batch in iterator]
    one.load_state_dict({**one.state_dict(), "batch": 1})
    parts = [ReinforcedDataset(folder, 16, 2, teachers=(), rank=rank, world_size=2) for rank in (0, 1)]
    for part in parts:
        part.load_state_dict(one.state_dict())
    assert [a.uids + b.uids for a, b in zip(*parts, strict=True)] == rest


def test_only_the_one_views_row_is_read(folder, monkeypatch):
    read = []
    original = storage._slice
    monkeypatch.setattr(storage, "_slice", lambda *args: read.append(args[3]) or original(*args))
    list(ReinforcedDataset(folder, 16, 4))
    assert set(read) == {1}, "one row at a time, never a whole matrix"


def test_weak_views_are_light_crops_without_embeddings(folder, samples):
    [batch, *_] = ReinforcedDataset(folder, 32, 8, views="weak")
    assert batch.image_embeddings == batch.text_embeddings == {}
    for uid, image in zip(batch.uids, batch.images, strict=True):
        whole = pixels(samples[uid].image)
        from PIL import Image

        small = np.asarray(Image.fromarray(whole).resize((32, 32), Image.Resampling.BILINEAR), float)
        assert np.abs(image.permute(1, 2, 0).numpy() - small).mean() < 30
    with pytest.raises(ValueError, match="weak views have no stored embeddings"):
        ReinforcedDataset(folder, 32, 8, views="weak", teachers=("small",))


def test_pairs_alone_give_weak_views(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", [[sample(i) for i in range(6)]])
    assert [len(batch.uids) for batch in ReinforcedDataset(pairs, 16, 3, views="weak")] == [3, 3]
    with pytest.raises(ShardError, match="no views; reinforce the shard first"):
        list(ReinforcedDataset(pairs, 16, 3, teachers=()))


def test_spawned_workers_get_the_same_data(folder):
    """What a worker process gets where processes are spawned: a copy through pickle, with no open file in it."""
    dataset = ReinforcedDataset(folder, 16, 4, captioners=("c",))
    before = contents(dataset)
    assert contents(pickle.loads(pickle.dumps(dataset))) == before


def test_the_order_is_a_permutation_for_any_pools(monkeypatch):
    monkeypatch.setattr(order_module, "POOL", 3)
    counts = [5, 0, 7, 1, 4, 9, 2]
    order = Order(counts, seed=0)
    epochs = [[order.at(epoch, position) for position in range(order.samples)] for epoch in (0, 1)]
    everything = [(shard, i) for shard, count in enumerate(counts) for i in range(count)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1]


def test_partial_sets(folder, tmp_path):
    """No manifest, a sample without embeddings, one without picture: counted, warned of once, the others come."""
    items = list(shards.read_samples(folder / "shard-000000.tar"))
    items[2] = dataclasses.replace(items[2], embeddings={})
    items[4] = dataclasses.replace(items[4], image=b"")
    items[5] = dataclasses.replace(items[5], image=picture(5, 20, 20))
    items[6] = dataclasses.replace(items[6], image=picture(7))
    shards.write_shard(tmp_path / "some.tar", items)
    with pytest.raises(ShardError, match=r"some\.tar"):
        list(ReinforcedDataset(tmp_path, 16, 11))
    dataset = ReinforcedDataset(tmp_path, 16, 4, on_mismatch="warn", drop_last=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = {uid for batch in dataset for uid in batch.uids}
    assert len(seen) == 7
    assert dataset.dropped == {"no_embeddings": 1, "no_image": 1, "hash_mismatch": 2}
    assert len([w for w in caught if "leaving out" in str(w.message)]) == 3
    unchecked = ReinforcedDataset(tmp_path, 16, 11, on_mismatch="warn", drop_last=False, verify=False)
    with pytest.warns(UserWarning, match="leaving out"):
        list(unchecked)
    assert unchecked.dropped == {"no_embeddings": 1, "no_image": 1, "source_mismatch": 1}
    with pytest.raises(ValueError, match="holds no embeddings of other"):
        ReinforcedDataset(folder, 16, 4, teachers=("other",))


def test_only_pictures_known_to_be_whole_are_decoded_in_part(folder, samples, tmp_path, monkeypatch):
    """A picture that ends early: its upper rows are taken where a hash vouches for it, else it is refused."""
    uid, rows = next(iter(samples)), []
    short = picture(3, 64, 160)[:-100]
    source = {"width": 64, "height": 160, "sha256": sha256_bytes(short)}
    view = dataclasses.replace(samples[uid].views[0], crop=(0, 0, 1, 0.2), **source)
    item = dataclasses.replace(samples[uid], image=short, ext="jpg", views=[view] * VIEWS)
    shards.write_shard(tmp_path / "shard-000000.tar", [item], "bf16")
    decode = decoding.pixels
    monkeypatch.setattr(decoding, "pixels", lambda *args: rows.append(args[1]) or decode(*args))
    [batch] = ReinforcedDataset(tmp_path, 16, 1, drop_last=False)
    whole = Image.new("RGB", (64, 160))
    whole.paste(Image.open(io.BytesIO(picture(3, 64, 160))))
    assert np.array_equal(batch.images[0].permute(1, 2, 0).numpy(), np.asarray(replay(whole, view, 16)))
    with pytest.raises(ShardError, match="broken_image"):
        list(ReinforcedDataset(tmp_path, 16, 1, drop_last=False, verify=False))
    assert rows == [32, 0]


def test_smaller_copies_keep_views_and_embeddings(folder, samples, tmp_path):
    big = write_pairs(tmp_path / "pairs", [[sample(i, image=picture(i, 300, 200)) for i in range(4)]])
    teachers = FakeTeachers()
    reinforce(Reinforce(views=2), big, tmp_path / "full", ensemble=teachers)
    manifest = shrink(tmp_path / "full", tmp_path / "small", side=64)
    assert manifest["bytes"] < sum(p.stat().st_size for p in (tmp_path / "full").glob("*.tar"))
    [full] = ReinforcedDataset(tmp_path / "full", 32, 4)
    [small] = ReinforcedDataset(tmp_path / "small", 32, 4)
    assert full.uids == small.uids
    assert torch.equal(full.image_embeddings["large"], small.image_embeddings["large"])
    assert (full.images.float() - small.images.float()).abs().mean() < 6


def test_shrinking_goes_on_after_a_kill_and_can_be_spread(tmp_path, monkeypatch):
    groups = [[sample(10 * g + i, image=picture(10 * g + i, 90, 80)) for i in range(2)] for g in range(3)]
    reinforce(Reinforce(views=1), write_pairs(tmp_path / "pairs", groups), tmp_path / "full", ensemble=FakeTeachers())
    whole = shrink(tmp_path / "full", tmp_path / "whole", side=32)
    assert shrink(tmp_path / "full", tmp_path / "spread", side=32, spread=Spread(workers=2)) == whole
    assert files(tmp_path / "spread") == files(tmp_path / "whole")

    class Killed(BaseException):
        pass

    def dying(self, target):
        if target.name == "shard-000002.tar":
            raise Killed
        made.append(target.name)
        return make(self, target)

    made, make = [], ShardShrinker.__call__
    with monkeypatch.context() as patch:
        patch.setattr(ShardShrinker, "__call__", dying)
        with pytest.raises(Killed):
            shrink(tmp_path / "full", tmp_path / "cut", side=32)
    with monkeypatch.context() as patch:
        patch.setattr(ShardShrinker, "__call__", lambda self, target: made.append(target.name) or make(self, target))
        assert shrink(tmp_path / "full", tmp_path / "cut", side=32) == whole
    assert made == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"], "each once"
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_damaged_shard_is_walked_once_and_counted_as_what_it_is(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:3_000])
    walked = []
    monkeypatch.setattr(dataset_module, "TarIndex", lambda path: walked.append(path.name) or TarIndex(path))
    dataset = ReinforcedDataset(tmp_path / "copy", 16, 24, on_mismatch="warn", drop_last=False)
    with pytest.warns(UserWarning, match="damaged_tar"):
        [batch] = list(dataset)
    assert len(batch.uids) == 13
    assert dataset.dropped == {"damaged_tar": 11}
    assert walked.count(path.name) == 1


def test_a_copy_of_a_copy_keeps_how_rows_and_views_were_stored(tmp_path):
    import json

    from mobileclip2_lite.training.teachers import TUNED, teacher_cards

    pairs = write_pairs(tmp_path / "pairs", [[sample(i) for i in range(2)]])
    settings = Reinforce(teachers=("small", "large"), views=VIEWS, storage="int8")
    whole = reinforce(settings, pairs, tmp_path / "full", ensemble=FakeTeachers())
    (tmp_path / "full" / TUNED).write_text('{"small": 33.0}', "utf-8")
    shrink(tmp_path / "full", tmp_path / "half", side=40)
    again = shrink(tmp_path / "half", tmp_path / "quarter", side=20)
    assert again["reinforced"]["storage"] == "int8"
    assert again["reinforced"]["layout"] == "native"
    assert again["reinforced"]["augment"] == whole["settings"]["augment"]
    assert again["teachers"] == whole["teachers"]
    assert json.loads((tmp_path / "quarter" / TUNED).read_text("utf-8")) == {"small": 33.0}
    scales = {name: card.logit_scale for name, card in teacher_cards(tmp_path / "quarter", Train(distill=1.0)).items()}
    assert scales == {"small": 33.0, "large": 70.0}
    with pytest.raises(ValueError, match="no reinforced folder"):
        shrink(pairs, tmp_path / "other")


def test_only_the_first_views_and_captions_are_used_where_asked(folder, samples):
    """Over enough epochs the loader shows all views and captions of a sample, or the first so many."""
    uid = next(uid for uid, item in samples.items() if item.syn_texts)
    for most in (0, 1, 2):
        dataset = ReinforcedDataset(folder, 32, 24, captioners=("c",), max_views=most, max_captions=most)
        rows, captions = set(), set()
        for epoch in range(8):
            dataset.set_epoch(epoch)
            batch = dataset.batch(0)
            place = batch.uids.index(uid)
            stored = samples[uid].embeddings["image/small"].float()
            rows.add(int((stored - batch.image_embeddings["small"][place]).norm(dim=1).argmin()))
            captions.add(batch.syn_texts[place])
        assert rows == set(range(most or VIEWS))
        assert captions == set(samples[uid].syn_texts["c"][: most or None])


def test_a_stored_row_that_is_not_finite_is_counted(folder, monkeypatch):
    """Ours cannot be written so; other people's can."""
    real, asked = storage.rows, []

    def rows(*arguments):
        asked.append(1)
        return real(*arguments) * (np.nan if len(asked) == 4 else 1)

    monkeypatch.setattr(storage, "rows", rows)
    with pytest.warns(UserWarning, match="leaving out samples: bad_embeddings"):
        batch = next(iter(ReinforcedDataset(folder, 32, 8, on_mismatch="warn")))
    assert batch.dropped == {"bad_embeddings": 1}
    assert len(batch.uids) == 7
    assert all(np.isfinite(rows).all() for rows in batch.text_embeddings.values())
    asked.clear()
    with pytest.raises(ShardError, match="a row is not finite"):
        next(iter(ReinforcedDataset(folder, 32, 8)))


def test_a_sample_teaches_its_caption_or_its_text_where_one_of_them_is_asked_for(folder, samples):
    """The caption's text and rows stand in the real text's place; a sample without a caption keeps its own."""
    common = {"image_size": 16, "batch_size": 24, "captioners": ("c",), "teachers": ("small",)}
    both, alone, one = (
        ReinforcedDataset(folder, **common, texts=texts).batch(0) for texts in ("sum", "synthetic", "one")
    )
    assert alone.texts == both.syn_texts
    assert alone.syn_texts is None
    assert alone.syn_text_embeddings is None
    assert torch.equal(alone.text_embeddings["small"], both.syn_text_embeddings["small"])
    drawn = [text == caption for text, caption in zip(one.texts, both.syn_texts, strict=True)]
    assert 4 < sum(drawn) < 20, "about one half"
    for place, synthetic in enumerate(drawn):
        source = both.syn_text_embeddings if synthetic else both.text_embeddings
        assert one.texts[place] in (both.texts[place], both.syn_texts[place])
        assert torch.equal(one.text_embeddings["small"][place], source["small"][place])
    later = ReinforcedDataset(folder, **common, texts="one", epoch=1).batch(0)
    real = {uid for uid, text in zip(later.uids, later.texts, strict=True) if text == samples[uid].text}
    assert real != {uid for uid, text in zip(one.uids, one.texts, strict=True) if text == samples[uid].text}
    with pytest.raises(ValueError, match="not one of sum, synthetic, one"):
        ReinforcedDataset(folder, **common, texts="both")
