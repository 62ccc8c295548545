"""What a filter removed: its scores, the best, the border and the worst pairs, and how often it was right.

Paper: none. Nobody knows which of the web's texts are wrong; in the embedded world that is known, and the filter can be
judged. Reads a filtered folder and the folder that it was made from; writes at most one HTML page.
Taught by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mobileclip2_lite.filtering.stage import read_scores
from mobileclip2_lite.recipes import World
from mobileclip2_lite.reports import page
from mobileclip2_lite.shards import samples as shards
from mobileclip2_lite.shards.tars import TarIndex
from mobileclip2_lite.work.files import write_note
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.place import place_of

SHOWN = 10
"""Pairs a row of pictures."""
SIDE = 112
"""Pixels of a shown picture."""
BINS = 40


def filter_report(
    folder: str | os.PathLike,
    html: str | os.PathLike | None = None,
    world: World | None = None,
    pairs: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Look at a filtered folder.

    Args:
        folder: what `filtering.filter_pairs` wrote.
        html: page to write: counts, histogram of the scores, pictures with texts of the best, the border and the worst.
        world: the embedded world, where the pairs are of its training stream: the removal is then judged (`truth`).
        pairs: the folder that was filtered; None takes the one beside `folder` that its manifest names.

    Returns:
        `scored`, `kept`, `removed`, `dropped`, `threshold`, `scorer`, `histogram` (`edges`, `kept`, `removed`) and,
        with a world, `truth`, as `judge` gives it.

    Raises:
        ValueError: the folder that was filtered is not found, or its pairs are not of `world`.
        FileNotFoundError: `folder` is unfinished.
    """
    folder = place_of(folder)
    manifest = read_manifest(folder)
    lines = list(read_scores(folder))
    scores, kept = np.array([line["score"] for line in lines]), np.array([line["kept"] for line in lines])
    edges = np.histogram_bin_edges(scores, BINS)
    counts = {
        name: np.histogram(scores[part], edges)[0].tolist() for name, part in (("kept", kept), ("removed", ~kept))
    }
    result = {
        "scored": len(lines),
        "kept": int(kept.sum()),
        "removed": int((~kept).sum()),
        "dropped": manifest["dropped"],
        "threshold": manifest["threshold"],
        "scorer": manifest["scorer"]["name"],
        "histogram": {"edges": edges.tolist(), **counts},
    }
    if html is None and world is None:
        return result
    source = _Source(_filtered(folder, manifest) if pairs is None else place_of(pairs))
    wrong = None
    if world is not None:
        wrong = np.array([mismatched(*source.text_and_scene(line["uid"]), world) for line in lines])
        result["truth"] = judge(scores, kept, wrong)
    if html is not None:
        write_note(
            html, page.to_html(f"What {result['scorer']} removed", _blocks(result, lines, source, wrong)).encode()
        )
    return result


def mismatched(text: str, scene: str, world: World) -> bool:
    """Whether an alt-text is wrong: it was written for another picture, and names nothing that is in this one.

    A world without mismatches gives the same text to every picture that keeps its own, so that the others are known
    exactly; of those, texts that happen to fit (`emoji_world.fits`) are not wrong. `fits` alone would not do: it also
    denies fragments (`fried` for fried shrimp), which are poor but not wrong. Boilerplate and file names are not wrong
    either.

    Raises:
        ValueError: `scene` is not of this world.
    """
    from mobileclip2_lite import emoji_world

    picture = emoji_world.scene_of(world, scene)
    honest = dataclasses.replace(world, alt_text=dataclasses.replace(world.alt_text, mismatch=0.0))
    return emoji_world.alt_text(picture, honest) != text and not emoji_world.fits(text, picture)


def judge(scores: np.ndarray, kept: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """How well a filter removes wrong texts, and what removing as many at random would do.

    Args:
        scores: (N,) higher is better. kept, wrong: (N,) booleans.

    Returns:
        `wrong` (share of all pairs), `wrong_kept` (share of the kept), `precision` (share of the removed that are
        wrong), `recall` (share of the wrong that were removed), `average_precision` (area under precision over recall
        when pairs are removed from the lowest score up), and `random`, the expected value of the last three. None where
        there is nothing to divide by.
    """
    removed = ~kept
    hits, base = int((removed & wrong).sum()), float(wrong.mean())
    return {
        "wrong": base,
        "wrong_kept": _share(int((kept & wrong).sum()), int(kept.sum())),
        "precision": _share(hits, int(removed.sum())),
        "recall": _share(hits, int(wrong.sum())),
        "average_precision": average_precision(scores, wrong),
        "random": {"precision": base, "recall": float(removed.mean()), "average_precision": base},
    }


def precision_recall(scores: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(removed, precision, recall) at every border, from the lowest score up; equal scores go together."""
    order = np.argsort(scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) > 0, True))
    removed, hits = ends + 1, np.cumsum(wrong[order])[ends]
    return removed, hits / removed, hits / max(1, int(wrong.sum()))


def average_precision(scores: np.ndarray, wrong: np.ndarray) -> float | None:
    """Sum over the borders of precision times the recall gained; None if nothing is wrong."""
    if not wrong.any():
        return None
    _, precision, recall = precision_recall(scores, wrong)
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


class _Place(NamedTuple):
    tar: int
    sample: int


class _Source:
    """The pairs of the filtered folder by uid; texts and pictures are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tars = [TarIndex(folder / name) for name in shards.shard_names(folder)]
        self.places: dict[str, _Place] = {}
        for number, tar in enumerate(self.tars):
            for sample in range(len(tar)):
                self.places.setdefault(self._sample(_Place(number, sample), image=False).uid, _Place(number, sample))

    def _sample(self, place: _Place, image: bool = True) -> shards.Sample:
        tar = self.tars[place.tar]
        wanted = ("txt", "json", *(shards.EXTENSIONS if image else ()))
        parts = {name: bytes(tar.member(place.sample, name)) for name in tar.extensions(place.sample) if name in wanted}
        try:
            return shards.parse(tar.keys[place.sample], parts, tar.path, need_image=image)
        except shards.ShardError:  # not among the scored, either
            return shards.Sample("", b"", "jpg", "")

    def sample(self, uid: str, image: bool = True) -> shards.Sample:
        if uid not in self.places:
            raise ValueError(f"{self.folder} has no pair {uid}: is it the folder that was filtered?")
        return self._sample(self.places[uid], image)

    def text_and_scene(self, uid: str) -> tuple[str, str]:
        found = self.sample(uid, image=False)
        return found.text, str(found.meta.get("scene", ""))


def _filtered(folder: Path, manifest: dict) -> Path:
    """The folder beside this one whose manifest has the key that the filter's names."""
    wanted = manifest["inputs"]["pairs"]
    for place in sorted(folder.resolve().parent.iterdir()):
        if (place / "manifest.json").is_file() and read_manifest(place).get("key") == wanted:
            return place
    raise ValueError(f"the pairs that {folder} was made from are not beside it: name their folder with `pairs`")


def _blocks(result: dict, lines: Sequence[dict], source: _Source, wrong: np.ndarray | None) -> list[page.Block]:
    share = result["removed"] / result["scored"]
    lead = f"Of {result['scored']:,} pairs, {result['removed']:,} ({share:.0%}) with a cosine below "
    blocks: list[page.Block] = [page.Text(lead + f"{result['threshold']:.3f} were removed.", lead=True)]
    if result["dropped"]:
        counted = ", ".join(f"{count} {reason}" for reason, count in result["dropped"].items())
        blocks.append(page.Text(f"Could not be scored: {counted}."))
    if wrong is not None:
        blocks.append(_truth(result["truth"]))
        blocks.append(page.Picture("removal", _curve(lines, wrong), "precision over recall of the removal"))
    blocks += [page.Heading("Scores"), page.Picture("scores", _histogram(lines, wrong), "histogram of the scores")]
    order = sorted(range(len(lines)), key=lambda i: -lines[i]["score"])
    border = max(0, min(result["kept"] - SHOWN // 2, len(order) - SHOWN))
    rows = {
        "The best": order[:SHOWN],
        "The border": order[border : border + SHOWN],
        "The worst": order[::-1][:SHOWN],
    }
    for title, indices in rows.items():
        pictures = [_picture(lines[i], source, None if wrong is None else bool(wrong[i])) for i in indices]
        blocks += [page.Heading(title), page.Pictures(pictures, small=True)]
    if wrong is not None:
        from mobileclip2_lite.emoji_world import ATTRIBUTION

        blocks.append(page.Text(f"✗ stands before texts that were written for another picture. {ATTRIBUTION}."))
    return blocks


def _truth(truth: dict) -> page.Table:
    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f} %"

    rows = [
        ["wrong texts among all pairs", percent(truth["wrong"]), percent(truth["wrong"])],
        ["wrong texts among the kept", percent(truth["wrong_kept"]), percent(truth["wrong"])],
        [
            "removed pairs that were wrong (precision)",
            percent(truth["precision"]),
            percent(truth["random"]["precision"]),
        ],
        ["wrong pairs that were removed (recall)", percent(truth["recall"]), percent(truth["random"]["recall"])],
        ["average precision", percent(truth["average_precision"]), percent(truth["random"]["average_precision"])],
    ]
    return page.Table(["", "this filter", "as many at random"], rows)


def _histogram(lines: Sequence[dict], wrong: np.ndarray | None) -> bytes:
    """Scores of right and wrong texts, or of all, with the border."""
    from mobileclip2_lite.reports import figures

    scores = np.array([line["score"] for line in lines])
    made, axes = figures.figure()
    parts = {"all pairs": scores} if wrong is None else {"right text": scores[~wrong], "wrong text": scores[wrong]}
    edges = np.histogram_bin_edges(scores, BINS)
    for index, (label, part) in enumerate(parts.items()):
        look = {"color": figures.CYCLE[index], "alpha": 0.6, "edgecolor": "white"}
        axes.hist(part, edges, label=label, **look)
    border = min(line["score"] for line in lines if line["kept"])
    axes.axvline(border, color="black", linestyle="--", linewidth=1.2, label="kept from here on")
    axes.set_xlabel("cosine of picture and text")
    axes.set_ylabel("pairs")
    axes.legend(fontsize=8)
    return figures.png(made)


def _curve(lines: Sequence[dict], wrong: np.ndarray) -> bytes:
    """Precision over recall for every border, the chosen one marked, and random removal."""
    from mobileclip2_lite.reports import figures

    _, precision, recall = precision_recall(np.array([line["score"] for line in lines]), wrong)
    truth = judge(np.array([line["score"] for line in lines]), np.array([line["kept"] for line in lines]), wrong)
    made, axes = figures.figure()
    axes.plot(100 * recall, 100 * precision, color=figures.CYCLE[0], label="every border")
    if truth["precision"] is not None and truth["recall"] is not None:
        axes.plot(100 * truth["recall"], 100 * truth["precision"], "s", color=figures.CYCLE[1], label="this folder")
    axes.axhline(100 * truth["wrong"], color=figures.COLOURS["chance"], linestyle=":", label="at random")
    axes.set_xlabel("wrong pairs that are removed (%)")
    axes.set_ylabel("removed pairs that are wrong (%)")
    axes.set_ylim(0, 102)
    axes.legend(fontsize=8)
    return figures.png(made)


def _picture(line: dict, source: _Source, wrong: bool | None) -> page.Picture:
    from mobileclip2_lite.views import decoding

    sample = source.sample(line["uid"])
    image = decoding.decode(sample.image)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    sign = page.sign(None if wrong is None else not wrong)
    state = "kept" if line["kept"] else "removed"
    return page.Picture(
        f"pair-{line['uid']}",
        buffer.getvalue(),
        sample.text,
        f"{sign}{page.verbatim(sample.text)} ({line['score']:.3f}, {state})",
    )
