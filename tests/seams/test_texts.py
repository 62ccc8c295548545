"""Whatever a text holds, every way to embed it gives what the whole context gives, alone and among any neighbours.

Id 0 is padding, and in CLIP's BPE also `!` before another sign: a length that counts tokens loses the end token there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from doubles import tiny_training
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mobileclip2_lite.deployment.runtime import Exported
from mobileclip2_lite.evaluation.measures import zero_shot_classifier
from mobileclip2_lite.filtering.scoring import ShardScorer
from mobileclip2_lite.models.coca import cut, text_states
from mobileclip2_lite.models.embedded import Travelling
from mobileclip2_lite.models.ensemble import Teacher, TeacherEnsemble
from mobileclip2_lite.models.loaded import encode_texts
from mobileclip2_lite.models.trimming import encode_text, is_trimmable, text_lengths, trim
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.reinforcement.embedder import Embedder
from mobileclip2_lite.shards.samples import Sample
from mobileclip2_lite.training.feeding import Tokens

SIGNS = "!:)|*$%/#'\"&+,-.;<=>?@[]^_`{}~(\\"
TEXTS = st.lists(
    st.text(st.one_of(st.sampled_from("!" + SIGNS), st.sampled_from("abc Z09é☃")), max_size=30), min_size=1, max_size=5
)
TOWERS = {
    "causal": {},
    "end token by id": {"pool_type": "eos", "eos_id": 599},
    "both ways": {"no_causal_mask": True},
    "both ways, first token": {"no_causal_mask": True, "pool_type": "first"},
    "causal, last token": {"pool_type": "last"},
}
KNOWN = ["cute dog!:) free", "!|", "a!", "!", "", "buy now!!:)", "!:)" * 40]
KNOWN += [f"{'a ' * count}!:" for count in (19, 20, 21)]  # one token short of the context's edge, at it, beyond


@pytest.fixture(scope="module", params=TOWERS)
def loaded(request, tmp_path_factory):
    return create_model(tiny_training.write_model(tmp_path_factory.mktemp("model"), **TOWERS[request.param]))


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    return create_model(tiny_training.write_captioner(tmp_path_factory.mktemp("coca")))


def whole(loaded, texts):
    with torch.no_grad():
        return F.normalize(loaded.model.encode_text(loaded.tokenizer(texts)).float(), dim=-1)


def rows_of_reinforcement(ensemble, texts):
    """What the reinforcement stores of a sample with these texts as text and captions."""
    sample = Sample("uid", b"", "jpg", texts[0], {}, {"c": texts[1:]} if texts[1:] else {}, [], {})
    embedder = Embedder(ensemble, batch_size=1)
    embedder.push(sample, {name: [] for name in ensemble.names})
    embedder.flush()
    found = embedder.pop(sample)
    return torch.cat([found["text/t"], *([found["syn_text_c/t"]] if texts[1:] else [])])


def ways(loaded) -> dict:
    """Every way from texts to unit features."""
    ensemble = TeacherEnsemble([Teacher("t", "m", None, 10.0)], [loaded])
    scorer = ShardScorer(Travelling(loaded, None), Path(), {}, 1)
    tokens = Tokens(loaded.tokenizer, is_trimmable(loaded.model))

    @torch.no_grad()
    def student(texts):  # as the training's step does on a CPU
        return encode_text(loaded.model, tokens(texts), normalize=True, parts=2)

    return {
        "teacher": lambda texts: ensemble.embed_texts("t", texts),
        "scorer": scorer.texts.embed,
        "evaluation": lambda texts: encode_texts(loaded, texts),
        "student": student,
        "reinforcement": lambda texts: rows_of_reinforcement(ensemble, texts),
    }


def check(loaded, texts):
    wanted = whole(loaded, texts)
    for name, embed in ways(loaded).items():
        for count in {1, len(texts)}:
            difference = (embed(texts[:count]) - wanted[:count]).abs().max()
            assert difference < 2e-5, f"{name}: {texts[:count]} differ by {difference:.1e}"


@settings(max_examples=10, deadline=None)
@given(texts=TEXTS)
def test_every_way_gives_what_the_whole_context_gives(loaded, texts):
    check(loaded, texts)


@pytest.mark.parametrize("text", KNOWN)
def test_texts_that_once_lost_their_end(loaded, text):
    check(loaded, [text])
    check(loaded, [text, "a longer text about a cat and a dog"])


@settings(max_examples=20, deadline=None)
@given(texts=TEXTS)
def test_a_captioners_states_are_those_of_the_whole_context(captioner, texts):
    tokens = captioner.tokenizer(texts)
    with torch.no_grad():
        feature, states = captioner.model._encode_text(tokens, normalize=False)
        for rows in (slice(None), slice(1)):
            some = cut(tokens[rows], captioner.model.pad_id)
            mine, found = text_states(captioner.model, some)
            torch.testing.assert_close(mine, feature[rows], atol=2e-5, rtol=1e-3)
            torch.testing.assert_close(found, states[rows, : some.shape[1]], atol=2e-5, rtol=1e-3)


def test_the_embedded_models_embed_a_text_with_token_0(repository):
    """`"cute dog!:) free"`: cosine 0.57 of lite-teacher-conv to itself, alone and at the whole context, once."""
    for folder in ("teachers/lite-teacher-conv", "scorers/lite-dfn"):
        loaded = create_model(repository / "data" / folder)
        tokens = loaded.tokenizer(["cute dog!:) free"])
        assert 0 in tokens[0, : int(text_lengths(tokens))]
        assert trim(loaded.model, tokens).shape[1] < tokens.shape[1]
        check(loaded, ["cute dog!:) free"])


def test_one_string_is_no_list_of_texts(loaded):
    ensemble = TeacherEnsemble([Teacher("t", "m", None, 10.0)], [loaded])
    embedders = (
        lambda texts: encode_texts(loaded, texts),
        lambda texts: ensemble.embed_texts("t", texts),
        lambda texts: zero_shot_classifier(loaded, texts),
        Exported(None, lambda tokens: tokens, None, loaded.tokenizer, 1.0, "").embed_texts,
    )
    for embed in embedders:
        with pytest.raises(ValueError, match=r"one string.*give a list of strings, \['a photo of a dog'\]"):
            embed("a photo of a dog")
        with pytest.raises(ValueError, match="which is no string"):
            embed(["a dog", 3])


def test_a_length_is_the_place_of_the_last_token():
    tokens = torch.tensor([[5, 0, 0, 9, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])
    assert text_lengths(tokens).tolist() == [4, 1, 5]
    assert text_lengths(tokens, pad=5).tolist() == [5, 5, 4]


def test_a_tower_whose_end_token_is_padding_is_never_cut(tmp_path):
    model = create_model(tiny_training.write_model(tmp_path, pool_type="eos", eos_id=0)).model
    assert not is_trimmable(model)
