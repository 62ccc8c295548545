"""The exported student in the reader's browser: a folder with a page, the towers, and ONNX Runtime Web beside them.

Nothing of it needs a server of its own or a network: any server of static files does, and the page says so when it is
opened as a file. The runtime is npm's `onnxruntime-web`, which `make playground` fetches; nothing else needs it. The
notebook widget shows the same module. Tokenizer and preprocess are written anew in JavaScript and tested to be the
Python ones' equals. Reads an export and an album; writes one folder. The paper has no such page.
Taught by notebooks/60_deploy.ipynb.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import html.entities
import http.server
import io
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mobileclip2_lite import emoji_world
from mobileclip2_lite.deployment.image_files import Unread, find_images, images_folder, images_of
from mobileclip2_lite.deployment.runtime import Exported, load_exported, metadata, towers_here
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.tokenizer import prefix_merges
from mobileclip2_lite.work.files import pretty, write_atomic
from mobileclip2_lite.work.place import StorePath, here, made_here, place_of

if TYPE_CHECKING:
    from mobileclip2_lite.recipes import World

WEB = Path(__file__).parent / "web"
"""The page's sources."""
MODULES = ("tokenizer.mjs", "images.mjs", "towers.mjs", "playground.mjs")
"""In the order in which one needs the other."""
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page needs of `onnxruntime-web/dist`: a module, and the 14 MB that it runs."""
THUMBNAIL = 256
"""Largest side of an album's images, pixels."""


class Picture(NamedTuple):
    """An image of the album."""

    name: str
    """What is shown below it."""
    image: Any
    """PIL image or uint8 (H, W, 3)."""


@dataclass(frozen=True)
class Start:
    """What the page shows before the reader does anything."""

    name: str = ""
    """What the page calls the model."""
    names: tuple[str, ...] = ()
    """Names for images."""
    template: str = "a picture of a {}"
    """Sentence around a name."""
    query: str = ""
    """What the album is searched for."""
    credit: str = ""
    """A line below the page: whose images are shown."""


def write_playground(
    towers: str | os.PathLike,
    folder: str | os.PathLike,
    runtime: str | os.PathLike,
    album: Sequence[Picture] = (),
    start: Start = Start(),
) -> Path | StorePath:
    """Write the playground of exported towers; returns the page.

    Args:
        towers: folder that `export_onnx` wrote.
        folder: made if it does not exist; files in it are replaced. A store gets the page when it is whole.
        runtime: the folder `dist` of the npm package onnxruntime-web.
        album: images to search; the first is the one that the page begins with.
        start: names, query and credit.

    Raises:
        FileNotFoundError: the towers or the runtime are not there.
        ValueError: the model's tokenizer is not CLIP's.
    """
    towers, target = towers_here(towers), place_of(folder)
    exported = load_exported(towers)
    check_runtime(runtime)
    with made_here(target) as made:
        _write(towers, exported, made, here(runtime), album, start)
    return target / "index.html"


def _write(
    towers: Path, exported: Exported, folder: Path, runtime: Path, album: Sequence[Picture], start: Start
) -> None:
    config, tokenizer = model_config(towers, exported, start), tokenizer_config(towers)
    (folder / "runtime").mkdir(parents=True, exist_ok=True)
    (folder / "album").mkdir(exist_ok=True)
    for file in RUNTIME:
        shutil.copyfile(runtime / file, folder / "runtime" / file)
    for tower in ("image.onnx", "text.onnx"):
        shutil.copyfile(towers / tower, folder / tower)
    for file in (*MODULES, "index.html", "page.css", "style.css"):
        shutil.copyfile(WEB / file, folder / file)
    rows = []
    for number, (row, data) in enumerate(_album(exported, album)):
        write_atomic(folder / "album" / f"{number:03d}.png", data)
        rows.append({**row, "url": f"album/{number:03d}.png"})
    for file, value in (("tokenizer.json", tokenizer), ("album.json", rows)):
        write_atomic(folder / file, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))
    write_atomic(folder / "model.json", pretty(config))


def check_runtime(runtime: str | os.PathLike) -> None:
    """Raise FileNotFoundError with the remedy where a folder is not onnxruntime-web's."""
    for file in RUNTIME:
        if not (place_of(runtime) / file).is_file():
            raise FileNotFoundError(
                f"{runtime} has no {file}: name the folder `dist` of the npm package onnxruntime-web "
                "(`make playground` fetches it)"
            )


def model_config(towers: str | os.PathLike, exported: Exported, start: Start) -> dict[str, Any]:
    """What the page knows of the model, JSON data."""
    return {
        "name": start.name or Path(towers).name,
        "preprocess": browser_preprocess(exported.preprocess),
        "logit_scale": exported.logit_scale,
        "names": list(start.names),
        "template": start.template,
        "query": start.query,
        "credit": start.credit,
    }


def browser_preprocess(preprocess: Preprocess) -> dict[str, Any]:
    """What `images.mjs` needs to do what this preprocess does with this Pillow."""
    import PIL

    return {**preprocess.to_config(), "pillow": int(PIL.__version__.partition(".")[0])}


def tokenizer_config(towers: str | os.PathLike) -> dict[str, Any]:
    """What `tokenizer.mjs` needs, from the text tower's metadata.

    Raises:
        ValueError: the model's tokenizer is another than CLIP's byte-pair encoding.
    """
    config = json.loads(metadata(Path(towers) / "text.onnx")["tokenizer"])
    check_tokenizer(config, str(towers))
    return {
        "merges": prefix_merges(config["vocab_size"]),
        "context_length": config["context_length"],
        "entities": html.entities.html5,
    }


def check_tokenizer(text_cfg: Mapping[str, Any], name: str) -> None:
    """Raise ValueError, which names the model as `name` does, where its tokenizer is not CLIP's."""
    other = text_cfg.get("hf_tokenizer_name")
    called = f"the tokenizer {other}" if other else "the WordPiece of a sentence encoder"
    if other or text_cfg.get("sentence_encoder"):
        raise ValueError(
            f"{name}: {called} has no twin in the browser, CLIP's tokenizer has: take a model that reads as CLIP does, "
            "such as a student of this teacher"
        )


def _album(exported: Exported, album: Sequence[Picture]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Name and feature of each image, and the image as PNG."""
    from PIL import Image

    for name, image in album:
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image.convert("RGB")
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        data = io.BytesIO()
        image.save(data, "PNG", optimize=True)
        feature = [round(float(value), 6) for value in exported.embed_images([image])[0]]
        yield {"name": name, "feature": feature}, data.getvalue()


def drawn_album(world: World, name: str = "", count: int = 48) -> tuple[list[Picture], Start]:
    """An album of the embedded world: eight single objects, whose names are the start's, and scenes of several."""
    images, labels, names = emoji_world.zero_shot_set(dataclasses.replace(world, names=8), 1)
    pictures = [Picture(names[label], image) for image, label in zip(images, labels, strict=True)]
    images, captions = emoji_world.retrieval_set(world, count - len(pictures))
    pictures += [Picture(texts[0], image) for image, texts in zip(images, captions, strict=True)]
    return pictures, Start(name, tuple(names), "a picture of a {}", captions[-1][0], emoji_world.ATTRIBUTION)


def folder_album(folder: str | os.PathLike, name: str = "", count: int = 60) -> tuple[list[Picture], Start]:
    """An album of the first `count` readable images of a folder, and a start with names for photographs.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no image that can be read.
    """
    dropped = Unread()
    found = images_of(images_folder(folder), find_images(folder, dropped), dropped)
    pictures = [Picture(Path(entry.name).stem, image) for entry, image in itertools.islice(found, count)]
    if not pictures:
        raise ValueError(f"{folder} holds no image that can be read ({dict(dropped) or 'no images'})")
    names = ("person", "dog", "cat", "car", "building", "flower", "plate of food", "landscape")
    return pictures, Start(name, names, "a photo of a {}", "a dog outdoors")


def bundle(*more: str) -> str:
    """The page's modules and `more` as one, for where there is no folder to import from: a notebook's widget."""
    lines = []
    for file in (*MODULES, *more):
        source = (WEB / file).read_text("utf-8").splitlines()
        lines += [line for line in source if not (line.startswith("import ") and ' from "./' in line)]
    return "\n".join(lines) + "\n"


def widget(
    towers: str | os.PathLike, runtime: str | os.PathLike, album: Sequence[Picture] = (), start: Start = Start()
) -> Any:
    """The playground in a notebook; arguments and errors as `write_playground` has them.

    Raises:
        ModuleNotFoundError: anywidget is missing: `pip install mobileclip2_lite[notebooks]`.
    """
    try:
        import anywidget
        import traitlets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'the playground needs anywidget in a notebook: pip install "mobileclip2_lite[notebooks]"', name=error.name
        ) from error

    check_runtime(runtime)
    towers, runtime = towers_here(towers), here(runtime)
    exported = load_exported(towers)

    class Playground(anywidget.AnyWidget):
        """The module of the page, fed by the kernel."""

        _esm = bundle("widget.mjs")
        _css = (WEB / "style.css").read_text("utf-8")
        config = traitlets.Dict().tag(sync=True)
        tokenizer = traitlets.Dict().tag(sync=True)
        album = traitlets.List().tag(sync=True)
        image = traitlets.Bytes().tag(sync=True)
        text = traitlets.Bytes().tag(sync=True)
        runtime = traitlets.Bytes().tag(sync=True)
        wasm = traitlets.Bytes().tag(sync=True)

    return Playground(
        config=model_config(towers, exported, start),
        tokenizer=tokenizer_config(towers),
        album=[
            {**row, "url": f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"}
            for row, data in _album(exported, album)
        ],
        image=(towers / "image.onnx").read_bytes(),
        text=(towers / "text.onnx").read_bytes(),
        runtime=(runtime / RUNTIME[0]).read_bytes(),
        wasm=(runtime / RUNTIME[1]).read_bytes(),
    )


def server(folder: str | os.PathLike, port: int = 8_000) -> http.server.ThreadingHTTPServer:
    """A server of the folder on this machine alone; `serve_forever` starts it, port 0 takes a free one.

    Raises:
        FileNotFoundError: the folder holds no playground.
        OSError: the port is taken.
    """
    if not (Path(folder) / "index.html").is_file():
        raise FileNotFoundError(f"{folder} has no index.html: write the playground first")
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, directory=folder))


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Says nothing of each request, and names the types that some systems do not know."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012
    extensions_map[".wasm"] = "application/wasm"

    def log_message(self, *_: Any) -> None:
        """Requests are not worth a line each."""
