"""Neck: reduces any encoder's pyramid to one map, so that one head serves ViTs and CNNs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecamp.api.encoder import Features


class Standardise(nn.Module):
    """Standardisation of each level's channels to mean 0 and std 1, by statistics of training images.

    As before a linear probe: the inner layers of a pre-trained ViT have a few channels of
    hundredfold size; without this a head spends its steps on undoing them, and encoders are
    compared by their scale.

    Args:
        pyramid: Levels (batch, width_i, rows_i, columns_i) of some training images.
    """

    def __init__(self, pyramid: Sequence[Tensor]) -> None:
        super().__init__()
        for i, level in enumerate(pyramid):
            flat = level.detach().float().transpose(0, 1).flatten(1)
            std = flat.std(1, unbiased=False)
            # A channel that is dead on a few training images must not blow up on others.
            std = std.clamp(min=0.01 * float(std.mean())) + 1e-5
            self.register_buffer(f"mean_{i}", flat.mean(1)[:, None, None])
            self.register_buffer(f"scale_{i}", 1 / std[:, None, None])

    def forward(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        return [
            (level - self.get_buffer(f"mean_{i}")) * self.get_buffer(f"scale_{i}")
            for i, level in enumerate(pyramid)
        ]


def nearest_level(pyramid: Sequence[Tensor], rows: float) -> int:
    """Find the level whose number of rows is nearest to `rows`, by ratio; the last of equals."""
    distance = [abs(math.log2(level.shape[2] / rows)) for level in pyramid]
    return max(range(len(distance)), key=lambda i: (-distance[i], i))


def resize(level: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize to (rows, columns), bilinear; unchanged if it has that size."""
    if level.shape[2:] == size:
        return level
    return F.interpolate(level, size, mode="bilinear", align_corners=False)


class Neck(nn.Module):
    """Standardise and project each pyramid level, resize to one grid, add, normalise.

    The grid is that of the level nearest to 1/8 of the image side: a patch-8 ViT keeps its own.

    Args:
        features: Features of some training images: for shapes and statistics.
        image_size: Side of the encoder's input.
        width: Channels of the result.
    """

    def __init__(self, features: Features, image_size: int, width: int) -> None:
        super().__init__()
        levels = features.pyramid
        nearest = levels[nearest_level(levels, image_size / 8)]
        self.grid = (nearest.shape[2], nearest.shape[3])
        self.standardise = Standardise(levels)
        self.projections = nn.ModuleList(nn.Conv2d(level.shape[1], width, 1) for level in levels)
        self.norm = nn.GroupNorm(8, width)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Merge levels (batch, width_i, rows_i, columns_i) to (batch, width, *grid)."""
        total = torch.zeros(())
        for level, project in zip(self.standardise(pyramid), self.projections, strict=True):
            total = total + resize(project(level), self.grid)
        result: Tensor = self.norm(total)
        return result


def output_conv(inputs: int, outputs: int, kernel: int, bias: float) -> nn.Conv2d:
    """Build the last layer of a dense head, its logits starting at `bias` (the prior of a rare class)."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    torch.nn.init.constant_(torch.as_tensor(layer.bias), bias)
    return layer


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Build a 3x3 convolution, group norm (no batch statistics: small sets), GELU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.GELU()
    )
