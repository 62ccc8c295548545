"""Figures show what they were given, and tell right from wrong not only by colour."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mobileclip2_lite.reports import figures


def open_png(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_png_has_100_dpi():
    made, axes = figures.figure(3, 2)
    axes.plot([0, 1])
    image = open_png(figures.png(made))
    assert image.info["dpi"] == pytest.approx((100, 100), abs=1)
    assert 200 < image.width < 400


def test_figures_keep_their_ground_and_ink_in_a_dark_style():
    import matplotlib

    dark = {"figure.facecolor": "black", "axes.facecolor": "black", "savefig.facecolor": "black", "text.color": "white"}
    dark |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), "white")
    with matplotlib.rc_context(dark):
        made, axes = figures.figure(3, 2)
        axes.set(title="a title", xlabel="a label")
        axes.plot([0, 1])
        image = open_png(figures.png(made))
    assert axes.title.get_color() == axes.xaxis.label.get_color() == "black"
    assert "transparency" not in image.info
    pixels = np.asarray(image.convert("RGB"))
    assert all((pixels[row, column] > 250).all() for row in (0, -1) for column in (0, -1))
    assert (pixels > 250).all(axis=2).mean() > 0.8, "the ground is white, within the axes, too"
    assert (pixels < 60).all(axis=2).any(), "the ink is dark"


def test_images_take_arrays_tensors_and_pil():
    red = np.zeros((8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    made = figures.images([red, torch.from_numpy(red).permute(2, 0, 1), Image.fromarray(red), red], columns=3)
    shown = [np.asarray(axes.images[0].get_array()) for axes in made.axes if axes.images]
    assert len(shown) == 4
    assert all(np.array_equal(array, red) for array in shown)
    assert len(made.axes) == 6, "two rows of three; the empty cells have no frame"
    assert not any(axes.axison for axes in made.axes)


def test_right_and_wrong_differ_in_sign_and_line():
    made = figures.images([np.zeros((4, 4, 3), np.uint8)] * 3, ["one", "two", "three"], right=[True, False, None])
    signs = [{text.get_text() for text in axes.texts} & {"✓", "✗"} for axes in made.axes]
    assert signs == [{"✓"}, {"✗"}, set()]
    lines = [[patch.get_linestyle() for patch in axes.patches] for axes in made.axes]
    assert lines[0] != lines[1]


def test_long_titles_are_wrapped():
    made = figures.images([np.zeros((4, 4, 3), np.uint8)], ["a turtle below a cactus beside a peacock"], wrap=12)
    title = next(text.get_text() for text in made.axes[0].texts)
    assert max(map(len, title.split("\n"))) <= 12
    made = figures.images([np.zeros((4, 4, 3), np.uint8)], ["a\nb"])
    assert made.axes[0].texts[0].get_text() == "a\nb"


def test_curves_show_mean_and_standard_deviation():
    made = figures.curves(
        {"control": ([0, 10], [[0.1, 0.2], [0.3, 0.4]])}, "samples", "zero-shot", lines={"chance": 0.5}
    )
    axes = made.axes[0]
    assert axes.lines[0].get_ydata() == pytest.approx([20, 30])
    assert axes.lines[0].get_color() == figures.COLOURS["control"]
    assert axes.lines[1].get_ydata() == pytest.approx([50, 50])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    spread = 100 * np.std([0.1, 0.3], ddof=1)
    assert (band.min(), band.max()) == pytest.approx((20 - spread, 30 + spread))
    assert axes.get_ylabel() == "zero-shot (%)"


def test_bars_show_mean_deviation_and_chance():
    values = {"control": [[0.1, 0.3], 0.5], "student": [[0.4, 0.6], [0.5]]}
    axes = figures.bars(["zero-shot", "binding"], values, chance=[0.01, 0.5]).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([20, 50, 50, 50])
    assert len({bar.get_hatch() for bar in axes.patches}) == 2
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"control", "student", "chance"}


def test_heatmap_writes_the_numbers_of_small_matrices():
    made = figures.heatmap([[0.0, 0.25], [0.5, 1.0]], ["a", "b"], ["c", "d"], digits=1)
    assert [text.get_text() for text in made.axes[0].texts] == ["0.0", "0.2", "0.5", "1.0"]
    assert not figures.heatmap(np.zeros((20, 20)), ["r"] * 20, ["c"] * 20).axes[0].texts


def test_roles_keep_their_colours_and_no_colour_is_used_twice():
    labels = ["control", "reinforced student", "lite-teacher-a", "lite-teacher-b", "chance", "other"]
    colours = figures._colours(labels)
    assert colours[:3] == [figures.COLOURS[role] for role in ("control", "student", "teacher")]
    assert len(set(colours)) == len(labels)


def test_a_heatmap_shows_thumbnails_in_place_of_names():
    from matplotlib.offsetbox import AnnotationBbox

    pictures = [np.full((40, 20, 3), grey, np.uint8) for grey in (0, 255)]
    made = figures.heatmap(np.eye(2), ["a", "b"], ["c", "d"], images=pictures)
    boxes = [artist for artist in made.axes[0].artists if isinstance(artist, AnnotationBbox)]
    assert [box.xy for box in boxes] == [(0, 0), (0, 1)]
    assert [text.get_text() for text in made.axes[0].get_yticklabels()] == ["", ""]
    assert not figures.heatmap(np.eye(2), ["a", "b"], ["c", "d"]).axes[0].artists


@pytest.mark.parametrize(("ends", "some"), [((0.0, 1.0), "0.2"), ((0, 20_000), "10,000")])
def test_ticks_of_a_curve_tell_its_points_apart(ends, some):
    made = figures.curves({"student": (ends, [[0.1, 0.2]])}, "x", "zero-shot")
    made.canvas.draw()
    labels = [label.get_text() for label in made.axes[0].get_xticklabels()]
    assert len(set(labels)) == len(labels)
    assert some in labels
