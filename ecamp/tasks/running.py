"""What the gradient-trained tasks share: features by protocol, and prediction in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from ecamp.encoders.base import Encoder, Features
from ecamp.tasks.base import Inputs
from ecamp.train.memory import in_parts

BATCH = 256
EXAMPLES = 256  # training images that a neck takes its statistics from


def features_by(encoder: Encoder | None, inputs: Inputs) -> Callable[[np.ndarray], Features]:
    """Return how features of chosen images are made: cached, or through a trainable encoder."""
    if encoder is None:
        return inputs.batch_features
    return lambda index: encoder(inputs.normalise(inputs.images[np.sort(index)][_rank(index)]))


def _rank(index: np.ndarray) -> np.ndarray:
    """Positions that undo a sort: memory-mapped images are read in file order."""
    return np.argsort(np.argsort(index, kind="stable"), kind="stable")


def in_batches(
    encoder: Encoder | None, inputs: Inputs, batch: int = BATCH
) -> Iterator[tuple[np.ndarray, Features]]:
    """Yield all images' indices and features in order, without gradients; less where memory ends."""
    with torch.no_grad():
        yield from in_parts(features_by(encoder, inputs), len(inputs), batch, "prediction")
