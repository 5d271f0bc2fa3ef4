"""Padding and resizing against the plain way: pad to a square with numpy, then one resize."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ecamp.api.dataset import Sample
from ecamp.data.letterbox import letterbox


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 64), st.sampled_from([1, 3]))
def test_the_bytes_are_those_of_a_padded_square(height: int, width: int, size: int, channels: int):
    rng = np.random.default_rng(height * 97 + width)
    pixels = rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.zeros((side, side, channels), np.uint8)
    padded[top : top + height, left : left + width] = pixels
    expected = np.stack(
        [
            np.asarray(
                Image.fromarray(padded[..., c]).resize((size, size), Image.Resampling.BICUBIC)
            )
            for c in range(channels)
        ],
        axis=2,
    )
    got = letterbox(Sample(pixels), size).image
    assert got.shape == (size, size, channels)
    assert got.flags.writeable or (height, width) == (size, size)
    assert np.array_equal(got, expected)


def test_mask_and_boxes_move_along():
    mask = np.zeros((1, 20, 40), bool)
    mask[0, 4:12, 10:30] = True
    boxes = np.array([[10, 4, 30, 12]], np.float32)
    out = letterbox(Sample(np.zeros((20, 40, 1), np.uint8), mask, boxes, np.zeros(1, np.int64)), 80)
    assert out.boxes is not None
    assert out.boxes.tolist() == [[20, 28, 60, 44]]
    assert out.mask is not None
    expected = np.zeros((80, 80), bool)
    expected[28:44, 20:60] = True
    assert np.array_equal(out.mask[0], expected)
