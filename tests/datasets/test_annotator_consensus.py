"""Consensus of several readers, against pixels counted one by one."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.datasets.annotator_consensus import count_votes, iou, merge_boxes
from ecamp.io.boxes import Box

THRESHOLDS = (0.25, 0.5, 0.75)  # exact in binary, so that fractions compare the same


@st.composite
def corners(draw: st.DrawFn) -> Box:
    x, y = draw(st.integers(-2, 6)), draw(st.integers(-2, 6))
    return x, y, x + draw(st.integers(1, 6)), y + draw(st.integers(1, 6))


DRAWN = st.lists(st.tuples(st.sampled_from("ABC"), corners()), max_size=7)


def pixels(box: Box) -> set[tuple[int, int]]:
    x1, y1, x2, y2 = (int(v) for v in box)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def counted(a: Box, b: Box) -> Fraction:
    return Fraction(len(pixels(a) & pixels(b)), len(pixels(a) | pixels(b)))


def by_hand(drawn: list[tuple[str, Box]], overlap: float, agree: int) -> list[tuple[Fraction, ...]]:
    """Apply the rule literally: search for the best pair again after each join."""
    groups = [[one] for one in sorted(set(drawn))]
    while True:
        best = None
        for one, other in combinations(groups, 2):
            if {r for r, _ in one} & {r for r, _ in other}:
                continue
            if any(counted(a, b) < Fraction(overlap) for _, a in one for _, b in other):
                continue
            for first in one:
                for second in other:
                    low, high = sorted((first, second))
                    rank = (-counted(low[1], high[1]), low, high)
                    if best is None or rank < best[0]:
                        best = (rank, one, other)
        if best is None:
            break
        _, one, other = best
        groups = [g for g in groups if g is not one and g is not other] + [one + other]
    kept = [[box for _, box in group] for group in groups if len(group) >= agree]
    return sorted(tuple(Fraction(sum(side), len(side)) for side in zip(*boxes)) for boxes in kept)  # type: ignore[arg-type]  # noqa: B905


@given(corners(), corners())
def test_iou_counts_pixels(a: Box, b: Box) -> None:
    assert iou(a, b) == iou(b, a) == float(counted(a, b))


@given(DRAWN, st.sampled_from(THRESHOLDS), st.integers(1, 3))
def test_boxes_are_merged_by_the_rule(
    drawn: list[tuple[str, Box]], overlap: float, agree: int
) -> None:
    expected = by_hand(drawn, overlap, agree)
    merged = merge_boxes(drawn, overlap, agree)
    assert len(merged) == len(expected)
    for box, exact in zip(merged, expected, strict=True):
        assert box == pytest.approx([float(v) for v in exact], abs=1e-9)


@given(DRAWN, st.sampled_from(THRESHOLDS), st.integers(1, 3), st.randoms())
def test_order_and_repeats_change_nothing(
    drawn: list[tuple[str, Box]], overlap: float, agree: int, rng: random.Random
) -> None:
    shuffled = [*drawn, *drawn[:3]]
    rng.shuffle(shuffled)
    assert merge_boxes(shuffled, overlap, agree) == merge_boxes(drawn, overlap, agree)


FLOATS = st.floats(-1e4, 1e4, allow_nan=False).map(lambda v: round(v, 3))
ANY = st.tuples(FLOATS, FLOATS, st.floats(0.01, 3e3), st.floats(0.01, 3e3)).map(
    lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
)


@given(st.lists(st.tuples(st.sampled_from("ABC"), ANY), max_size=8), st.floats(0.05, 1))
def test_unanimous_statements_are_kept(drawn: list[tuple[str, Box]], overlap: float) -> None:
    """Merged boxes, drawn again by each reader, come out bit by bit as they went in."""
    merged = merge_boxes(drawn, overlap, 1)
    again = [(reader, box) for reader in "ABC" for box in merged]
    assert merge_boxes(again, overlap, 3) == tuple(sorted(set(merged)))


@given(st.lists(ANY, min_size=1, max_size=3), st.integers(1, 3))
def test_no_box_leaves_the_hull(boxes: list[Box], agree: int) -> None:
    for x1, y1, x2, y2 in merge_boxes(list(zip("ABC", boxes)), 0.01, agree):  # noqa: B905
        assert x1 >= min(b[0] for b in boxes)
        assert y1 >= min(b[1] for b in boxes)
        assert x2 <= max(b[2] for b in boxes)
        assert y2 <= max(b[3] for b in boxes)


def test_a_chain_does_not_join_neighbours() -> None:
    """A and C overlap by a third only, though B overlaps with both by two thirds."""
    a, b, c = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 15.0, 10.0), (5.0, 0.0, 15.0, 10.0)
    assert merge_boxes([("A", a), ("B", b), ("C", c)], 0.5, 2) == ((0.0, 0.0, 12.5, 10.0),)
    assert merge_boxes([("A", a), ("B", b), ("C", c)], 0.5, 1) == ((0.0, 0.0, 12.5, 10.0), c)
    assert merge_boxes([("A", a), ("B", b), ("C", c)], 0.3, 3) == ((5 / 3, 0.0, 40 / 3, 10.0),)


def test_two_boxes_of_one_reader_are_two_findings() -> None:
    box, near = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 9.0)
    assert merge_boxes([("A", box), ("A", near)], 0.5, 1) == (near, box)
    # The third goes with the one that it overlaps more.
    assert merge_boxes([("A", box), ("A", near), ("B", box)], 0.5, 2) == (box,)
    assert merge_boxes([], 0.5, 1) == ()


def test_votes() -> None:
    rows = [(1, 1, 1, 0), (1, 1, 0, 0), (1, 0, 0, 0)]
    assert [count_votes(rows, agree) for agree in (1, 2, 3)] == [
        (1, 1, 1, 0),
        (1, 1, 0, 0),
        (1, 0, 0, 0),
    ]
    assert count_votes([(1, 0)], 2) == (1, 0), "one reading is a consensus"
