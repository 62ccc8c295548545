"""What a recipe takes before it is started: pairs, bytes, device-hours and money of each stage.

Paper: MobileCLIP2 (arXiv 2508.20691) reinforces 12.8M and 1.9B pairs and gives the sizes of its sets; `PAPER_BYTES` has
MobileCLIP's count of them. Bytes are those of a sample that is really encoded; hours are counts over rates that
`measure` finds on the device at hand with models of the recipe's architectures, whose weights may be random. Reads
and writes nothing but rates, as JSON. Several devices are taken to be as fast as their number; training seldom is.
Taught by notebooks/70_scaling.ipynb.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import augment, decoding, shards
from .page import Block, Table, Text
from .recipes import Generate, Recipe, Train
from .stages import pretty, rng, stable_uid, write_atomic

if TYPE_CHECKING:
    import torch

    from .models.zoo import LoadedModel

CAPTION = "a photograph of two small dogs on a wooden table next to a window"
"""A caption of usual length, 15 tokens of CLIP's: texts and captions are measured with it."""
ARCHITECTURES = {"hf-hub:apple/mobileclip2_coca_dfn2b_s13b_mscoco38k_s12m_context77": "coca_ViT-L-14"}
"""Architecture of models that only a hub knows, to measure them without it."""
PAPER_BYTES = {2: 24 * 1024, 5: 33 * 1024, 30: 108 * 1024}
"""Views -> bytes of a sample's embeddings: two teachers of 768 dimensions, six texts, bf16 (MobileCLIP)."""


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


def work(recipe: Recipe) -> list[Item]:
    """How often each model of a recipe is run, from the first stage to one student.

    Raises:
        ValueError: the recipe takes all pairs of its source (`pairs.count` 0), so their number is not known.
    """
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


def sample_bytes(recipe: Recipe, image_bytes: int = 0) -> dict[str, int]:
    """Bytes of the members of one reinforced sample of a recipe, as `shards` encodes them.

    Args:
        image_bytes: of the picture; 0 leaves it out, as the published sets do.
    """
    import torch

    settings, uid = recipe.reinforce, stable_uid("planned")
    captions = [CAPTION] * recipe.caption.generate.captions
    texts = {name.rpartition("/")[2]: captions for name in recipe.caption.captioners}
    chance, digest = rng(0, "planned"), "0" * 64
    views = [augment.draw(chance, 640, 480, settings.augment, digest) for _ in range(settings.views)]
    rows = {}
    for name in settings.teachers:
        width = dimension(name)
        counts = {"image": settings.views, "text": 1, **{f"syn_text_{c}": len(t) for c, t in texts.items()}}
        rows |= {f"{kind}/{name}": torch.ones(count, width) for kind, count in counts.items()}
    meta = {"source": uid, "width": 640, "height": 480, "sha256": digest}
    sample = shards.Sample(uid, bytes(image_bytes), "jpg", CAPTION, meta, texts, views, rows)
    members = {name: len(data) for name, data in shards.members(sample, settings.storage).items()}
    return {name: size for name, size in members.items() if image_bytes or name != "jpg"}


def tar_bytes(members: Mapping[str, int]) -> int:
    """What members take in a tar: a header of 512 bytes each, and whole blocks of 512."""
    return sum(512 + -(-size // 512) * 512 for size in members.values())


def set_bytes(recipe: Recipe, image_bytes: int = 0) -> int:
    """Bytes of the whole reinforced set in tars; `image_bytes` as in `sample_bytes`."""
    return tar_bytes(sample_bytes(recipe, image_bytes)) * kept_pairs(recipe)


def dimension(name: str) -> int:
    """Size of a model's embeddings, from its config; needs no weights."""
    from .models.sources import resolve

    return int(resolve(architecture(name)).model_cfg["embed_dim"])


def architecture(name: str) -> str:
    """What `create_model` builds for a model of a recipe without its weights."""
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name.startswith("lite-captioner-"):
        return "lite-coca"
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

    from .latency import device_name
    from .models.zoo import create_model

    device, found = torch.device(device), {}

    def note(what: Sequence[str], per_batch: int, run: Callable[[], Any]) -> None:
        rate = per_batch / _median_seconds(run, seconds, device)
        found.update(dict.fromkeys(what, rate))
        say(f"{', '.join(what)}: {rate:.4g} a second")

    kinds = {"views": _views, "texts": _texts, "pairs": _pairs, "captions": _captions}
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
    note([f"samples {recipe.student.model}"], *_training(recipe, device, batch_size))
    threads = f", threads: {torch.get_num_threads()}" if device.type == "cpu" else ""
    return Rates(device_name(device) + threads, found, cpu_rates(recipe, seconds))


def write_rates(rates: Rates, path: str | os.PathLike) -> None:
    """Keep rates as JSON."""
    write_atomic(Path(path), pretty(dataclasses.asdict(rates)))


def read_rates(path: str | os.PathLike) -> Rates:
    """The rates of `write_rates`.

    Raises:
        ValueError: the file is not of that kind; names it.
    """
    try:
        return Rates(**json.loads(Path(path).read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} holds no rates ({error}): write it with `plan --measure --rates {path}`") from error


def _pictures(loaded: LoadedModel, count: int, device: torch.device) -> torch.Tensor:
    import torch

    side = loaded.preprocess.image_size
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, device=device)


def _views(loaded: LoadedModel, device: torch.device, count: int, precision: str) -> tuple[int, Callable]:
    pictures = _pictures(loaded, count, device)
    return count, _inferring(
        lambda: loaded.model.encode_image(loaded.preprocess.normalize(pictures)), device, precision
    )


def _texts(loaded: LoadedModel, device: torch.device, count: int, precision: str) -> tuple[int, Callable]:
    from .models.trimming import trim

    tokens = trim(loaded.model, loaded.tokenizer([CAPTION] * count)).to(device)
    return count, _inferring(lambda: loaded.model.encode_text(tokens), device, precision)


def _pairs(loaded: LoadedModel, device: torch.device, count: int, precision: str) -> tuple[int, Callable]:
    (_, image), (_, text) = (make(loaded, device, count, precision) for make in (_views, _texts))
    return count, lambda: (image(), text())


def _captions(loaded: LoadedModel, device: torch.device, count: int, precision: str) -> tuple[int, Callable]:
    from .captions.generation import generate

    settings = Generate(captions=5, min_length=15, max_length=17)  # random weights do not know where to end
    pictures, count = _pictures(loaded, max(1, count // 5), device), max(1, count // 5)

    def run() -> None:
        generate(loaded, pictures, settings, [rng(0, "plan", i) for i in range(count)], precision=precision)

    return count * settings.captions, run


def _inferring(run: Callable[[], Any], device: torch.device, precision: str) -> Callable[[], None]:
    """`run` without gradients, in the precision that the device can do."""
    import torch

    from .optimisation import autocast, usable_precision

    usable = usable_precision(precision, device)

    def inferring() -> None:
        with torch.inference_mode(), autocast(usable, device):
            run()

    return inferring


def _training(recipe: Recipe, device: torch.device, count: int) -> tuple[int, Callable]:
    """A step of the recipe's student on one batch: stored views and embeddings, real texts and captions."""
    import torch

    from .distributed import Processes
    from .feeding import Fed, Tokens
    from .stepping import Stepper

    settings: Train = dataclasses.replace(recipe.student, batch_size=count, tracker="none")
    teachers = recipe.reinforce.teachers if settings.distill else ()
    cards = {name: {"logit_scale": 50.0, "dimension": dimension(name)} for name in teachers}
    stepper = Stepper(settings, cards, 1_000, 0, Processes(device=device))
    tokens = Tokens(stepper.loaded.tokenizer, stepper.cut)([CAPTION] * count).to(device)
    groups = 1 + bool(settings.captioners)
    rows = {name: torch.randn(count, card["dimension"], device=device) for name, card in cards.items()}
    rows = {name: torch.nn.functional.normalize(row, dim=1) for name, row in rows.items()}
    pictures = _pictures(stepper.loaded, count, device)
    fed = Fed([str(i) for i in range(count)], pictures, [tokens] * groups, rows, [rows] * groups)
    return count, lambda: stepper(1, [fed])


def cpu_rates(recipe: Recipe, seconds: float = 1.0) -> dict[str, float]:
    """What one CPU core does beside the device: views replayed for the teachers, samples loaded for the student."""
    import torch
    from PIL import Image

    from .models.sources import resolve

    file, cpu = io.BytesIO(), torch.device("cpu")
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    data, chance = file.getvalue(), rng(0, "cpu")
    views = [augment.draw(chance, 640, 480, recipe.reinforce.augment) for _ in range(recipe.reinforce.views)]
    sides = {resolve(architecture(name)).preprocess.image_size for name in recipe.reinforce.teachers}
    side = resolve(recipe.student.model).preprocess.image_size

    def reinforce() -> None:
        image = decoding.pixels(data)
        for size in sides:
            for view in views:
                augment.replay_pixels(image, view, size)

    turn = iter(range(10**9))

    def load() -> None:
        augment.replay_pixels(decoding.pixels(data), views[next(turn) % len(views)], side)

    return {
        "views replayed": len(views) / _median_seconds(reinforce, seconds, cpu),
        "samples loaded": 1 / _median_seconds(load, seconds, cpu),
    }


def _median_seconds(run: Callable[[], Any], seconds: float, device: torch.device) -> float:
    """Median of the seconds of a call, after one to warm up; at least three calls."""
    import torch

    def once() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    once()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        times.append(once())
    return statistics.median(times)


def plan(recipe: Recipe, rates: Rates | None = None, price: float = 0.0, image_bytes: int = 100_000) -> list[Block]:
    """The plan, to be printed: work with hours and money where there are rates, bytes, and cores that keep up.

    Args:
        price: of a device for an hour, in any currency.
        image_bytes: of an average picture.
    """
    out = [_work_table(work(recipe), rates, price), _bytes_table(recipe, image_bytes)]
    return [Text(f"A device is one {rates.device}."), *out, _cores_table(recipe, rates)] if rates else out


def hours(items: Sequence[Item], rates: Rates) -> float:
    """Device-hours of some work.

    Raises:
        ValueError: no rate is known for it.
    """
    if missing := [item.what for item in items if item.what not in rates.per_second]:
        raise ValueError(f"no rate of {', '.join(missing)}: measure this recipe (plan --measure)")
    return sum(item.count / rates.per_second[item.what] for item in items) / 3600


def _work_table(items: Sequence[Item], rates: Rates | None, price: float) -> Table:
    if not rates:
        return Table(["stage", "work", "count"], [[item.stage, item.what, f"{item.count:,}"] for item in items])
    header, rows = ["stage", "work", "count", "a second", "device-hours"], []
    for item in items:
        rows.append([item.stage, item.what, f"{item.count:,}", f"{rates.per_second[item.what]:,.4g}"])
    rows.append(["all", "", "", ""])
    for row, chosen in zip(rows, [*([item] for item in items), items], strict=True):
        spent = hours(chosen, rates)
        row += [f"{spent:,.4g}", *([f"{spent * price:,.0f}"] if price else [])]
    return Table([*header, *(["money"] if price else [])], rows)


def _bytes_table(recipe: Recipe, image_bytes: int) -> Table:
    members, pairs = sample_bytes(recipe, image_bytes), kept_pairs(recipe)
    rows = [[name, f"{size:,}", _size(size * pairs)] for name, size in members.items()]
    bare = {name: size for name, size in members.items() if name != "jpg"}
    for what, chosen in (("in tars", members), ("in tars, without pictures", bare)):
        rows.append([what, f"{tar_bytes(chosen):,}", _size(tar_bytes(chosen) * pairs)])
    return Table(["member", "bytes a sample", f"{pairs:,} samples"], rows)


def _cores_table(recipe: Recipe, rates: Rates) -> Table:
    """CPU cores that replay and load as fast as one device works."""
    seconds = 3600 * hours([item for item in work(recipe) if item.stage == "reinforce"], rates)
    needed = {
        "reinforce": ("views replayed", kept_pairs(recipe) * recipe.reinforce.views / seconds),
        "train": ("samples loaded", rates.per_second[f"samples {recipe.student.model}"]),
    }
    rows = []
    for stage, (what, wanted) in needed.items():
        rows.append([stage, what, f"{rates.per_core[what]:,.4g}", f"{wanted / rates.per_core[what]:,.2g}"])
    return Table(["stage", "work", "a core and second", "cores for a device"], rows)


def _size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.3g} {unit}"
        count /= 1000
    raise AssertionError
