"""More than 2**31 elements: offsets are 64 bits wide."""

from __future__ import annotations

import os

import pytest
import torch

from ecamp.ops.mask_tokens import MaskTables, mask_tokens
from ecamp.ops.rows import gather_rows
from ecamp.ops.select_rows import select_rows
from tests.ops.checks import native

BEYOND = 2**31 + 2**12
GIGABYTES = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
roomy = pytest.mark.skipif(GIGABYTES < 6, reason=f"needs 6 GiB of free memory, {GIGABYTES:.0f} are")

pytestmark = [native, roomy, pytest.mark.slow]


@pytest.mark.slow
def test_select_rows_names_entries_beyond_32_bits() -> None:
    mask = torch.zeros(2**12, BEYOND // 2**12, dtype=torch.bool)
    mask[0, 3] = mask[-1, -1] = True
    assert select_rows(mask, 2).tolist() == [3, BEYOND - 1]


@pytest.mark.slow
def test_gather_rows_reads_beyond_32_bits() -> None:
    x = torch.zeros(BEYOND // 64, 64, dtype=torch.uint8)
    x[-1] = 7
    x[1] = 5
    got = gather_rows(x, torch.tensor([len(x) - 1, -1, 1]))
    assert got[:, 0].tolist() == [7, 0, 5]


def test_mask_tokens_refuses_ids_that_do_not_fit_their_lengths() -> None:
    """The sum of lengths is 64 bits wide: it does not wrap to the right number."""
    tables = MaskTables(
        torch.zeros(4, dtype=torch.uint8), torch.zeros(0, 3, dtype=torch.int32),
        torch.zeros(5, dtype=torch.int32), 1, 0.5, 0.5, 0.5, 2, 0.05,
    )  # fmt: skip
    lengths = torch.full((4,), 2**30)  # 2**32 in all: 0 in 32 bits
    with pytest.raises((ValueError, RuntimeError), match="lengths sum to 4294967296"):
        mask_tokens(
            torch.zeros(0, dtype=torch.int64), lengths, torch.arange(4), 0, 0, tables, 2**30
        )
