"""Letterbox: image, mask, boxes and points brought to one square size, keeping proportions."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ecamp.api.dataset import Sample


def letterbox(sample: Sample, size: int) -> Sample:
    """Pad to a square (centred, black) and resize; mask, boxes and points are transformed alike.

    Proportions are kept because a stretched heart is an enlarged heart. Masks are resized by area
    with threshold one half, so that their area is kept on average.

    Args:
        sample: Any size; boxes in its pixels.
        size: Side of the result in pixels.

    Returns:
        A sample of (size, size) pixels, boxes and points in its pixels.
    """
    height, width, channels = sample.image.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    scale = size / side
    if (height, width) == (size, size):
        return sample
    mask = None
    if sample.mask is not None:
        padded = np.zeros((len(sample.mask), side, side), np.uint8)
        padded[:, top : top + height, left : left + width] = sample.mask
        mask = (
            np.stack([_resize(channel * 255, size, Image.Resampling.BOX) for channel in padded])
            > 127
        )
    boxes = sample.boxes
    if boxes is not None:
        offset = np.array([left, top, left, top], np.float32)
        boxes = ((boxes + offset) * np.float32(scale)).astype(np.float32)
    resized = [
        _pad_and_resize(sample.image[..., c], side, top, left, size) for c in range(channels)
    ]
    points = {
        name: ((xy + np.array([left, top], np.float32)) * np.float32(scale)).astype(np.float32)
        for name, xy in sample.points.items()
    }
    return Sample(np.stack(resized, axis=2), mask, boxes, sample.box_classes, points)


def _pad_and_resize(channel: np.ndarray, side: int, top: int, left: int, size: int) -> np.ndarray:
    """Pad and resize one channel, bicubic.

    Pillow filters rows first and rounds in between: padding rows after that gives the same bytes.
    """
    image, width = Image.fromarray(np.ascontiguousarray(channel)), side
    if image.width == side:
        image, width = image.resize((size, image.height), Image.Resampling.BICUBIC), size
    square = Image.new("L", (width, side))
    square.paste(image, (left, top))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


def _resize(channel: np.ndarray, size: int, method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(channel).resize((size, size), method))
