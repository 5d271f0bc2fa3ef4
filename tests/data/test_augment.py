"""Image, masks and boxes move by the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecamp.data.augment import Warp, sample_augmentation
from ecamp.data.augmentation import Augmentation

SIDE = 64


def _warp(crop: list[float], flip: bool = False) -> Warp:
    one = torch.ones(1)
    return Warp(torch.tensor([crop], dtype=torch.float32), torch.tensor([flip]), one, 0 * one)


def _film(x1: int, y1: int, x2: int, y2: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Draw a bright rectangle, its mask and its box."""
    mask = np.zeros((1, 1, SIDE, SIDE), bool)
    mask[0, 0, y1:y2, x1:x2] = True
    image = (mask[:, 0, :, :, None] * 200).astype(np.uint8)
    return image, mask, torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 40), st.integers(0, 40), st.integers(8, 24), st.integers(8, 24),
    st.integers(0, 10_000), st.booleans(),
)  # fmt: skip
def test_box_and_mask_stay_on_what_they_mark(
    x: int, y: int, width: int, height: int, seed: int, flip: bool
) -> None:
    image, mask, box = _film(x, y, x + width, y + height)
    how = Augmentation(crop=0.5, jitter=0.0, flip=True)
    warp = sample_augmentation(1, how, torch.Generator().manual_seed(seed))
    warp = Warp(warp.crop, torch.tensor([flip]), warp.contrast, warp.brightness)
    seen = warp.images(image)[0, :, :, 0] > 100
    marked = warp.masks(mask)[0, 0].numpy()
    assert (seen == marked).all()
    moved, kept = warp.boxes(0, box, SIDE)
    if not kept.any():
        side = float(warp.crop[0, 2] - warp.crop[0, 0])
        assert marked.sum() * side**2 < 0.3 * width * height + 12  # most of it was cut off
        return
    ys, xs = np.nonzero(marked)
    tight = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    np.testing.assert_allclose(moved[0].numpy(), tight, atol=1.01)


def test_an_image_that_is_not_moved_stays_as_it_is() -> None:
    rng = np.random.Generator(np.random.Philox(0))
    images = rng.integers(0, 256, (3, 20, 20, 3)).astype(np.uint8)
    masks = rng.random((3, 5, 20, 20)) < 0.3
    warp = sample_augmentation(
        3, Augmentation(crop=1.0, jitter=0.0), torch.Generator().manual_seed(0)
    )
    np.testing.assert_allclose(warp.images(images), images, atol=1e-3)
    assert np.array_equal(warp.masks(masks).numpy(), masks)
    boxes = torch.tensor([[1.0, 2.0, 10.0, 20.0]])
    torch.testing.assert_close(warp.boxes(0, boxes, 20)[0], boxes)


def test_by_default_sides_are_kept() -> None:
    warp = sample_augmentation(500, Augmentation(), torch.Generator().manual_seed(0))
    assert not warp.flip.any()
    mirrored = sample_augmentation(
        500, Augmentation(flip=True), torch.Generator().manual_seed(0)
    ).flip
    assert 0.4 < float(mirrored.float().mean()) < 0.6


def test_proportions_are_kept_and_the_crop_lies_inside() -> None:
    warp = sample_augmentation(1000, Augmentation(crop=0.3), torch.Generator().manual_seed(3))
    x0, y0, x1, y1 = warp.crop.unbind(1)
    torch.testing.assert_close(x1 - x0, y1 - y0)
    assert (warp.crop >= 0).all()
    assert (warp.crop <= 1 + 1e-6).all()
    area = (x1 - x0) ** 2
    assert 0.3 <= float(area.min()) < 0.35
    assert 0.95 < float(area.max()) <= 1 + 1e-6


def test_a_box_that_is_mostly_cut_off_is_dropped_with_its_class() -> None:
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0], [40.0, 40.0, 60.0, 60.0]])
    moved, kept = _warp([0.2, 0.2, 1.0, 1.0]).boxes(0, boxes, SIDE)
    assert kept.tolist() == [False, True]
    np.testing.assert_allclose(moved.numpy(), [[34, 34, 59, 59]], atol=0.01)


def test_a_mirrored_box_swaps_its_sides() -> None:
    moved, _ = _warp([0, 0, 1, 1], flip=True).boxes(0, torch.tensor([[4.0, 1.0, 10.0, 9.0]]), SIDE)
    assert moved.tolist() == [[54.0, 1.0, 60.0, 9.0]]


def test_light_moves_pixels_and_nothing_else() -> None:
    image, mask, box = _film(10, 10, 30, 30)
    warp = _warp([0, 0, 1, 1])
    bright = Warp(warp.crop, warp.flip, warp.contrast, torch.tensor([0.1]))
    np.testing.assert_allclose(bright.images(image), np.minimum(image + 25.5, 255), atol=1e-3)
    assert np.array_equal(bright.masks(mask).numpy(), mask)
    assert torch.equal(bright.boxes(0, box, SIDE)[0], box)


@pytest.mark.parametrize("value", [{"crop": 0}, {"jitter": 1.0}, {"crops": 0.5}])
def test_impossible_augmentations_are_refused(value: dict) -> None:
    with pytest.raises(ValueError):
        Augmentation(**value)
