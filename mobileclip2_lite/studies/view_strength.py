"""How strong may the stored views be? A student and a control on each of several augmentations, several seeds.

    python benchmarks/views.py                                     # prints what is recorded
    python benchmarks/views.py --rows all --jobs 2
    python benchmarks/views.py --rows "student: crops from 50 %" --seeds 0 --samples 20000

MobileCLIP (arXiv 2311.17049) finds that strong augmentation costs plain training and gains with distillation. Each
augmentation is reinforced once from the same captioned pairs; then recipe lite's student is trained on what is stored,
and its control on the same views with one-hot labels. Lines go to results/views.jsonl, as benchmarks/ladder.py writes
them. Looked at in notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import ladder  # first: it sets OpenMP up before torch is imported

from mobileclip2_lite import recipes
from mobileclip2_lite.reinforcement.stage import reinforce
from mobileclip2_lite.reports.page import Table, to_markdown
from mobileclip2_lite.studies.recorded import STRENGTHS, VIEWS, read_ladder, read_lines, results_folder, study_table
from mobileclip2_lite.work.files import to_json

RESULTS = results_folder() / "views.jsonl"
KINDS = {"control": "control, stored views", "student": "+ ensemble"}
"""What is trained on the views -> row of the ladder."""
ROWS = {f"{kind}: {name}": (kind, name) for name in STRENGTHS for kind in KINDS}
"""One named training."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Reinforce and train what is asked for and print the table; the exit status is 1 if a training failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, default=Path("runs/lite/captioned"), help="captioned pairs")
    parser.add_argument("--out", type=Path, default=Path("runs/views"), help="where shards and trainings go")
    known = "; ".join(ROWS).replace("%", "%%")
    parser.add_argument("--rows", nargs="*", default=[], metavar="ROW", help=f"all, or of: {known}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=60_000, help="seen samples a training")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, of 1.5 GB and one core each")
    parser.add_argument("--recipe", choices=sorted(recipes.RECIPES), default="lite")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON lines to read and append to")
    args = parser.parse_args(arguments)
    rows = list(ROWS) if args.rows == ["all"] else args.rows
    if unknown := [row for row in rows if row not in ROWS]:
        parser.error(f"no row is called {', '.join(map(repr, unknown))}: one of {'; '.join(ROWS)}")
    jobs = [job for row in rows for job in plan(args, row)]
    failed = ladder.run(sorted(jobs, key=lambda job: job.seed), args.jobs, args.results)
    print(markdown(args.results))
    return 1 if failed else 0


def plan(args: argparse.Namespace, row: str) -> list[ladder.Job]:
    """Store a row's views, if they are not yet; its trainings that are not recorded yet."""
    kind, name = ROWS[row]
    recipe, data = recipes.named(args.recipe), args.out / ladder.slug(name)
    least, operations = STRENGTHS[name]
    augment = recipes.Augment(scale=(least, 1.0), operations=operations)
    reinforce(dataclasses.replace(recipe.reinforce, augment=augment), args.pairs, data)
    known = {ladder.identity(line) for line in read_lines(args.results)}
    own = {"data": data, "rows": [KINDS[kind]], "out": args.out / f"{ladder.slug(name)}-trained"}
    jobs = []
    for job in ladder.plan(argparse.Namespace(**{**vars(args), **own}))[0]:
        repeat = ["python", "benchmarks/views.py", "--rows", row, "--seeds", str(job.seed)]
        changes = {"row": row, "augment": to_json(augment), "command": shlex.join(repeat)}
        if ladder.identity({**job.line, **changes}) not in known:
            jobs.append(job._replace(row=row, line={**job.line, **changes}))
    return jobs


def markdown(results: Path) -> str:
    """The table of all that is recorded."""
    found = read_ladder(results, ("recipe", "samples"))
    if not found:
        return f"nothing is recorded in {ladder.shown(results)}: name rows with --rows"
    first = next(iter(found.values()))[0]
    title = f"Recipe {first['recipe']}, {first['samples']:,} seen samples"
    tables = []
    for kind, study in VIEWS.items():
        header, rows = study_table(found, study)
        tables.append(Table([f"{kind}, {header[0]}", *header[1:]], rows))
    return to_markdown(title, tables).rstrip()


if __name__ == "__main__":
    sys.exit(main())
