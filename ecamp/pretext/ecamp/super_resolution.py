"""Context-guided super-resolution (section 3.4): the predicted image at twice the size.

Why: docs/decisions.md#super-resolution-in-the-window-only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALO = 2  # pixels that two 3 x 3 convolutions read beyond their output


class SuperResolutionHead(nn.Module):
    """Bilinear to `scale` times the size, then a residual of two convolutions.

    No ReLU at the end: targets are normalised, half of them lie below zero. The border is padded
    once, not in each convolution, so that a window computed alone equals that window of the whole
    image.
    """

    def __init__(self, channels: int, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.refine = nn.Sequential(
            nn.Conv2d(channels, width, 3),
            nn.GELU(),
            nn.Conv2d(width, channels, 3),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Refine whole images: (batch, c, s, s) -> (batch, c, scale*s, scale*s)."""
        return self._residual(self._padded(images))

    def window(self, images: Tensor, row: Tensor, column: Tensor, side: int) -> Tensor:
        """Refine a window only: (batch, c, s, s) -> (batch, c, side, side).

        Args:
            row, column: First pixel of each window in the large image, int64 (batch,).
            side: Pixels of the window in the large image.
        """
        # An output pixel starts HALO pixels earlier in the padded image: the same index there.
        return self._residual(crop_windows(self._padded(images), row, column, side + 2 * HALO))

    def _padded(self, images: Tensor) -> Tensor:
        large = F.interpolate(images, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return F.pad(large, (HALO, HALO, HALO, HALO))

    def _residual(self, padded: Tensor) -> Tensor:
        refined: Tensor = self.refine(padded)
        return padded[:, :, HALO:-HALO, HALO:-HALO] + refined


def crop_windows(images: Tensor, row: Tensor, column: Tensor, side: int) -> Tensor:
    """Crop one square from each image: (batch, c, h, w) -> (batch, c, side, side)."""
    batch, channels, _, width = images.shape
    offsets = torch.arange(side)
    y, x = row[:, None, None] + offsets[:, None], column[:, None, None] + offsets
    pixel_index = (y * width + x).view(batch, 1, -1).expand(-1, channels, -1)
    # A gather: the gradient of per-image slices would fill a whole image of zeros for each.
    return images.flatten(2).gather(2, pixel_index).view(batch, channels, side, side)
