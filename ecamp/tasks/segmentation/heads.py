"""Segmentation heads: features of any encoder -> logits (batch, classes, side, side).

| head | form | use |
| --- | --- | --- |
| subpixel | one convolution on a coarse grid, each cell predicts its own pixels | default: fast, good |
| linear | one linear layer per level, nothing else | to measure the features alone |
| conv | the published decoder of four convolution stages | to compare with published frozen decoders |
| pyramid | pooling pyramid and top-down merge, after UPerNet | CNNs and hierarchical encoders |
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecamp.api.encoder import Features
from ecamp.published.downstream.segmentation import Decoder as PublishedDecoder
from ecamp.tasks.neck import Neck, Standardise, conv_block, nearest_level, output_conv, resize

# Findings are rare: logits start at about 2 %, so that no step is spent on learning that.
PRIOR = -4.0
PUBLISHED_CHANNELS = (512, 256, 128, 64)
POOLS = (1, 2, 3, 6)  # cells per side of the pooling pyramid (Zhao et al., PSPNet, CVPR 2017)


class MaskHead(nn.Module):
    """Base of mask heads: built from an example, so that shapes and statistics fit the encoder.

    Args:
        example: Features of some training images.
        image_size: Side of the encoder's input and of the masks.
        classes: Mask classes.
        width: Channels of the head, a multiple of 8 (`linear` and `conv` have their own).

    Attributes:
        lr: Default peak learning rate.
    """

    lr = 8e-3

    def __init__(self, example: Features, image_size: int, classes: int, width: int) -> None:
        super().__init__()
        self.size = (image_size, image_size)

    def forward(self, features: Features) -> Tensor:
        """Compute logits (batch, classes, size, size)."""
        raise NotImplementedError


class Subpixel(MaskHead):
    """Neck, one convolution, then every cell predicts its own pixels (Shi et al., CVPR 2016, eq. 4).

    All work is done on the coarse grid: a tenth of the time of stages that upsample, and patch
    tokens encode their patch's pixels linearly after masked image modelling.
    """

    def __init__(self, example: Features, image_size: int, classes: int, width: int) -> None:
        super().__init__(example, image_size, classes, width)
        self.neck = Neck(example, image_size, width)
        self.factor = max(1, image_size // self.neck.grid[0])
        self.block = conv_block(width, width)
        self.out = output_conv(width, classes * self.factor**2, 1, PRIOR)

    def forward(self, features: Features) -> Tensor:
        x = self.neck(features.pyramid)
        logits = F.pixel_shuffle(self.out(x + self.block(x)), self.factor)
        return resize(logits, self.size)


class Linear(MaskHead):
    """A 1x1 convolution on every standardised level, bilinear to the image, added up.

    Linear in the features: anything more would measure the head. A ViT's levels are its tokens at
    two depths; a CNN's coarsest map alone would be 7 x 7 cells.
    """

    def __init__(self, example: Features, image_size: int, classes: int, width: int) -> None:
        super().__init__(example, image_size, classes, width)
        self.standardise = Standardise(example.pyramid)
        self.outs = nn.ModuleList(
            output_conv(level.shape[1], classes, 1, PRIOR / len(example.pyramid))
            for level in example.pyramid
        )

    def forward(self, features: Features) -> Tensor:
        levels = zip(self.standardise(features.pyramid), self.outs, strict=True)
        return torch.stack([resize(out(level), self.size) for level, out in levels]).sum(0)


class Published(MaskHead):
    """The published decoder on the level nearest to 1/16 of the image side (a ViT's last).

    Linear layer, then four times convolution, batch norm, ReLU, doubling (arXiv 2312.13316, 4.3). The
    layers are the published ones; the level is standardised first, as for every head.
    """

    lr = 1e-3

    def __init__(self, example: Features, image_size: int, classes: int, width: int) -> None:
        super().__init__(example, image_size, classes, width)
        self.level = nearest_level(example.pyramid, image_size / 16)
        level = example.pyramid[self.level]
        self.standardise = Standardise([level])
        self.project = nn.Conv2d(level.shape[1], level.shape[1], 1)
        self.decoder = PublishedDecoder(level.shape[1], classes, PUBLISHED_CHANNELS)

    def forward(self, features: Features) -> Tensor:
        (level,) = self.standardise([features.pyramid[self.level]])
        return resize(self.decoder(self.project(level)), self.size)


class Pyramid(MaskHead):
    """Pooling pyramid on the coarsest level, top-down merge, fusion of all levels.

    After UPerNet (Xiao et al., ECCV 2018), with group norm for small sets, and sub-pixel logits
    instead of a last bilinear step: a ViT's finest level is 14 x 14.
    """

    def __init__(self, example: Features, image_size: int, classes: int, width: int) -> None:
        super().__init__(example, image_size, classes, width)
        levels = example.pyramid
        self.standardise = Standardise(levels)
        self.lateral = nn.ModuleList(nn.Conv2d(level.shape[1], width, 1) for level in levels)
        self.pooled = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in POOLS)
        self.context = conv_block(width * (1 + len(POOLS)), width)
        self.smooth = nn.ModuleList(conv_block(width, width) for _ in levels[:-1])
        self.fuse = conv_block(width * len(levels), width)
        self.factor = max(1, image_size // levels[0].shape[2])
        self.out = output_conv(width, classes * self.factor**2, 1, PRIOR)

    def forward(self, features: Features) -> Tensor:
        levels = self.standardise(features.pyramid)
        *rest, top = (project(x) for x, project in zip(levels, self.lateral, strict=True))
        grid = (top.shape[2], top.shape[3])
        pools = [
            resize(project(F.adaptive_avg_pool2d(top, cells)), grid)
            for cells, project in zip(POOLS, self.pooled, strict=True)
        ]
        merged = [self.context(torch.cat([top, *pools], 1))]
        for level, smooth in zip(reversed(rest), reversed(self.smooth), strict=True):
            finer = (level.shape[2], level.shape[3])
            merged.append(smooth(level + resize(merged[-1], finer)))
        finest = (merged[-1].shape[2], merged[-1].shape[3])
        fused = self.fuse(torch.cat([resize(level, finest) for level in merged], 1))
        return resize(F.pixel_shuffle(self.out(fused), self.factor), self.size)


HEADS: dict[str, type[MaskHead]] = {
    "subpixel": Subpixel,
    "linear": Linear,
    "conv": Published,
    "pyramid": Pyramid,
}
