"""Boxes of many images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Boxes:
    """Boxes of many images as flat arrays.

    Attributes:
        xyxy: float (m, 4) in pixels.
        labels: int (m,) class index.
        image: int (m,) index of the image.
        scores: float (m,), absent for truth.
    """

    xyxy: np.ndarray
    labels: np.ndarray
    image: np.ndarray
    scores: np.ndarray | None = None
