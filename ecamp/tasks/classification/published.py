"""Protocol `published` of classification: fine-tuning as the published code does it, on any encoder.

Kept (`Classification/train.py` of ToniChopp/ECAMP): a new layer norm and a linear layer from near
zero on the pooled feature, SGD with momentum 0.9 at one rate for all weights, no weight decay, clip
at norm 1, drop-path rising to 0.1, crops down to 8 % of the area, mirroring. Mended: the cosine
ends where training ends (docs/published-flaws.md#f17), and the weights of the best validation are
kept. Crops keep their proportions, where the published ones stretch.
"""

from __future__ import annotations

import numpy as np
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from ecamp.api.encoder import Encoder, Features
from ecamp.api.task import TaskSplit
from ecamp.data.augmentation import Augmentation
from ecamp.tasks.classification.finetune import TunedPredictor, fit_scores
from ecamp.train.head_recipe import HeadRecipe
from ecamp.train.heads import Model

LR = 3e-3
DROP_PATH = 0.1
AUGMENT = Augmentation(crop=0.08, jitter=0, flip=True)


class FreshHead(nn.Module):
    """Layer norm, then a linear layer that starts near zero."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.linear.weight, std=2e-5)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features) -> Tensor:
        result: Tensor = self.linear(self.norm(features.pooled))
        return result


def drop_paths(encoder: Encoder, last: float = DROP_PATH) -> int:
    """Let timm's transformer blocks drop their branches while training, the last with probability `last`.

    Returns:
        The number of blocks that do; 0 for encoders without such blocks.
    """
    blocks = [module for module in encoder.modules() if hasattr(module, "drop_path1")]
    for block, probability in zip(blocks, np.linspace(0, last, len(blocks)), strict=True):
        for name in ("drop_path1", "drop_path2"):
            setattr(block, name, DropPath(float(probability)) if probability else nn.Identity())
    return len(blocks)


def fit_published(
    encoder: Encoder, train: TaskSplit, val: TaskSplit, recipe: HeadRecipe, seed: int
) -> TunedPredictor:
    """Train all weights; keep those of the best validation."""
    drop_paths(encoder)
    model = Model(FreshHead(encoder.width, train.targets["targets"].shape[1]), encoder)
    lr = recipe.lr or LR
    optimizer = torch.optim.SGD(
        [{"params": list(model.parameters()), "lr_scale": 1.0}], lr=lr, momentum=0.9
    )
    return fit_scores(
        model, encoder, train, val, recipe, seed, augment=AUGMENT, lr=lr, optimizer=optimizer
    )
