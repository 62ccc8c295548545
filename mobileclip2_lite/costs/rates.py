"""How much work a recipe is, and how much of it a device does a second.

`work` counts views, texts, captions and samples of a recipe; `measure` finds rates on the device at hand with models of
the recipe's architectures, whose weights may be random. Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobileclip2_lite.recipes import Generate, Recipe, Train
from mobileclip2_lite.views import decoding
from mobileclip2_lite.views.drawing import draw
from mobileclip2_lite.views.replay import replay_pixels
from mobileclip2_lite.work.files import pretty, write_note
from mobileclip2_lite.work.place import place_of
from mobileclip2_lite.work.randomness import rng
from mobileclip2_lite.work.stopwatch import call_seconds

if TYPE_CHECKING:
    import torch

    from mobileclip2_lite.models.loaded import LoadedModel

CAPTION = "a photograph of two small dogs on a wooden table next to a window"
"""A caption of usual length, 15 tokens of CLIP's: texts and captions are measured with it."""

MEASURED = "measured on that machine, random weights (`plan --measure`)"
"""Where a rate comes from of which nothing else is said."""
ARCHITECTURES = {"hf-hub:apple/mobileclip2_coca_dfn2b_s13b_mscoco38k_s12m_context77": "coca_ViT-L-14"}
"""Architecture of models that only a hub knows, to measure them without it."""


class Item(NamedTuple):
    """Work of one kind."""

    stage: str
    what: str
    """Also the name of its rate: `views ViT-L-14@dfn2b`."""
    count: int


@dataclass(frozen=True)
class Rates:
    """Work a second, as `measure` found it."""

    device: str
    """One of these does the work; its name, with the threads of a CPU."""
    per_second: dict[str, float]
    """`views TEACHER`, `texts TEACHER`, `captions CAPTIONER`, `samples STUDENT`: per device."""
    per_core: dict[str, float]
    """`views replayed`, `samples loaded`: per CPU core, beside the device."""
    sources: dict[str, str] = field(default_factory=dict)
    """Work -> where its rate comes from, if it was not measured."""

    def source(self, what: str) -> str:
        """Where the rate of some work comes from."""
        return self.sources.get(what, MEASURED)


def work(recipe: Recipe) -> list[Item]:
    """How often each model of a recipe is run, from the first stage to one student.

    Raises:
        ValueError: the recipe takes all pairs of its source (`pairs.count` 0), so their number is not known.
    """
    if recipe.pairs.count < 0:
        raise ValueError(f"pairs.count is {recipe.pairs.count}: how many pairs shall there be?")
    if not recipe.pairs.count:
        raise ValueError("pairs.count is 0, all of the source: say how many, --pairs.count 12800000")
    items, pairs, each = [], kept_pairs(recipe), recipe.caption.generate.captions
    if recipe.filter.keep < 1:
        items.append(Item("filter", f"pairs {recipe.filter.scorer}", recipe.pairs.count))
    items += [Item("caption", f"captions {name}", pairs * each) for name in recipe.caption.captioners]
    texts = 1 + each * len(recipe.caption.captioners)
    for name in recipe.reinforce.teachers:
        items.append(Item("reinforce", f"views {name}", pairs * recipe.reinforce.views))
        items.append(Item("reinforce", f"texts {name}", pairs * texts))
    return [*items, Item("train", f"samples {recipe.student.model}", recipe.student.samples)]


def kept_pairs(recipe: Recipe) -> int:
    """Pairs after the filter; all of them where it keeps by threshold."""
    return round(recipe.pairs.count * recipe.filter.keep) or recipe.pairs.count


def dimension(name: str) -> int:
    """Size of a model's embeddings, from its config; needs no weights."""
    from mobileclip2_lite.models.resolve import resolve

    return int(resolve(architecture(name)).model_cfg["embed_dim"])


def architecture(name: str) -> str:
    """What `create_model` builds for a model of a recipe without its weights."""
    from mobileclip2_lite.models.embedded import KINDS

    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.startswith(KINDS["captioner"][1]):
        return "lite-coca"
    if name.startswith("emoji-"):  # of other weights, built like the others
        return "lite-" + name.removeprefix("emoji-")
    return name if name.startswith("hf-hub:") else name.partition("@")[0]


def measure(
    recipe: Recipe,
    device: str | torch.device = "cpu",
    batch_size: int = 32,
    precision: str = "fp32",
    seconds: float = 3.0,
    say: Callable[[str], None] = lambda line: None,
) -> Rates:
    """How much of the recipe's work this device does a second, each model by itself, on made-up input.

    Args:
        device: `cpu`, `cuda`, ...
        batch_size: pictures, texts or samples at a time; on a GPU as many as fit (`--batch-size 256`).
        precision: of captioners and teachers, `fp32` as their stages have it unless told otherwise, or `bf16`; the
            student has the recipe's.
        seconds: at least so long for each number, which is the median of its batches.
        say: is told each number.

    Raises:
        FileNotFoundError: a model is known to a hub alone; put its architecture into `ARCHITECTURES`.
    """
    import torch

    from mobileclip2_lite.costs.latency import device_name
    from mobileclip2_lite.models.zoo import create_model

    device, found = torch.device(device), {}

    def note(what: Sequence[str], per_batch: int, run: Callable[[], Any]) -> None:
        rate = per_batch / median_seconds(run, seconds, device)
        found.update(dict.fromkeys(what, rate))
        say(f"{', '.join(what)}: {rate:.4g} a second")

    kinds = {"views": views, "texts": texts, "pairs": _pairs, "captions": captions}
    todo: dict[str, dict[str, list[str]]] = {}
    for item in work(recipe):
        kind, _, name = item.what.partition(" ")
        if kind in kinds:  # models of one architecture are equally fast
            todo.setdefault(architecture(name), {}).setdefault(kind, []).append(item.what)
    for name, wanted in todo.items():
        loaded = create_model(name)
        loaded.model.to(device)
        for kind, names in wanted.items():
            note(names, *kinds[kind](loaded, device, batch_size, precision))
    note([f"samples {recipe.student.model}"], *training(recipe, device, batch_size))
    threads = f", threads: {torch.get_num_threads()}" if device.type == "cpu" else ""
    return Rates(device_name(device) + threads, found, cpu_rates(recipe, seconds))


def write_rates(rates: Rates, path: str | os.PathLike) -> None:
    """Keep rates as JSON."""
    write_note(path, pretty(dataclasses.asdict(rates)))


def read_rates(path: str | os.PathLike) -> Rates:
    """The rates of `write_rates`.

    Raises:
        ValueError: the file is not of that kind; names it.
    """
    try:
        return Rates(**json.loads(place_of(path).read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no rates ({error}): write it with `plan --measure --rates {path}`") from error


def _pictures(loaded: LoadedModel, count: int, device: torch.device) -> torch.Tensor:
    import torch

    side = loaded.preprocess.image_size
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, device=device)


def views(loaded: LoadedModel, device: torch.device, count: int, precision: str) -> tuple[int, Callable]:
    """`count` pictures, and what passes them through the image tower."""
    pictures = _pictures(loaded, count, device)
    return count, _inferring(
        lambda: loaded.model.encode_image(loaded.preprocess.normalize(pictures)), device, precision
    )


def texts(loaded: LoadedModel, device: torch.device, count: int, precision: str) -> tuple[int, Callable]:
    """`count` captions of usual length, and what passes them through the text tower."""
    from mobileclip2_lite.models.trimming import trim

    tokens = trim(loaded.model, loaded.tokenizer([CAPTION] * count)).to(device)
    return count, _inferring(lambda: loaded.model.encode_text(tokens), device, precision)


def _pairs(loaded: LoadedModel, device: torch.device, count: int, precision: str) -> tuple[int, Callable]:
    (_, image), (_, text) = (make(loaded, device, count, precision) for make in (views, texts))
    return count, lambda: (image(), text())


def captions(loaded: LoadedModel, device: torch.device, count: int, precision: str) -> tuple[int, Callable]:
    """About `count` captions, five an image, and what writes them."""
    from mobileclip2_lite.captioning.generation import generate

    settings = Generate(captions=5, min_length=15, max_length=17)  # random weights do not know where to end
    pictures, count = _pictures(loaded, max(1, count // 5), device), max(1, count // 5)

    def run() -> None:
        generate(loaded, pictures, settings, [rng(0, "plan", i) for i in range(count)], precision=precision)

    return count * settings.captions, run


def _inferring(run: Callable[[], Any], device: torch.device, precision: str) -> Callable[[], None]:
    """`run` without gradients, in the precision that the device can do."""
    import torch

    from mobileclip2_lite.models.loaded import autocast, usable_precision

    usable = usable_precision(precision, device)

    def inferring() -> None:
        with torch.inference_mode(), autocast(usable, device):
            run()

    return inferring


def training(recipe: Recipe, device: torch.device, count: int) -> tuple[int, Callable]:
    """A step of the recipe's student on one batch: stored views and embeddings, real texts and captions."""
    import torch

    from mobileclip2_lite.models.card import TeacherCard
    from mobileclip2_lite.training.distributed import Processes
    from mobileclip2_lite.training.feeding import CAPTIONS, REAL, PreparedBatch, TextGroup, Tokens
    from mobileclip2_lite.training.step import Stepper

    settings: Train = dataclasses.replace(recipe.student, batch_size=count, tracker="none")
    teachers = recipe.reinforce.teachers if settings.distill else ()
    cards = {name: TeacherCard(name, logit_scale=50.0, dimension=dimension(name)) for name in teachers}
    stepper = Stepper(settings, cards, 1_000, 0, Processes(device=device))
    tokens = Tokens(stepper.loaded.tokenizer, stepper.cut)([CAPTION] * count).to(device)
    rows = {name: torch.randn(count, card.dimension, device=device) for name, card in cards.items()}
    rows = {name: torch.nn.functional.normalize(row, dim=1) for name, row in rows.items()}
    pictures = _pictures(stepper.loaded, count, device)
    names = (REAL, CAPTIONS) if settings.captioners else (REAL,)
    groups = [TextGroup(name, [], tokens, rows) for name in names]
    batch = PreparedBatch([str(i) for i in range(count)], pictures, groups, rows)
    return count, lambda: stepper(1, [batch])


def cpu_rates(recipe: Recipe, seconds: float = 1.0) -> dict[str, float]:
    """What one CPU core does beside the device: views replayed for the teachers, samples loaded for the student."""
    import torch
    from PIL import Image

    from mobileclip2_lite.models.resolve import resolve

    file, cpu = io.BytesIO(), torch.device("cpu")
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    data, chance = file.getvalue(), rng(0, "cpu")
    views = [draw(chance, 640, 480, recipe.reinforce.augment) for _ in range(recipe.reinforce.views)]
    sides = {resolve(architecture(name)).preprocess.image_size for name in recipe.reinforce.teachers}
    side = resolve(recipe.student.model).preprocess.image_size

    def reinforce() -> None:
        image = decoding.pixels(data)
        for size in sides:
            for view in views:
                replay_pixels(image, view, size)

    turn = iter(range(10**9))

    def load() -> None:
        replay_pixels(decoding.pixels(data), views[next(turn) % len(views)], side)

    return {
        "views replayed": len(views) / median_seconds(reinforce, seconds, cpu),
        "samples loaded": 1 / median_seconds(load, seconds, cpu),
    }


def median_seconds(run: Callable[[], Any], seconds: float, device: torch.device) -> float:
    """Median of the seconds of a call, after one to warm up; at least three calls."""
    from mobileclip2_lite.costs.latency import waiting

    return statistics.median(call_seconds(run, (3, 10**9), seconds, wait=waiting(device)))
