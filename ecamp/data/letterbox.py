"""Image, mask, boxes and points brought to one square: padded (letterbox), stretched or cropped."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ecamp.api.dataset import Sample

MIN_VISIBLE = 0.25  # a box is dropped if less than this fraction of its area is inside a crop


def fit_square(sample: Sample, size: int, fit: str) -> Sample:
    """Bring a sample to a square as an encoder expects it (`InputSpec.fit`).

    Args:
        sample: Any size; boxes in its pixels.
        size: Side of the result in pixels.
        fit: `pad` (as `letterbox`), `stretch`, or `crop` to the middle square.
    """
    if fit == "stretch":
        return _stretch(sample, size)
    return letterbox(_middle_square(sample) if fit == "crop" else sample, size)


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


def _stretch(sample: Sample, size: int) -> Sample:
    height, width, channels = sample.image.shape
    if (height, width) == (size, size):
        return sample
    image = [
        _resize(np.ascontiguousarray(sample.image[..., c]), size, Image.Resampling.BICUBIC)
        for c in range(channels)
    ]
    mask = boxes = None
    scale = np.array([size / width, size / height], np.float32)
    if sample.mask is not None:
        layers = [
            _resize(m.astype(np.uint8) * 255, size, Image.Resampling.BOX) > 127 for m in sample.mask
        ]
        mask = np.stack(layers)
    if sample.boxes is not None:
        boxes = (sample.boxes * np.tile(scale, 2)).astype(np.float32)
    points = {name: (xy * scale).astype(np.float32) for name, xy in sample.points.items()}
    return Sample(np.stack(image, axis=2), mask, boxes, sample.box_classes, points)


def _middle_square(sample: Sample) -> Sample:
    """Cut the middle square; boxes are clipped, and dropped where little is left; points outside go."""
    height, width, _ = sample.image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    rows, columns = slice(top, top + side), slice(left, left + side)
    mask = None if sample.mask is None else sample.mask[:, rows, columns]
    boxes, classes = sample.boxes, sample.box_classes
    if boxes is not None:
        moved = boxes - np.array([left, top, left, top], np.float32)
        clipped = moved.clip(0, side)
        kept = _areas(clipped) >= MIN_VISIBLE * _areas(moved)
        boxes, classes = clipped[kept], None if classes is None else classes[kept]
    points = {name: xy - np.array([left, top], np.float32) for name, xy in sample.points.items()}
    inside = {n: xy[((xy >= 0) & (xy <= side)).all(1)] for n, xy in points.items()}
    return Sample(sample.image[rows, columns], mask, boxes, classes, inside)


def _areas(boxes: np.ndarray) -> np.ndarray:
    area: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return area
