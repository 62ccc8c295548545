"""README's table of results: recorded from the folder of a finished run, and written from what was recorded.

    make run ARGS="--seeds 0 1 2" && mobileclip2-lite headline runs/lite --readme README.md
    mobileclip2-lite run --recipe emoji
    mobileclip2-lite headline runs/emoji --recipe emoji --readme docs/all_names.md

`record` keeps a run's evaluation with its command, seeds, seconds, machine and the hash of the weights that made its
data; `table` is the Markdown of README, which a test compares with the recorded run. So a number there is no longer
printed when the run says something else.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobileclip2_lite import recipes
from mobileclip2_lite.reports.numbers import evaluated_seeds, mean_and_deviation, percent, read_json
from mobileclip2_lite.studies.record import generation, where
from mobileclip2_lite.work.files import pretty, read_object, write_atomic
from mobileclip2_lite.work.folder import read_manifest
from mobileclip2_lite.work.place import here
from mobileclip2_lite.work.tables import between_marks, markdown_table

FILE = "run_{recipe}.json"
"""Below the folder of results."""
ROWS = {
    "zero_shot": "zero-shot over {names} names, top-1",
    "retrieval_i2t_r1": "image to text, R@1 ({scenes:,} scenes)",
    "retrieval_t2i_r1": "text to image, R@1",
    "binding": "attribute binding",
    "relations": "spatial relations",
    "zero_shot_grey": "zero-shot, grey images",
    "zero_shot_sketch": "zero-shot, sketches",
    "zero_shot_cluttered": "zero-shot, cluttered",
    "zero_shot_unseen_backgrounds": "zero-shot, unseen backgrounds",
}
"""Measure -> its row's label."""
BEGIN, END = "<!-- results: mobileclip2-lite headline -->", "<!-- end of results -->"
"""Marks in README around what is written here."""


def record(run: str | Path, recipe: recipes.Recipe, results: Path) -> Path:
    """Keep what a finished run measured; returns the file.

    Args:
        run: folder of `pipeline.run`.
        recipe: the recipe that it ran.
        results: folder of recorded results.

    Raises:
        FileNotFoundError: the run is not finished.
    """
    run = here(run)
    evaluation = read_json(run / "evaluation.json")
    seeds = evaluated_seeds(run)
    trained = {kind: read_manifest(run / f"{kind}-seed{seeds[0]}")["seconds"] for kind in ("control", "student")}
    arguments = ["mobileclip2-lite", "run", "--recipe", recipe.name, "--seeds", *map(str, seeds)]
    line = {
        "command": shlex.join(arguments),
        "recipe": recipe.name,
        "generation": generation(recipe),
        "samples": {"control": recipe.control.samples, "student": recipe.student.samples},
        "seeds": seeds,
        "evaluation": evaluation,
        "training_seconds": trained,
        **where(),
    }
    path = results / FILE.format(recipe=recipe.name)
    write_atomic(path, pretty(line))
    return path


def recorded(recipe: str, results: Path) -> dict[str, Any]:
    """The recorded run of a recipe.

    Raises:
        FileNotFoundError: none is recorded. ValueError: the file is damaged.
    """
    path = results / FILE.format(recipe=recipe)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `mobileclip2-lite headline runs/{recipe}` records a run")
    return read_object(path)


def table(line: Mapping[str, Any]) -> str:
    """README's table of a recorded run: means, standard deviations over its seeds if there are several, in %."""
    from mobileclip2_lite import emoji_world
    from mobileclip2_lite.evaluation.suite import chance

    recipe = recipes.named(line["recipe"])
    guess, evaluation = chance(recipe.world, recipe.evaluate), line["evaluation"]
    teachers = [name.rpartition("-teacher-")[2] for name in evaluation["teachers"]]
    header = ["", "control", "reinforced student", "chance", *(f"teacher {name}" for name in teachers)]
    rows = []
    for measure, label in ROWS.items():
        control, student = (percent(*mean_and_deviation(evaluation[kind], measure)) for kind in ("control", "student"))
        others = [percent(values[measure]) for values in evaluation["teachers"].values()]
        name = label.format(names=len(emoji_world.names(recipe.world.names)), scenes=recipe.evaluate.scenes)
        rows.append([name, control, f"**{student}**", f"{100 * guess[measure]:.2g}", *others])
    return markdown_table(header, rows)


def written(text: str, line: Mapping[str, Any]) -> str:
    """A README with the recorded table between its two marks.

    Raises:
        ValueError: the marks are not there.
    """
    seeds = line["seeds"]
    many = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "one seed"
    note = f"`{line['command']}`, {line['date']}, {many}; % right"
    note += ", mean ± standard deviation." if len(seeds) > 1 else "."
    missing = f"the page needs the lines `{BEGIN}` and `{END}`, between which the results are written"
    return between_marks(text, BEGIN, END, f"{note}\n\n{table(line)}", missing)
