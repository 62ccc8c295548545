"""Beam search over captions: the most probable ones a token, of a few kept side by side.

The common way (Hugging Face's `generate` with `num_beams`, `early_stopping=False`, length penalty 1): of all
continuations of K beams the best 2 K are looked at; among its first K those that end are put aside with the mean
log-probability of their tokens; the best K that go on are the next beams. An image is finished when K captions ended
and no beam's mean is better than the worst of them. Takes image tokens, gives token ids; reads and writes no files.
MobileCLIP2 (arXiv 2508.20691) samples instead; open_clip has this with `num_beam_groups`, which are left out. Taught by
notebooks/20_captioner_finetuning.ipynb.

Shapes: B images that are not finished, K beams each, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mobileclip2_lite.captioning.steps import CaptionSteps
from mobileclip2_lite.captioning.token_choice import allowed
from mobileclip2_lite.recipes import Generate


class Ended(NamedTuple):
    """A caption that reached its end token; sorts by what beam search compares."""

    mean: float
    log_probability: float
    tokens: list[int]


def beam_search(
    model: nn.Module, images: Tensor, settings: Generate, length: int, special: tuple[int, int, int]
) -> list[list[tuple[list[int], float]]]:
    """The best `settings.captions` captions of each image, best first: tokens after the start, log-probability.

    Args:
        images: image tokens (B, Q, W).
        length: most tokens of a caption, start and end included; a caption that long is made to end.
        special: start, end and padding token.
    """
    start, end, pad = special
    count, beams, device = len(images), settings.beams, images.device
    steps = CaptionSteps(model, images, beams, length - 1)
    ended: list[list[Ended]] = [[] for _ in range(count)]
    open_, base = list(range(count)), torch.arange(count, device=device)[:, None] * beams
    tokens = torch.full((count, beams, length), start, device=device)
    totals = torch.full((count, beams), -torch.inf, device=device)
    totals[:, 0] = 0  # all beams are equal at first: only one of them counts
    own = torch.zeros_like(totals)
    for time in range(1, length):
        log_probs = steps.step(tokens[:, :, time - 1].flatten()).log_softmax(-1)
        scores = allowed(log_probs, tokens[:, :, :time].flatten(0, 1), settings, end, pad)
        if time == length - 1:
            scores = torch.full_like(scores, -torch.inf).index_copy_(1, _one(end, device), scores[:, end, None])
        ranked, parents, chosen = _best(totals, scores)
        rows = (base + parents).flatten()
        tokens = tokens.flatten(0, 1)[rows].view(*chosen.shape, length)
        tokens[:, :, time] = chosen
        own = own.flatten()[rows] + log_probs[rows, chosen.flatten()]
        own = own.view_as(chosen)
        _put_aside(ended, open_, tokens[:, :beams, 1 : time + 1], ranked[:, :beams], own[:, :beams], end)
        going = (chosen == end).int().argsort(dim=1, stable=True)[:, :beams]
        totals, own, parents = (values.gather(1, going) for values in (ranked, own, parents))
        tokens = tokens.gather(1, going[:, :, None].expand(-1, -1, length))
        best = (totals.amax(1) / time).tolist()
        left = [i for i, image in enumerate(open_) if not _finished(ended[image], beams, best[i])]
        if not left or time == length - 1:
            break
        steps.follow((base + parents).flatten())
        if len(left) < len(open_):
            kept, open_ = torch.tensor(left, device=device), [open_[i] for i in left]
            steps.keep((base[kept] + torch.arange(beams, device=device)).flatten())
            tokens, totals, own, base = tokens[kept], totals[kept], own[kept], base[: len(left)]
    return [[(row.tokens, row.log_probability) for row in rows[: settings.captions]] for rows in ended]


def _one(value: int, device: torch.device) -> Tensor:
    return torch.tensor([value], device=device)


def _best(totals: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Totals, parents and tokens, (B, 2 K) each, of the best continuations by `scores` (B * K, V) of beams (B, K)."""
    (count, beams), vocabulary = totals.shape, scores.shape[1]
    ranked, places = (totals[:, :, None] + scores.view(count, beams, vocabulary)).flatten(1).topk(2 * beams)
    return ranked, places // vocabulary, places % vocabulary


def _put_aside(
    ended: list[list[Ended]], images: list[int], tokens: Tensor, totals: Tensor, own: Tensor, end: int
) -> None:
    """Add the captions of `tokens` (B, K, time) that end now to those of their images, of which the best K stay."""
    beams, length = tokens.shape[1:]
    for i, k in ((tokens[:, :, -1] == end) & totals.isfinite()).nonzero().tolist():
        row = Ended(float(totals[i, k]) / length, float(own[i, k]), tokens[i, k].tolist())
        rows = ended[images[i]]
        rows.append(row)
        rows.sort(key=lambda row: -row.mean)
        del rows[beams:]


def _finished(ended: list[Ended], beams: int, best: float) -> bool:
    return len(ended) == beams and ended[-1].mean >= best
