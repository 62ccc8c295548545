"""Captions from a CoCa model: sampling, greedy and beam search, the same whatever the batch.

Paper: MobileCLIP2 (arXiv 2508.20691) section 3, five captions an image with top-p 0.9 from CoCa (arXiv 2205.01917).
Takes pixels or image tokens, gives text; reads and writes no files, and needs no transformers. Differs from open_clip's
`CoCa.generate` in work (`steps`), not in tokens: greedily both write the same. Captions may fill the model's
whole context, and each image has its own random numbers. Taught by notebooks/20_captioner_finetuning.ipynb.

On a CPU an image's captions depend neither on the batch nor on its neighbours. That rests on how matrix libraries
round (`steps.ROWS`): measured for fp32 on x86 with MKL (docs/lab_log.md). On a GPU, or elsewhere, a token whose
probability ties with another's to the last bits may differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mobileclip2_lite.captioning.beam_search import beam_search
from mobileclip2_lite.captioning.steps import CaptionSteps, check_causal
from mobileclip2_lite.captioning.token_choice import Uniforms, allowed, probabilities, sample
from mobileclip2_lite.models.coca import image_states, special_tokens
from mobileclip2_lite.recipes import Generate

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel

IMAGES = {"cpu": 32}
"""Images in one pass of the image tower, always filled up to this number (see `embedder`)."""
GPU_IMAGES = 64
KEPT = {"cpu": 1 << 30}
"""Most bytes of keys and values of the images whose captions are written side by side; more side by side are faster."""
GPU_KEPT = 8 << 30
SIDE_BY_SIDE = 128
"""Most images whose captions are written side by side: as many as the stage gathers."""
_THIN = 0.75
"""When fewer than this share of the rows are still written, the finished ones leave."""


class Caption(NamedTuple):
    """A caption and how probable the model finds it."""

    text: str
    """Without start and end token, stripped."""
    tokens: tuple[int, ...]
    """Token ids after the start token, up to and with the end token."""
    log_probability: float
    """Natural logarithm, summed over `tokens`, under the model's own distribution (temperature 1, nothing cut off)."""


def generate(
    loaded: LoadedModel,
    images: Tensor | None,
    settings: Generate,
    rngs: Sequence[np.random.Generator] | None = None,
    states: Tensor | None = None,
    precision: str = "fp32",
) -> list[list[Caption]]:
    """`settings.captions` captions for each of B images.

    Args:
        loaded: a CoCa model; it writes on the device where its weights are.
        images: uint8 (B, 3, S, S), resized to the model's size; None when `states` are given.
        settings: decoding (`recipes.Generate`).
        rngs: B generators, to be used by nothing else; only sampling needs them.
        states: image tokens (B, Q, W) from `image_tokens`, instead of images.
        precision: `fp32`, or `bf16` for autocast, with which captions may depend on the batch. A CPU's image tower
            stays in fp32, because PyTorch's attention is several times slower there in bf16.

    Returns:
        B lists; those of beam search have the best first.

    Raises:
        ValueError: a setting has no such value or does not go with another; images and states both given, or none;
            not one generator an image; the model's text tower is not open_clip's causal one.
    """
    model = loaded.model
    check_causal(model)
    length = check(settings, model)
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r} is not fp32 or bf16")
    if (images is None) == (states is None):
        raise ValueError("generate: give either images or states, the image tokens made from them")
    count = len(images if states is None else states)
    sampled = settings.method == "sample" and settings.temperature > 0
    if sampled and (rngs is None or len(rngs) != count):
        raise ValueError(f"generate: sampling needs a random generator for each of the {count} images in `rngs`")
    device, was_training, out = model.logit_scale.device.type, model.training, []
    group = max(1, min(SIDE_BY_SIDE, KEPT.get(device, GPU_KEPT) // _kept_bytes(model, settings, length)))
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            for start in range(0, count, group):
                part = slice(start, start + group)
                with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16" and device != "cpu"):
                    tokens = image_tokens(loaded, images[part]) if states is None else states[part]
                tokens = tokens.to(model.logit_scale.device)
                if settings.method == "beam":
                    out += beam_search(model, tokens, settings, length, special_tokens(loaded))
                else:
                    out += _write(loaded, tokens, settings, length, rngs[part] if sampled else None)
    finally:
        model.train(was_training)
    return [[_caption(loaded, *row) for row in captions] for captions in out]


def check(settings: Generate, model: torch.nn.Module) -> int:
    """The most tokens of a caption, start and end included, of settings that can be carried out.

    Raises:
        ValueError: they cannot; the message names the field and what to do.
    """
    context = min(model.text.context_length, model.text_decoder.context_length)
    length = settings.max_length or context
    greedy = settings.method == "greedy" or (settings.method == "sample" and settings.temperature == 0)
    vocabulary = model.text.vocab_size
    beam = settings.method == "beam"
    for right, message in (
        (settings.method in ("sample", "greedy", "beam"), "method must be sample, greedy or beam"),
        (settings.captions >= 1, "captions must be at least 1"),
        (not greedy or settings.captions == 1, "greedy captions are all equal: set captions to 1, or sample"),
        (not beam or settings.captions <= settings.beams, "beam search has no more captions than beams: raise beams"),
        (not beam or settings.beams <= vocabulary // 2 - 1, f"beams must be less than half the {vocabulary} tokens"),
        (settings.temperature >= 0, "temperature must not be negative"),
        (0 < settings.top_p <= 1, "top_p must be above 0 and at most 1"),
        (settings.top_k >= 0, "top_k must not be negative; 0 is for all tokens"),
        (settings.repetition_penalty > 0, "repetition_penalty must be above 0"),
        (2 <= length <= context, f"max_length must be 2 to the model's context of {context}, or 0 for that"),
        (0 <= settings.min_length <= length - 2, f"min_length must be 0 to {length - 2}, for start and end token"),
    ):  # fmt: skip
        if not right:
            raise ValueError(f"{message}: {settings}")
    return length


@torch.inference_mode()
def image_tokens(loaded: LoadedModel, images: Tensor) -> Tensor:
    """Image tokens (B, Q, W) of uint8 images (B, 3, S, S), which do not depend on the batch they come in."""
    device, out = loaded.model.logit_scale.device, []
    size = IMAGES.get(device.type, GPU_IMAGES)
    for part in images.split(size):
        full = torch.cat([part, part[-1:].expand(size - len(part), -1, -1, -1)])
        pixels = loaded.preprocess.normalize(full.to(device))
        out.append(image_states(loaded.model, pixels)[1][: len(part)])
    return torch.cat(out)


def _kept_bytes(model: torch.nn.Module, settings: Generate, length: int) -> int:
    """About the fp32 bytes of an image's keys and values, and of its captions': 256 image tokens, CoCa's number."""
    captions = settings.beams if settings.method == "beam" else settings.captions
    own = len(model.text.transformer.resblocks) + len(model.text_decoder.resblocks)
    tokens = captions * length * own + 256 * len(model.text_decoder.cross_attn)
    return 2 * 4 * model.text.width * tokens


def _write(
    loaded: LoadedModel,
    images: Tensor,
    settings: Generate,
    length: int,
    rngs: Sequence[np.random.Generator] | None,
) -> list[list[tuple[list[int], float]]]:
    """Tokens and log-probabilities, sampled, or greedy without `rngs`, for image tokens (B, Q, W)."""
    start, end, pad = special_tokens(loaded)
    count, device = len(images) * settings.captions, images.device
    steps = CaptionSteps(loaded.model, images, settings.captions, length - 1)
    uniforms = None if rngs is None else Uniforms(rngs, settings.captions, device)
    written = torch.full((count, length), start, device=device)
    score = torch.zeros(count, device=device)
    sizes, open_ = (
        torch.ones(count, dtype=torch.long, device=device),
        torch.ones(count, dtype=torch.bool, device=device),
    )
    rows = torch.arange(count, device=device)  # the captions that `steps` still has
    for time in range(1, length):
        logits = steps.step(written[rows, time - 1])
        choice = allowed(logits, written[rows, :time], settings, end, pad)
        if time == length - 1:
            tokens = torch.full_like(rows, end)
        elif uniforms is None:
            tokens = choice.argmax(-1)
        else:
            probs = probabilities(choice, settings.temperature, settings.top_k)
            tokens = sample(probs, settings.top_p, uniforms, rows)
        written[rows, time] = tokens
        sizes[rows] += open_[rows]
        score[rows] += open_[rows] * logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        open_[rows] &= tokens != end
        left = open_[rows].nonzero()[:, 0]
        if not len(left):
            break
        if len(left) < _THIN * len(rows):
            steps.keep(left)
            rows = rows[left]
    texts = [row[1:size] for row, size in zip(written.tolist(), sizes.tolist(), strict=True)]
    pairs = list(zip(texts, score.tolist(), strict=True))
    return [pairs[i : i + settings.captions] for i in range(0, count, settings.captions)]


def _caption(loaded: LoadedModel, tokens: list[int], score: float) -> Caption:
    special = special_tokens(loaded)
    words = [token for token in tokens if token not in special]
    decode: Any = getattr(loaded.tokenizer, "decode", None) or loaded.tokenizer.tokenizer.decode
    text = re.sub(r" +([,.;:!?])", r"\1", decode(words))  # BPE sets a space before every sign; tokens stay the same
    return Caption(text.strip(), tuple(tokens), score)
