"""Texts in every form in which users have them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileclip2_lite.work.texts import NoText, is_blank, texts_of


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (" a dog\n", ["a dog"]),
        (b"\xef\xbb\xbfa dog", ["a dog"]),
        ("Größe".encode("utf-16"), ["Größe"]),
        (["a dog", None, "", "a hound"], ["a dog", "a hound"]),
        (("a dog", math.nan), ["a dog"]),
        (np.array(["a dog", "a hound"]), ["a dog", "a hound"]),
        (np.str_("a dog"), ["a dog"]),
        ("['a dog', \"it's a hound\"]", ["a dog", "it's a hound"]),
        ('["a dog", "a hound"]', ["a dog", "a hound"]),
        ("[a dog]", ["[a dog]"]),
        ("['a dog' and more']", ["['a dog' and more']"]),
        ("['a', 7]", ["['a', 7]"]),
        ({"raw": "a dog", "tokens": ["a", "dog"]}, ["a dog"]),
        ([{"raw": "a dog"}, {"caption": "a hound"}], ["a dog", "a hound"]),
    ],
)
def test_forms_of_texts(value, texts):
    assert texts_of(value) == texts


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no_text"),
        (math.nan, "no_text"),
        ([], "no_text"),
        ([None, math.nan], "no_text"),
        ("", "empty_text"),
        (" \n\u3000", "empty_text"),
        ("\u200b\ufeff", "empty_text"),
        ("\u202e \x00", "empty_text"),
        (["", " "], "empty_text"),
        (7, "text_not_string"),
        (True, "text_not_string"),
        (["a dog", 7], "text_not_string"),
        ({"en": "a dog"}, "text_not_string"),
        (b"caf\xe9", "text_not_utf8"),
        ("\ud800", "text_not_utf8"),
        (b"\xff\xfea", "text_not_utf8"),
    ],
)
def test_what_is_no_text_has_a_reason(value, reason):
    with pytest.raises(NoText) as caught:
        texts_of(value)
    assert caught.value.reason == reason


@pytest.mark.parametrize("text", ["!", "\u202eright to left", "\U0001f468\u200d\U0001f469", "a\u200bb", "e\u0301"])
def test_signs_that_cannot_be_seen_stay_beside_others(text):
    assert texts_of(text) == [text]
    assert not is_blank(text)


VISIBLE = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: not is_blank(text))


@given(st.lists(VISIBLE, min_size=1))
def test_a_string_that_is_a_list_gives_its_texts(texts):
    texts = [text.strip() for text in texts]
    assert texts_of(repr(texts)) == texts_of(texts) == texts
