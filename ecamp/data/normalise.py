"""Stored uint8 images to the float input of an encoder, and what an encoder's weights expect of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ecamp.api.dataset import DatasetInfo
from ecamp.api.encoder import AS_STORED, InputSpec
from ecamp.errors import DataError

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601), as Pillow's mode L


def adapt_info(info: DatasetInfo, expected: InputSpec) -> DatasetInfo:
    """Describe a data set as an encoder sees it: `channels`, `mean` and `std` are those of its input.

    Statistics that the encoder leaves to the data set are carried to its channels: copies of a grey
    channel have equal ones; the std of a grey mean of colours is the mean of theirs, which is exact
    where the channels rise and fall together.

    Raises:
        DataError: No rule leads from the images' channels to those that the encoder expects.
    """
    if expected == AS_STORED:
        return info
    channels, mean, std = expected.channels or info.channels, info.mean, info.std
    if info.channels != channels:
        if info.channels == 1:
            mean, std = mean * channels, std * channels
        elif (info.channels, channels) == (3, 1):
            mean = (sum(w * m for w, m in zip(LUMA, mean, strict=True)),)
            std = (sum(w * s for w, s in zip(LUMA, std, strict=True)),)
        else:
            raise DataError(
                f"{info.name}: its images have {info.channels} channels, the encoder's weights expect "
                f"{channels}.",
                "Grey images are repeated, and colours become grey; choose another encoder otherwise.",
            )
    if expected.mean and expected.std:
        mean, std = (v * (channels if len(v) == 1 else 1) for v in (expected.mean, expected.std))
    return replace(info, channels=channels, mean=mean, std=std)


def change_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Repeat a grey channel, or weigh colours to grey (`adapt_info`); (b, h, w, c), the type is kept."""
    if images.shape[-1] == channels:
        return images
    if images.shape[-1] == 1:
        return np.repeat(images, channels, axis=-1)
    grey = (images @ np.array(LUMA, np.float32))[..., None]
    return (grey.round() if images.dtype == np.uint8 else grey).astype(images.dtype)


def normaliser(info: DatasetInfo) -> Callable[[np.ndarray], Tensor]:
    """Return a function (b, h, w, c) in 0..255 -> float32 (b, c, h, w), (x / 255 - mean) / std.

    Its result lies in memory as it is indexed. A view with the channels last would not do: torch
    2.11's backward pass of a strided 1x1 convolution from one or three channels writes beyond its
    memory there (docs/decisions.md#images-lie-channel-by-channel).
    """
    mean = torch.tensor(info.mean).reshape(1, -1, 1, 1)
    std = torch.tensor(info.std).reshape(1, -1, 1, 1)

    def normalise(images: np.ndarray) -> Tensor:
        stored = np.array(change_channels(images, info.channels))
        batch, height, width, channels = stored.shape
        # A copy into new memory: with one channel, `contiguous` keeps the strides of the view.
        pixels = torch.empty(batch, channels, height, width)
        pixels.copy_(torch.from_numpy(stored).permute(0, 3, 1, 2))
        return (pixels / 255 - mean) / std

    return normalise
