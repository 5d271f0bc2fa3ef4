"""Fixed two-dimensional sine-cosine position table (MAE, He et al. 2022, appendix A.1)."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_table(width: int, rows: int, columns: int) -> Tensor:
    """Build the table; half of each vector encodes the column, half the row.

    Args:
        width: Length of a vector, a multiple of 4.

    Returns:
        float32 (rows*columns, width), row by row, computed in float64.

    Raises:
        ValueError: When `width` is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sincos_table: width {width} is no multiple of 4")
    quarter = width // 4
    omega = 1.0 / 10_000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(columns, dtype=torch.float64),
        indexing="ij",
    )
    parts = []
    for axis in (column, row):
        angle = axis.reshape(-1, 1) * omega
        parts += [angle.sin(), angle.cos()]
    return torch.cat(parts, dim=1).float()
