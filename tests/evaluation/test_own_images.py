"""A user's own images: folders, datasets, and what cannot be read."""

import datasets
import numpy as np
import pytest
from PIL import Image
from test_evaluation import COLOURS, colour_clip, plain

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
    assert result["dropped"] == {"UnidentifiedImageError": 1}


def test_own_class_names_change_the_answer(tmp_path):
    result = own_data.evaluate_zero_shot(colour_clip(), folder_of_colours(tmp_path), ["red", "green", "blue"])
    assert result["top1"] == pytest.approx(1 / 3), "folders are sorted: blue, green, red"


def test_zero_shot_of_a_dataset_with_a_broken_image():
    features = datasets.Features({"picture": datasets.Image(), "colour": datasets.ClassLabel(names=list(COLOURS))})
    encoded = [{"bytes": png(colour), "path": None} for colour in COLOURS] + [{"bytes": b"broken", "path": None}]
    data = datasets.Dataset.from_dict({"picture": encoded, "colour": [0, 1, 2, 0]}, features=features)
    result = own_data.evaluate_zero_shot(colour_clip(), data)
    assert (result["top1"], result["images"], result["dropped"]) == (1.0, 3, {"UnidentifiedImageError": 1})


def png(colour):
    import io

    buffer = io.BytesIO()
    Image.fromarray(plain(colour)).save(buffer, "PNG")
    return buffer.getvalue()


def test_zero_shot_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no folders"):
        own_data.evaluate_zero_shot(colour_clip(), tmp_path)
    data = datasets.Dataset.from_dict({"image": [1], "name": ["red"]})
    with pytest.raises(ValueError, match=r"'label' in \['image', 'name'\]"):
        own_data.evaluate_zero_shot(colour_clip(), data)
    with pytest.raises(ValueError, match="classnames"):
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
    assert result["dropped"] == {"UnidentifiedImageError": 1, "no text": 1}


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
