"""Context-guided super-resolution (section 3.4): the predicted image at twice the size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SuperResolutionHead(nn.Module):
    """Bilinear to `scale` times the size, then a residual of two convolutions.

    No ReLU at the end: targets are normalised, half of them lie below zero.
    """

    def __init__(self, channels: int, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.refine = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, c, s, s) -> (batch, c, scale*s, scale*s)."""
        large = F.interpolate(images, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return large + self.refine(large)


def random_windows(
    batch: int, cells: int, side: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw square windows on a grid of cells.

    Returns:
        First row and first column, int64 (batch,) each, in 0 .. cells - side.
    """
    corner = torch.randint(0, cells - side + 1, (2, batch), generator=generator)
    return corner[0], corner[1]


def window_mse(
    predicted: Tensor, target: Tensor, row: Tensor, column: Tensor, side: int, cells: int
) -> Tensor:
    """Mean squared error inside each image's window; nothing outside is looked at.

    Args:
        predicted, target: (batch, c, size, size).
        row, column: First cell of each window. side, cells: Window and grid in cells.
    """
    pixels = predicted.shape[-1] // cells
    offsets = torch.arange(side * pixels)
    y = (row * pixels).unsqueeze(1) + offsets
    x = (column * pixels).unsqueeze(1) + offsets
    batch = torch.arange(len(predicted))[:, None, None]
    inside = (batch, slice(None), y[:, :, None], x[:, None, :])
    return (predicted[inside].float() - target[inside]).square().mean()
