"""Encoders with their weights, and the frozen features of a data set."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ecamp.api.encoder import Encoder, Features
from ecamp.api.task import Inputs
from ecamp.bench.plan import Cell
from ecamp.data.arrays import Arrays
from ecamp.data.normalise import normaliser
from ecamp.encoders.checkpoints import load_encoder
from ecamp.errors import CorruptFileError, DataError
from ecamp.storage.tensor_file import Specs
from ecamp.train.oom import map_batches
from ecamp.train.pretrain import load_weights

BATCH = 256
Reads = frozenset[str]  # kinds of features, as in TaskPlugin.reads


def build_encoder(cell: Cell, channels: int, weights: Path | None) -> Encoder:
    """Build a cell's encoder; random weights come from its seed, others from the file.

    Raises:
        CorruptFileError: The weights that we trained do not load; they are set aside so that the
            next run trains them again.
        DataError: The user's file does not fit the encoder.
    """
    assert cell.encoder is not None
    torch.manual_seed(cell.seed)
    encoder = cell.encoder.build(channels)
    if cell.pretraining and weights is not None:
        encoder = cell.pretraining.rebuild(encoder, weights)
    if cell.pretraining and cell.pretraining.file:
        load_encoder(encoder, cell.pretraining.file, cell.encoder)
    elif weights is not None:
        try:
            load_weights(encoder, weights)
        except CorruptFileError:
            weights.replace(weights.with_suffix(".damaged"))
            raise
    return encoder.eval()


def feature_specs(encoder: Encoder, arrays: Arrays, reads: Reads) -> tuple[Specs, tuple[int, int]]:
    """Plan the storage of all images' features: dtype and shape by name; and the grid.

    The pyramid is kept in bfloat16: half the memory, and far finer than what heads resolve.

    Args:
        reads: `pooled` is always stored, the pyramid where it is named.
    """
    with torch.no_grad():
        one = encoder.eval()(normaliser(arrays.info)(arrays.images[:1]))
    specs = {"pooled": (torch.float32, (len(arrays), *one.pooled.shape[1:]))}
    if "pyramid" in reads:
        for depth, level in enumerate(one.pyramid):
            specs[f"pyramid.{depth}"] = (torch.bfloat16, (len(arrays), *level.shape[1:]))
    return specs, one.grid


def fill_features(
    encoder: Encoder, arrays: Arrays, out: Mapping[str, Tensor], batch: int = BATCH
) -> float:
    """Encode all images in eval mode (no drop-path, the encoder's own final norm kept).

    Args:
        out: Tensors of `feature_specs`, filled.

    Returns:
        Images per second.
    """
    normalise = normaliser(arrays.info)
    seconds = 0.0

    def encode(index: np.ndarray) -> Features:
        nonlocal seconds
        began = time.monotonic()
        seen: Features = encoder(normalise(arrays.images[index]))
        seconds += time.monotonic() - began
        return seen

    encoder.eval()
    with torch.no_grad():
        for index, seen in map_batches(encode, len(arrays), batch, "features"):
            here = slice(int(index[0]), int(index[-1]) + 1)
            _check_features(seen, len(index), out)
            out["pooled"][here] = seen.pooled
            for depth, level in enumerate(seen.pyramid):
                if f"pyramid.{depth}" in out:
                    out[f"pyramid.{depth}"][here] = level
    return len(arrays) / max(seconds, 1e-9)


def _check_features(seen: Features, count: int, out: Mapping[str, Tensor]) -> None:
    """Refuse features of another number of images, or that are not finite: heads would score them.

    Raises:
        DataError: Names what the encoder returned.
    """
    for name, target in out.items():
        value = seen.pooled if name == "pooled" else seen.pyramid[_level(name)]
        if value.shape != (count, *target.shape[1:]):
            raise DataError(
                f"the encoder's {name} of {count} images has shape {tuple(value.shape)}, not "
                f"{(count, *target.shape[1:])}.",
                "`ecamp plugins check` tests an encoder.",
            )
        if not torch.isfinite(value).all():
            raise DataError(
                f"the encoder's {name} is not finite for some images.",
                "Its weights or its input diverged; `ecamp plugins check` tests an encoder.",
            )


def assemble_features(tensors: Mapping[str, Tensor], grid: tuple[int, int]) -> Features:
    """Assemble features from stored tensors; `tokens` is (n, 0, width): heads use the pyramid instead."""
    pooled = tensors["pooled"]
    levels = [tensors[name] for name in sorted(tensors, key=_level) if name != "pooled"]
    return Features(pooled, pooled.new_empty(len(pooled), 0, pooled.shape[1]), grid, tuple(levels))


def _level(name: str) -> int:
    return int(name.rpartition(".")[2]) if "." in name else -1


def make_inputs(arrays: Arrays, rows: np.ndarray, features: Features | None) -> Inputs:
    """Put together images and (already computed) features of some rows."""
    return Inputs(arrays.images[rows], features, normaliser(arrays.info))


def select_rows(features: Features, index: np.ndarray) -> Features:
    """Select the features of some positions; a run of neighbours is not copied."""
    run = len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all()
    rows = slice(int(index[0]), int(index[-1]) + 1) if run else torch.from_numpy(index)
    return Features(
        features.pooled[rows],
        features.tokens[rows],
        features.grid,
        tuple(level[rows] for level in features.pyramid),
    )
