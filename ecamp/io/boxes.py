"""Boxes between tables and images: other coordinates, and the mask that they fill."""

from __future__ import annotations

import numpy as np

Box = tuple[float, float, float, float]  # x1, y1, x2, y2


def scale_boxes(boxes: tuple[Box, ...], frame: float | None, width: int, height: int) -> np.ndarray:
    """Boxes in pixels of an image.

    Args:
        boxes: x1, y1, x2, y2 in a square frame of side `frame`, into which the whole image was
            stretched; None = in pixels of the image already.

    Returns:
        float32 (n, 4).
    """
    out = np.array(boxes, np.float32).reshape(-1, 4)
    if frame is not None:
        out *= np.array([width, height, width, height], np.float32) / frame
    return out


def fill_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """The union of filled boxes.

    Args:
        boxes: float (n, 4) x1, y1, x2, y2; an edge lies between pixels, so x1..x2 - 1 are inside.

    Returns:
        bool (height, width).
    """
    mask = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in np.round(boxes).astype(int).clip(0).tolist():
        mask[y1:y2, x1:x2] = True
    return mask
