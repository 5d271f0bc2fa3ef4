"""Fixed two-dimensional sine-cosine position table (MAE, He et al. 2022, appendix A.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_table(
    width: int,
    rows: int,
    columns: int,
    *,
    divisor: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Build the table; half of each vector encodes the column, half the row.

    Args:
        width: Length of a vector, a multiple of 4.
        divisor: Divisor of a frequency's index; by default `width / 4`, so that exponents run from
            0 to 1.

    Returns:
        (rows*columns, width), row by row, computed in float64.

    Raises:
        ValueError: When `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sincos_table: width {width} is not a multiple of 4")
    quarter = width // 4
    exponent = torch.arange(quarter, dtype=torch.float64) / (divisor or quarter)
    omega = 1.0 / 10_000**exponent
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
        indexing="ij",
    )
    parts = []
    for axis in (column, row):
        angle = axis.reshape(-1, 1) * omega
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1).to(dtype)


def resize_table(table: Tensor, rows: int, columns: int) -> Tensor:
    """Resize a position table with a class token to another grid, bicubic.

    Args:
        table: (1, 1 + side*side, width).

    Returns:
        (1, 1 + rows*columns, width); the class token's row unchanged.

    Raises:
        ValueError: When the table's patches are not a square.
    """
    patches = table.shape[1] - 1
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(f"resize_table: {patches} patches are not a square")
    if (side, side) == (rows, columns):
        return table
    grid = table[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)
