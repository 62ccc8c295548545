"""What `inspect` says of a folder is what is in it, and damage is found."""

from __future__ import annotations

import pytest
from doubles.fake_teachers import FakeTeachers, sample, write_pairs

from mobileclip2_lite.recipes import Reinforce
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.reports.inspection import inspect
from mobileclip2_lite.shards.datacompdr import write_official
from mobileclip2_lite.shards.samples import read_samples


@pytest.fixture
def folder(tmp_path):
    pairs = write_pairs(
        tmp_path / "pairs", [[sample(i) for i in range(4)], [sample(9, text="<b>&"), sample(5, text=" ")]]
    )
    reinforce(Reinforce(views=2), pairs, tmp_path / "out", ensemble=FakeTeachers())
    return tmp_path / "out"


def test_report_and_page(folder, tmp_path):
    found = inspect(folder, html=tmp_path / "page.html", verify=True)
    assert (found["shards"], found["samples"], found["views"]) == (2, 5, (2, 2))
    assert found["dropped"] == {"empty_text": 1}
    assert found["captioners"] == ["c"]
    assert [(t["name"], t["dimension"], t["logit_scale"]) for t in found["teachers"]] == [
        ("large", 24, 70.0),
        ("small", 32, 50.0),
    ]
    assert sum(found["bytes"].values()) == sum(p.stat().st_size for p in folder.glob("*.tar"))
    assert found["problems"] == []
    assert "1 empty_text" in found["text"]
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("<figure>") == 5 * 3, "a picture and two views each"
    assert "text 3" in page
    assert "caption 1 of 0" in page
    assert "small finds" in page
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page


def test_damage_is_found(folder):
    tar = folder / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    at = data.index(b"text 2")
    data[at : at + 6] = b"text 7"
    tar.write_bytes(data)
    assert inspect(folder)["problems"] == [], "a look at the headers alone does not see it"
    [problem] = inspect(folder, verify=True)["problems"]
    assert "SHA-256" in problem
    tar.write_bytes(data[:4000])
    assert any("cut short" in problem for problem in inspect(folder)["problems"])
    tar.unlink()
    assert any("shard-000000.tar" in problem for problem in inspect(folder)["problems"])


def test_pairs_single_shards_and_nothing(folder, tmp_path):
    found = inspect(tmp_path / "pairs")
    assert (found["samples"], found["teachers"]) == (6, [])
    assert inspect(folder / "shard-000001.tar")["samples"] == 1
    with pytest.raises(FileNotFoundError, match="no shards"):
        inspect(tmp_path)


@pytest.mark.parametrize("paug", ["list", "string"])
def test_official_layout(folder, tmp_path, paug):
    items = list(read_samples(folder / "shard-000000.tar"))
    (tmp_path / "official").mkdir()
    write_official(tmp_path / "official" / "00000000.tar", items, ["small", "large"], paug=paug)
    found = inspect(tmp_path / "official", html=tmp_path / "page.html", verify=True)
    assert (found["samples"], found["views"], found["captioners"], found["problems"]) == (4, (2, 2), ["c"], [])
    assert "pth.gz" in found["bytes"]
    assert "text 3" in (tmp_path / "page.html").read_text("utf-8")
