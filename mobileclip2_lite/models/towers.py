"""The lite image towers, built from timm's blocks and registered with timm, so that open_clip configs can name them.

MobileCLIP2's MCi towers (paper: section on architecture; arXiv 2508.20691) are FastViT hybrids: a MobileOne stem,
stages of RepMixer blocks, attention in the last stage or two, every convolution re-parameterisable. The lite ones keep
that plan at 64 pixels and a few million parameters. They differ from the paper in width and depth and in a layer scale
that starts at 0.5 instead of 1e-5: the lite students see too few steps to grow it. Taught by
notebooks/50_architecture_and_latency.ipynb.

Weights are laid out channels-last: on a CPU depthwise convolutions train more than twice as fast that way.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm2d
from timm.models import register_model
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

START = 0.1
"""Size of the lite convolutions' first weights, as a share of timm's. See `_turn_fast`."""


def _fastvit(pretrained: bool, arguments: dict[str, Any], overrides: dict[str, Any]) -> nn.Module:
    """timm's FastVit from `arguments` changed by `overrides`, channels-last; timm's own keywords are taken off."""
    defaults = {"lkc_use_act": True, "layer_scale_init_value": 0.5}
    return _finish(_turn_fast(FastVit(**{**defaults, **arguments, **_own(overrides)})), pretrained)


def _turn_fast(tower: nn.Module) -> nn.Module:
    """Start the convolutions in front of a batch norm smaller, so that the first steps turn them further.

    Batch norm takes the size out again, so that the tower computes the same; but Adam's steps have one size whatever
    the weights', and turn small ones by a larger angle. A text tower does not bear a rate that is high enough for these
    few-step image towers (it collapses), and this needs no rate of its own for each tower (docs/lab_log.md).
    """
    modules = list(tower.modules())
    with torch.no_grad():
        for module, following in itertools.pairwise(modules):
            if isinstance(module, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                module.weight.mul_(START)
    return tower


def _own(overrides: dict[str, Any]) -> dict[str, Any]:
    """The keywords meant for the model's class: timm also hands its own to every entry point."""
    foreign = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "features_only")
    return {name: value for name, value in overrides.items() if name not in foreign}


def _finish(tower: nn.Module, pretrained: bool) -> nn.Module:
    if pretrained:
        raise ValueError("the lite towers have no ImageNet weights: create them with pretrained=False")
    return tower.to(memory_format=torch.channels_last)


@register_model
def lite_mci4(pretrained: bool = False, **overrides: Any) -> nn.Module:
    """The student's tower: four RepMixer stages, strides 4 to 32, widths 24 to 192; (N, 3, S, S) to (N, D)."""
    arguments = {
        "layers": (1, 1, 1, 1),
        "embed_dims": (24, 48, 96, 192),
        "mlp_ratios": (3, 3, 3, 3),
        "token_mixers": ("repmixer",) * 4,
    }
    return _fastvit(pretrained, arguments, overrides)


@register_model
def lite_mci4_attention(pretrained: bool = False, **overrides: Any) -> nn.Module:
    """A teacher's tower: like the paper's four-stage MCi, with attention in the last stage, which keeps stride 16."""
    position = partial(RepConditionalPosEnc, spatial_shape=(3, 3))
    arguments = {
        "layers": (1, 1, 3, 1),
        "embed_dims": (32, 64, 128, 256),
        "mlp_ratios": (3, 3, 3, 3),
        "downsamples": (False, True, True, False),
        "token_mixers": ("repmixer", "repmixer", "repmixer", "attention"),
        "pos_embs": (None, None, None, position),
    }
    return _fastvit(pretrained, arguments, overrides)


@register_model
def lite_mci5(pretrained: bool = False, **overrides: Any) -> nn.Module:
    """Five stages like MCi3 and MCi4: three of RepMixer, two of attention, strides 4 to 64; (N, 3, S, S) to (N, D).

    The paper's reason for the fifth stage: at stride 32 attention over the tokens of a large image is expensive, and at
    stride 64 there are four times fewer; most parameters sit there, where a pixel costs least.
    """
    position = partial(RepConditionalPosEnc, spatial_shape=(3, 3))
    arguments = {
        "layers": (1, 1, 2, 1, 1),
        "embed_dims": (24, 48, 96, 192, 192),
        "mlp_ratios": (3, 3, 3, 3, 3),
        "downsamples": (False, True, True, True, True),
        "se_downsamples": (False,) * 5,
        "token_mixers": ("repmixer", "repmixer", "repmixer", "attention", "attention"),
        "pos_embs": (None, None, None, position, position),
        "norm_layer": partial(LayerNorm2d, eps=1e-5),
        "stem_use_scale_branch": False,
    }
    return _fastvit(pretrained, arguments, overrides)


@register_model
def lite_resnet_se(pretrained: bool = False, **overrides: Any) -> nn.Module:
    """Another teacher's tower: `lite_resnet`, shallower, wider at its end, with squeeze-and-excitation."""
    wider = {"layers": (1, 1, 1, 1), "channels": (32, 64, 160, 288), "block_args": {"attn_layer": "se"}}
    return lite_resnet(pretrained, **{**wider, **overrides})


@register_model
def lite_resnet_grid(pretrained: bool = False, **overrides: Any) -> nn.Module:
    """The captioner's tower: a slim `lite_resnet` that keeps stride 8 to its end, (N, 3, 48, 48) to (N, 160, 6, 6).

    A decoder has to see where things are, and at stride 16 there would be nine places.
    """
    slim = {"layers": (1, 1, 1, 1), "channels": (24, 64, 128, 160), "stem_width": 16, "output_stride": 16}
    return lite_resnet(pretrained, **{**slim, **overrides})


@register_model
def lite_resnet(pretrained: bool = False, **overrides: Any) -> nn.Module:
    """A teacher's tower: a ResNet-D of basic blocks without the stem's pooling, strides 2, 4, 8, 16."""
    arguments = {
        "block": BasicBlock,
        "layers": (1, 1, 2, 1),
        "channels": (32, 64, 128, 256),
        "stem_type": "deep",
        "stem_width": 24,
        "avg_down": True,
    }
    tower = ResNet(**{**arguments, **_own(overrides)})
    tower.maxpool = nn.Identity()  # 64 pixels are few: pooling in the stem would leave 2x2 places at the end
    return _finish(tower, pretrained)
