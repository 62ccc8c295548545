"""An image tower of timm as a captioner's: its feature map gives the tokens that the decoder looks at.

open_clip's CoCa takes no timm tower; this makes one of it. Taught by notebooks/20_captioner_finetuning.ipynb.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class GridTower(nn.Module):
    """An image tower whose last feature map gives the tokens that a decoder looks at.

    open_clip's CoCa takes no timm tower; this makes one of it. The mean of the map gives the embedding, each of its
    places a token, with a learned position, because convolutions hardly know where they are.

    Args:
        trunk: timm model; (N, 3, S, S) to (N, C, S/r, S/r).
        places: of the map, (S/r)^2.
        embed_dim: E.
        width: W.
    """

    def __init__(self, trunk: nn.Module, places: int, embed_dim: int, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.norm = nn.LayerNorm(trunk.num_features)
        self.to_embedding = nn.Linear(trunk.num_features, embed_dim, bias=False)
        self.to_tokens = nn.Linear(trunk.num_features, width)
        self.positions = nn.Parameter(torch.randn(places, width) * 0.02)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (N, E) and tokens (N, places, W) of normalised images (N, 3, S, S)."""
        features = self.norm(self.trunk(images).flatten(2).transpose(1, 2))
        return self.to_embedding(features.mean(1)), self.to_tokens(features) + self.positions

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the trunk's activations again in the backward pass."""
        self.trunk.set_grad_checkpointing(enable)


def grid_tower(timm_tower: nn.Module, model_cfg: dict[str, Any]) -> GridTower:
    """The tower of a CoCa config that names a timm model, from open_clip's wrapper of it."""
    side = model_cfg["vision_cfg"]["image_size"]
    with torch.no_grad():
        shape = timm_tower.trunk.eval()(torch.zeros(1, 3, side, side)).shape
    if len(shape) != 4:
        raise ValueError(
            f"{model_cfg['vision_cfg']['timm_model_name']} gives features {tuple(shape)}, a captioner needs a map "
            "(N, C, H, W): set timm_pool to '' and timm_proj to 'none'"
        )
    width = model_cfg["multimodal_cfg"]["width"]
    return GridTower(timm_tower.trunk, shape[2] * shape[3], model_cfg["embed_dim"], width)


def start_decoder(model: nn.Module) -> None:
    """Give the decoder's vocabulary projection first weights: open_clip leaves them to whatever the memory held."""
    projection = model.text_decoder.text_projection
    nn.init.normal_(projection, std=projection.shape[0] ** -0.5)
