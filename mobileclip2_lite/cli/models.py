"""The commands that measure models: `evaluate`, `latency`, `plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from mobileclip2_lite import recipes
from mobileclip2_lite.cli.drawn import refuse_for_sets
from mobileclip2_lite.cli.options import ALONE, AllowDrawn, Flat, Positional
from mobileclip2_lite.cli.places import APPENDED, Commands, needs_disk
from mobileclip2_lite.work.crew import Spread


def add(app: Commands, recipe: recipes.Recipe) -> None:
    """Register the commands."""
    _add_evaluate(app, recipe)
    _add_latency(app)
    _add_plan(app, recipe)


def _add_evaluate(app: Commands, recipe: recipes.Recipe) -> None:
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
        parts: Path | None = None,
        spread: Annotated[Spread, Flat] = ALONE,
        settings: Annotated[recipes.Evaluate, Flat] = recipe.evaluate,
        world: recipes.World = recipe.world,
        device: str = "auto",
        allow_drawn: AllowDrawn = False,
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
            parts: folder to keep the features of each set's tars in: a stopped run goes on, and workers share it.
            spread: over which workers a set's tars; they need `--parts`.
            settings: sizes of the embedded test sets.
            world: which names and sizes.
            device: `cpu`, `cuda`, `cuda:N`, `mps`; `auto` takes a CUDA GPU, if there is one.
        """
        from mobileclip2_lite.evaluation.public import evaluate_sets, result_lines
        from mobileclip2_lite.evaluation.suite import evaluate as evaluate_model
        from mobileclip2_lite.models.embedded import load

        refuse_for_sets(model, sets, allow_drawn)
        if sets:
            loaded, options = load(model, device=device), {"split": split, "images": images, "templates": templates}
            options |= {"dimensions": dimensions, "parts": parts, "spread": spread}
            for line in result_lines(evaluate_sets(loaded, sets, output, name=model, **options)):
                print(line)
            return
        if output or templates or images or dimensions or parts or spread != ALONE:
            raise ValueError(
                "--output, --templates, --images, --dimensions, --parts and workers go with --set: name a test set"
            )
        for metric, value in evaluate_model(load(model, device=device), world, settings).items():
            print(f"{metric:32} {value:.4f}")


def _add_latency(app: Commands) -> None:
    """What a pass costs."""

    @app.command
    @needs_disk(output=APPENDED)
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


def _add_plan(app: Commands, recipe: recipes.Recipe) -> None:
    """What the whole way costs."""

    @app.command
    def plan(
        settings: Annotated[recipes.Recipe, Flat] = recipe,
        measure: bool = False,
        rates: Path | None = None,
        published: bool = False,
        gpu: str = "",
        devices: int = 1,
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
            gpu: take rates of a GPU of this kind (`A100`, `H100`, `H200`, `L40S`, ...), estimated from those hours,
                FLOPs and the makers' peaks.
            devices: so many work together: also print wall time, network and cores for all.
            device: measured device: `cpu`, `cuda`.
            batch_size: pictures, texts or samples at a time when measuring.
            seconds: at least so long for each number.
            price: of one device for an hour.
            image_bytes: of an average picture.
        """
        from mobileclip2_lite.costs import plan as plan_module
        from mobileclip2_lite.costs import rates as rates_module
        from mobileclip2_lite.costs.gpus import estimated_rates
        from mobileclip2_lite.costs.published import published_rates
        from mobileclip2_lite.reports.page import to_markdown

        asked = {"--measure or --rates": measure or rates, "--published": published, "--gpu": gpu}
        if len(chosen := [option for option, given in asked.items() if given]) > 1:
            raise ValueError(f"{' and '.join(chosen)} name different rates: choose one")
        found = None
        if measure:
            found = rates_module.measure(settings, device, batch_size, settings.precision, seconds, say=print)
            if rates:
                rates_module.write_rates(found, rates)
        elif rates:
            found = rates_module.read_rates(rates)
        elif published:
            found = published_rates(settings)
        elif gpu:
            found = estimated_rates(settings, gpu)
        blocks = plan_module.plan(settings, found, price, image_bytes, devices)
        print(to_markdown(f"Recipe {settings.name}", blocks))
