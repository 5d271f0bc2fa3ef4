"""Normalisation of uint8 images to the float input of an encoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ecamp.api.dataset import DatasetInfo


def normaliser(info: DatasetInfo) -> Callable[[np.ndarray], Tensor]:
    """Return a function uint8 (b, h, w, c) -> float32 (b, c, h, w), (x / 255 - mean) / std."""
    mean = torch.tensor(info.mean).reshape(1, -1, 1, 1)
    std = torch.tensor(info.std).reshape(1, -1, 1, 1)

    def normalise(images: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
        return (pixels / 255 - mean) / std

    return normalise
