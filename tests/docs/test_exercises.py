"""Check cells of the exercises, all of them: a right answer passes, the usual wrong ones do not and are told why."""

from __future__ import annotations

import ast
import json
from math import exp, log
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mobileclip2_lite import notebook
from mobileclip2_lite.studies import claims, recorded, verdicts

ROOT = Path(__file__).resolve().parents[2]


def check_cell(stem: str, number: int) -> str:
    """The source of an exercise's check cell, without its line `answer_N = ...`."""
    (path,) = ROOT.glob(f"notebooks/{stem}_*.ipynb")
    cells = json.loads(path.read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if "exercise" in cell["metadata"].get("tags", [])]
    return sources[number - 1].removeprefix(f"answer_{number} = ...\n")


def hits(score: float):
    return lambda *asked, **more: [SimpleNamespace(score=score)]


class Place:
    """A folder or file as the check cells look at them: `/`, whether it is there, what it holds."""

    def __init__(self, held) -> None:
        self.held = held

    def __truediv__(self, name: str) -> Place:
        return Place(self.held.get(name) if isinstance(self.held, dict) else None)

    def is_file(self) -> bool:
        return self.held is not None

    is_dir = is_file

    def glob(self, _: str) -> list:
        return [] if self.held is None else [self.held]


def held(place):
    """What a stored thing holds: the lines of a log, the samples of a tar."""
    return place.held if isinstance(place, Place) else place


def asked(top1: float) -> dict:
    """Names with which any model that is asked for names reaches one accuracy."""
    measures = SimpleNamespace(zero_shot_classifier=lambda *_: None, zero_shot_accuracy=lambda *_: {"top1": top1})
    return {"measures": measures, "encode_images": lambda *_: None, "names": ["a"], "pictures": [], "labels": [0] * 100}


def training(name: str, size: int, last: int, **losses: float) -> Place:
    """A folder of trainings that holds one, with the first and the last line of its log."""
    ends = [{"step": step, "samples": size * step, "loss": 4.0, **losses} for step in (1, last // size)]
    ends[-1] |= {key: value / 2 for key, value in losses.items()}
    return Place({name: {"log.jsonl": ends}})


def stored(*rows: list[float]) -> dict:
    """The embeddings of one image: a view, a text."""
    return {f"{kind}/T": torch.tensor([row]) for kind, row in zip(("image", "text"), rows, strict=False)}


def sample(uid: str, *rows: list[float], **more) -> SimpleNamespace:
    return SimpleNamespace(uid=uid, text=uid, embeddings=stored(*rows), **more)


def pairs(lying: int, count: int) -> list:
    return [SimpleNamespace(uid=str(n), text="lie" if n < lying else "true", meta={"scene": 0}) for n in range(count)]


MC = SimpleNamespace(read_samples=held, create_model=lambda _: None)
SWEEP = {1: [0.20, 0.21, 0.22], 20: [0.70, 0.71, 0.69], 100: [0.60, 0.61, 0.59]}
LATER = {1: [0.20, 0.21, 0.22], 20: [0.60, 0.61, 0.59], 100: [0.70, 0.71, 0.69]}
TUNING = {"points": {0: 5.42, 3_840: 0.64}, "last": 0.64}
PRECISION = SimpleNamespace(measure_captions=lambda texts, scenes, world: {"objects_precision": 0.55})
DECODING = {"strategies": {"greedy": 1}, "written": {"greedy": []}, "metrics": PRECISION, "scenes": [], "world": None}
COVERED = {"ones": [{"objects_coverage": 0.82}, {"objects_coverage": 0.78}], "several": {"objects_coverage": 0.81}}
HILL = {"mean": {1: 0.72, 10: 0.88}, "best": 10, "tried": (1, 10), "np": np}
ALBUM = {"index": SimpleNamespace(search=hits(0.4)), "pairs": [SimpleNamespace(texts=["a dog"])]}
HELD = {"control": 20.3, "student": 26.7, "asked": [None] * 59, "images": "own", "found": {"t2i_r5": 0.4}}
FILES = {
    "album": "album",
    "towers": {"fp32": None},
    "search": SimpleNamespace(build_index=lambda *_: SimpleNamespace(dropped={"not_an_image": 1})),
}
EYE = torch.eye(4).tolist()
JOURNEY = {  # the first is asked about beside the three others; its text leans to the first other's
    "torch": torch,
    "teacher": "T",
    "fits": [True, False, True, True, True],
    "reinforced": [sample("0", EYE[0], EYE[0]), *(sample(str(n), EYE[n - 1], EYE[n - 1]) for n in (1, 2, 3, 4))],
}
JOURNEY["others"] = JOURNEY["reinforced"][2:]
SURE = exp(20) / (exp(20) + 3)
RIGHT = {
    "first": torch.tensor([True, True, False, False, False]),
    "second": torch.tensor([True, False, True, False, False]),
}
THIRD = [True, False, True, True, False]
LOUD = {
    "torch": torch,
    "ensemble": SimpleNamespace(names=["conv", "se"]),
    "views": {"conv": torch.eye(3), "se": torch.eye(3)},
    "texts": {"conv": torch.eye(3), "se": torch.eye(3).roll(1, 0)},
    "fits": torch.tensor([True, True, False]),
}
STUDENT = {**asked(0.57), "mc": MC, "read_log": held, "log": log, "samples": 15_360, "accuracy": 0.57}
QUIZ = {**STUDENT, "folder": training("batch16", 16, 15_360)}
HALF = {**STUDENT, **asked(0.30), "folder": training("half-wrong", 64, 15_360)}
WEB = {
    "mc": MC,
    "np": np,
    "world": None,
    "seeds": (0, 1),
    "labels": [0] * 100,
    "gain_mean": 6.0,
    "mismatched": lambda text, *_: text == "lie",
    "work": Place({"mild": pairs(10, 100), "mild-half": pairs(2, 50)}),
}
SHELF = {"mc": MC, "np": np, "lies": {str(n): n < 10 for n in range(50)}, "work": Place({"by-teacher": pairs(10, 50)})}
SHARES = {0.15: 0.1, 0.3: 0.2, 0.5: 0.25, 0.7: 0.24, 1.0: 0.2}
ROUNDED = {
    "mc": MC,
    "torch": torch,
    "folder": Place({
        "reinforced": {"shard-000000.tar": [sample("0", [1.0, 0.0], [0.6, 0.8])]},
        "int8": {"shard-000000.tar": [sample("0", [1.0, 0.01], [0.6, 0.8])]},
    }),
}  # fmt: skip
COARSE = float(torch.nn.functional.cosine_similarity(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.01]), dim=0))
ERASING = {
    "mc": SimpleNamespace(draw=lambda *_: None, replay=lambda *_: np.zeros((2, 2, 3))),
    "recipes": SimpleNamespace(Augment=lambda **_: None),
    "rng": lambda *_: None,
    "image": SimpleNamespace(width=2, height=2),
    "name": "T",
    "np": np,
    "torch": torch,
    "ensemble": SimpleNamespace(image_size=lambda _: 2, embed_images=lambda _, many: torch.full((len(many), 1), 0.7)),
    "center": torch.ones(1),
    "means": {0.5: 0.92},
}


class Look:
    """A `Watch` whose model names four of six."""

    def __init__(self, shown, truth, names) -> None:
        self.answers = [[*truth[:4], "?", "?"]]

    def __call__(self, model) -> None:
        """Asked once more, it answers the same."""


LIVE = {**STUDENT, "samples": 6_400, "Watch": Look, "shown": [], "truth": list("abcdef")}
BOTH = {**LIVE, "live": training("half", 64, 6_400, contrastive=4.0, distillation=3.0)}
LONG = {**LIVE, "live": training("longer", 64, 25_600, contrastive=4.0)}
VAL = SimpleNamespace(class_names=["a"], images=[], labels=[])
RATES = {
    **asked(0.24),
    "emoji_world": SimpleNamespace(zero_shot_set=lambda *_, **__: VAL, TEMPLATES=[]),
    "models": {"control": None},
    "way": SimpleNamespace(world=None, control=SimpleNamespace(batch_size=128)),
}
BY_RATE = {1 / 3: 0.2, 1: 0.25, 3: 0.22}
HITS = [{seed: (np.arange(1_000) % 10 < few).astype(float) for seed in range(3)} for few in (7, 3)]
TIMES = {"S0": (10.0, 5.0), "B": (60.0, 40.0)}
TIMED = {
    "torch": torch,
    "loaded": SimpleNamespace(preprocess=SimpleNamespace(image_size=8), model=SimpleNamespace(visual=None)),
    "latency": SimpleNamespace(measure=lambda _, x, **__: SimpleNamespace(milliseconds=2.0 if len(x) == 1 else 16.0)),
}
MINE, EMPTY = SimpleNamespace(entries=[None] * 200, dropped={}), SimpleNamespace(entries=[], dropped={})
STAGES = {
    "work": lambda _: [SimpleNamespace(stage=name) for name in ("caption", "reinforce", "train")],
    "recipes": SimpleNamespace(paper_2b=lambda: None),
}
HOURS = {"caption": 20.0, "reinforce": 30.0, "train": 90.0}
HINT = "Hint: "
CASES = [  # notebook, exercise, what its cells have made, a right answer, wrong ones and what is said of them
    ("00", 1, {"sample": sample("0", [1.0], [1.0])}, 2, [(4, HINT), ("two", HINT)]),
    ("00", 2, {"answers": {"control": ["fish", "cow", "cow"]}}, "cow", [("fish", HINT), (2, HINT)]),
    ("00", 3, {**asked(0.8), "models": {"student": None}}, 0.8, [(80, HINT), (0.91, HINT)]),
    ("00", 4, JOURNEY, (0, SURE), [((1, 0.5), HINT), ((2, 1.0), HINT), ((0, 0.25), HINT)]),
    ("00", 5, {"mean": {"student": 91.0}}, (80.0, 91.0, 11.0), [
        (11.0, "kind"), ((0.8, 0.91, 0.11), "in percent"), ((91.0, 91.0, 0.0), "asked twice"),
        ((70.0, 80.0, 10.0), "this run names 91"), ((80.0, 91.0, -11.0), "the second less the first")]),
    ("05", 1, {"log": log}, 6.931, [(10.0, HINT), (1024, HINT)]),
    ("05", 2, {"exp": exp}, 10.36, [(0.0966, HINT), (63, HINT)]),
    ("05", 3, QUIZ, (4.0, 0.57), [
        ((4.0, 57), "a share"), ((2.0, 0.57), "first line"), ((4.0, 0.9), "another share"), (4.0, "kind")]),
    ("05", 3, {**STUDENT, "folder": Place({})}, None, [((4.0, 0.57), "no training in the folder")]),
    ("05", 3, {**STUDENT, "folder": training("batch16", 64, 15_360)}, None, [((4.0, 0.57), "saw 64 pairs a step")]),
    ("05", 3, {**STUDENT, "folder": training("batch16", 16, 3_840)}, None, [((4.0, 0.57), "who saw more")]),
    ("05", 4, HALF, 27.0, [(-27.0, "comes first"), (0.27, "of a hundred"), (12.0, "another number of points")]),
    ("05", 4, {**HALF, **asked(0.57)}, None, [(0.0, "pairs with wrong texts")]),
    ("05", 4, {**HALF, "folder": training("half-wrong", 64, 3_840)}, None, [(27.0, "what is it that made it fall")]),
    ("05", 5, {}, 1e-6, [(0.4, HINT), ("0", "kind")]),
    ("08", 1, {"share": 0.3}, 0.3, [(0.5, HINT), (30, HINT)]),
    ("08", 2, {"cuts": {0.5: 0.42}}, 0.42, [(0.5, HINT), (1000, HINT)]),
    ("08", 3, SHELF, 0.2, [(0.8, HINT), (20, HINT)]),
    ("08", 4, WEB, [2.0, -1.0], [
        ([1.0], "one gain a seed"), ([0.02, -0.01], "points of a hundred"), ([0.0, 0.0], "asked twice"),
        ([9.0, 8.0], "little to gain"), (1.0, "kind")]),
    ("08", 4, {**WEB, "work": Place({})}, None, [([2.0, -1.0], "hold no pairs")]),
    ("08", 4, {**WEB, "work": Place({"mild": pairs(50, 100), "mild-half": pairs(2, 50)})}, None, [
        ([2.0, -1.0], "50% of the texts lie")]),
    ("08", 4, {**WEB, "work": Place({"mild": pairs(10, 100), "mild-half": pairs(2, 70)})}, None, [
        ([2.0, -1.0], "70 were kept")]),
    ("08", 5, {"world": SimpleNamespace(names=120)}, (0.5, SHARES), [
        (0.5, "kind"), ((1.0, SHARES), "0.5 is better"), ((0.5, {0.5: 0.2, 1.0: 0.1}), "five shares"),
        ((0.5, {keep: 100 * top1 for keep, top1 in SHARES.items()}), "divide percents"),
        ((0.5, dict.fromkeys(SHARES, 0.009)), "than a guess"), ((0.5, dict.fromkeys(SHARES, 0.2)), "one model asked")]),
    ("10", 1, RIGHT, 2, [(1, HINT), (4, HINT)]),
    ("10", 2, {"ensemble": LOUD["ensemble"], "sure": {"conv": 0.6, "se": 0.5}}, "conv", [("se", HINT), (0.6, HINT)]),
    ("10", 3, {"weighed": {5: 0.95}}, 0.95, [(95, HINT), (0.9, HINT)]),
    ("10", 4, LOUD, 0.5, [(1.0, HINT), (0.05, HINT)]),
    ("10", 5, {**RIGHT, "torch": torch, "names": range(120)}, (THIRD, 1), [
        (1, "kind"), ((THIRD, 2), "both have to be wrong"), ((THIRD, 3), "another number"),
        ((RIGHT["first"], 0), "of the ensemble"), ((THIRD[:3], 1), "True or False for each"),
        (([False] * 5, 0), "hardly more than a guess")]),
    ("20", 1, {"label": {"a": "web", "b": "short"}, "rows": {"web": {"objects_recall": 0.6}, "short": {
        "objects_recall": 0.7}}}, "short", [("web", HINT), (0.7, HINT)]),
    ("20", 2, {"true": [True, False, True, False, True, False, False, True, True]}, 4, [(5, HINT), ("four", HINT)]),
    ("20", 3, TUNING, 1.1, [(5.5, "was this one trained?"), (0.3, "two of three"), (float("nan"), "not below")]),
    ("20", 4, TUNING, (0.9, 0.26), [
        ((0.9, 0.9), "less the 0.64"), ((0.4, -0.24), "cannot teach more"), ((6.0, 5.36), "was it trained?"),
        (0.2, "kind")]),
    ("20", 5, {}, 0.35, [(35, "between 0 and 1"), (0.33, "twentieths")]),
    ("21", 1, {"truest": "greedy"}, "greedy", [("sample, T = 1", HINT), (0.8, HINT)]),
    ("21", 2, {"nucleus_by_hand": lambda *_: {1, 2, 3}, "row": torch.ones(1, 5)}, 3, [(5, HINT), (0.9, HINT)]),
    ("21", 3, DECODING, ("greedy", 0.4), [
        (("greedy", 0.6), "no lower"), (("fast", 0.4), "one of greedy"), (("greedy", 40), "a share"), (0.4, "kind")]),
    ("21", 4, COVERED, (0.9, True), [
        ((0.9, False), "compare"), ((0.5, False), "objects_coverage"), ((90, True), "a share"), (True, "kind")]),
    ("21", 5, {"world": SimpleNamespace(names=120)}, (0.3, 0.32), [
        ((30, 32), "divide percents"), ((0.008, 0.3), "than a guess does"), ((0.3, 0.3), "asked twice"),
        (False, "kind")]),
    ("30", 1, {}, 0.05, [(20, HINT), (0.5, HINT)]),
    ("30", 2, {}, 0, [(20, HINT), (1, HINT)]),
    ("30", 3, {"cosines": torch.tensor([0.5, 0.45, 0.4, 0.0, -0.1]), "log": log}, 27, [(1, HINT), (100, HINT)]),
    ("30", 4, HILL, (9, 25), [
        ((25, 9), "first of the two"), ((0.5, 2), "are 1 or 3 among"), ((0.1, 0.2), "in points"), (True, "kind")]),
    ("30", 5, HILL, (SWEEP, LATER, True), [
        ((SWEEP, LATER, False), "[20] and [100]"), ((SWEEP, SWEEP, True), "have they one in common"),
        (({20: [1, 2, 3]}, SWEEP, True), "three scales"), (({**SWEEP, 1: [0.2]}, SWEEP, False), "three seeds"),
        (True, "kind")]),
    ("35", 1, {"pack": lambda views: "x" * 40 * len(views), "plain": None}, 1_200, [(40, HINT), (30, HINT)]),
    ("35", 2, {}, 0, [(48, HINT), (2_304, HINT)]),
    ("35", 3, ROUNDED, COARSE, [(1.0, "beside itself"), (0.9, "another one"), ("1", "kind")]),
    ("35", 3, {**ROUNDED, "folder": Place({})}, None, [(COARSE, "no folder `int8`")]),
    ("35", 4, ERASING, 0.22, [(0.7, HINT), (-0.22, HINT)]),
    ("35", 5, {}, True, [(False, "`manifest.json` is written last"), ("yes", "True or False")]),
    ("40", 1, {"log": log, **RATES}, 4.852, [(7.0, HINT), (128, HINT)]),
    ("40", 2, {"results": {"teachers": {"T": {"zero_shot": 0.955}}}, "mean": {"student": {"zero_shot": 91.0}}}, 4.5, [
        (0.045, HINT), (60.0, HINT)]),
    ("40", 3, BOTH, 4, [(7, "Six images"), (0.5, "Six images"), (6, "another number of the six")]),
    ("40", 3, {**BOTH, "live": Place({})}, None, [(4, "no training in the folder")]),
    ("40", 3, {**LIVE, "live": training("half", 64, 6_400, distillation=3.0)}, None, [(4, "was `distill` 0.5?")]),
    ("40", 3, {**LIVE, "live": training("half", 64, 640, contrastive=4.0, distillation=3.0)}, None, [
        (4, "It saw 640")]),
    ("40", 4, LONG, 2.0, [(4.0, "where it began"), (1.2, "another loss"), ("2", "kind")]),
    ("40", 4, {**LONG, "live": Place({})}, None, [(2.0, "no training in the folder")]),
    ("40", 4, {**LIVE, "live": training("longer", 64, 6_400, contrastive=4.0)}, None, [(2.0, "four times as many")]),
    ("40", 4, {**LIVE, "live": training("longer", 64, 25_600, contrastive=4.0, distillation=3.0)}, None, [
        (2.0, "it is the student")]),
    ("40", 5, RATES, (1, BY_RATE), [
        (1, "kind"), ((3, BY_RATE), "another factor"), ((1, {1: 0.25}), "three factors"),
        ((1, {factor: 100 * top1 for factor, top1 in BY_RATE.items()}), "divide percents"),
        ((3, {1 / 3: 0.4, 1: 0.5, 3: 0.6}), "names 24%")]),
    ("41", 1, {"rows": ["a", "b"], "ladder": {"a": 0.2, "b": 0.4}, "recorded": SimpleNamespace(
        mean=lambda ladder, row: ladder[row])}, "b", [("a", HINT), (0.4, HINT)]),
    ("41", 2, {"low": 0.05, "high": 0.17}, 12.0, [(0.12, HINT), (6.0, HINT)]),
    ("41", 3, {}, 3.47, [(1.83, "their number"), (4.0, "Hint"), ("3.47", "kind")]),
    ("41", 5, {"claims": claims, "verdicts": verdicts}, (*HITS, "agrees"), [
        ("agrees", "kind"), ((*HITS, "better"), "a verdict is"), ((*HITS, "cannot tell"), "which side of 0"),
        ((HITS[0], HITS[0], "cannot tell"), "asked twice"), (({0: HITS[0][0]}, HITS[1], "agrees"), "three seeds")]),
    ("50", 1, {}, 4, [(2, HINT), (0.25, HINT)]),
    ("50", 2, {"counted": {256: [SimpleNamespace(flops=n) for n in (1, 2, 9, 3, 1)]}}, 3, [(2, HINT), (5, HINT)]),
    ("50", 3, TIMED, 4.0, [(0.25, "longer in a batch"), (128.0, "once only"), (0.6, "divided by 32?")]),
    ("50", 4, {}, 1.2, [(1e-6, "`block.train()`"), (-1.2, "no sign"), (1_000.0, "two blocks")]),
    ("50", 5, {}, ("S0", TIMES), [
        (0.5, "kind"), (("B", TIMES), "a ratio"), (("S0", {"S0": (10.0, 5.0)}), "two towers"),
        (("S2", TIMES), "S0 or B"), (("S0", {**TIMES, "B": (60.0, 0.0)}), "more than nothing")]),
    ("60", 1, {"some": [0], "towers": {"fp32": SimpleNamespace(embed_images=lambda _: np.zeros((1, 192)))}}, 768, [
        (192, HINT), (384, HINT)]),
    ("60", 2, {"time_of": {("text", "fp32"): 3.0, ("text", "fp16"): 2.0, ("text", "int8"): 1.0}}, "int8", [
        ("fp32", HINT), ("fp16", HINT)]),
    ("60", 3, {"index": SimpleNamespace(search=hits(0.4))}, ("a", "b", 0.4), [
        (("a", "b", 1.0), "the image alone"), (("a", "b", 0.3), "another score"), (0.4, "kind")]),
    ("60", 4, FILES, "not_an_image", [("broken.jpg", "No file of the album"), (1, "No file of the album")]),
    ("60", 5, {"index": ALBUM["index"]}, (MINE, 8.0, 25.0), [
        (25.0, "kind"), ((ALBUM["index"], 8.0, 25.0), "drawn album"), ((MINE, 8.0, 0.04), "turn the ratio"),
        ((MINE, 8.0, 200.0), "another rate"), ((EMPTY, 8.0, 0.0), "nothing was indexed")]),
    ("70", 1, {}, 24_576, [(12_288, HINT), (2 * 2 * 768 * 7, HINT)]),
    ("70", 2, {}, 100 / 19.8, [(100 / 21.1, HINT), (77, HINT)]),
    ("70", 3, {"terabytes": {"int8": [0.2, 0.79]}}, 0.79, [(790, HINT), (1.49, HINT)]),
    ("70", 4, {}, True, [(False, "once more after the second kill"), ("yes", "True or False")]),
    ("70", 5, STAGES, ("train", HOURS), [
        ("train", "kind"), (("caption", HOURS), "train costs more"), (("filter", HOURS), "is one of"),
        (("train", {"train": 90.0}), "the hours of each"), (("train", dict.fromkeys(HOURS, 0.0)), "some stage takes")]),
    ("80", 1, {"asked": [None] * 59}, 59, [(5, HINT), (236, HINT)]),
    ("80", 2, {"asked": [None] * 59}, 8.5, [(0.085, HINT), (1.7, HINT)]),
    ("80", 3, ALBUM, ("a cow", 0.4), [(("a dog", 0.4), "came with the folder"), (("a cow", 0.9), "another score")]),
    ("80", 4, HELD, (18.0, 30.0), [
        ((0.18, 0.3), "in percent"), ((20.3, 26.7), "of seed 0"), ((18.0, 5.0), "at chance"), (True, "kind")]),
    ("80", 5, HELD, 0.4, [(0.9, "another share")]),
    ("80", 5, {**HELD, "images": ""}, None, [(0.4, "still empty")]),
]  # fmt: skip


def test_every_exercise_is_answered_rightly_and_wrongly():
    asked, right, wrong = set(), set(), {}
    for path in ROOT.glob("notebooks/*.ipynb"):
        cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if "exercise" in c["metadata"].get("tags", [])]
        asked |= {(path.stem[:2], number) for number in range(1, len(cells) + 1)}
    for stem, number, _, answer, others in CASES:
        wrong[stem, number] = wrong.get((stem, number), 0) + len(others)
        right |= {(stem, number)} if answer is not None else set()
    alone = {("41", 4)}  # below, since the ledger is made up for it
    assert right | alone == asked
    assert not [key for key, count in wrong.items() if count < 2], "two usual mistakes each"


def said(stem: str, number: int, names: dict, answer, capsys) -> str:
    source = check_cell(stem, number)
    exec(compile(source, stem, "exec"), {"notebook": notebook, f"answer_{number}": answer, **names})
    return capsys.readouterr().out


@pytest.mark.parametrize(("stem", "number", "names", "right", "wrong"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_a_right_answer_passes_and_a_wrong_one_is_told_why(stem, number, names, right, wrong, capsys):
    if right is not None:
        assert said(stem, number, names, right, capsys) == "Right.\n"
    for answer, why in wrong:
        told = said(stem, number, names, answer, capsys)
        assert told.startswith("Not yet."), f"{answer} passed"
        assert why.lower() in told.lower()
        assert told.count("\n") == 1, "in one sentence"


def test_the_claims_of_the_ledger_are_counted_and_not_those_of_the_page(monkeypatch, capsys):
    from mobileclip2_lite.studies import claims, verdicts

    def entries(lines, wanted):
        assert wanted is claims.CLAIMS
        return [SimpleNamespace(verdict=word) for word in ["not tested"] * 7 + ["agrees"] * 3]

    monkeypatch.setattr(verdicts, "entries", entries)
    names = {"recorded": recorded, "tally": {"not tested": 1}}
    assert said("41", 4, names, 7, capsys) == "Right.\n"
    assert "this page alone" in said("41", 4, names, 1, capsys)
    assert "counts another number" in said("41", 4, names, 10, capsys)


def test_what_is_published_below_a_check_is_what_it_says_before_there_is_an_answer():
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        for cell in json.loads(path.read_text("utf-8"))["cells"]:
            if "exercise" not in cell["metadata"].get("tags", []):
                continue
            nodes = [node for node in ast.walk(ast.parse("".join(cell["source"]))) if isinstance(node, ast.Call)]
            (hint,) = [ast.literal_eval(n.args[2]) for n in nodes if getattr(n.func, "attr", "") == "check"]
            printed = "".join("".join(output.get("text", [])) for output in cell["outputs"])
            assert printed == f"Nothing to check yet. Hint: {hint}\n", path.name
