"""`select_rows` against a Python loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend

from ecamp.ops import select_rows as op
from tests.ops.checks import guarded, lane, native, spread


def oracle(mask: torch.Tensor) -> list[int]:
    return [i for i, hit in enumerate(mask.flatten().tolist()) if hit]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9),
    st.integers(0, 70),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_equals_the_oracle(batch: int, length: int, share: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, length, generator=g) < share
    want = oracle(mask)
    for view in (mask, guarded(mask)[0], spread(mask), mask.T.contiguous().T):
        assert op.select_rows(view, len(want)).tolist() == want
        assert op.select_rows(view).tolist() == want
    assert op._reference(mask, len(want)).tolist() == want
    assert op.select_rows(mask).dtype == torch.int64


@native
@pytest.mark.parametrize("lane_index", [0, 1, 2])
@pytest.mark.parametrize("threads", [1, 2])
def test_many_ranges(lane_index: int, threads: int) -> None:
    mask = torch.rand(4, 100_003, generator=torch.Generator().manual_seed(0)) < 0.1
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with lane(lane_index):
            assert torch.equal(op.select_rows(mask), mask.flatten().nonzero().squeeze(1))
    finally:
        torch.set_num_threads(before)


@native
def test_nothing_is_written_past_the_end() -> None:
    """An empty tail after the last true entry tempts a loop that writes before it looks."""
    for size in range(1, 40):
        mask = torch.zeros(1, size, dtype=torch.bool)
        mask[0, 0] = True
        for _ in range(3):
            assert op.select_rows(mask, 1).tolist() == [0]


@pytest.mark.parametrize("count", [-1, 0, 2, 4, 99])
def test_a_wrong_count_is_named(count: int) -> None:
    mask = torch.tensor([[True, False, True], [False, True, False]])
    with pytest.raises(RuntimeError, match="select_rows: count"):
        op.select_rows(mask, count)
    with pytest.raises(RuntimeError, match="select_rows: count"):
        op._reference(mask, count)


@pytest.mark.parametrize("mask", [torch.zeros(4, dtype=torch.bool), torch.zeros(2, 2)])
def test_a_wrong_mask_is_named(mask: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="select_rows: mask must be bool"):
        op.select_rows(mask, 0)


def test_opcheck() -> None:
    for shape in ((0, 3), (1, 1), (3, 50)):
        mask = torch.rand(shape) < 0.5
        torch.library.opcheck(torch.ops.ecamp.select_rows.default, (mask, int(mask.sum())))


def test_compiles_whole_and_once_for_any_count() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(op.select_rows, fullgraph=True, backend=counter, dynamic=True)
    for share in (0.2, 0.5, 0.9):
        mask = torch.rand(8, 64, generator=torch.Generator().manual_seed(1)) < share
        count = int(mask.sum())
        assert torch.equal(compiled(mask, count), op.select_rows(mask, count))
    assert counter.frame_count == 1
