"""The commands of the evidence: `study` trains recorded rows, `claims` writes the ledger, `headline` README's table."""

from __future__ import annotations

import sys
from pathlib import Path

from mobileclip2_lite import recipes
from mobileclip2_lite.cli.options import Positional
from mobileclip2_lite.cli.places import EDITED, Commands, needs_disk


def add(app: Commands, recipe: recipes.Recipe) -> None:
    """Register the commands."""
    _add_study(app, recipe)
    _add_claims(app)
    _add_headline(app, recipe)


def _add_study(app: Commands, recipe: recipes.Recipe) -> None:
    @app.command
    @needs_disk(out="a study keeps many trainings side by side: name a folder of a disk", results=EDITED)
    def study(
        names: Positional[tuple[str, ...]] = (),
        record: bool = False,
        rows: tuple[str, ...] = (),
        seeds: int = 0,
        out: Path = Path("runs/studies"),
        results: Path | None = None,
        workers: int = 1,
    ) -> None:
        """Show the recorded rows of studies, after training those that are missing with --record.

        Args:
            names: studies; all of them for none. `price` measures what the data costs.
            record: train what is not recorded and append a line of each; a second call goes on where one stopped.
            rows: only these rows.
            seeds: at most so many seeds a row; 0 for each study's own number.
            out: where data and trainings go.
            results: folder of the recorded lines (default: with the library).
            workers: trainings at a time, one core each.
        """
        from mobileclip2_lite.reports.page import Table, to_markdown
        from mobileclip2_lite.studies import price, recorded
        from mobileclip2_lite.studies import record as recording
        from mobileclip2_lite.studies.questions import STUDIES

        folder = recorded.results_folder(results)
        if (not names or "price" in names) and not rows:
            if record:
                price.run(recipe, out, folder, seeds)
            print(price.told(folder) or "the price of the data is not recorded: --record")
        names = tuple(name for name in names or STUDIES if name != "price")
        jobs = recording.plan(names, recipe, out, folder, seeds, rows)
        failed = recording.run(jobs, workers, folder) if record else 0
        ladder = recorded.read_rows(folder)
        for name in names:
            table = Table(*recorded.study_table(ladder, STUDIES[name]))
            print(to_markdown(STUDIES[name].question, [table]))
        if not record and jobs:
            print(f"{len(jobs)} trainings are not recorded: --record")
        if failed:
            raise SystemExit(1)


def _add_claims(app: Commands) -> None:
    @app.command
    @needs_disk(out=EDITED, results=EDITED)
    def claims(out: Path = Path("docs/claims.md"), results: Path | None = None) -> None:
        """Write the ledger: each claim of the papers with its effect, interval and verdict; beside it, photographs.md.

        Args:
            out: file to write.
            results: folder of the recorded lines (default: with the library).
        """
        from mobileclip2_lite.studies import ledger, photograph_page, recorded

        entries = ledger.write(out, recorded.results_folder(results))
        photograph_page.write(out.with_name("photographs.md"), recorded.results_folder(results))
        for entry in entries:
            print(f"{entry.verdict:12} {entry.claim.text} ({entry.claim.measure})", file=sys.stderr)
        print(out)
        print(out.with_name("photographs.md"))


def _add_headline(app: Commands, recipe: recipes.Recipe) -> None:
    @app.command
    @needs_disk(readme=EDITED, results=EDITED)
    def headline(run: Positional[Path], readme: Path | None = None, results: Path | None = None) -> None:
        """Record what a finished run measured, and write README's table from it.

        Args:
            run: folder of a finished `mobileclip2-lite run` of the recipe.
            readme: page with the two marks between which the table stands.
            results: folder of the recorded lines (default: with the library).
        """
        from mobileclip2_lite.studies import headline as results_table
        from mobileclip2_lite.studies import recorded
        from mobileclip2_lite.work.files import write_atomic

        folder = recorded.results_folder(results)
        path = results_table.record(run, recipe, folder)
        line = results_table.recorded(recipe.name, folder)
        if readme:
            write_atomic(readme, results_table.written(readme.read_text("utf-8"), line).encode())
        print(path)
        print(results_table.table(line))
