"""What a pretext task gets and gives: the batch, its context, and the objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ecamp.plugin.protocols import DatasetInfo


@dataclass(frozen=True)
class PretextContext:
    """What is known when an objective is built.

    Attributes:
        info: The pre-training data set.
        reports: Report texts of the pre-training split, in record order; empty strings where an
            image has none. An objective may learn a tokenizer from them, nothing else.
        image_scale: Side of the stored images over the encoder's input side.
        ids: Names of the images, in the same order.
        distilled: Entity-centred statements (METHOD section 1); empty strings where there are none.
    """

    info: DatasetInfo
    reports: tuple[str, ...] = field(repr=False)
    image_scale: int
    ids: tuple[str, ...] = field(default=(), repr=False)
    distilled: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class PretextBatch:
    """One step's images and texts.

    Attributes:
        images: float (batch, channels, size, size) encoder input, normalised.
        images_large: float (batch, channels, scale*size, scale*size) the same crop, finer.
        index: int64 (batch,) position of each sample in the pre-training split; names the sample
            for counter-based random numbers and picks its text.
        crop: float (batch, 4) x0, y0, x1, y1 of the crop in 0..1 of the stored image.
        flip: bool (batch,) whether the crop was mirrored.
        generator: Source of this step's random numbers.
        step: Step number, from 0.
        seed: Seed of the whole pre-training.
        total: Steps of the whole pre-training; 0 where it is not known.
    """

    images: Tensor
    images_large: Tensor
    index: Tensor
    crop: Tensor
    flip: Tensor
    generator: torch.Generator
    step: int
    seed: int
    total: int = 0


@dataclass(frozen=True)
class Preview:
    """Pictures of a few samples.

    Attributes:
        panels: By name, images (n, channels, height, width) in the units of `PretextBatch.images`.
        windows: (n, 4) x0, y0, x1, y1 in 0..1 of the image, or None.
        attention: For each sample, words with the map (rows, columns) of where they look.
    """

    panels: dict[str, Tensor]
    windows: Tensor | None = None
    attention: list[list[tuple[str, Tensor]]] = field(default_factory=list)


class Objective(nn.Module):
    """Owns the encoder (`self.encoder`) and everything trained beside it."""

    encoder: nn.Module

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        """Compute the losses; `loss` is the one that is minimised, the others are logged.

        Returns:
            Scalars by name.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Called when the optimiser has stepped: the place to move an averaged copy."""

    def preview(self, batch: PretextBatch) -> Preview:
        """What the objective does with a few samples, for the pictures of a run."""
        return Preview({"input": batch.images})

    def state_extra(self) -> dict[str, Any]:
        """Plain JSON that belongs to the weights (a tokenizer, say); stored beside them."""
        return {}
