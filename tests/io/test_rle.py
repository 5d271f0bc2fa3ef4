"""Run lengths: round trips, the two ways to count, a plain decoder, bad text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.errors import DataError
from ecamp.io.rle import decode_rle, encode_rle

SHARE = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), SHARE, st.booleans())
def test_round_trip(seed: int, height: int, width: int, share: float, relative: bool) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    text = encode_rle(mask, relative=relative)
    assert (text == "-1") == (not mask.any())
    assert np.array_equal(decode_rle(text, height, width, relative=relative), mask)


@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(2, 8))
def test_relative_starts_as_the_competition_walks_them(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.4
    words = encode_rle(mask, relative=True).split()
    plain, index = [[False] * width for _ in range(height)], 0
    for start, length in zip(words[::2], words[1::2], strict=False):
        index += int(start)
        for _ in range(int(length)):
            plain[index % height][index // height] = True
            index += 1
    assert mask.tolist() == (plain if mask.any() else [[False] * width] * height)


def test_by_hand() -> None:
    mask = decode_rle("1 2 2 1", 3, 2, relative=True)  # pixels 1, 2, then 2 + 2 = 5
    assert mask.tolist() == [[False, False], [True, False], [True, True]]
    assert np.array_equal(mask, decode_rle("2 2 6 1", 3, 2, relative=False))


@pytest.mark.parametrize("text", ["", "-1", " -1 "])
def test_nothing(text: str) -> None:
    assert not decode_rle(text, 4, 4, relative=True).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 x", "whole numbers"), ("1.5 2", "whole numbers"), ("1 2 3", "not pairs"),
     ("15 2", "leaves the image"), ("-3 2", "leaves the image"), ("3 -2", "leaves the image"),
     ("99999999999999999999 1", "whole numbers")],
)  # fmt: skip
def test_bad_text_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"train\.csv line 7.*{message}"):
        decode_rle(text, 4, 4, relative=True, location="train.csv line 7")
