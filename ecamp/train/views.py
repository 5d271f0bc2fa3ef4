"""Further views of the images of a batch: crops, contrast, brightness and blur, drawn by (seed, step, view)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from ecamp.api.pretext import View, ViewSpec
from ecamp.data.augment import Warp, sample_augmentation
from ecamp.data.augmentation import Augmentation

MIN_SIGMA = 0.1  # pixels; below it a blur changes nothing


class Source(Protocol):
    """Images that views are cut from."""

    def crops(
        self, index: np.ndarray, crop: Tensor, flip: Tensor, scale: int
    ) -> tuple[Tensor, Tensor]:
        """Crop and normalise some pairs, small and large."""
        ...

    def stds(self, index: np.ndarray) -> Tensor:
        """Return the standard deviations that normalise some pairs, float (batch, channels)."""
        ...


@dataclass(frozen=True)
class DrawnView:
    """Random numbers of one view of a whole batch.

    Attributes:
        warp: Crop, mirroring, contrast and brightness of each image.
        sigma: float32 (batch,) standard deviation of the blur in pixels; 0 = none.
    """

    warp: Warp
    sigma: Tensor

    def make(self, source: Source, index: np.ndarray, members: np.ndarray, scale: int) -> View:
        """Cut the view of some images of the batch.

        Args:
            index: int64 (batch,) pairs of the whole batch.
            members: int64 (part,) positions in the batch.
            scale: Large side / small side of the stored images.
        """
        rows = torch.from_numpy(members)
        crop, flip = self.warp.crop[rows], self.warp.flip[rows]
        images, _ = source.crops(index[members], crop, flip, scale)
        std = source.stds(index[members])[:, :, None, None]
        contrast, brightness = (
            values[rows][:, None, None, None]
            for values in (self.warp.contrast, self.warp.brightness)
        )
        # About the data set's mean, which is 0 here; white is 1 / std.
        images = images * contrast + brightness / std
        blurred = [
            _blur(image, float(s)) for image, s in zip(images, self.sigma[rows], strict=True)
        ]
        return View(torch.stack(blurred), crop, flip)


def draw_view(count: int, spec: ViewSpec, seed: int, step: int, number: int) -> DrawnView:
    """Draw one view of a batch; a function of (seed, step, number), independent of other views.

    Args:
        count: Images of the whole batch.
        number: Position of the view among those of the pretext task.
    """
    key = np.random.Philox(key=[seed, step], counter=[0, 0, 0, number + 1])
    generator = torch.Generator().manual_seed(int(key.random_raw() >> 1))
    strength = Augmentation(crop=spec.crop, jitter=spec.jitter, flip=spec.flip)
    warp = sample_augmentation(count, strength, generator)
    sigma = MIN_SIGMA + (spec.blur - MIN_SIGMA) * torch.rand(count, generator=generator)
    chosen = torch.rand(count, generator=generator) < 0.5
    return DrawnView(warp, torch.where(chosen, sigma, 0.0) if spec.blur > 0 else sigma * 0)


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (channels, side, side) with a kernel of three standard deviations to each side."""
    if sigma <= 0:
        return image
    radius = min(max(1, math.ceil(3 * sigma)), image.shape[-1] - 1)
    blurred: Tensor = gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2)
    return blurred
