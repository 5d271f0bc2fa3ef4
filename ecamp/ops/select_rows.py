"""`select_rows`: indices of the true entries of a mask, their number known beforehand.

`mask.nonzero()` must ask a GPU how many there are and so stops the host. The number of masked
positions is known on the host (it follows from the counters that drew them), so nothing waits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecamp.ops._ext import load_extension
from ecamp.ops._library import define


def select_rows(mask: Tensor, count: int | None = None) -> Tensor:
    """Return the flat indices of the true entries, in order: rows of a (B * S, D) view to take.

    Args:
        mask: bool (B, S).
        count: Number of true entries. None counts them, which makes a GPU's host wait.
            A wrong count is an error on the CPU; on a GPU, where a check would wait, too
            low a count drops the last entries and too high a count fills up with -1.

    Returns:
        int64 (count,).

    Raises:
        ValueError: `mask` is not bool (B, S). RuntimeError: wrong `count`.
    """
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f"select_rows: mask must be bool (B, S), got {mask.dtype} {tuple(mask.shape)}"
        )
    if count is None:
        count = int(mask.sum())
    load_extension()
    result: Tensor = torch.ops.ecamp.select_rows(mask.contiguous(), count)
    return result


def _reference(mask: Tensor, count: int) -> Tensor:
    indices = mask.reshape(-1).nonzero().squeeze(1)
    if len(indices) != count:
        raise RuntimeError(
            f"select_rows: count is {count} but mask holds {len(indices)} true entries"
        )
    return indices


def _fake(mask: Tensor, count: int) -> Tensor:
    return mask.new_empty((count,), dtype=torch.int64)


define("select_rows(Tensor mask, SymInt count) -> Tensor", _reference, _fake)
