"""Stored images to an encoder's input: memory, channels, statistics; and squares by other fits."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from ecamp.api.dataset import DatasetInfo, Sample
from ecamp.api.encoder import AS_STORED, InputSpec
from ecamp.data.letterbox import fit_square, letterbox
from ecamp.data.normalise import LUMA, adapt_info, change_channels, normaliser
from ecamp.errors import DataError, UsageError
from ecamp.ops.crop_resize import _reference, crop_resize

GREY = DatasetInfo("grey", "1", mean=(0.4,), std=(0.2,))
RGB = DatasetInfo("rgb", "1", channels=3, mean=(0.5, 0.4, 0.3), std=(0.3, 0.2, 0.1))
IMAGENET = InputSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 3)
TRAIN = """
import numpy as np, torch
from ecamp.api.dataset import DatasetInfo
from ecamp.data.normalise import normaliser
channels = {channels}
info = DatasetInfo("x", "1", channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels)
layer = torch.nn.Conv2d(channels, 16, 1, stride=2, bias=False)
for _ in range(30):
    layer(normaliser(info)(np.zeros((16, 64, 64, channels), np.uint8))).sum().backward()
"""


def images(channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 8, 8, channels)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.slow
def test_a_strided_first_layer_trains_without_a_crash(channels: int) -> None:
    """The backward pass of this layer kills the process where the channels of its input lie last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN.format(channels=channels)], capture_output=True, text=True,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_input_lies_channel_by_channel(channels: int, dtype: type) -> None:
    info = GREY if channels == 1 else RGB
    out = normaliser(info)(images(channels).astype(dtype))
    assert out.stride() == (channels * 64, 64, 8, 1)
    expected = images(channels).transpose(0, 3, 1, 2) / 255 - np.reshape(info.mean, (1, -1, 1, 1))
    np.testing.assert_allclose(out, expected / np.reshape(info.std, (1, -1, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pool", [1, 2])
def test_crops_for_pretraining_lie_channel_by_channel(channels: int, pool: int) -> None:
    stored = torch.from_numpy(images(channels))
    crop, flip = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2), torch.tensor([False, True])
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    made = [*crop_resize(stored, crop, flip, [0.5], [0.2], 8, pool)]
    made += _reference(stored, crop, flip, ones, zeros, 8, pool)
    for out in made:
        side = out.shape[2]
        assert not side or out.stride() == (channels * side * side, side * side, side, 1)


def test_an_encoder_that_states_nothing_sees_the_data_set() -> None:
    assert adapt_info(GREY, AS_STORED) == GREY
    assert adapt_info(RGB, AS_STORED) == RGB


def test_an_encoder_sees_the_channels_and_statistics_that_it_states() -> None:
    seen = adapt_info(GREY, IMAGENET)
    assert (seen.channels, seen.mean, seen.std) == (3, IMAGENET.mean, IMAGENET.std)
    out = normaliser(seen)(images(1))
    assert out.shape == (2, 3, 8, 8)
    undone = out * torch.tensor(seen.std).view(1, 3, 1, 1) + torch.tensor(seen.mean).view(
        1, 3, 1, 1
    )
    torch.testing.assert_close(undone[:, 0], undone[:, 2])
    # Its own channels, the data set's statistics.
    three = normaliser(adapt_info(GREY, InputSpec(channels=3)))(images(1))
    assert torch.equal(three[:, 1:2], normaliser(GREY)(images(1)))
    one = adapt_info(RGB, InputSpec(channels=1))
    assert one.mean == (pytest.approx(np.dot(LUMA, RGB.mean)),)
    assert normaliser(one)(images(3)).shape == (2, 1, 8, 8)


def test_channels_without_a_rule_are_refused() -> None:
    stack = DatasetInfo("stack", "1", channels=5, mean=(0.5,) * 5, std=(0.2,) * 5)
    assert adapt_info(stack, InputSpec(fit="crop")) == stack
    with pytest.raises(DataError, match=r"stack: its images have 5 channels.* expect 3"):
        adapt_info(stack, IMAGENET)


def test_colours_become_the_grey_of_pillow() -> None:
    from PIL import Image

    stored = images(3)
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in stored])
    assert np.abs(change_channels(stored, 1)[..., 0].astype(int) - grey).max() <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 0}, "at least 1"),
        ({"mean": (0.5,)}, "together"),
        ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "`channels` names"),
        ({"mean": (0.5,), "std": (0.5,) * 3, "channels": 3}, "`channels` names"),
        ({"mean": (0.5,), "std": (0.0,)}, "std is .0.0,.; pixels are scaled"),
        ({"mean": (123.7,), "std": (58.4,)}, "mean is .123.7,.; pixels are scaled"),
        ({"mean": (0.5,), "std": (float("nan"),)}, "std is .nan,.; pixels are scaled"),
        ({"fit": "squash"}, "pad, stretch, crop"),
    ],
)
def test_a_contradictory_input_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        InputSpec(**wrong)


def wide() -> Sample:
    """A film of 20 x 40 pixels with one organ right of the middle and boxes left and right of it."""
    image = np.random.default_rng(1).integers(0, 256, (20, 40, 1)).astype(np.uint8)
    mask = np.zeros((1, 20, 40), bool)
    mask[0, 5:15, 20:28] = True
    boxes = np.array([[0, 0, 8, 20], [20, 5, 28, 15], [24, 0, 36, 20]], np.float32)
    points = {"tips": np.array([[4, 10], [24, 10]], np.float32)}
    return Sample(image, mask, boxes, np.array([0, 1, 2]), points)


def test_stretched_masks_and_boxes_move_along() -> None:
    out = fit_square(wide(), 20, "stretch")
    assert out.image.shape == (20, 20, 1)
    assert out.mask is not None
    assert out.boxes is not None
    assert np.argwhere(out.mask[0]).min(0).tolist() == [5, 10]
    assert np.argwhere(out.mask[0]).max(0).tolist() == [14, 13]
    assert out.boxes[1].tolist() == [10, 5, 14, 15]
    assert out.points["tips"].tolist() == [[2, 10], [12, 10]]


def test_a_crop_cuts_masks_and_drops_boxes_outside() -> None:
    out = fit_square(wide(), 20, "crop")
    assert np.array_equal(out.image, wide().image[:, 10:30])
    assert out.mask is not None
    assert out.boxes is not None
    assert out.box_classes is not None
    assert np.argwhere(out.mask[0]).min(0).tolist() == [5, 10]
    assert out.boxes.tolist() == [[10, 5, 18, 15], [14, 0, 20, 20]]
    assert out.box_classes.tolist() == [1, 2]
    assert out.points["tips"].tolist() == [[14, 10]]
    half = fit_square(wide(), 10, "crop")
    assert half.boxes is not None
    assert half.boxes[0].tolist() == [5, 2.5, 9, 7.5]


def test_padding_is_the_letterbox_and_squares_are_equal_by_every_fit() -> None:
    assert np.array_equal(fit_square(wide(), 16, "pad").image, letterbox(wide(), 16).image)
    square = Sample(wide().image[:, :20])
    fits = [fit_square(square, 16, fit).image for fit in ("pad", "stretch", "crop")]
    assert np.array_equal(fits[0], fits[1])
    assert np.array_equal(fits[0], fits[2])
