"""`crop_resize`: against plain Python, against torch's grid sampler, and its edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ecamp.ops import crop_resize as op
from tests.ops.checks import guarded, lane, native, spread


def draw(batch: int, height: int, width: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(height)
    images = torch.randint(0, 256, (batch, height, width, channels), dtype=torch.uint8, generator=g)
    low = torch.rand(batch, 2, generator=g) * 0.6
    high = low + 0.1 + (0.9 - low) * torch.rand(batch, 2, generator=g)
    return images, torch.cat([low, high], 1), torch.rand(batch, generator=g) < 0.5


def oracle(
    image: list, crop: list[float], flip: bool, size: int, channel: int
) -> list[list[float]]:
    """Compute in plain floats: bilinear at the centres of the output pixels, edges continue."""
    height, width = len(image), len(image[0])

    def tap(low: float, high: float, i: int, count: int) -> tuple[int, int, float]:
        position = (low + (i + 0.5) / size * (high - low)) * count - 0.5
        position = min(max(position, 0.0), count - 1.0)
        first = math.floor(position)
        return first, min(first + 1, count - 1), position - first

    out = []
    for y in range(size):
        top, bottom, down = tap(crop[1], crop[3], y, height)
        row = []
        for x in range(size):
            a, b, across = tap(crop[0], crop[2], size - 1 - x if flip else x, width)
            above = image[top][a][channel] * (1 - across) + image[top][b][channel] * across
            below = image[bottom][a][channel] * (1 - across) + image[bottom][b][channel] * across
            row.append(above * (1 - down) + below * down)
        out.append(row)
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4),
    st.integers(0, 6), st.sampled_from([1, 2, 3]),
)  # fmt: skip
def test_equals_plain_python(
    batch: int, height: int, width: int, channels: int, few: int, pool: int
) -> None:
    images, crop, flip = draw(batch, height, width, channels)
    mean, std, size = [0.4] * channels, [0.2 + 0.1 * c for c in range(channels)], few * pool
    large, small = op.crop_resize(images, crop, flip, mean, std, size, pool)
    assert large.shape == (batch, channels, size, size)
    assert small.shape == (batch, channels, few, few)
    for b in range(batch):
        for c in range(channels):
            plain = torch.tensor(
                oracle(images[b].tolist(), crop[b].tolist(), bool(flip[b]), size, c),
                dtype=torch.float64,
            ).reshape(size, size)
            want = (plain / 255 - mean[c]) / std[c]
            torch.testing.assert_close(large[b, c].double(), want, rtol=0, atol=3e-5)
            if size:
                means = F.avg_pool2d(want[None, None], pool)[0, 0]
                torch.testing.assert_close(small[b, c].double(), means, rtol=0, atol=3e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pool", [1, 2, 4])
@pytest.mark.parametrize("lane_index", [0, 1, 2])
@native
def test_every_lane_has_the_references_bits(channels: int, pool: int, lane_index: int) -> None:
    images, crop, flip = draw(3, 61, 47, channels)
    factors = torch.rand(2, channels)
    arguments = (images, crop, flip, factors[0], factors[1], 32, pool)
    with lane(lane_index):
        got = torch.ops.ecamp.crop_resize(*arguments)
    for mine, theirs in zip(got, op._reference(*arguments), strict=True):
        assert torch.equal(mine, theirs)


def test_inside_it_is_the_grid_sampler() -> None:
    """Torch's own bilinear sampler, where no tap leaves the image."""
    images, _, _ = draw(2, 64, 64, 1)
    crop = torch.tensor([[0.1, 0.2, 0.7, 0.9], [0.05, 0.3, 0.95, 0.6]])
    large, _ = op.crop_resize(images, crop, torch.tensor([False, True]), [0.0], [1 / 255], 48)
    part = (torch.arange(48) + 0.5) / 48
    x, y = (crop[:, i, None] + part * (crop[:, i + 2] - crop[:, i])[:, None] for i in (0, 1))
    x[1] = x[1].flip(0)
    grid = (
        torch.stack([x[:, None].expand(-1, 48, -1), y[:, :, None].expand(-1, -1, 48)], -1) * 2 - 1
    )
    pixels = images.permute(0, 3, 1, 2).float()
    want = F.grid_sample(pixels, grid, mode="bilinear", align_corners=False)
    torch.testing.assert_close(large, want, rtol=1e-4, atol=1e-2)


@native
def test_nothing_outside_is_read_or_written() -> None:
    images, crop, flip = draw(2, 5, 7, 3)
    view, buffer = guarded(images, 9)
    before = buffer.clone()
    want = op.crop_resize(images, crop, flip, [0.5], [0.2], 6, 2)
    wild = torch.tensor([[-3.0, 0.0, 9.0, 1.0], [math.nan, 0.5, math.inf, -math.inf]])
    for source in (view, spread(images)):
        got = op.crop_resize(source, crop, flip, [0.5], [0.2], 6, 2)
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])
        assert op.crop_resize(source, wild, flip, [0.5], [0.2], 6)[0].isfinite().all()
    assert torch.equal(buffer, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 4, 4, 1)}, "images must be uint8"),
        ({"images": torch.zeros(2, 4, 4, dtype=torch.uint8)}, "images must be uint8"),
        ({"images": torch.zeros(2, 0, 4, 1, dtype=torch.uint8)}, "no pixels"),
        ({"crop": torch.zeros(3, 4)}, "crop must be"),
        ({"flip": torch.zeros(2)}, "flip must be"),
        ({"mean": [0.1, 0.2]}, "mean has 2 entries"),
        ({"size": 5, "pool": 2}, "not a multiple"),
        ({"pool": 0}, "not a multiple"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    good = {
        "images": torch.zeros(2, 4, 4, 1, dtype=torch.uint8), "crop": torch.zeros(2, 4),
        "flip": torch.zeros(2, dtype=torch.bool), "mean": [0.5], "std": [0.25], "size": 4,
        "pool": 1,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        op.crop_resize(**{**good, **change})


def test_opcheck() -> None:
    images, crop, flip = draw(2, 5, 7, 1)
    torch.library.opcheck(
        torch.ops.ecamp.crop_resize.default,
        (images, crop, flip, torch.ones(1), torch.zeros(1), 4, 2),
    )
