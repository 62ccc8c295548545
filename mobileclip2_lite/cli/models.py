"""The commands that measure and use models: `evaluate`, `latency`, `plan`, `export`, `playground`, `search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from mobileclip2_lite import recipes
from mobileclip2_lite.cli.drawn import refuse_drawn, refuse_for_sets
from mobileclip2_lite.work.place import on_disk

Positional = tyro.conf.Positional
CALIBRATION = 32
"""Images on which int8 measures the range of its activations."""


def add(app: tyro.extras.SubcommandApp, recipe: recipes.Recipe) -> None:
    """Register the commands."""
    _add_evaluate(app, recipe)
    _add_latency(app)
    _add_plan(app, recipe)
    _add_export(app, recipe)
    _add_playground(app, recipe)
    _add_search(app)


def _add_evaluate(app: tyro.extras.SubcommandApp, recipe: recipes.Recipe) -> None:
    """What a model can do."""

    @app.command
    def evaluate(
        model: Positional[str],
        sets: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = (),
        split: str = "test",
        images: Path | None = None,
        templates: tuple[str, ...] = (),
        dimensions: tuple[int, ...] = (),
        output: Path | None = None,
        settings: Annotated[recipes.Evaluate, tyro.conf.arg(name="")] = recipe.evaluate,
        world: recipes.World = recipe.world,
        device: str = "auto",
        allow_drawn: bool = False,
    ) -> None:
        """Zero-shot, retrieval, binding, relations and shifts of a model on the embedded world, or on public test sets.

        Args:
            model: with trained weights: a folder, a checkpoint, an embedded model, `MODEL@TAG`, `hf-hub:OWNER/NAME`.
            sets: other sets instead: a folder of pairs of yours (`hold-out`); a `wds_*` folder, address or
                `hf:OWNER/NAME`; a file of Karpathy's splits, SugarCrepe, SugarCrepe++ or DOCCI; a folder of DCI,
                Urban1k or with a folder a class; `datacomp`.
            split: the split of those sets.
            images: folder of a caption file's images, if they do not lie beside it.
            templates: prompts with `{}` for the class name, instead of each set's own.
            dimensions: measure embeddings cut to their first so many dimensions, too (`train --nested`).
            output: JSON file for the result on those sets.
            settings: sizes of the embedded test sets.
            world: which names and sizes.
            device: `cpu`, `cuda`, `cuda:N`, `mps`; `auto` takes the GPU, if there is one.
            allow_drawn: let models of the embedded world judge other images all the same.
        """
        from mobileclip2_lite.evaluation.public import evaluate_sets, result_lines
        from mobileclip2_lite.evaluation.suite import evaluate as evaluate_model
        from mobileclip2_lite.models.embedded import load

        refuse_for_sets(model, sets, allow_drawn)
        if sets:
            loaded, options = load(model, device=device), {"split": split, "images": images, "templates": templates}
            options["dimensions"] = dimensions
            for line in result_lines(evaluate_sets(loaded, sets, output, name=model, **options)):
                print(line)
            return
        if output or templates or images or dimensions:
            raise ValueError("--output, --templates, --images and --dimensions go with --set: name a test set")
        for metric, value in evaluate_model(load(model, device=device), world, settings).items():
            print(f"{metric:32} {value:.4f}")


def _add_latency(app: tyro.extras.SubcommandApp) -> None:
    """What a pass costs."""

    @app.command
    def latency(
        models: Positional[tuple[str, ...]],
        image_sizes: tuple[int, ...] = (),
        batch_sizes: tuple[int, ...] = (1,),
        threads: tuple[int, ...] = (1,),
        backends: tuple[str, ...] = ("eager",),
        output: Path | None = None,
    ) -> None:
        """Parameters, FLOPs, memory and milliseconds of both towers (random weights do).

        Args:
            models: names, folders or checkpoints.
            image_sizes: sides in pixels; each model's own if none is given.
            batch_sizes: pictures or texts a pass.
            threads: CPU threads.
            backends: of `eager`, `compiled`, `onnx`.
            output: JSON lines to append to; a picture of the family goes beside it.
        """
        from mobileclip2_lite.costs.latency import report

        report(
            models,
            output=output,
            image_sizes=image_sizes or (None,),
            batch_sizes=batch_sizes,
            threads=threads,
            backends=backends,
        )


def _add_plan(app: tyro.extras.SubcommandApp, recipe: recipes.Recipe) -> None:
    """What the whole way costs."""

    @app.command
    def plan(
        settings: Annotated[recipes.Recipe, tyro.conf.arg(name="")] = recipe,
        measure: bool = False,
        rates: Path | None = None,
        published: bool = False,
        device: str = "cpu",
        batch_size: int = 32,
        seconds: float = 3.0,
        price: float = 0.0,
        image_bytes: int = 100_000,
    ) -> None:
        """Pairs, bytes, device-hours and money of a recipe, before it is started.

        Args:
            settings: what is planned, and the precision of captioners and teachers when measuring.
            measure: find this device's rates first, with random weights: minutes on a CPU.
            rates: JSON of rates, to write with `--measure` and to read without.
            published: take the rates of an A100 that follow from the authors' published hours.
            device: measured device: `cpu`, `cuda`.
            batch_size: pictures, texts or samples at a time when measuring.
            seconds: at least so long for each number.
            price: of one device for an hour.
            image_bytes: of an average picture.
        """
        from mobileclip2_lite.costs import plan as plan_module
        from mobileclip2_lite.costs import rates as rates_module
        from mobileclip2_lite.costs.published import published_rates
        from mobileclip2_lite.costs.rates import read_rates, write_rates
        from mobileclip2_lite.reports.page import to_markdown

        found = None
        if measure:
            found = rates_module.measure(settings, device, batch_size, settings.precision, seconds, say=print)
            if rates:
                write_rates(found, rates)
        elif rates:
            found = read_rates(rates)
        elif published:
            found = published_rates(settings)
        print(to_markdown(f"Recipe {settings.name}", plan_module.plan(settings, found, price, image_bytes)))


def _add_export(app: tyro.extras.SubcommandApp, recipe: recipes.Recipe) -> None:
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
        from mobileclip2_lite.deployment.export import NEEDS_DISK, export_onnx, table
        from mobileclip2_lite.deployment.image_files import some_images
        from mobileclip2_lite.models.embedded import load

        on_disk(out, NEEDS_DISK)
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


def _add_playground(app: tyro.extras.SubcommandApp, recipe: recipes.Recipe) -> None:
    """The model in a browser."""

    @app.command
    def playground(
        model: Positional[str],
        out: Positional[Path],
        runtime: Path = Path("runs/npm/package/dist"),
        album: Path | None = None,
        serve: bool = False,
        port: int = 8_000,
        allow_drawn: bool = False,
    ) -> None:
        """Write a page that runs the model in a browser: draw or drop an image, name it, search an album.

        Args:
            model: a folder with exported towers, or any model with weights.
            out: folder to write.
            runtime: the folder `dist` of the npm package onnxruntime-web (`make playground` fetches it).
            album: folder of images to search (default: drawn scenes).
            serve: start a server of the page on this machine alone, until Ctrl-C.
            port: of that server.
            allow_drawn: let models of the embedded world judge other images all the same.
        """
        from mobileclip2_lite.deployment.playground import (
            NEEDS_DISK,
            check_runtime,
            drawn_album,
            folder_album,
            server,
            write_playground,
        )
        from mobileclip2_lite.deployment.towers import exported_folder

        on_disk(out, NEEDS_DISK)
        if album:
            refuse_drawn((model,), album, "MODEL", allow_drawn)
        check_runtime(runtime)
        pictures, start = folder_album(album, model) if album else drawn_album(recipe.world, model)
        print(write_playground(exported_folder(model, out / ".towers"), out, runtime, pictures, start))
        if serve:
            with server(out, port) as running:
                print(f"http://127.0.0.1:{running.server_address[1]}/ shows it; Ctrl-C ends it")
                running.serve_forever()


def _add_search(app: tyro.extras.SubcommandApp) -> None:
    """Images found again."""

    @app.command
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
        allow_drawn: bool = False,
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
            index: where the index lies (default: in the folder itself).
            html: also write a page with thumbnails.
            duplicates: print groups of images that are the same.
            least: cosine from which two images are the same.
            allow_drawn: let models of the embedded world judge other images all the same.
        """
        from mobileclip2_lite.deployment.search import NEEDS_DISK, open_index
        from mobileclip2_lite.reports.search import shown, write_search_page

        if not (text or image or duplicates):
            raise ValueError("search needs a text, --image, or --duplicates")
        on_disk(folder, NEEDS_DISK)
        refuse_drawn((model or recipes.Reinforce().teachers[-1],), folder, "--model", allow_drawn)
        found = open_index(folder, model, index=index)
        hits = found.search(text, list(image), top, without, dimensions) if text or image else []
        groups = found.duplicates(least) if duplicates else []
        for hit in hits:
            print(f"{hit.score:.3f}  {shown(hit.path)}")
        for group in groups:
            print("\n".join(["the same:", *(f"  {shown(path)}" for path in group)]))
        print(f"{len(found.entries):,} images in the index")
        for reason, count in sorted(found.dropped.items()):
            print(f"  not read {count:,}: {reason}")
        if html:
            asked = " + ".join([*([text] if text else []), *(shown(one.name) for one in image)])
            asked += "".join(f" - {one}" for one in without)
            print(write_search_page(html, found, hits, asked, groups))
