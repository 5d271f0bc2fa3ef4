"""Tasks: inputs and outputs of a downstream evaluation. Imports no torch.

A task's module should import torch only where it trains: listing, scoring again and drawing a
report then stay fast.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ecamp.api.plugin import ConfigT, Plugin

if TYPE_CHECKING:
    from torch import Tensor

    from ecamp.api.encoder import Encoder, Features

FEATURES = frozenset({"pooled", "pyramid"})  # kinds of frozen features


@dataclass(frozen=True)
class Inputs:
    """Images of a split and their frozen features, without truth of any kind.

    Attributes:
        images: uint8 (n, size, size, channels), possibly memory-mapped.
        features: frozen features of all images, in order, or None under `finetune`.
        normalise: Turns a batch (b, size, size, channels) in 0..255 into the encoder's float input.
        texts: The distinct reports of the split for tasks that need them, in alphabetical order,
            so that their order does not reveal to which image they belong.
    """

    images: np.ndarray
    features: Features | None
    normalise: Callable[[np.ndarray], Tensor]
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def batch_features(self, index: np.ndarray) -> Features:
        """Select the cached features of some images.

        Args:
            index: int64 (b,) positions of images.

        Raises:
            RuntimeError: When nothing was cached (a defect of the caller).
        """
        import torch

        from ecamp.api.encoder import Features

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
    """List the distinct reports in alphabetical order, with int64 (n,) the index of each image's.

    Two reports are the same when their words are, whatever the white space between them.
    """
    plain = [" ".join(report.split()) for report in reports]
    known = sorted(set(plain))
    index_of = {text: index for index, text in enumerate(known)}
    return tuple(known), np.array([index_of[text] for text in plain], np.int64)


class Predictor(Protocol):
    """A fitted head."""

    selected: dict[str, object]

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Predict from inputs alone; arrays are indexed like the inputs."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights of the head (and of the encoder under `finetune`)."""
        ...


# A predictor that sees no image, or only its grey values: (train, val, test) -> what `predict` gives.
Floor = Callable[[TaskSplit, TaskSplit, Inputs], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Overlay:
    """Truth or prediction of one image, to be drawn over it.

    Attributes:
        masks: (class index, bool (height, width)) pairs.
        boxes: (class index, (x1, y1, x2, y2) in pixels) pairs.
    """

    masks: Sequence[tuple[int, np.ndarray]] = ()
    boxes: Sequence[tuple[int, Sequence[float]]] = ()

    def __bool__(self) -> bool:
        return bool(self.masks or self.boxes)


class TaskPlugin(Plugin[ConfigT]):
    """Head, loss, prediction and score for one kind of truth.

    A task is fitted on train and validation only; it predicts from test inputs without their
    targets, so a head cannot peek. Scoring happens outside, on stored predictions.

    Attributes:
        needs: The truth that it learns: `labels`, `mask`, `boxes`, `report`, or the name of a truth
            of the data set's own (`DatasetInfo.truths`). Images without it are left out.
        needs_kind: Kind of that own truth: `number`, `vector`, `text` or `points`.
        text_inputs: `report` or the name of a truth of kind `text`, whose distinct values `Inputs.texts`
            then contains.
        primary: Name of the metric that tables show.
        protocols: Ways of using the encoder that `fit` knows.
        reads: frozen features that the heads use, of `FEATURES`; a pyramid that no task of a
            bench reads is neither kept nor stored.
        requires: Protocol -> encoder capability without which it is left out. Such a protocol
            learns nothing: it gets the encoder together with its cached features, and is run once
            instead of once per label fraction.
        tunes: protocols under which the encoder trains: `fit` gets it, and no feature is cached.
    """

    needs: ClassVar[str] = "labels"
    needs_kind: ClassVar[str] = ""
    text_inputs: ClassVar[str] = ""
    primary: ClassVar[str] = ""
    protocols: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[frozenset[str]] = FEATURES
    requires: ClassVar[Mapping[str, str]] = {}
    tunes: ClassVar[frozenset[str]] = frozenset({"finetune"})

    @abstractmethod
    def fit(
        self, encoder: Encoder | None, train: TaskSplit, val: TaskSplit, *, protocol: str, seed: int
    ) -> Predictor:
        """Train a head (and the encoder, under the protocols of `tunes`); choose on `val` only.

        Args:
            encoder: None where the features are frozen and the protocol requires no more of it.
            seed: Determines everything random.
        """

    @abstractmethod
    def targets(self, split: Any) -> dict[str, np.ndarray]:
        """Return the truth arrays of a split, as stored with the predictions.

        Args:
            split: `labels` float32 (n, K) with NaN = unknown, `masks` bool (n, K, size, size),
                `boxes` float32 (m, 4) with `box_classes` int64 (m,) and `box_start` int64 (n + 1,),
                `reports` (n strings), `truths` (the data set's own by name: number float64 (n,), vector
                float64 (n, length), text n strings, points per image float32 (k, 2) or None), `info`
                (`DatasetInfo`); `len(split)` = n.
        """

    @abstractmethod
    def score(
        self, predictions: dict[str, np.ndarray], targets: dict[str, np.ndarray], replicates: Any
    ) -> Any:
        """Compute metrics with bootstrap replicates, from stored arrays alone."""

    def floors(self) -> Mapping[str, Floor]:
        """Return trivial predictors by name; a score that does not beat them means nothing."""
        return {}

    def overlay(
        self, predictions: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], index: int
    ) -> tuple[Overlay, Overlay]:
        """Return (truth, prediction) of one test image for the report's gallery; empty as here.

        Args:
            index: Position of the image in the test split.
        """
        return Overlay(), Overlay()
