"""Light augmentation of a training batch: image, masks and boxes are moved by the same numbers.

A square crop that keeps proportions (a stretched heart is an enlarged heart), and a little
brightness and contrast. Mirroring is off by default: reports and findings name sides, and a heart
on the right is a diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ecamp.data.augmentation import Augmentation
from ecamp.ops.crop_resize import crop_resize

KEEP = 0.25  # a box is dropped when less than this share of it is left in the crop


@dataclass(frozen=True)
class Warp:
    """The numbers drawn for a batch.

    Attributes:
        crop: float32 (batch, 4) x0, y0, x1, y1 in 0..1 of the image.
        flip: bool (batch,) mirrored left-right after the crop.
        contrast, light: float32 (batch,) factor about the middle grey, and share of white added.
    """

    crop: Tensor
    flip: Tensor
    contrast: Tensor
    light: Tensor

    def images(self, images: np.ndarray) -> np.ndarray:
        """uint8 (batch, side, side, channels) -> float32 of that shape, still in 0..255."""
        stored = torch.from_numpy(np.ascontiguousarray(images))
        # Mean 0 and spread 1/255 undo the op's own scaling to 0..1.
        moved, _ = crop_resize(stored, self.crop, self.flip, [0.0], [1 / 255], images.shape[1])
        contrast, light = (x[:, None, None, None] for x in (self.contrast, self.light))
        moved = ((moved - 127.5) * contrast + 127.5 + 255 * light).clamp(0, 255)
        return moved.permute(0, 2, 3, 1).contiguous().numpy()

    def masks(self, masks: np.ndarray) -> Tensor:
        """bool (batch, classes, side, side) -> the same shape, cut at one half."""
        stored = torch.from_numpy(np.ascontiguousarray(masks)).permute(0, 2, 3, 1).to(torch.uint8)
        side = masks.shape[2]
        moved, _ = crop_resize(stored.contiguous(), self.crop, self.flip, [0.0], [1 / 255], side)
        return moved > 0.5

    def boxes(self, at: int, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Boxes of one image.

        Args:
            at: Which image of the batch.
            boxes: float32 (k, 4) in pixels of a square of this side.

        Returns:
            Those that are still there, cut to the image; bool (k,) which these are.
        """
        x0, y0, x1, y1 = self.crop[at].unbind()
        low, size = torch.stack([x0, y0, x0, y0]) * side, torch.stack([x1 - x0, y1 - y0]).repeat(2)
        moved = (boxes - low) / size
        if self.flip[at]:
            moved = torch.stack(
                [side - moved[:, 2], moved[:, 1], side - moved[:, 0], moved[:, 3]], 1
            )
        cut = moved.clamp(0, side)
        left = (cut[:, 2:] - cut[:, :2]).prod(1) / (moved[:, 2:] - moved[:, :2]).prod(1)
        kept = left >= KEEP
        return cut[kept], kept


def sample_augmentation(count: int, how: Augmentation, generator: torch.Generator) -> Warp:
    """Draw a batch's numbers: area and position uniform, proportions kept.

    Args:
        count: Images.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    side = uniform(how.crop, 1.0).sqrt()
    x0, y0 = uniform(0, 1) * (1 - side), uniform(0, 1) * (1 - side)
    return Warp(
        torch.stack([x0, y0, x0 + side, y0 + side], 1),
        (uniform(0, 1) < 0.5) & how.flip,
        uniform(1 - how.jitter, 1 + how.jitter),
        uniform(-how.jitter, how.jitter) / 2,
    )
