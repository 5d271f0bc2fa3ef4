"""Pre-training pairs of one or more data sets, drawn and cropped by (seed, step)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ecamp.api.dataset import DatasetInfo
from ecamp.api.pretext import PretextBatch, PretextContext, ViewSpec
from ecamp.data.arrays import Arrays
from ecamp.data.normalise import change_channels
from ecamp.ops.crop_resize import crop_resize
from ecamp.train.recipe import PretrainRecipe
from ecamp.train.views import draw_view


@dataclass(frozen=True)
class PairSubset:
    """The pre-training images of one data set.

    Attributes:
        arrays: Decoded at `scale` times the encoder's input side.
        rows: Indices of the pre-training images among them.
    """

    arrays: Arrays
    rows: np.ndarray


class PairDataset:
    """Pairs to pre-train on, numbered across the data sets they come from.

    Each image is normalised with its own data set's mean and standard deviation, unless the encoder
    states its own (`InputSpec`).

    Args:
        parts: At least one, all of one image size and number of channels (as an encoder sees them).
    """

    def __init__(self, parts: Sequence[PairSubset]) -> None:
        self.parts = tuple(parts)
        self._start = np.cumsum([0] + [len(part.rows) for part in self.parts])

    def __len__(self) -> int:
        return int(self._start[-1])

    @property
    def info(self) -> DatasetInfo:
        """The first data set's names."""
        return self.parts[0].arrays.info

    def texts(self, field: str) -> tuple[str, ...]:
        """Return one string per pair: `ids`, `patients`, `reports` or `distilled`."""
        return tuple(
            getattr(part.arrays, field)[row] for part in self.parts for row in part.rows.tolist()
        )

    def context(self, recipe: PretrainRecipe) -> PretextContext:
        """Collect the context that an objective is built from."""
        first = self.parts[0]
        labels = np.zeros((len(self), 0), np.float32)
        if len({part.arrays.info.labels for part in self.parts}) == 1:
            labels = np.concatenate([part.arrays.labels[part.rows] for part in self.parts])
        alone = len(self.parts) == 1
        return PretextContext(
            info=self.info,
            reports=self.texts("reports"),
            image_scale=recipe.scale,
            ids=self.texts("ids"),
            distilled=self.texts("distilled"),
            patients=self.texts("patients"),
            labels=labels,
            truths=first.arrays.truths_of(first.rows) if alone else {},
            image_size=first.arrays.images.shape[1] // recipe.scale,
            recipe=recipe.model_dump(),
        )

    def stds(self, index: np.ndarray) -> Tensor:
        """Return the standard deviations that normalise some pairs, float (batch, channels)."""
        part_index = np.searchsorted(self._start, index, side="right") - 1
        stds = [self.parts[p].arrays.info.std for p in part_index]
        return torch.tensor(stds, dtype=torch.float32)

    def names(self, index: Sequence[int]) -> list[str]:
        """Return the ids of some pairs."""
        ids = self.texts("ids")
        return [ids[i] for i in index]

    def crops(
        self, index: np.ndarray, crop: Tensor, flip: Tensor, scale: int
    ) -> tuple[Tensor, Tensor]:
        """Crop and normalise some pairs.

        Args:
            index: int64 (batch,). crop: (batch, 4). flip: bool (batch,). scale: Large side / small side.

        Returns:
            Small and large, float (batch, channels, side, side).
        """
        part_index = np.searchsorted(self._start, index, side="right") - 1
        large: list[Tensor] = [torch.empty(0)] * len(index)
        small = list(large)
        for p in np.unique(part_index):
            part, members = self.parts[p], np.flatnonzero(part_index == p)
            rows = part.rows[index[members] - self._start[p]]
            order = np.argsort(rows, kind="stable")  # reads the file in ascending order
            images = change_channels(part.arrays.images[rows[order]], part.arrays.channels)
            stored = torch.from_numpy(np.array(images))
            positions, info = torch.from_numpy(members[order]), part.arrays.info
            pairs = crop_resize(
                stored,
                crop[positions],
                flip[positions],
                info.mean,
                info.std,
                stored.shape[1],
                scale,
            )
            for i, small_image, large_image in zip(positions.tolist(), *pairs, strict=True):
                large[i], small[i] = small_image, large_image
        return torch.stack(small), torch.stack(large)


def batch_rows(count: int, size: int, step: int, seed: int) -> np.ndarray:
    """Draw the pairs of one step: epochs are permutations, each a function of (seed, epoch).

    Batches run across epoch borders, so no sample is dropped.
    """
    first = step * size
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, offset = divmod(first + len(chosen), count)
        order = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
        chosen.extend(order[offset : offset + size - len(chosen)].tolist())
    return np.array(chosen, np.int64)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Seed the random numbers of one step, independent of earlier steps."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def make_batches(
    source: PairDataset, recipe: PretrainRecipe, step: int, views: Sequence[ViewSpec] = ()
) -> list[PretextBatch]:
    """Make the parts of one step's batch, cropped and normalised; one part without accumulation.

    Args:
        views: Further views of each image; drawn for the whole batch, whatever its parts.
    """
    index = batch_rows(len(source), recipe.batch_size, step, recipe.seed)
    generator = step_generator(recipe.seed, step)
    crop, flip = draw_crops(len(index), recipe, generator)
    total = recipe.total_steps(len(source))
    drawn = [draw_view(len(index), spec, recipe.seed, step, k) for k, spec in enumerate(views)]
    batches = []
    parts = np.array_split(np.arange(len(index)), min(recipe.accumulate, len(index)))
    for part, members in enumerate(parts):
        rows = torch.from_numpy(members)
        small, large = source.crops(index[members], crop[rows], flip[rows], recipe.scale)
        batches.append(
            PretextBatch(
                small, large, torch.from_numpy(index[members]), crop[rows], flip[rows], generator,
                step, recipe.seed, total,
                tuple(view.make(source, index, members, recipe.scale) for view in drawn),
                part, len(parts),
            )
        )  # fmt: skip
    return batches


def draw_crops(
    count: int, recipe: PretrainRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw random resized crops: area uniform, aspect 3/4 .. 4/3 in log, position uniform.

    Returns:
        (count, 4) x0, y0, x1, y1 in 0..1 of the stored image; bool (count,), mirrored or not.
    """
    if recipe.crop is None:
        return whole_crops(count), (torch.rand(count, generator=generator) < 0.5) & recipe.flip
    area = recipe.crop + (1 - recipe.crop) * torch.rand(count, generator=generator)
    aspect = ((torch.rand(count, generator=generator) * 2 - 1) * math.log(4 / 3)).exp()
    width = (area * aspect).sqrt().clamp(max=1)
    height = (area / aspect).sqrt().clamp(max=1)
    x0 = torch.rand(count, generator=generator) * (1 - width)
    y0 = torch.rand(count, generator=generator) * (1 - height)
    flip = (torch.rand(count, generator=generator) < 0.5) & recipe.flip
    return torch.stack([x0, y0, x0 + width, y0 + height], 1), flip


def whole_crops(count: int) -> Tensor:
    """Return crops of whole images, (count, 4) x0, y0, x1, y1."""
    return torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(count, 1)


def preview_batch(
    source: PairDataset, recipe: PretrainRecipe, count: int, step: int
) -> PretextBatch:
    """Make a batch of the same few whole films at every step, for pictures of the training."""
    chosen = np.random.Generator(np.random.Philox(recipe.seed)).permutation(len(source))[:count]
    crop = whole_crops(len(chosen))
    flip = torch.zeros(len(chosen), dtype=torch.bool)
    small, large = source.crops(chosen, crop, flip, recipe.scale)
    generator = step_generator(recipe.seed, 0)  # the same patches too
    total = recipe.total_steps(len(source))
    return PretextBatch(
        small, large, torch.from_numpy(chosen), crop, flip, generator, step, recipe.seed, total
    )
