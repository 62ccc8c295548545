"""Caption generation: equal to open_clip's and to naive twins, and the same whatever the batch."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles.captions import CONTEXT, GREEDY_CASES, WARPS, penalised, pictures, small_coca, warped

from mobileclip2_lite.captioning import generation, token_choice
from mobileclip2_lite.captioning.generation import generate, image_tokens
from mobileclip2_lite.captioning.steps import CaptionSteps
from mobileclip2_lite.models.coca import special_tokens
from mobileclip2_lite.models.loaded import LoadedModel
from mobileclip2_lite.models.trimming import text_lengths
from mobileclip2_lite.models.zoo import create_model
from mobileclip2_lite.recipes import Generate
from mobileclip2_lite.work.randomness import rng

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "captions.json").read_text("utf-8"))
"""What open_clip's `generate` and transformers gave; golden/record_captions.py made it."""
GREEDY = Generate(captions=1, method="greedy")
SAMPLE = Generate(captions=3, top_p=0.9)
BEAM = Generate(captions=2, method="beam", beams=4)


@pytest.fixture(scope="module")
def coca() -> LoadedModel:
    return small_coca(3, end=3.0)


def chances(count: int, first: int = 0) -> list[np.random.Generator]:
    return [rng(0, "captions", number) for number in range(first, first + count)]


def logits_of(loaded: LoadedModel, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """open_clip's own logits (B, t, V) of whole captions."""
    with torch.inference_mode():
        return loaded.model(loaded.preprocess.normalize(images), tokens, output_labels=False)["logits"]


# --- equal to the reference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "end", "length"), GREEDY_CASES)
def test_greedy_writes_what_open_clip_writes(seed, end, length):
    loaded, images = small_coca(seed, end), pictures(12)
    rows = [tuple(row) for row in GOLDEN["greedy"][f"{seed} {end} {length}"]]
    ours = generate(loaded, images, dataclasses.replace(GREEDY, max_length=length))
    assert [captions[0].tokens for captions in ours] == rows
    lengths = {len(row) for row in rows}
    assert len(set(rows)) > 6  # or it would show little
    assert len({token for row in rows for token in row}) > 12
    assert max(lengths) == length - 1
    assert len(lengths) > 1


def test_signs_stand_as_people_write_them_and_tokens_stay_the_same():
    loaded = create_model("lite-coca")
    start, end, _ = special_tokens(loaded)
    for text in ("a red apple, a dog and a kite", "look! is it a cat? yes: a cat; no dog."):
        tokens = [token for token in loaded.tokenizer([text])[0].tolist() if token not in (start, 0)]
        caption = generation._caption(loaded, tokens[: tokens.index(end) + 1], 0.0)
        assert caption.text == text
        assert torch.equal(loaded.tokenizer([caption.text]), loaded.tokenizer([loaded.tokenizer.decode(tokens[:-1])]))


def test_temperature_zero_is_greedy(coca):
    images = pictures(5)
    assert generate(coca, images, Generate(captions=1, temperature=0)) == generate(coca, images, GREEDY)


@pytest.mark.parametrize("name", ["small", "lite-coca"])
def test_cached_steps_equal_the_whole_forward_pass(name, coca):
    loaded = create_model("lite-coca") if name == "lite-coca" else coca
    images = pictures(3, loaded.preprocess.image_size)
    tokens = torch.randint(1, 500, (6, 12), generator=torch.Generator().manual_seed(0))  # two captions an image
    rows = torch.arange(6)
    wanted = logits_of(loaded, images.repeat_interleave(2, 0), tokens)
    with torch.inference_mode():
        steps = CaptionSteps(loaded.model, image_tokens(loaded, images), 2, 12)
        for time in range(12):
            if time == 4:  # a caption of the first image and all of the second are finished
                rows = rows[[1, 4, 5]]
                steps.keep(torch.tensor([1, 4, 5]))
            if time == 8:
                rows = rows[[2]]
                steps.keep(torch.tensor([2]))
            torch.testing.assert_close(steps.step(tokens[rows, time]), wanted[rows, time], atol=2e-4, rtol=1e-4)


def test_log_probability_is_the_models_own(coca):
    images = pictures(3)
    for settings in (SAMPLE, BEAM, dataclasses.replace(SAMPLE, temperature=0.5, top_k=5, repetition_penalty=1.3)):
        for image, captions in zip(images, generate(coca, images, settings, chances(3)), strict=True):
            for caption in captions:
                tokens = torch.tensor([[coca.tokenizer.sot_token_id, *caption.tokens]])
                table = logits_of(coca, image[None], tokens[:, :-1])[0].log_softmax(-1)
                wanted = table.gather(1, tokens[0, 1:, None]).sum()
                assert caption.log_probability == pytest.approx(float(wanted), abs=1e-3)
                assert caption.tokens[-1] == coca.tokenizer.eot_token_id


def naive_beam(loaded: LoadedModel, image: torch.Tensor, settings: Generate, length: int) -> list[tuple[int, ...]]:
    """Beam search by lists, with the whole forward pass for every beam and token."""
    start, end, pad = special_tokens(loaded)
    beams, ended = [((start,), 0.0)], []
    for time in range(1, length):
        options = []
        for tokens, total in beams:
            scores = logits_of(loaded, image[None], torch.tensor([tokens]))[0, -1].log_softmax(-1).tolist()
            for token, score in enumerate(scores):
                early = token == end and time <= settings.min_length
                if not (token == pad or early or (time == length - 1 and token != end)):
                    options.append(((*tokens, token), total + score))
        options.sort(key=lambda option: -option[1])
        ended += [(total / time, tokens[1:]) for tokens, total in options[: settings.beams] if tokens[-1] == end]
        ended = sorted(ended, key=lambda caption: -caption[0])[: settings.beams]
        beams = [option for option in options[: 2 * settings.beams] if option[0][-1] != end][: settings.beams]
        if not beams or (len(ended) == settings.beams and ended[-1][0] >= beams[0][1] / time):
            break
    return [tokens for _, tokens in ended[: settings.captions]]


@pytest.mark.parametrize("changes", [{}, {"min_length": 6}, {"captions": 1, "beams": 1}])
def test_beam_search_equals_the_naive_one(coca, changes):
    settings, images = dataclasses.replace(BEAM, max_length=11, **changes), pictures(5)
    ours = generate(coca, images, settings)
    wanted = [naive_beam(coca, image, settings, 11) for image in images]
    assert [[caption.tokens for caption in captions] for captions in ours] == wanted
    assert len({len(tokens) for captions in wanted for tokens in captions}) > 1


# --- choosing a token -----------------------------------------------------------------------------------------------


def naive_nucleus(chances: torch.Tensor, top_p: float) -> set[int]:
    kept, mass = set(), 0.0
    for token in sorted(range(len(chances)), key=lambda token: -float(chances[token])):
        if mass >= top_p:
            break
        kept.add(token)
        mass += float(chances[token])
    return kept


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.999])
def test_nucleus_is_the_smallest_set(top_p):
    table = (3 * torch.randn(20, 50, generator=torch.Generator().manual_seed(0))).softmax(-1)
    for row in table:
        every = torch.arange(50)
        inside = token_choice.in_nucleus(row.expand(50, -1), every, top_p)
        assert set(every[inside].tolist()) == naive_nucleus(row, top_p)


@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
def test_samples_have_the_nucleus_distribution(top_p):
    count, streams = 20_000, torch.arange(20_000)
    row = (1.5 * torch.randn(12, generator=torch.Generator().manual_seed(1))).softmax(-1)
    drawn = token_choice.sample(
        row.expand(count, -1), top_p, token_choice.Uniforms([rng(0)], count, torch.device("cpu")), streams
    )
    kept = naive_nucleus(row, top_p)
    wanted = torch.tensor([float(row[token]) if token in kept else 0.0 for token in range(12)])
    wanted /= wanted.sum()
    share = torch.bincount(drawn, minlength=12) / count
    assert torch.all(share[wanted == 0] == 0)
    assert torch.all((share - wanted).abs() <= 4.5 * (wanted * (1 - wanted) / count).sqrt() + 1e-9)


def test_random_numbers_of_a_caption_are_only_its_images(coca):
    device, few = torch.device("cpu"), torch.arange(2)
    alone = token_choice.Uniforms([rng(1)], 2, device)
    both = token_choice.Uniforms([rng(0), rng(1)], 2, device)
    for _ in range(5):
        both.draw(torch.tensor([0]))  # a neighbour that needs more of them
    for _ in range(150):
        assert torch.equal(alone.draw(few), both.draw(few + 2))


@pytest.mark.parametrize(("temperature", "top_k"), WARPS)
def test_warped_probabilities_are_transformers(temperature, top_k):
    wanted = GOLDEN["warps"][f"{temperature} {top_k}"]
    ours = token_choice.probabilities(warped(), temperature, top_k)
    torch.testing.assert_close(ours, torch.tensor(wanted["probabilities"]), atol=2e-7, rtol=1e-5)
    for token in range(40):
        inside = token_choice.in_nucleus(ours, torch.full((6,), token), 0.6) & (ours[:, token] > 0)
        assert inside.int().tolist() == [row[token] for row in wanted["nucleus"]]


def test_penalties_are_transformers():
    logits, written = penalised()
    settings = dataclasses.replace(SAMPLE, repetition_penalty=1.7, min_length=9)
    forbidden = -torch.inf
    wanted = torch.tensor([[forbidden if x is None else x for x in row] for row in GOLDEN["penalties"]])
    wanted[:, 0] = forbidden  # padding, which transformers does not know of
    ours = token_choice.allowed(logits, written, settings, end=39, pad=0)
    torch.testing.assert_close(ours, wanted, atol=2e-6, rtol=0)
    later = token_choice.allowed(logits, written, dataclasses.replace(settings, min_length=8), end=39, pad=0)
    assert later[:, 39].isfinite().all()


# --- what a caption may be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [SAMPLE, GREEDY, BEAM])
def test_lengths_are_kept(coca, settings):
    images = pictures(6)
    least = dataclasses.replace(settings, min_length=9, max_length=12)
    lengths = [len(c.tokens) - 1 for captions in generate(coca, images, least, chances(6)) for c in captions]
    assert set(lengths) <= {9, 10}
    forced = dataclasses.replace(settings, min_length=CONTEXT - 2)
    for captions in generate(coca, images, forced, chances(6)):
        for caption in captions:
            assert caption.tokens.index(coca.tokenizer.eot_token_id) == len(caption.tokens) - 1 == CONTEXT - 2


def test_several_captions_differ_and_are_repeatable(coca):
    first = generate(coca, pictures(4), SAMPLE, chances(4))
    assert all(len({caption.tokens for caption in captions}) == 3 for captions in first)
    assert generate(coca, pictures(4), SAMPLE, chances(4)) == first
    assert generate(coca, pictures(4), SAMPLE, chances(4, first=10)) != first


def test_repetition_penalty_repeats_less(coca):
    def repeats(settings: Generate) -> int:
        rows = [captions[0].tokens for captions in generate(coca, pictures(8), settings)]
        return sum(len(row) - len(set(row)) for row in rows)

    assert repeats(dataclasses.replace(GREEDY, repetition_penalty=2.0)) < repeats(GREEDY)


def test_long_texts_of_several_sentences_survive(monkeypatch):
    loaded = create_model("lite-coca")
    text = "a small red dog sits left of two blue balls. above them a bird flies. all of it is drawn on a green "
    text = text + "ground, and the sky is not seen. the dog looks at the bird."
    wanted = loaded.tokenizer([text])[0]
    length = int(text_lengths(wanted[None]))
    assert length > 40

    class Dictated(CaptionSteps):
        def step(self, tokens):
            super().step(tokens)
            return torch.nn.functional.one_hot(wanted[self.time].expand(self.rows), 4096).float() * 50

    monkeypatch.setattr(generation, "CaptionSteps", Dictated)
    caption = generate(loaded, pictures(1, 48), GREEDY)[0][0]
    assert caption.text == text
    assert caption.tokens == tuple(wanted[1:length].tolist())


# --- the same whatever the batch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [SAMPLE, GREEDY, BEAM])
@pytest.mark.parametrize("name", ["small", "lite-coca"])
def test_captions_do_not_depend_on_the_batch(name, settings, coca, monkeypatch):
    loaded = create_model("lite-coca") if name == "lite-coca" else coca
    settings = dataclasses.replace(settings, max_length=8 if name == "lite-coca" else 0)
    images = pictures(64, loaded.preprocess.image_size)
    monkeypatch.setattr(generation, "KEPT", {"cpu": 40 * generation._kept_bytes(loaded.model, settings, 8)})
    whole = generate(loaded, images, settings, chances(64))
    sevens = [generate(loaded, images[i : i + 7], settings, chances(7, first=i)[: 64 - i]) for i in range(0, 64, 7)]
    assert list(itertools.chain(*sevens)) == whole
    for i in (0, 5, 40, 63):
        assert generate(loaded, images[i : i + 1], settings, chances(1, first=i)) == whole[i : i + 1]
    order = np.random.default_rng(1).permutation(64)[:20].tolist()
    mixed = generate(loaded, images[order], settings, [chances(1, first=i)[0] for i in order])
    assert mixed == [whole[i] for i in order]


def test_states_may_be_given_instead(coca):
    images = pictures(11)
    states = image_tokens(coca, images)
    assert torch.equal(states[9:], image_tokens(coca, images[9:]))
    assert generate(coca, None, SAMPLE, chances(11), states) == generate(coca, images, SAMPLE, chances(11))
    assert generate(coca, images[:0], SAMPLE, []) == []


def test_model_keeps_its_mode_and_bf16_runs(coca):
    coca.model.train()
    captions = generate(coca, pictures(2), SAMPLE, chances(2), precision="bf16")
    assert coca.model.training
    coca.model.eval()
    assert all(np.isfinite(c.log_probability) for row in captions for c in row)


def test_nothing_needs_transformers(monkeypatch, coca):
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers"] + ["transformers"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("token_choice", "steps", "beam_search", "generation"):
        path = Path(generation.__file__).with_name(f"{name}.py")
        spec = importlib.util.spec_from_file_location(f"mobileclip2_lite.captioning.{name}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    for settings in (SAMPLE, GREEDY, BEAM):
        assert len(module.generate(coca, pictures(1), settings, chances(1))[0]) == settings.captions


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Generate(method="greedy"), "greedy captions are all equal: set captions to 1"),
        (Generate(temperature=0.0), "greedy captions are all equal"),
        (Generate(method="beam", captions=6, beams=5), "raise beams"),
        (Generate(method="beam", captions=6, beams=400), "less than half"),
        (Generate(method="nucleus"), "method must be"),
        (Generate(captions=0), "captions must be"),
        (Generate(temperature=-1.0), "temperature must"),
        (Generate(top_p=0.0), "top_p must"),
        (Generate(top_k=-1), "top_k must"),
        (Generate(repetition_penalty=0.0), "repetition_penalty must"),
        (Generate(max_length=CONTEXT + 1), f"context of {CONTEXT}"),
        (Generate(min_length=9, max_length=10), "min_length must be 0 to 8"),
    ],
)
def test_settings_that_cannot_be(coca, settings, message):
    with pytest.raises(ValueError, match=message):
        generate(coca, pictures(1), settings, chances(1))


def test_arguments_that_cannot_be(coca):
    with pytest.raises(ValueError, match="either images or states"):
        generate(coca, None, SAMPLE, chances(1))
    with pytest.raises(ValueError, match="generator for each of the 2 images"):
        generate(coca, pictures(2), SAMPLE, chances(1))
    with pytest.raises(ValueError, match="precision 'fp8'"):
        generate(coca, pictures(1), SAMPLE, chances(1), precision="fp8")
    with pytest.raises(ValueError, match="causal text tower"):
        generate(small_coca(no_causal_mask=True), pictures(1), SAMPLE, chances(1))
