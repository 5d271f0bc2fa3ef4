"""Pretext tasks: the objective that pre-trains an encoder, its batch and its context."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ecamp.api.dataset import DatasetInfo
from ecamp.api.encoder import Encoder
from ecamp.api.plugin import ConfigT, Plugin


@dataclass(frozen=True)
class PretextContext:
    """The pre-training data as known when an objective is built.

    Attributes:
        info: The pre-training data set.
        reports: Report texts of the pre-training split, in record order; empty strings where an
            image has none. An objective may learn a tokenizer from them, nothing else.
        image_scale: Side of the stored images / side of the encoder's input.
        ids: Names of the images, in the same order.
        distilled: Entity-centred statements (`Distiller`); empty strings where there are none.
        patients: Patient of each image, in the same order.
        labels: float32 (n, K) image labels, NaN = unknown; K = 0 where several data sets are pooled
            whose labels differ, or the set has none.
        truths: Truths of the data set's own, as in `TaskPlugin.targets`; empty for pooled data sets.
        image_size: Side of the encoder's input in pixels.
        recipe: Options of the optimisation (`PretrainRecipe`) by name: `steps`, `batch_size`, `lr`, ...
    """

    info: DatasetInfo
    reports: tuple[str, ...] = field(repr=False)
    image_scale: int
    ids: tuple[str, ...] = field(default=(), repr=False)
    distilled: tuple[str, ...] = field(default=(), repr=False)
    patients: tuple[str, ...] = field(default=(), repr=False)
    labels: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    truths: Mapping[str, Any] = field(default_factory=dict, repr=False)
    image_size: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ViewSpec:
    """How one more view of each image of a batch is drawn (`PretextPlugin.views`).

    Attributes:
        crop: Smallest fraction of the area kept; proportions are kept too.
        flip: Whether it is mirrored at random.
        jitter: Largest change of contrast (factor) and brightness (half as much, fraction of white).
        blur: Largest standard deviation of a Gaussian blur in pixels, for every second image on
            average; 0 blurs none.
    """

    crop: float = 0.5
    flip: bool = False
    jitter: float = 0.2
    blur: float = 0.0


@dataclass(frozen=True)
class View:
    """One more view of the images of a batch.

    Attributes:
        images: float (batch, channels, size, size), normalised.
        crop, flip: As in `PretextBatch`.
    """

    images: Tensor
    crop: Tensor
    flip: Tensor


@dataclass(frozen=True)
class PretextBatch:
    """Images of one step, with the numbers that name their texts and random draws.

    Attributes:
        images: float (batch, channels, size, size) encoder input, normalised.
        images_large: float (batch, channels, scale*size, scale*size) the same crop, finer.
        index: int64 (batch,) position of each sample in the pre-training split; seeds
            counter-based random numbers and picks the sample's text.
        crop: float (batch, 4) x0, y0, x1, y1 of the crop in 0..1 of the stored image.
        flip: bool (batch,) whether the crop was mirrored.
        generator: Source of this step's random numbers.
        step: Step number, from 0.
        seed: Seed of the whole pre-training.
        total: Steps of the whole pre-training; 0 where it is not known.
        views: One per `PretextPlugin.views`, drawn independently of one another.
        part, parts: Number of this part of the step's batch, from 0, and of all parts
            (`accumulate`).
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
    views: tuple[View, ...] = ()
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Preview:
    """Pictures of a few samples.

    Attributes:
        panels: By name, images (n, channels, height, width) in the units of `PretextBatch.images`.
        windows: (n, 4) x0, y0, x1, y1 in 0..1 of the image, or None.
        attention: For each sample, words with their attention map (rows, columns).
    """

    panels: dict[str, Tensor]
    windows: Tensor | None = None
    attention: list[list[tuple[str, Tensor]]] = field(default_factory=list)


class Objective(nn.Module):
    """Owner of the encoder (`self.encoder`) and of everything that is trained with it."""

    encoder: nn.Module

    def forward(self, batch: PretextBatch) -> dict[str, Tensor]:
        """Compute the losses; `loss` is the one that is minimised, the others are logged.

        Returns:
            Scalars by name.
        """
        raise NotImplementedError

    def result(self) -> nn.Module:
        """Return the module whose weights are the result: the encoder, or an averaged teacher of it."""
        return self.encoder

    def lr_scales(self) -> Mapping[str, float]:
        """Return learning-rate factors by prefix of parameter names; the longest prefix counts."""
        return {}

    def make_optimizer(
        self, groups: list[dict[str, Any]], recipe: Mapping[str, Any]
    ) -> torch.optim.Optimizer:
        """Make the optimiser; AdamW as here, unless the method prescribes another.

        Args:
            groups: `params`, `weight_decay`, `lr` and `lr_scale` of each group; the learning rate
                follows the recipe's schedule times `lr_scale`.
            recipe: Options of the optimisation by name.
        """
        return torch.optim.AdamW(groups, lr=recipe["lr"], betas=(0.9, recipe["beta2"]))

    def after_step(self) -> None:
        """React to a step of the optimiser: the place to update an averaged copy."""

    def preview(self, batch: PretextBatch) -> Preview:
        """Show what the objective does with a few samples, for the pictures of a run."""
        return Preview({"input": batch.images})

    def state_extra(self) -> dict[str, Any]:
        """Return plain JSON that belongs to the weights (a tokenizer, say) and is stored with them."""
        return {}


class PretextPlugin(Plugin[ConfigT]):
    """Builder of a training objective that pre-trains an encoder.

    `needs` are Sample/Record fields (`image`, `report`), `requires` encoder capabilities; pairs
    that cannot work are left out while planning, with a note that says why. `trains` is False
    where the encoder keeps its random weights: a baseline, for which nothing is computed.
    `whole_batch` is True where the loss compares the samples of a batch with one another
    (contrastive losses): its parts under `accumulate` would be another loss, so that is refused.
    `adds` are capabilities that the result has beyond the encoder, such as `text`: `result()` is then
    another module than the encoder, and `rebuild` makes it again.
    """

    trains: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"image"})
    requires: ClassVar[frozenset[str]] = frozenset()
    whole_batch: ClassVar[bool] = False
    adds: ClassVar[frozenset[str]] = frozenset()

    def recipe_defaults(self) -> Mapping[str, Any]:
        """Return options of the optimisation that the method prefers; the user's own win."""
        return {}

    def views(self) -> tuple[ViewSpec, ...]:
        """Return how further views of each image are drawn; none as here."""
        return ()

    def rebuild(self, encoder: Encoder, extra: Mapping[str, Any]) -> Encoder:
        """Make the module of `Objective.result` again, for its stored weights; the encoder as here.

        Args:
            encoder: Freshly built, as it was for the pre-training.
            extra: What `Objective.state_extra` returned, among other keys.
        """
        return encoder

    def weights_file(self) -> Path | None:
        """Return a file of finished weights; None (as here) when they are to be trained."""
        return None

    @abstractmethod
    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        """Wrap the encoder into the module whose loss is minimised."""
