"""Common parts of the gradient-trained tasks: features by protocol, and prediction in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ecamp.api.encoder import Encoder, Features
from ecamp.api.task import Inputs
from ecamp.data.augment import Warp, sample_augmentation
from ecamp.data.augmentation import Augmentation
from ecamp.train.oom import map_batches

BATCH = 256  # images predicted at once; affects memory, not results
EXAMPLES = 256  # training images that a neck takes its statistics from


def features_of(encoder: Encoder | None, inputs: Inputs, index: np.ndarray) -> Features:
    """Return the features of some images: cached, or through a trainable encoder."""
    if encoder is None:
        return inputs.batch_features(index)
    result: Features = encoder(inputs.normalise(stored_images(inputs, index)))
    return result


def stored_images(inputs: Inputs, index: np.ndarray) -> np.ndarray:
    """Read uint8 images in the order of `index`; a memory-mapped file is read in ascending order."""
    order = np.argsort(index, kind="stable")
    return np.asarray(inputs.images[index[order]])[np.argsort(order, kind="stable")]


@dataclass(frozen=True)
class TrainingBatches:
    """Training images as features; augmented where the encoder trains, else from the cache.

    Draws are a function of (seed, step), independent of earlier steps.
    """

    encoder: Encoder | None
    inputs: Inputs
    augment: Augmentation | None
    seed: int

    def example(self) -> Features:
        """Return the features of the first training images, unaugmented and without gradients."""
        with torch.no_grad():
            index = np.arange(min(EXAMPLES, len(self.inputs)))
            return features_of(self.encoder, self.inputs, index)

    def __call__(self, index: np.ndarray, step: int) -> tuple[Features, Warp | None]:
        """Return the features of a batch and the warp of its images (None: unchanged)."""
        if self.encoder is None or self.augment is None:
            return features_of(self.encoder, self.inputs, index), None
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        warp = sample_augmentation(len(index), self.augment, generator)
        moved = warp.images(stored_images(self.inputs, index))
        return self.encoder(self.inputs.normalise(moved)), warp


def in_batches(
    encoder: Encoder | None, inputs: Inputs, batch: int | None = None
) -> Iterator[tuple[np.ndarray, Features]]:
    """Yield all indices and features in order, without gradients; smaller batches on low memory."""
    with torch.no_grad():
        yield from map_batches(
            lambda index: features_of(encoder, inputs, index),
            len(inputs),
            batch or BATCH,
            "prediction",
        )
