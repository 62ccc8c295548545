"""A user's own images: folders, datasets, and what cannot be read."""

import io
import math
import os

import datasets
import numpy as np
import pytest
from doubles.colour_clip import COLOURS, colour_clip, plain
from PIL import Image

from mobileclip2_lite.evaluation import own_images as own_data


def folder_of_colours(root):
    for colour in COLOURS:
        (root / f"light_{colour}").mkdir(parents=True)
        for number in range(2):
            Image.fromarray(plain(colour)).save(root / f"light_{colour}" / f"{number}.png")
    (root / "light_red" / "broken.jpg").write_bytes(b"no image")
    return root


def test_zero_shot_of_a_folder(tmp_path):
    result = own_data.evaluate_zero_shot(colour_clip(), folder_of_colours(tmp_path))
    assert result["top1"] == 1.0
    assert result["chance"] == pytest.approx(1 / 3)
    assert result["images"] == 6
    assert result["dropped"] == {"not_an_image": 1}


def test_own_class_names_change_the_answer(tmp_path):
    result = own_data.evaluate_zero_shot(colour_clip(), folder_of_colours(tmp_path), ["red", "green", "blue"])
    assert result["top1"] == pytest.approx(1 / 3), "folders are sorted: blue, green, red"


def test_zero_shot_of_a_dataset_with_a_broken_image():
    features = datasets.Features({"picture": datasets.Image(), "colour": datasets.ClassLabel(names=list(COLOURS))})
    encoded = [{"bytes": png(colour), "path": None} for colour in COLOURS] + [{"bytes": b"broken", "path": None}]
    data = datasets.Dataset.from_dict({"picture": encoded, "colour": [0, 1, 2, 0]}, features=features)
    result = own_data.evaluate_zero_shot(colour_clip(), data)
    assert (result["top1"], result["images"], result["dropped"]) == (1.0, 3, {"not_an_image": 1})


def png(colour):
    buffer = io.BytesIO()
    Image.fromarray(plain(colour)).save(buffer, "PNG")
    return buffer.getvalue()


def test_zero_shot_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no folders"):
        own_data.evaluate_zero_shot(colour_clip(), tmp_path)
    data = datasets.Dataset.from_dict({"image": [1], "name": ["red"]})
    with pytest.raises(ValueError, match=r"'label' in \['image', 'name'\]"):
        own_data.evaluate_zero_shot(colour_clip(), data)
    with pytest.raises(ValueError, match=r"classnames"):
        own_data.evaluate_zero_shot(colour_clip(), [{"image": plain("red"), "label": 0}])


def test_retrieval_of_rows_with_one_or_many_texts():
    rows = [
        {"image": plain("red"), "text": ["all red", "so red it is", "red"]},
        {"image": Image.fromarray(plain("green")), "text": "green"},
        {"image": png("blue"), "text": ["blue"]},
        {"image": b"broken", "text": "red"},
        {"image": plain("red"), "text": " "},
    ]
    result = own_data.evaluate_retrieval(colour_clip(), rows)
    assert (result["i2t_r1"], result["t2i_r1"]) == (1.0, 1.0)
    assert (result["images"], result["texts"]) == (3, 5)
    assert result["dropped"] == {"not_an_image": 1, "empty_text": 1}


def test_retrieval_of_a_dataset():
    data = datasets.Dataset.from_dict(
        {"image": [Image.fromarray(plain(c)) for c in COLOURS], "text": list(COLOURS)},
        features=datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")}),
    )
    assert own_data.evaluate_retrieval(colour_clip(), data)["t2i_r1"] == 1.0
    with pytest.raises(ValueError, match="no column 'caption'; it has"):
        own_data.evaluate_retrieval(colour_clip(), data, text_key="caption")


def test_arrays_and_labels_of_another_type():
    rows = [{"image": plain(c), "label": np.int64(i)} for i, c in enumerate(COLOURS)]
    assert own_data.evaluate_zero_shot(colour_clip(), rows, list(COLOURS))["top1"] == 1.0


# --- own data is checked before work ----------------------------------------------------------------------------------


def labelled(labels, feature=None):
    feature = feature or datasets.ClassLabel(names=list(COLOURS))
    images = [{"bytes": png(list(COLOURS)[k % 3]), "path": None} for k in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


@pytest.mark.parametrize("none", [-1, None])
def test_images_without_a_label_are_counted_and_are_no_errors(none):
    result = own_data.evaluate_zero_shot(colour_clip(), labelled([0, none, 2, 0, 1, none]))
    assert (result["top1"], result["images"], result["dropped"]) == (1.0, 4, {"unlabelled": 2})
    rows = [{"image": plain("red"), "label": math.nan}, {"image": plain("green"), "label": np.int64(1)}]
    assert own_data.evaluate_zero_shot(colour_clip(), rows, list(COLOURS))["dropped"] == {"unlabelled": 1}
    with pytest.raises(ValueError, match=r"no image can be used .*3 unlabelled"):
        own_data.evaluate_zero_shot(colour_clip(), labelled([none] * 3))


@pytest.mark.parametrize(
    ("labels", "kind", "match"),
    [
        ([0, 1, 3], "int64", r"row 2: the label 3 is outside the 3 classes: they count from 0"),
        ([0, -2, 1], "int64", r"row 1: the label -2 is outside"),
        ([0.0, 1.5], "float32", r"row 1: the label 1.5 is neither"),
        (["red", "pink"], "string", r"row 1: the label 'pink' is no class"),
        ([[0], [1]], None, r"row 0: the label \[0\] is neither"),
    ],
)
def test_labels_outside_the_classes_are_refused_before_any_work(labels, kind, match):
    clip = colour_clip()
    feature = datasets.Value(kind) if kind else datasets.List(datasets.Value("int64"))
    with pytest.raises(ValueError, match=match):
        own_data.evaluate_zero_shot(clip, labelled(labels, feature), list(COLOURS))
    assert clip.model.batches == [], "nothing was embedded"
    rows = [{"image": plain("red"), "label": label} for label in labels]
    with pytest.raises(ValueError, match=match):
        own_data.evaluate_zero_shot(clip, rows, list(COLOURS))


def test_labels_may_be_names():
    names = ["light red", "green", "blue"]
    data = labelled(["light_red", "green", "blue"], datasets.Value("string"))
    assert own_data.evaluate_zero_shot(colour_clip(), data, names)["top1"] == 1.0


def test_one_string_is_no_list_of_texts():
    from mobileclip2_lite.models.loaded import encode_texts

    for keys in ({"classnames": "red"}, {"templates": "a {}"}):
        with pytest.raises(ValueError, match=r"must be a list, and '.*' is one string: write \["):
            own_data.evaluate_zero_shot(colour_clip(), labelled([0, 1]), **keys)
    with pytest.raises(ValueError, match=r"texts is one string, 'red'"):
        encode_texts(colour_clip(), "red")


def test_texts_of_a_users_rows():
    texts = [
        "['all red', 'red']",
        {"raw": "green"},
        [{"raw": "blue"}, {"raw": "so blue"}],
        math.nan,
        [None, " "],
        {"x": 1},
        7,
    ]
    rows = [
        {"image": plain(colour), "text": text} for colour, text in zip([*COLOURS, *["red"] * 4], texts, strict=True)
    ]
    result = own_data.evaluate_retrieval(colour_clip(), rows)
    assert (result["i2t_r1"], result["images"], result["texts"]) == (1.0, 3, 5)
    assert result["dropped"] == {"no_text": 1, "empty_text": 1, "text_not_string": 2}
    with pytest.raises(ValueError, match=r"no image can be used .*1 no_text"):
        own_data.evaluate_retrieval(colour_clip(), [{"image": plain("red"), "text": None}])


def test_class_folders_one_level_deeper(tmp_path):
    folder_of_colours(tmp_path / "set" / "val")
    one = own_data.evaluate_zero_shot(colour_clip(), tmp_path / "set")
    assert (one["top1"], one["images"], one["chance"]) == (1.0, 6, pytest.approx(1 / 3))
    folder_of_colours(tmp_path / "set" / "train")
    (tmp_path / "set" / "train" / "labels.txt").write_text("notes beside the folders")
    with pytest.raises(ValueError, match=r"holds folders of classes, \['train', 'val'\]: name one"):
        own_data.evaluate_zero_shot(colour_clip(), tmp_path / "set")
    for colour in COLOURS:
        (tmp_path / "deep" / colour / "images").mkdir(parents=True)
        Image.fromarray(plain(colour)).save(tmp_path / "deep" / colour / "images" / "0.JPEG")
    assert own_data.evaluate_zero_shot(colour_clip(), tmp_path / "deep")["images"] == 3
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        own_data.evaluate_zero_shot(colour_clip(), tmp_path / "nowhere")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_every_file_of_a_class_folder_is_used_or_counted(tmp_path):
    folder_of_colours(tmp_path)
    red = tmp_path / "light_red"
    (red / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (red / ".DS_Store").write_bytes(b"x")
    (red / "notes.txt").write_text("no image")
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "light_blue" / "deep.png")
    (tmp_path / "light_green" / "eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
    result = own_data.evaluate_zero_shot(colour_clip(), tmp_path)
    assert result["images"] == 7
    assert result["dropped"] == {"not_an_image": 3, "no_image": 1}
