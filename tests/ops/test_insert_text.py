"""`insert_text`: against plain Python; wrong tables are refused, not read."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.ops import insert_text as op
from tests.ops.checks import lane, native, philox_plain

CLS = 2


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Reports, distilled texts, and edges of each report."""
    token = st.integers(3, 2**31 - 1)
    count = draw(st.integers(1, 4))
    texts = st.lists(st.lists(token, max_size=9), min_size=count, max_size=count)
    reports, blocks = draw(texts), draw(texts)
    edges = [
        draw(st.lists(st.integers(0, len(report)), min_size=1, max_size=4)) for report in reports
    ]
    return reports, blocks, edges


def pool_of(
    reports: list[list[int]], blocks: list[list[int]], edges: list[list[int]]
) -> op.TextPool:
    def starts(parts: list[list[int]]) -> torch.Tensor:
        lengths = torch.tensor([len(part) for part in parts])
        return lengths.cumsum(0) - lengths

    def lengths(parts: list[list[int]]) -> torch.Tensor:
        return torch.tensor([len(part) for part in parts])

    texts = [*reports, *blocks]
    where, n = starts(texts), len(reports)
    return op.TextPool(
        torch.tensor([*chain(*texts)], dtype=torch.int32), where[:n], lengths(reports), where[n:],
        lengths(blocks), torch.tensor([*chain(*edges)]), starts(edges), lengths(edges),
    )  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    pools(), st.data(), st.integers(0, 2**32 - 1), st.integers(0, 2**63 - 1),
    st.sampled_from([0, 1 << 31, 1 << 32]), st.integers(1, 20),
)  # fmt: skip
def test_equals_plain_python(
    case: tuple, data: st.DataObject, step: int, seed: int, limit: int, longest: int
) -> None:
    reports, blocks, edges = case
    index = data.draw(st.lists(st.integers(0, len(reports) - 1), max_size=5))
    want: list[list[int]] = []
    for sample in index:
        draw = philox_plain([0, sample, step, 2], [seed % 2**32, seed >> 32])
        text = list(reports[sample])
        if draw[0] < limit:
            position = edges[sample][draw[1] * len(edges[sample]) >> 32]
            text[position:position] = blocks[sample]
        want.append([CLS, *text][:longest])
    pool = pool_of(*case)
    arguments = (torch.tensor(index, dtype=torch.int64), pool, step, seed, limit, longest, CLS)
    plain = op._reference(arguments[0], *vars(pool).values(), *arguments[2:])
    for ids, lengths in (op.insert_text(*arguments), plain):
        assert ids.tolist() == [*chain(*want)]
        assert lengths.tolist() == [len(text) for text in want]


def small() -> op.TextPool:
    return pool_of([[5, 6, 7], [8]], [[9], []], [[0, 3], [1]])


@native
@pytest.mark.parametrize("lane_index", [0, 1, 2])
def test_every_lane_gives_the_same(lane_index: int) -> None:
    index = torch.arange(2).repeat(40)
    with lane(2):
        want = op.insert_text(index, small(), 1, 2, 1 << 31, 9, CLS)
    with lane(lane_index):
        got = op.insert_text(index, small(), 1, 2, 1 << 31, 9, CLS)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


@native
@pytest.mark.parametrize(
    "change",
    [
        {"report_length": torch.tensor([3, 99])},
        {"report_start": torch.tensor([-1, 3])},
        {"block_start": torch.tensor([4, 2**62])},
        {"block_length": torch.tensor([-2, 0])},
        {"edges": torch.tensor([4, 4, 4])},
        {"edge_count": torch.tensor([0, 1])},
        {"edge_start": torch.tensor([2, 2])},
        {"edge_start": torch.tensor([0])},
        {"tokens": torch.zeros(5, dtype=torch.int64)},
    ],
)
def test_tables_that_lead_outside_are_refused(change: dict) -> None:
    with pytest.raises(RuntimeError, match="insert_text"):
        op.insert_text(torch.tensor([0, 1]), replace(small(), **change), 0, 0, 1 << 32, 9, CLS)


@pytest.mark.parametrize("index", [torch.tensor([2]), torch.tensor([-1]), torch.tensor([0.0])])
def test_wrong_indices_are_named(index: torch.Tensor) -> None:
    with pytest.raises((ValueError, RuntimeError), match="insert_text"):
        op.insert_text(index, small(), 0, 0, 0, 9, CLS)


def test_opcheck() -> None:
    torch.library.opcheck(
        torch.ops.ecamp.insert_text.default,
        (torch.tensor([0, 1]), *vars(small()).values(), 1, 2, 1 << 31, 9, CLS),
    )
