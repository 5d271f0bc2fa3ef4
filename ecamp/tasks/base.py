"""What a task is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ecamp.encoders.base import Features


@dataclass(frozen=True)
class Inputs:
    """Images of a split and their frozen features; no truth of any kind.

    Attributes:
        images: uint8 (n, size, size, channels), maybe memory-mapped.
        features: Frozen features of all images in order, or None under `finetune`.
        normalise: Turns a batch (b, size, size, channels) in 0..255 into the encoder's float input.
        texts: The distinct reports of the split for tasks that need them, in alphabetical order,
            so that their order does not tell whose they are.
    """

    images: np.ndarray
    features: Features | None
    normalise: Callable[[np.ndarray], Tensor]
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def batch_features(self, index: np.ndarray) -> Features:
        """Cached features of some images.

        Raises:
            RuntimeError: When nothing was cached (a defect of the caller).
        """
        if self.features is None:
            raise RuntimeError("Inputs.batch_features: this protocol caches no features")
        rows = torch.from_numpy(index)
        cached = self.features
        return Features(
            cached.pooled[rows],
            cached.tokens[rows],
            cached.grid,
            tuple(level[rows].float() for level in cached.pyramid),
        )


@dataclass(frozen=True)
class TaskSplit:
    """Inputs with their truth: what a head may learn from (train) and choose on (validation)."""

    inputs: Inputs
    targets: dict[str, np.ndarray]


def distinct_texts(reports: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The distinct reports in alphabetical order, and int64 (n,) which of them each image has.

    White space aside: a report is the same when its words are.
    """
    plain = [" ".join(report.split()) for report in reports]
    known = sorted(set(plain))
    place = {text: at for at, text in enumerate(known)}
    return tuple(known), np.array([place[text] for text in plain], np.int64)


class Predictor(Protocol):
    """A fitted head."""

    selected: dict[str, object]

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Predict from inputs alone; arrays are indexed like the inputs."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of the head (and of the encoder under `finetune`)."""
        ...
