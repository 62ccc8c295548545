"""Which token comes next: penalties, and sampling from the nucleus without sorting the vocabulary.

Paper: MobileCLIP2 (arXiv 2508.20691) samples captions with top-p 0.9 (nucleus sampling, arXiv 1904.09751). Takes
logits, gives token ids; reads and writes no files. The settings mean what Hugging Face's logits processors of the same
names mean, applied in their order. Differs from them in work: they sort the vocabulary for every token; here a token is
drawn from the whole distribution, and drawn again if it lies outside the nucleus, which leaves exactly the nucleus'
distribution and needs 1 / top_p draws on average at most. Taught by notebooks/20_captioner_finetuning.ipynb.

Shapes: R rows, V vocabulary, t tokens so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mobileclip2_lite.recipes import Generate

_BLOCK = 64
"""Random numbers drawn ahead for a caption; part of what a seed means."""
_BELOW_ONE = 1 - 2**-23
"""Largest float32 whose product with any sum of probabilities stays below the sum."""


class Uniforms:
    """A stream of random numbers for every caption, from the generator of its image alone.

    Args:
        generators: one an image, at its start.
        captions: n; stream `i * n + c` is that of caption c of image i.
    """

    def __init__(self, generators: Sequence[np.random.Generator], captions: int, device: torch.device) -> None:
        self.generators, self.captions = generators, captions
        self.used = torch.zeros(len(generators) * captions, dtype=torch.long, device=device)
        self.numbers = torch.empty(len(self.used), 0, device=device)

    def draw(self, streams: Tensor) -> Tensor:
        """The next number, fp32 in [0, 1), of each of `streams` (r,), which are all different: (r,)."""
        places = self.used[streams]
        if int(places.max()) == self.numbers.shape[1]:
            more = np.concatenate([rng.random((self.captions, _BLOCK)) for rng in self.generators])
            more = torch.from_numpy(more.astype(np.float32).clip(max=_BELOW_ONE)).to(self.numbers.device)
            self.numbers = torch.cat([self.numbers, more], 1)
        self.used[streams] += 1
        return self.numbers[streams, places]


def allowed(scores: Tensor, written: Tensor, settings: Generate, end: int, pad: int) -> Tensor:
    """`scores` (R, V), logits or log-probabilities, after the penalty and with what must not come next at -inf.

    Padding never comes: models are not trained to write it. The end token does not come before `min_length` others.

    Args:
        written: tokens so far, start included (R, t); the penalty counts them all, as Hugging Face's does.
    """
    scores = scores.clone()
    if settings.repetition_penalty != 1:
        before = scores.gather(1, written)
        penalty = settings.repetition_penalty
        scores.scatter_(1, written, torch.where(before < 0, before * penalty, before / penalty))
    scores[:, pad] = -torch.inf
    if written.shape[1] <= settings.min_length:
        scores[:, end] = -torch.inf
    return scores


def probabilities(logits: Tensor, temperature: float, top_k: int) -> Tensor:
    """Probabilities (R, V) at a temperature, of the `top_k` best tokens alone (0 for all; ties with the last stay)."""
    scaled = logits if temperature == 1 else logits / temperature
    if 0 < top_k < logits.shape[1]:
        scaled = scaled.masked_fill(scaled < scaled.topk(top_k).values[:, -1:], -torch.inf)
    return scaled.softmax(-1)


def in_nucleus(probs: Tensor, tokens: Tensor, top_p: float) -> Tensor:
    """Whether `tokens` (R,) belong to the smallest sets of most probable ones that hold `top_p` of `probs` (R, V).

    They do if all tokens more probable than them hold less. Equally probable ones belong together.
    """
    own = probs.gather(1, tokens[:, None])
    return (probs > own).float().mul_(probs).sum(-1) < top_p


def sample(probs: Tensor, top_p: float, uniforms: Uniforms, streams: Tensor) -> Tensor:
    """A token (R,) of each row's nucleus of `probs` (R, V), with random numbers of `streams` (R,) of `uniforms`."""
    sums = probs.cumsum(-1)
    tokens = torch.empty(len(probs), dtype=torch.long, device=probs.device)
    rows = torch.arange(len(probs), device=probs.device)
    while len(rows):
        target = uniforms.draw(streams)[:, None] * sums[:, -1:]
        drawn = torch.searchsorted(sums, target, right=True)[:, 0]
        tokens[rows] = drawn
        if top_p >= 1:
            break
        again = (~in_nucleus(probs, drawn, top_p)).nonzero()[:, 0]
        rows, streams, probs, sums = rows[again], streams[again], probs[again], sums[again]
    return tokens
