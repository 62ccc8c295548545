"""The commands about data: `filter` pairs, write a `caption` for each, measure `captions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from mobileclip2_lite import recipes
from mobileclip2_lite.cli.drawn import is_drawn, refuse_drawn
from mobileclip2_lite.cli.options import ALONE, COMPUTE, AllowDrawn, Flat, Positional
from mobileclip2_lite.cli.places import Commands
from mobileclip2_lite.cli.summary import print_summary
from mobileclip2_lite.work.crew import Spread

FILTER, CAPTION = recipes.Filter(), recipes.Caption()


def add(app: Commands, recipe: recipes.Recipe) -> None:
    """Register the commands."""
    _add_filter(app, recipe)
    _add_caption(app, recipe)
    _add_captions(app, recipe)


def _add_filter(app: Commands, recipe: recipes.Recipe) -> None:
    """Fewer pairs."""

    @app.command
    def filter(
        pairs: Positional[Path],
        out: Positional[Path],
        settings: Annotated[recipes.Filter, Flat] = FILTER,
        html: Path | None = None,
        world: recipes.World = recipe.world,
        compute: Annotated[recipes.Compute, Flat] = COMPUTE,
        spread: Annotated[Spread, Flat] = ALONE,
        allow_drawn: AllowDrawn = False,
    ) -> None:
        """Keep the pairs whose image and text fit best, by a small CLIP trained on clean pairs.

        Args:
            pairs: folder of shards with pairs.
            out: folder to write.
            settings: the scorer, and how much to keep.
            html: page to write: the scores, and images with texts of the best, the border and the worst.
            world: the embedded world, if the pairs come from it: the page then says how often the filter was right.
            compute: device and precision of the scorer.
            spread: over which workers.
        """
        from mobileclip2_lite.filtering.stage import filter_pairs
        from mobileclip2_lite.reports.filter import filter_report

        refuse_drawn((settings.scorer,), pairs, "--scorer", allow_drawn)
        chosen = {"precision": compute.precision, "device": compute.device}
        manifest = filter_pairs(settings, pairs, out, **chosen, spread=spread)
        print_summary(manifest, out)
        print(f"  removed {manifest['removed']:,}: score below {manifest['threshold']:.4f}")
        if html is not None:
            filter_report(out, html, world if is_drawn(pairs) else None, pairs)


def _add_caption(app: Commands, recipe: recipes.Recipe) -> None:
    """More texts."""

    @app.command
    def caption(
        pairs: Positional[Path],
        out: Positional[Path],
        settings: Annotated[recipes.Caption, Flat] = recipe.caption if recipe.caption.captioners else CAPTION,
        spread: Annotated[Spread, Flat] = ALONE,
        compute: Annotated[recipes.Compute, Flat] = COMPUTE,
        allow_drawn: AllowDrawn = False,
    ) -> None:
        """Write synthetic captions for every pair, by one captioner or several.

        Args:
            pairs: folder of shards with pairs.
            out: folder to write; `reinforce` takes it.
            settings: captioners and decoding.
            spread: over which workers.
            compute: device and precision of the captioners.
        """
        from mobileclip2_lite.captioning.stage import caption as caption_folder

        refuse_drawn(settings.captioners, pairs, "--captioners", allow_drawn)
        manifest = caption_folder(
            settings, pairs, out, precision=compute.precision, device=compute.device, spread=spread
        )
        print_summary(manifest, out)
        for name, count in manifest["captions"].items():
            print(f"  {name}: {count:,} captions")


def _add_captions(app: Commands, recipe: recipes.Recipe) -> None:
    """How good they are."""

    @app.command
    def captions(
        path: Positional[Path],
        teachers: tuple[str, ...] = (),
        most: int = 1_000,
        references: str = "",
        world: recipes.World = recipe.world,
        output: Path | None = None,
        allow_drawn: AllowDrawn = False,
        device: str = "auto",
    ) -> None:
        """Measure a folder's captions: truth, agreement with references, CLIP score, diversity.

        Args:
            path: folder of captioned shards, reinforced or not.
            teachers: teachers for the CLIP score (slow on a CPU); none if not given.
            most: samples to look at, from the front.
            references: for CIDEr and BLEU: `clean` (the embedded world's own), `text` (the pairs' texts) or `none`.
            world: the embedded world, if the pairs come from it.
            output: JSON file to write, too.
            device: of the teachers: `cpu`, `cuda`, `cuda:N`, `mps`; `auto` takes a CUDA GPU, if there is one.
        """
        from mobileclip2_lite.reports.captions import caption_report, report_table
        from mobileclip2_lite.work.files import pretty, write_atomic

        refuse_drawn(teachers, path, "--teachers", allow_drawn)
        report = caption_report(path, world if is_drawn(path) else None, teachers, most, references, device)
        print(report_table(report))
        if output is not None:
            write_atomic(output, pretty(report))
