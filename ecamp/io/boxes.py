"""Boxes of tables: conversion to image coordinates, and the mask that they fill."""

from __future__ import annotations

import numpy as np

Box = tuple[float, float, float, float]  # x1, y1, x2, y2


def scale_boxes(boxes: tuple[Box, ...], frame: float | None, width: int, height: int) -> np.ndarray:
    """Convert boxes to pixels of an image.

    Args:
        boxes: (x1, y1, x2, y2) each, in a square frame of side `frame` into which the whole image
            was stretched.
        frame: Side of that frame; None = the boxes are in pixels of the image already.
        width, height: Of the image in pixels.

    Returns:
        float32 (n, 4) x1, y1, x2, y2.
    """
    out = np.array(boxes, np.float32).reshape(-1, 4)
    if frame is not None:
        out *= np.array([width, height, width, height], np.float32) / frame
    return out


def fill_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fill boxes and return their union.

    Args:
        boxes: float (n, 4) x1, y1, x2, y2; edges lie between pixels, so x1..x2 - 1 are inside.

    Returns:
        bool (height, width).
    """
    mask = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in np.round(boxes).astype(int).clip(0).tolist():
        mask[y1:y2, x1:x2] = True
    return mask
