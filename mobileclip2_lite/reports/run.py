"""The report of a run: control against reinforced student, learning curves, samples, time; Markdown and one HTML file.

MobileCLIP2 (arXiv 2508.20691), tables 1 to 6, are of this kind: same pairs, same seen samples, several seeds. Reads
a run's folder (`evaluation.json`, each training's model and `log.jsonl`, the reinforced shards, `timings.json`), writes
`report.md`, `report.html` and `figures/*.png` beside them. Differs from the paper: chance and the teachers stand
beside every number, and retrieval beside zero-shot. Looked at in notebooks/00_start_here.ipynb.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobileclip2_lite.recipes import Recipe
from mobileclip2_lite.reports import figures, page
from mobileclip2_lite.reports.appendix import appendix
from mobileclip2_lite.reports.numbers import LABELS, mean_and_deviation, percent, read_json
from mobileclip2_lite.training import log as tracking
from mobileclip2_lite.work.files import write_note
from mobileclip2_lite.work.place import StorePath, here, place_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mobileclip2_lite.models.loaded import LoadedModel

HEADLINE = ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1")


def write_report(
    run_folder: str | os.PathLike, recipe: Recipe, teachers: Mapping[str, LoadedModel] | None = None
) -> Path | StorePath:
    """Write `report.md`, `report.html` and `figures/` into a run's folder; returns the HTML's path.

    Args:
        run_folder: a finished run of `pipeline.run`.
        recipe: the run's recipe.
        teachers: teachers already loaded; None loads those of the recipe.

    Raises:
        FileNotFoundError: a part of the run is missing (the message names the file and what makes it).
    """
    target = place_of(run_folder)
    run_folder = here(target)  # a run in a store is read from a copy
    evaluation = read_json(run_folder / "evaluation.json")
    title, blocks = f"Reinforced against plain training: recipe {recipe.name}", []
    blocks += summary(evaluation, recipe, run_folder)
    blocks += [page.Heading("Control against reinforced student"), *comparison(evaluation, recipe)]
    blocks += [page.Heading("Learning curves"), *learning_curves(run_folder, recipe)]
    blocks += [page.Heading("What they answer"), *sample_answers(run_folder, evaluation, recipe, teachers)]
    blocks += [page.Heading("What reinforcement stored"), *_stored(run_folder)]
    blocks += [page.Heading("Where the time went"), *time_spent(run_folder)]
    blocks += [page.Heading("Settings, machine, licence"), *appendix(recipe)]
    (target / "figures").mkdir(exist_ok=True)
    for picture in page.pictures(blocks):
        write_note(target / "figures" / f"{picture.name}.png", picture.png)
    write_note(target / "report.md", page.to_markdown(title, blocks).encode())
    write_note(target / "report.html", page.to_html(title, blocks).encode())
    return target / "report.html"


def summary(evaluation: Mapping[str, Any], recipe: Recipe, run_folder: Path) -> list[page.Block]:
    """The result in one sentence, and the numbers behind it; a gain within three standard deviations is no win."""
    control, student = (mean_and_deviation(evaluation[kind], "zero_shot") for kind in ("control", "student"))
    gain, seeds = student[0] - control[0], len(evaluation["student"])
    spread = max(control[1] or 0.0, student[1] or 0.0)
    verb = "beats" if gain > 3 * spread else "is not clearly better than" if gain > 0 else "does not beat"
    beyond = f", {gain / spread:.0f} times the larger standard deviation" if spread and gain > 0 else ""
    many = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed, so without a deviation"
    sentence = (
        f"Trained on the same pairs for {_samples(recipe)}, the reinforced student {verb} the control at naming "
        f"unseen pictures: {percent(*student)} % against {percent(*control)} % right "
        f"({100 * gain:+.1f} points{beyond}; {many})."
    )
    cards = []
    for measure in (key for key in HEADLINE if key in evaluation["student"][0]):
        ours, plain = (mean_and_deviation(evaluation[kind], measure) for kind in ("student", "control"))
        cards.append((LABELS[measure], f"{percent(ours[0])} %", f"control {percent(plain[0])} %"))
    caught = _caught_up(run_folder, recipe)
    return [page.Text(sentence, lead=True), page.Cards(cards), *([page.Text(caught)] if caught else [])]


def _samples(recipe: Recipe) -> str:
    """How many samples each saw, honestly when they differ."""
    control, student = recipe.control.samples, recipe.student.samples
    same = f"the same {student:,} seen samples"
    return same if control == student else f"{student:,} seen samples (the control: {control:,})"


def _caught_up(run_folder: Path, recipe: Recipe) -> str:
    """After how many samples the student had what the control has at its end."""
    curves = {kind: curve(run_folder, kind, recipe, "zero_shot") for kind in ("control", "student")}
    if min(len(samples) for samples, _ in curves.values()) < 3:
        return ""
    end = statistics.fmean(run[-1] for run in curves["control"][1])
    for index, samples in enumerate(curves["student"][0]):
        if statistics.fmean(run[index] for run in curves["student"][1]) >= end:
            return (
                f"The student has the control's final zero-shot accuracy at its evaluation after {samples:,} samples; "
                f"the control took {curves['control'][0][-1]:,}. Generating the reinforced data is not counted in "
                "this, but is in the time below."
            )
    return ""


def comparison(evaluation: Mapping[str, Any], recipe: Recipe) -> list[page.Block]:
    """The table of all measures, and bars of the most important."""
    from mobileclip2_lite.evaluation.suite import chance

    guess = chance(recipe.world, recipe.evaluate)
    control, student, teachers = evaluation["control"], evaluation["student"], evaluation.get("teachers", {})
    measures = sorted(student[0], key=lambda key: list(LABELS).index(key) if key in LABELS else len(LABELS))
    rows = []
    for measure in measures:
        plain, ours = mean_and_deviation(control, measure), mean_and_deviation(student, measure)
        others = [guess.get(measure), *(values.get(measure) for values in teachers.values())]
        gain = f"{100 * (ours[0] - plain[0]):+.1f}"
        shown = ["" if value is None else percent(value) for value in others]
        rows.append([LABELS.get(measure, measure), percent(*plain), percent(*ours), gain, *shown])
    header = ["% right", "control", "reinforced student", "difference", "chance", *teachers]
    seeds = f"mean ± standard deviation (n - 1) over seeds {', '.join(map(str, recipe.seeds))}"
    note = (
        f"Same pairs, {_samples(recipe)}, same model (`{recipe.student.model}`); {seeds}. Zero-shot: "
        f"{recipe.evaluate.renders} pictures of each name. Retrieval: {recipe.evaluate.scenes:,} scenes with five "
        "captions each; image to text counts a hit if any of the five is found, text to image asks with every caption. "
        "Binding and relations: the true caption must score higher than its hard negative. Ties count in expectation."
    )
    shown = [
        key for key in ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1", "binding", "relations") if key in guess
    ]
    values = {
        "control": [[seed[key] for seed in control] for key in shown],
        "student": [[seed[key] for seed in student] for key in shown],
        **{name: [value[key] for key in shown] for name, value in teachers.items()},
    }
    made, axes = figures.figure(6.4, 3.6)
    figures.bars(
        [LABELS[key] for key in shown],
        values,
        "right on the test split",
        chance=[guess[key] for key in shown],
        axes=axes,
    )
    alt = "bars of control, student and teachers for five measures; the numbers are in the table"
    caption = "Bars: mean; whiskers: standard deviation over seeds; dotted: chance."
    return [
        page.Table(header, rows, strong=2),
        page.Text(note),
        page.Picture("measures", figures.png(made), alt, caption),
    ]


def curve(run_folder: Path, kind: str, recipe: Recipe, measure: str) -> tuple[list[int], list[list[float]]]:
    """One measure over the seen samples: (samples, one list of values a seed), where every seed was evaluated."""
    batch = getattr(recipe, kind).batch_size
    runs = []
    for seed in recipe.seeds:
        path = run_folder / f"{kind}-seed{seed}" / "log.jsonl"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: train the {kind} with seed {seed} first")
        lines = [line for line in tracking.read(path) if measure in line.get("evaluation", {})]
        runs.append({line.get("samples", line["step"] * batch): line["evaluation"][measure] for line in lines})
    samples = sorted(set.intersection(*(set(run) for run in runs)))
    return samples, [[run[x] for x in samples] for run in runs]


def validation_curves(run_folder: Path, recipe: Recipe, measure: str, axes: Axes) -> dict[str, Any]:
    """Draw what control and student got right on the validation split while they learned, beside a guess on that split.

    Nothing of the test split is drawn beside it: of R@1 it asks among other scenes, and more of them, so that the same
    model has another number there.

    Returns:
        Kind -> (samples, one list of values a seed), as `curve` reads them; nothing is drawn where one is empty.
    """
    from mobileclip2_lite.evaluation.suite import chance

    series = {kind: curve(run_folder, kind, recipe, measure) for kind in ("control", "student")}
    if all(samples for samples, _ in series.values()):
        guess = {"chance": chance(recipe.world, recipe.evaluate, split="val")[measure]}
        among = f" of {recipe.evaluate.val_scenes:,} scenes" if measure.startswith("retrieval") else ""
        figures.curves(
            series, "seen samples", "right on validation images", f"{LABELS[measure]}{among}", guess, axes=axes
        )
    return series


def learning_curves(run_folder: Path, recipe: Recipe) -> list[page.Block]:
    """Evaluations during training, over the samples seen."""
    shown = []
    for measure in HEADLINE:
        made, axes = figures.figure(4.4, 3.3)
        series = validation_curves(run_folder, recipe, measure, axes)
        if not all(samples for samples, _ in series.values()):
            continue
        ends = ", ".join(
            f"{kind} ends at {percent(statistics.fmean(r[-1] for r in s[1]))} %" for kind, s in series.items()
        )
        alt = f"{LABELS[measure]} on the validation split over seen samples: {ends}"
        shown.append(page.Picture(f"curve-{measure.replace('_', '-')}", figures.png(made), alt))
    if not shown:
        return [page.Text("The trainings were not evaluated on the way.")]
    caption = (
        "Mean over the seeds; the band is one standard deviation. Asked of the validation split; the table above is of "
        "the test split, where retrieval chooses among more scenes and the captions have another wording."
    )
    return [page.Pictures(shown, caption)]


def sample_answers(
    run_folder: Path, evaluation: Mapping[str, Any], recipe: Recipe, teachers: Mapping[str, LoadedModel] | None
) -> list[page.Block]:
    """A gallery of scenes with the answers of the first seed's control and student and of the best teacher."""
    from mobileclip2_lite.models.zoo import create_model
    from mobileclip2_lite.reports.run_pictures import predictions

    models = {kind: create_model(run_folder / f"{kind}-seed{recipe.seeds[0]}") for kind in ("control", "student")}
    scores = {name: values["zero_shot"] for name, values in evaluation.get("teachers", {}).items()}
    if scores:
        best = max(scores, key=scores.get)
        if teachers is None:
            from mobileclip2_lite.models.teachers import load_teachers

            models[f"teacher {best}"] = load_teachers((best,)).loaded(best)
        else:
            models[f"teacher {best}"] = teachers[best]
    return [predictions(models, recipe.world, recipe.evaluate.renders)]


def _stored(run_folder: Path) -> list[page.Block]:
    from mobileclip2_lite.reports.run_pictures import stored

    return stored(run_folder / "reinforced")


def time_spent(run_folder: Path) -> list[page.Block]:
    """A bar of each stage's seconds."""
    timings = {stage: seconds for stage, seconds in read_json(run_folder / "timings.json").items() if seconds >= 0.05}
    total = sum(timings.values())
    made, axes = figures.figure(6.4, 0.9 + 0.36 * len(timings))
    places = range(len(timings))
    axes.barh(places, list(timings.values()), color=figures.CYCLE[0], height=0.7)
    for place, seconds in zip(places, timings.values(), strict=True):
        axes.text(seconds, place, f"  {seconds:,.0f} s ({100 * seconds / total:.0f} %)", va="center", size=9)
    axes.set_yticks(places, list(timings))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(timings.values()))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds")
    alt = "; ".join(f"{stage} {seconds:.0f} s" for stage, seconds in timings.items())
    caption = (
        f"{total / 60:.1f} minutes in all, of work that was done for this folder (what was found finished is free)."
    )
    return [page.Picture("time", figures.png(made), alt, caption)]
