"""The commands that take models to where they are used: `export`, `compare`, `playground`, `search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from mobileclip2_lite import recipes
from mobileclip2_lite.cli.drawn import refuse_drawn
from mobileclip2_lite.cli.options import AllowDrawn, Flat, Positional
from mobileclip2_lite.cli.places import Commands, needs_disk
from mobileclip2_lite.deployment.index_parts import NEEDS_DISK
from mobileclip2_lite.work import cache
from mobileclip2_lite.work.files import sha256_bytes
from mobileclip2_lite.work.place import StorePath, on_disk, place_of

if TYPE_CHECKING:
    from mobileclip2_lite.deployment.search import Index

CALIBRATION = 32
"""Images on which int8 measures the range of its activations."""
UNREAD = 20
"""Files that could not be read of which `search` prints the names."""


def add(app: Commands, recipe: recipes.Recipe) -> None:
    """Register the commands."""
    _add_export(app, recipe)
    _add_compare(app, recipe)
    _add_playground(app, recipe)
    _add_search(app)


def _add_export(app: Commands, recipe: recipes.Recipe) -> None:
    """The model for other programs."""

    @app.command
    def export(
        model: Positional[str],
        out: Positional[Path],
        precisions: tuple[str, ...] = ("fp32",),
        images: Path | None = None,
        coreml: bool = False,
        litert: bool = False,
    ) -> None:
        """Write both towers as ONNX, folded, checked, with preprocess and tokenizer inside.

        Args:
            model: with trained weights: a folder, a checkpoint, an embedded model, `MODEL@TAG`, `hf-hub:OWNER/NAME`.
            out: folder to write.
            precisions: of `fp32`, `fp16`, `int8`; int8 measures its ranges on images.
            images: folder of images like those that the model will see, of which some dozens are taken (default:
                scenes of the embedded world).
            coreml: also write Core ML packages (the extra `coreml`), with fixed and with flexible batch.
            litert: also write LiteRT files (the extra `litert`).
        """
        from PIL import Image

        from mobileclip2_lite import emoji_world
        from mobileclip2_lite.deployment.export import export_onnx, table
        from mobileclip2_lite.deployment.image_files import some_images
        from mobileclip2_lite.models.embedded import load

        loaded = load(model, device="cpu")
        scenes = emoji_world.retrieval_set(recipe.world, CALIBRATION, side=256)
        texts = [captions[0] for captions in scenes.captions]
        pictures = [Image.fromarray(picture) for picture in scenes.images]
        if images:
            pictures = some_images(images, CALIBRATION)
        print(table(export_onnx(loaded, out, precisions=precisions, images=pictures, texts=texts, name=model)))
        if coreml:
            from mobileclip2_lite.deployment.mobile import export_coreml

            for path in export_coreml(loaded, out, name=model, flexible=True):
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                print(f"{path}: {size / 1e6:.1f} MB, not compared: Core ML predicts on macOS alone")
        if litert:
            from mobileclip2_lite.deployment.mobile import export_litert

            print(table(export_litert(loaded, out, name=model)))


def _add_compare(app: Commands, recipe: recipes.Recipe) -> None:
    """Models as files, side by side."""

    @app.command
    def compare(
        models: Positional[tuple[str, ...]],
        out: Path = Path("runs/compare"),
        precisions: tuple[str, ...] = ("fp32", "fp16", "int8"),
        settings: Annotated[recipes.Evaluate, Flat] = recipe.evaluate,
        world: recipes.World = recipe.world,
    ) -> None:
        """Export models and set the files side by side: MB, ms, accuracy on drawn test sets, a precision's price.

        Args:
            models: a student, its control, a teacher: folders, checkpoints, embedded models, `MODEL@TAG`.
            out: folder to write the files to.
            precisions: of `fp32`, `fp16`, `int8`.
            settings: sizes of the embedded test sets.
            world: which names and sizes.
        """
        from mobileclip2_lite.costs.deployed import compare as compare_files
        from mobileclip2_lite.costs.deployed import table
        from mobileclip2_lite.models.embedded import load

        names = {Path(model).name: model for model in models}
        if len(names) < len(models) or not models:
            raise ValueError(f"name one model or more, each with a name of its own: {', '.join(models) or 'none'}")
        loaded = {name: load(model, device="cpu") for name, model in names.items()}
        print(table(compare_files(loaded, out, world, settings, precisions)))
        if set(precisions) - {"fp32"}:
            print("In parentheses: points against the same model's fp32, ± half the 95 % interval of that.")


def _add_playground(app: Commands, recipe: recipes.Recipe) -> None:
    """The model in a browser."""

    @app.command
    def playground(
        model: Positional[str],
        out: Positional[Path],
        runtime: Path = Path("runs/npm/package/dist"),
        album: Path | None = None,
        serve: bool = False,
        port: int = 8_000,
        allow_drawn: AllowDrawn = False,
    ) -> None:
        """Write a page that runs the model in a browser: draw or drop an image, name it, search an album.

        Args:
            model: a folder with exported towers, or any model with weights.
            out: folder to write.
            runtime: the folder `dist` of the npm package onnxruntime-web (`make playground` fetches it).
            album: folder of images to search (default: drawn scenes).
            serve: start a server of the page on this machine alone, until Ctrl-C.
            port: of that server.
        """
        from mobileclip2_lite.deployment.playground import (
            check_runtime,
            check_tokenizer,
            drawn_album,
            folder_album,
            server,
            write_playground,
        )
        from mobileclip2_lite.deployment.towers import exported_folder

        if serve:
            out = on_disk(out, "--serve shows the page of a folder of this machine: leave it out, or name a disk")
        if album:
            refuse_drawn((model,), album, "MODEL", allow_drawn)
        check_runtime(runtime)
        pictures, start = folder_album(album, model) if album else drawn_album(recipe.world, model)
        place = out / ".towers"
        if isinstance(out, StorePath):
            place = cache.made_folder("towers", sha256_bytes(str(place_of(model)).encode())[:24])
        towers = exported_folder(model, place, check=lambda text_cfg: check_tokenizer(text_cfg, model))
        print(write_playground(towers, out, runtime, pictures, start))
        if not serve:
            print("A local server shows it: this command with --serve, or python -m http.server in that folder")
        if serve:
            with server(out, port) as running:
                print(f"http://127.0.0.1:{running.server_address[1]}/ shows it; Ctrl-C ends it")
                running.serve_forever()


def _add_search(app: Commands) -> None:
    """Images found again."""

    @app.command
    @needs_disk(index=NEEDS_DISK)
    def search(
        folder: Positional[Path],
        text: Annotated[Positional[str | None], tyro.conf.arg(metavar="TEXT")] = None,
        image: tuple[Path, ...] = (),
        without: tuple[str, ...] = (),
        model: str | None = None,
        top: int = 10,
        dimensions: int | None = None,
        index: Path | None = None,
        html: Path | None = None,
        duplicates: bool = False,
        least: float = 0.95,
        allow_drawn: AllowDrawn = False,
    ) -> None:
        """Find images of a folder by text, by image or by both, or images that are the same.

        Args:
            folder: images, in subfolders and linked folders too; they are only read.
            text: what to look for.
            image: look for images like these.
            without: texts that shall not fit.
            model: a folder with exported towers, or any model with weights: `photo-teacher-vectors`,
                `hf-hub:apple/MobileCLIP2-S0`, a student (default: an embedded teacher, for drawings alone).
            top: how many to print.
            dimensions: compare the first so many dimensions alone, of a model trained for it (`train --nested`).
            index: where the index lies (default: in the folder itself; a store's in this machine's cache).
            html: also write a page with thumbnails.
            duplicates: print groups of images that are the same.
            least: cosine from which two images are the same.
        """
        from mobileclip2_lite.deployment.search import open_index
        from mobileclip2_lite.reports.search import shown, write_search_page

        if not (text or image or duplicates):
            raise ValueError("search needs a text, --image, or --duplicates")
        refuse_drawn((model or recipes.Reinforce().teachers[-1],), folder, "--model", allow_drawn)
        found = open_index(folder, model, index=index)
        hits = found.search(text, list(image), top, without, dimensions) if text or image else []
        groups = found.duplicates(least) if duplicates else None
        for hit in hits:
            print(f"{hit.score:.3f}  {shown(hit.path)}")
        if warning := found.too_alike(least) if duplicates else "":
            print(f"{warning} (--least, --model)")
        for group in groups or ():
            print("\n".join(["the same:", *(f"  {shown(path)}" for path in group)]))
        if groups == []:
            print(f"no two images are the same: none have a cosine of {least:g} or more (--least)")
        print(f"{len(found.entries):,} images in the index")
        _print_unread(found)
        if html:
            asked = " + ".join([*([text] if text else []), *(shown(one.name) for one in image)])
            asked += "".join(f", without {one}" for one in without)
            print(write_search_page(html, found, hits, asked, groups, warning=warning))


def _print_unread(found: Index) -> None:
    """The first files that could not be read, and where there are more, how many for which reason."""
    from mobileclip2_lite.reports.search import shown

    for name, reason in found.unread[:UNREAD]:
        print(f"  not read: {shown(name)} ({reason})")
    if len(found.unread) > UNREAD:
        print("  " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.dropped.items())) + " in all")
