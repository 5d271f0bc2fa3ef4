"""Image branch of the published model: position table, decoder, super-resolution, windows.

Facts from ToniChopp/ECAMP, commit d02d16d, `model_ecamp.py` and `pos_embed.py`; arXiv 2312.13316,
section 3.4.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ecamp.api.encoder import PatchEncoder
from ecamp.encoders.position import sincos_table
from ecamp.errors import UsageError

WINDOW_MARGIN = 2  # cells that a window is smaller than the grid: 12 of 14
NORM_EPS = 1e-6


def published_table(
    width: int, rows: int, columns: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Compute the position table with a zero row for the class token, (1 + rows*columns, width).

    Its frequencies fall far too slowly: the index is divided by four times what MAE divides by,
    so they end at 10000 ** -0.25 and not near 1 / 10000 (docs/published-flaws.md#f37).
    """
    table = sincos_table(width, rows, columns, divisor=width, dtype=dtype)
    return torch.cat([table.new_zeros(1, width), table])


class Decoder(nn.Module):
    """MAE's decoder, the class token among its tokens: visible tokens -> pixels of every patch.

    Args:
        mlp_ratio: Hidden width of a block's perceptron over `width`.
    """

    def __init__(
        self, encoder: PatchEncoder, width: int, depth: int, heads: int, mlp_ratio: float = 4.0
    ) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=NORM_EPS)
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        # Part of a checkpoint: one that began as MAE's carries MAE's table.
        self.position: Tensor
        self.register_buffer("position", published_table(width, *encoder.grid).unsqueeze(0))
        self.blocks = nn.Sequential(
            *(Block(width, heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        )
        self.norm = norm(width)
        self.out = nn.Linear(width, encoder.patch_size**2 * encoder.channels)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """Decode visible tokens.

        Args:
            tokens: (batch, 1 + kept, encoder width), class token first. keep: int64 (batch, kept).

        Returns:
            (batch, patches, values).
        """
        visible = self.embed(tokens)
        batch, _, width = visible.shape
        patches = self.position.shape[1] - 1
        full = self.mask_token.to(visible.dtype).expand(batch, patches, -1)
        full = full.scatter(1, keep.unsqueeze(-1).expand(-1, -1, width), visible[:, 1:])
        full = torch.cat([visible[:, :1], full], 1) + self.position
        result: Tensor = self.out(self.norm(self.blocks(full)))[:, 1:]
        return result


class SuperResolution(nn.Module):
    """Bilinear, two convolutions (168 parameters for three channels), and a ReLU at the end.

    The ReLU makes pixels below the data set's mean unreachable: targets are normalised
    (docs/published-flaws.md#f34).
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Refine (batch, c, s, s) to (batch, c, scale*s, scale*s)."""
        large = F.interpolate(images, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return F.relu(self.second(F.relu(self.first(large))) + large)


def window_cells(grid: int) -> int:
    """Compute the side of a window in cells.

    Raises:
        UsageError: When the grid is too small for a window.
    """
    if grid <= WINDOW_MARGIN:
        raise UsageError(
            f"ecamp-published: a grid of {grid} patches per side is too small for its windows.",
            "Take smaller patches or larger images: at least three patches per side.",
        )
    return grid - WINDOW_MARGIN


def window_mask(row: Tensor, column: Tensor, grid: int) -> Tensor:
    """Find the cells inside each window (docs/published-flaws.md#f33).

    Args:
        row: int64 (batch,) in 0 .. 2; moves the window along the WIDTH, as published.
        column: int64 (batch,) in 0 .. 2; moves it along the height.
        grid: Cells per side.

    Returns:
        bool (batch, grid, grid).
    """
    cells, side = torch.arange(grid, device=row.device), window_cells(grid)
    down, across = cells - column.unsqueeze(1), cells - row.unsqueeze(1)
    inside = [(offset >= 0) & (offset < side) for offset in (down, across)]
    return inside[0].unsqueeze(2) & inside[1].unsqueeze(1)


def enlarge(cells: Tensor, pixels: int) -> Tensor:
    """Enlarge each cell to a square of pixels: (batch, g, g) -> (batch, 1, g*pixels, g*pixels)."""
    return cells.repeat_interleave(pixels, 1).repeat_interleave(pixels, 2).unsqueeze(1)


def shrink(images: Tensor, size: int, antialias: bool = False) -> Tensor:
    """Resize to `size`, bicubic; without antialiasing as published (docs/published-flaws.md#f41)."""
    return F.interpolate(
        images, (size, size), mode="bicubic", align_corners=False, antialias=antialias
    )
