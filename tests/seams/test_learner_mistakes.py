"""Mistakes that a learner makes, one by one: each ends in a sentence that says what to do."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import mobileclip2_lite as mc
from mobileclip2_lite import notebook, recipes
from mobileclip2_lite.deployment import search
from mobileclip2_lite.evaluation import measures
from mobileclip2_lite.models.embedded import load_captioner
from mobileclip2_lite.notebook import hints, naming
from mobileclip2_lite.notebook.book import make_book
from mobileclip2_lite.notebook.copies import source
from mobileclip2_lite.work.folder import StageMismatch

ROOT = Path(__file__).resolve().parents[2]
PLAIN = dataclasses.replace(
    recipes.tiny().control, samples=16, batch_size=8, evaluate_every=0, checkpoint_every=0, tracker="none", workers=0
)


@pytest.fixture(scope="module")
def there(tmp_path_factory) -> SimpleNamespace:
    """What a learner has made: sixteen pairs, images without texts, files that are something else."""
    place = tmp_path_factory.mktemp("learner")
    mc.make_pairs(recipes.Pairs(count=16, samples_per_shard=16), place / "pairs", world=recipes.tiny().world)
    for name in ("album", "empty", "headless", "rowless"):
        (place / name).mkdir()
    pixels = np.zeros((32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(place / "album" / "mine.png")
    Image.fromarray(pixels).save(place / "headless" / "mine.png")
    (place / "headless" / "captions.csv").write_text("mine.png,a black square\nmine.png,night\n", "utf-8")
    (place / "rowless" / "captions.csv").write_text("file_name,text\n", "utf-8")
    (place / "letter.png").write_text("Dear reader, I am no image.", "utf-8")
    (place / "notes.ipynb").write_text(json.dumps({"notes": []}), "utf-8")
    return SimpleNamespace(place=place, out=place / "out", model=mc.create_model("lite-mci-s"))


def pairs_of(there: SimpleNamespace, source: str) -> None:
    mc.make_pairs(recipes.Pairs(source=str(there.place / source), count=0), there.out)


def index_of(there: SimpleNamespace) -> search.Index:
    return search.Index(there.place / "album", None, [], np.zeros((0, 4), np.float32))


def train(there: SimpleNamespace, data: str = "pairs", **settings) -> None:
    mc.train(dataclasses.replace(PLAIN, **settings), there.place / data, there.out, seed=0, progress=False)


MISTAKES = {
    "a run that was never made": (lambda t: notebook.run_folder("never"), "`make run RECIPE=never` makes it"),
    "a recipe misspelt": (lambda t: recipes.named("lit"), "one of tiny, lite"),
    "a recipe misspelt in a notebook": (lambda t: notebook.setup("Lite"), "one of tiny, lite"),
    "a model misspelt": (lambda t: mc.create_model("MobileCLIP2-S9"), r"nor a name of .*MobileCLIP2-S0"),
    "a model folder without weights": (lambda t: mc.create_model(t.place / "empty"), "name a folder"),
    "no class names": (lambda t: measures.zero_shot_classifier(t.model, []), "give at least one"),
    "one name in place of a list": (lambda t: measures.zero_shot_classifier(t.model, "dog"), "give a list"),
    "no prompts": (lambda t: measures.zero_shot_classifier(t.model, ["dog"], []), "give at least one"),
    "a prompt without braces": (
        lambda t: measures.zero_shot_classifier(t.model, ["dog"], ["a photo"]),
        "write it where the name belongs",
    ),
    "images without captions": (lambda t: pairs_of(t, "album"), r"put NAME\.txt beside each image"),
    "a folder that is not there": (lambda t: pairs_of(t, "nowhere"), "a source is"),
    "an empty folder": (lambda t: pairs_of(t, "empty"), "a source is"),
    "a table without a header": (lambda t: pairs_of(t, "headless/captions.csv"), "add one, file_name and text"),
    "a table without rows": (lambda t: pairs_of(t, "rowless/captions.csv"), "add one an image"),
    "distilling from what was not reinforced": (
        lambda t: train(t, distill=0.7, views="stored", captioners=()),
        "reinforce it|reinforce the shard first|set distill=0",
    ),
    "fewer samples than a batch": (lambda t: train(t, samples=4), "raise samples or lower batch_size"),
    "fewer pairs than a batch": (
        lambda t: train(t, samples=64, batch_size=32),
        "lower batch_size or take more pairs",
    ),
    "training on a folder of photographs": (lambda t: train(t, "album"), "run it first|name a folder that a stage"),
    "a captioner that cannot write": (lambda t: load_captioner("lite-teacher-conv"), "make it with|name a CoCa model"),
    "a text file named .png as a query": (
        lambda t: index_of(t).query(image=t.place / "letter.png"),
        "name a JPEG, PNG or WebP file",
    ),
    "a query of nothing": (lambda t: index_of(t).query("", None), "search needs a text, an image, or both"),
    "searching a folder that is not there": (
        lambda t: search.build_index(t.place / "nowhere", None),
        "name the folder that holds the images",
    ),
    "a device that is none": (
        lambda t: load_captioner("lite-captioner-short", device="gpu"),
        "none of cpu, cuda, cuda:N, mps",
    ),
    "a file that is no notebook": (
        lambda t: notebook.recorded(t.place / "notes.ipynb"),
        "name an .ipynb file that was run",
    ),
    "a book of the wrong folder": (lambda t: make_book(t.place, t.out), "give the folder of the repository"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_a_sentence_that_says_what_to_do(mistake, there, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    there.out = tmp_path / "out"
    make, wanted = MISTAKES[mistake]
    with pytest.raises((ValueError, OSError, KeyError)) as caught:
        make(there)
    said = str(caught.value)
    assert re.search(wanted, said), said
    assert not list(Path(tmp_path).rglob("*.tar")), "nothing was made"


def test_a_folder_that_holds_other_work_is_left_alone(there):
    tars = sorted((there.place / "pairs").glob("*.tar"))
    before = [tar.read_bytes() for tar in tars]
    with pytest.raises(StageMismatch, match="name another folder, or remove this one"):
        mc.make_pairs(recipes.Pairs(count=8, samples_per_shard=8), there.place / "pairs", world=recipes.tiny().world)
    assert [tar.read_bytes() for tar in sorted((there.place / "pairs").glob("*.tar"))] == before


def test_a_claim_names_the_variable_that_it_lacks():
    with pytest.raises(NameError, match="'gain' is neither given nor a variable here: run the cells above first"):
        notebook.claim("a gain of {gain}", True)


# --- errors of Python and of the machine, with a sentence below them in a notebook -----------------------------------

HINTS = {
    "a cell that was left out": (NameError("name 'ensemble' is not defined", name="ensemble"), "run the cells above"),
    "the kernel of another environment": (ModuleNotFoundError("No module named 'timm'", name="timm"), "`make lab`"),
    "a run interrupted": (KeyboardInterrupt(), "Run the cell again: stages and trainings go on where they stopped"),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), "free some space and run the cell again"),
    "a folder of somebody else": (PermissionError(errno.EACCES, "Permission denied", "/x"), "name another folder"),
    "a path from another folder": (FileNotFoundError(errno.ENOENT, "No such file", "my"), "give the whole path"),
    "a batch larger than the memory": (RuntimeError("CUDA out of memory. Tried"), "lower batch_size"),
    "numbers that are not the published ones": (notebook.ClaimFailed("no longer true"), "compare the versions"),
}


@pytest.mark.parametrize("mistake", HINTS)
def test_an_error_of_the_machine_has_a_sentence_that_says_what_to_do(mistake):
    error, wanted = HINTS[mistake]
    assert wanted in hints.hint(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError("an answer of ours"),
        FileNotFoundError("no run of recipe 'tiny': `make run RECIPE=tiny` makes it"),
        ModuleNotFoundError("needs anywidget: pip install 'mobileclip2_lite[notebooks]'", name="anywidget"),
    ],
)
def test_an_error_that_says_it_itself_has_no_second_sentence(error):
    assert hints.hint(error) == ""


def test_the_hint_stands_below_the_cell_once(capsys):
    events = pytest.importorskip("IPython.core.events")
    manager = events.EventManager(None, events.available_events)
    for _ in range(2):
        hints.register(SimpleNamespace(events=manager))
    manager.trigger("post_run_cell", SimpleNamespace(error_in_exec=None))
    assert capsys.readouterr().out == ""
    manager.trigger("post_run_cell", SimpleNamespace(error_in_exec=KeyboardInterrupt()))
    assert capsys.readouterr().out.count("→ Interrupted. Run the cell again") == 1


NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_to_do_in_the_kernel_of_another_environment(path):
    """Without the library no hint can be shown: the sentence must stand there, or the install."""
    cells = [source(cell) for cell in json.loads(path.read_text("utf-8"))["cells"]]
    assert "`No module named 'mobileclip2_lite'`" in cells[0] or any("find_spec(" in cell for cell in cells[:4])
    assert "notebook.setup(recipe)" in "\n".join(cells[:5]), "which refuses a misspelt recipe before anything runs"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_that_listens_to_a_training_can_be_run_again(path):
    """A finished training is not done again: what a cell collects while it runs needs a folder of that very run."""
    for cell in map(source, json.loads(path.read_text("utf-8"))["cells"]):
        if "evaluate=" in cell and (".append(" in cell or "Watch(" in cell or "evaluate=watch" in cell):
            assert "mkdtemp(" in cell, f"a second run of it would hear nothing: {cell[:80]!r}"


def test_a_training_that_was_interrupted_goes_on_when_its_cell_is_run_again(there, tmp_path):
    """Ctrl-C in the middle: the folder is taken up, and the model is there at the end."""
    asked = []

    def interrupt(model) -> dict[str, float]:
        asked.append(model)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return {}

    settings = dataclasses.replace(PLAIN, samples=32, evaluate_every=2, checkpoint_every=1)

    def cell() -> Path:
        out = tmp_path / "m"
        return mc.train(settings, there.place / "pairs", out, seed=0, progress=False, evaluate=interrupt)

    with pytest.raises(KeyboardInterrupt) as stopped:
        cell()
    assert "Run the cell again" in hints.hint(stopped.value)
    assert mc.create_model(cell()) is not None
    assert len(asked) >= 2


def test_the_first_notebook_installs_nothing_where_there_is_no_repository(tmp_path, monkeypatch):
    cells = json.loads((ROOT / "notebooks" / "00_start_here.ipynb").read_text("utf-8"))["cells"]
    (install,) = [cell for cell in map(source, cells) if "find_spec(" in cell]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("installs"))
    with pytest.raises(FileNotFoundError, match="open this notebook inside the whole repository"):
        exec(compile(install, "00_start_here", "exec"), {})  # our own tracked file


# --- the playground answers in words --------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["", "dog", " dog , dog ", ",,"])
def test_too_few_names_are_answered_in_words(line):
    with pytest.raises(ValueError, match="Type two names or more, with commas between them"):
        naming.read_names(line)
    assert naming.read_names(" dog, cat ,dog") == ["dog", "cat"]


def test_an_upload_that_is_no_image_is_answered_in_words(there):
    with pytest.raises(ValueError, match="choose a JPEG, PNG or WebP file"):
        naming.uploaded((there.place / "letter.png").read_bytes())
    assert naming.uploaded((there.place / "album" / "mine.png").read_bytes()).size == (32, 32)
