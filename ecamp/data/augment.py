"""Light augmentation of training batches: the same transform for images, masks and boxes.

A square crop that keeps proportions (a stretched heart is an enlarged heart), and a small change of
brightness and contrast. Mirroring is off by default: reports and findings name sides, and a heart
on the right is a diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ecamp.data.augmentation import Augmentation
from ecamp.data.letterbox import MIN_VISIBLE
from ecamp.ops.crop_resize import crop_resize


@dataclass(frozen=True)
class Warp:
    """Transform of a batch, one per image.

    Attributes:
        crop: float32 (batch, 4) x0, y0, x1, y1 in 0..1 of the image.
        flip: bool (batch,) whether the crop is mirrored left-right.
        contrast: float32 (batch,) factor about middle grey.
        brightness: float32 (batch,) fraction of white that is added.
    """

    crop: Tensor
    flip: Tensor
    contrast: Tensor
    brightness: Tensor

    def images(self, images: np.ndarray) -> np.ndarray:
        """Transform images: uint8 (batch, side, side, channels) -> float32, same shape and range."""
        stored = torch.from_numpy(np.ascontiguousarray(images))
        # Mean 0 and std 1/255 undo the op's own scaling to 0..1.
        moved, _ = crop_resize(stored, self.crop, self.flip, [0.0], [1 / 255], images.shape[1])
        contrast, brightness = (x[:, None, None, None] for x in (self.contrast, self.brightness))
        moved = ((moved - 127.5) * contrast + 127.5 + 255 * brightness).clamp(0, 255)
        return moved.permute(0, 2, 3, 1).contiguous().numpy()

    def masks(self, masks: np.ndarray) -> Tensor:
        """Transform masks: bool (batch, classes, side, side) -> same shape, threshold one half."""
        stored = torch.from_numpy(np.ascontiguousarray(masks)).permute(0, 2, 3, 1).to(torch.uint8)
        side = masks.shape[2]
        moved, _ = crop_resize(stored.contiguous(), self.crop, self.flip, [0.0], [1 / 255], side)
        return moved > 0.5

    def boxes(self, index: int, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Transform the boxes of one image and drop those that are mostly outside the crop.

        Args:
            index: Index of the image in the batch.
            boxes: float32 (k, 4) x1, y1, x2, y2 in pixels of a square image.
            side: Side of that image.

        Returns:
            Kept boxes, clipped to the image; bool (k,) which boxes are kept.
        """
        x0, y0, x1, y1 = self.crop[index].unbind()
        low, size = torch.stack([x0, y0, x0, y0]) * side, torch.stack([x1 - x0, y1 - y0]).repeat(2)
        moved = (boxes - low) / size
        if self.flip[index]:
            moved = torch.stack(
                [side - moved[:, 2], moved[:, 1], side - moved[:, 0], moved[:, 3]], 1
            )
        clipped = moved.clamp(0, side)
        visible = (clipped[:, 2:] - clipped[:, :2]).prod(1)
        kept = visible / (moved[:, 2:] - moved[:, :2]).prod(1) >= MIN_VISIBLE
        return clipped[kept], kept


def sample_augmentation(count: int, strength: Augmentation, generator: torch.Generator) -> Warp:
    """Draw the transform of a batch: area and position uniform, proportions kept.

    Args:
        count: Images of the batch.
        strength: Ranges to draw from.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    side = uniform(strength.crop, 1.0).sqrt()
    x0, y0 = uniform(0, 1) * (1 - side), uniform(0, 1) * (1 - side)
    return Warp(
        torch.stack([x0, y0, x0 + side, y0 + side], 1),
        (uniform(0, 1) < 0.5) & strength.flip,
        uniform(1 - strength.jitter, 1 + strength.jitter),
        uniform(-strength.jitter, strength.jitter) / 2,
    )
