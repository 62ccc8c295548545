"""The command line, made from the recipes' dataclasses: `mobileclip2-lite STAGE [--recipe lite] [--setting value …]`.

Every stage of the way is a command that reads a folder and writes a folder; `run` goes the whole way. Settings start
from the recipe named by `--recipe` (default lite) and any of them can be changed by its own option. Wrong input ends
in one line that says what to do, and exit status 2; shards that failed while all others were made, in exit status 3.
Commands about texts, shards, models, their use, photographs and studies are in modules of their own.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: its threads must not spin beside the loader's


from mobileclip2_lite import recipes
from mobileclip2_lite.cli import data as cli_data
from mobileclip2_lite.cli import deploy as cli_deploy
from mobileclip2_lite.cli import models as cli_models
from mobileclip2_lite.cli import photos as cli_photos
from mobileclip2_lite.cli import shards as cli_shards
from mobileclip2_lite.cli import studies as cli_studies
from mobileclip2_lite.cli.drawn import refuse_drawn, refuse_for_source
from mobileclip2_lite.cli.options import ALONE, COMPUTE, AllowDrawn, Flat, Positional
from mobileclip2_lite.cli.places import APPENDED, EDITED, Commands, needs_disk
from mobileclip2_lite.cli.summary import print_embedded, print_not_taken, print_summary
from mobileclip2_lite.training.stopping import Diverged, Stopped
from mobileclip2_lite.work.crew import GivenUp, Spread
from mobileclip2_lite.work.failed import ShardsFailed
from mobileclip2_lite.work.folder import FolderLocked, StageMismatch

SEARCHED = "a search keeps many short trainings side by side: name a folder of a disk"
"""Why no search of temperatures goes to a store."""
TEMPERATURE = recipes.Temperature()


def _take_recipe(arguments: list[str]) -> tuple[recipes.Recipe, list[str]]:
    """Find `--recipe NAME` anywhere and take it out, because it decides the defaults of all other options."""
    name, rest = "lite", []
    words = iter(arguments)
    for word in words:
        if word == "--recipe":
            name = next(words, "")
        elif word.startswith("--recipe="):
            name = word.split("=", 1)[1]
        else:
            rest.append(word)
    return recipes.named(name), rest


def _add_way(app: Commands, recipe: recipes.Recipe) -> None:
    """The whole way and its two ends."""

    @app.command
    def run(
        settings: Annotated[recipes.Recipe, Flat] = recipe, out: Path | None = None, allow_drawn: AllowDrawn = False
    ) -> None:
        """The whole way: pairs, reinforcement, trainings, evaluation, report.

        Args:
            settings: the recipe.
            out: folder of the run (default runs/NAME).
        """
        from mobileclip2_lite.pipeline import run as run_way

        refuse_for_source(settings, allow_drawn)
        folder = out or Path("runs") / settings.name
        run_way(settings, folder)
        print(f"\nThe report is at {folder / 'report.md'} and {folder / 'report.html'}\n")
        print((folder / "report.md").read_text("utf-8").split("\n## ")[0])

    @app.command
    def report(folder: Positional[Path], settings: Annotated[recipes.Recipe, Flat] = recipe) -> None:
        """Write report.md and report.html of a finished run.

        Args:
            folder: the run's folder.
            settings: the recipe it was made with.
        """
        from mobileclip2_lite.reports.run import write_report

        write_report(folder, settings)
        print(folder / "report.html")

    @app.command(name="recipes")
    def show_recipes(against: str = "paper_12m") -> None:
        """Print every setting in which the recipe differs from another.

        Args:
            against: the other recipe.
        """
        print(recipes.difference_table(recipe, recipes.named(against)))


def _add_stages(app: Commands, recipe: recipes.Recipe) -> None:
    """The stages, one by one."""

    @app.command
    def pairs(
        out: Positional[Path],
        settings: Annotated[recipes.Pairs, Flat] = recipe.pairs,
        world: recipes.World = recipe.world,
    ) -> None:
        """Collect image-text pairs from any source into shards.

        Args:
            out: folder to write.
            settings: where pairs come from.
            world: the embedded world, if it is the source.
        """
        from mobileclip2_lite.pairs.collect import make_pairs

        manifest = make_pairs(settings, out, world=world)
        print_summary(manifest, out)
        print_not_taken(manifest)

    @app.command
    def reinforce(
        pairs: Positional[Path],
        out: Positional[Path],
        settings: Annotated[recipes.Reinforce, Flat] = recipe.reinforce,
        spread: Annotated[Spread, Flat] = ALONE,
        compute: Annotated[recipes.Compute, Flat] = COMPUTE,
        allow_drawn: AllowDrawn = False,
    ) -> None:
        """Store replayable views and the teachers' embeddings with every pair.

        Args:
            pairs: folder of shards with pairs.
            out: folder to write.
            settings: teachers, views, storage.
            spread: over which workers.
            compute: device and precision of the teachers, threads that cut images ahead of them.
        """
        from mobileclip2_lite.reinforcement.stage import reinforce as reinforce_folder

        refuse_drawn(settings.teachers, pairs, "--teachers", allow_drawn)
        chosen = {"precision": compute.precision, "device": compute.device, "threads": compute.threads}
        manifest = reinforce_folder(settings, pairs, out, spread=spread, **chosen)
        print_summary(manifest, out)
        print_embedded(manifest)


def _add_train(app: Commands, recipe: recipes.Recipe) -> None:
    """The training."""

    @app.command
    def train(
        data: Positional[Path],
        out: Positional[Path],
        settings: Annotated[recipes.Train, Flat] = recipe.student,
        seed: int = 0,
        held_out: Path | None = None,
        dry_run: bool = False,
        processes: int = 1,
        device: str = "auto",
    ) -> None:
        """Train a student on a folder of reinforced shards (`--distill 0 --views weak` for the control).

        A captioner needs no more than pairs: `--model lite-coca --distill 0 --views weak --captioning 2`.

        Args:
            data: folder of reinforced shards.
            out: folder of the model.
            settings: the training.
            seed: seed of initial weights and order.
            held_out: folder of pairs on which to measure a captioner's `caption_loss`, to stop on.
            dry_run: train nothing: build the model at its real size without its numbers, open the first and the last
                shard, and print steps, memory and bytes.
            processes: of the dry run: how many shall train together (`torchrun` sets it in a training).
            device: `cpu`, `cuda`, `cuda:N`, `mps`; `auto` takes a GPU, if there is one, each process its own.
        """
        if dry_run:
            from mobileclip2_lite.costs.rehearsal import rehearse
            from mobileclip2_lite.reports.page import to_markdown

            print(to_markdown(f"{settings.model} on {data}", rehearse(settings, data, processes)))
            return
        from mobileclip2_lite.models.embedded import pick_device
        from mobileclip2_lite.training.captioner_step import HeldOut
        from mobileclip2_lite.training.loop import train as train_model

        evaluate = HeldOut(held_out) if held_out else None
        where = None if device == "auto" else pick_device(device)
        print(f"model saved in {train_model(settings, data, out, seed=seed, evaluate=evaluate, device=where)}")


def _add_temperature(app: Commands, recipe: recipes.Recipe) -> None:
    """The search that comes before it."""

    @app.command
    @needs_disk(out=SEARCHED, record=APPENDED, cards=EDITED)
    def temperature(
        data: Positional[Path],
        out: Positional[Path],
        settings: Annotated[recipes.Temperature, Flat] = TEMPERATURE,
        student: recipes.Train = recipe.student,
        use: bool = False,
        cards: tuple[Path, ...] = (),
        record: Path | None = None,
        device: str = "auto",
    ) -> None:
        """Find each teacher's logit scale by short trainings of the student.

        Args:
            data: folder of reinforced shards.
            out: folder of the trainings and of temperature.json.
            settings: scales, seeds, lengths.
            student: the training to shorten.
            use: let later trainings on `data` use what was found.
            cards: teachers' `card.json` files to write the found scale to, for all that is reinforced from now on.
            record: file to append each teacher's curve to, a JSON line each.
            device: of the trainings, as `train` has it.
        """
        from mobileclip2_lite.evaluation.suite import evaluate
        from mobileclip2_lite.models.embedded import pick_device
        from mobileclip2_lite.studies import temperature as search
        from mobileclip2_lite.work.json_lines import append_lines

        def measure(loaded):
            return evaluate(loaded, recipe.world, recipe.evaluate, only=("zero_shot", "retrieval"), split="val")

        where = None if device == "auto" else str(pick_device(device))
        results = search.search(settings, student, data, out, measure, device=where)
        for name, result in results.items():
            print(f"{name}: best logit scale {result['best']:g}, its own {result['own']:g}")
        search.use(results, data if use else None, cards)
        if record is not None:
            append_lines(record, [{**result, "command": command()} for result in results.values()])


def command() -> str:
    """What was typed, with this program's name for wherever it lies."""
    return shlex.join(["mobileclip2-lite", *sys.argv[1:]])


def commands(recipe: recipes.Recipe) -> Commands:
    """All of them, with a recipe's defaults."""
    app = Commands()
    _add_way(app, recipe)
    _add_stages(app, recipe)
    _add_train(app, recipe)
    _add_temperature(app, recipe)
    cli_data.add(app, recipe)
    cli_shards.add(app)
    cli_models.add(app, recipe)
    cli_deploy.add(app, recipe)
    cli_photos.add(app, recipe)
    cli_studies.add(app, recipe)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `mobileclip2-lite`."""
    for stream in (sys.stdout, sys.stderr):  # a file's name that the terminal cannot show must not end a command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        recipe, rest = _take_recipe(sys.argv[1:] if arguments is None else list(arguments))
        commands(recipe).run(rest, __doc__.split("\n")[0])
    except Stopped as error:
        print(f"{error}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM) from error
    except ShardsFailed as error:  # all that could be made is made
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(3) from error
    except (ValueError, OSError, ModuleNotFoundError, StageMismatch, FolderLocked, GivenUp, Diverged) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt as error:
        print("stopped (Ctrl-C): finished shards and checkpoints stay, the same command goes on", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from error
