"""Encoders with their weights, and the frozen features of a data set, computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ecamp.bench.plan import Cell
from ecamp.data.arrays import Arrays
from ecamp.data.normalise import normaliser
from ecamp.encoders.base import Encoder, Features
from ecamp.encoders.checkpoints import load_encoder
from ecamp.errors import CorruptFileError
from ecamp.plugin.host import make_plugin
from ecamp.tasks.base import Inputs
from ecamp.train.pretrain import load_weights

BATCH = 256


def build_encoder(cell: Cell, channels: int, weights: Path | None) -> Encoder:
    """Build a cell's encoder; random weights come from its seed, others from the file.

    Raises:
        CorruptFileError: The weights that we trained do not load; they are set aside so that the
            next run trains them again.
        DataError: The user's file does not fit the encoder.
    """
    assert cell.encoder is not None
    torch.manual_seed(cell.seed)
    encoder: Encoder = make_plugin("ecamp.encoders", cell.encoder).build(channels)
    if cell.pretraining and cell.pretraining.file:
        load_encoder(encoder, cell.pretraining.file)
    elif weights is not None:
        try:
            load_weights(encoder, weights)
        except CorruptFileError:
            weights.replace(weights.with_suffix(".damaged"))
            raise
    return encoder.eval()


def frozen_features(encoder: Encoder, arrays: Arrays, rows: np.ndarray) -> Features:
    """Features of some images in eval mode (no drop-path, the encoder's own final norm kept).

    The pyramid is kept in bfloat16: half the memory, and far finer than what heads resolve.
    """
    normalise = normaliser(arrays.info)
    pooled, tokens, levels = [], [], []
    grid = (0, 0)
    encoder.eval()
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            out = encoder(normalise(arrays.images[rows[start : start + BATCH]]))
            pooled.append(out.pooled)
            tokens.append(out.tokens[:, :0])  # heads use the pyramid; tokens would double it
            levels.append([level.bfloat16() for level in out.pyramid])
            grid = out.grid
    pyramid = tuple(torch.cat(parts) for parts in zip(*levels, strict=True))
    return Features(torch.cat(pooled), torch.cat(tokens), grid, pyramid)


def inputs_of(arrays: Arrays, rows: np.ndarray, features: Features | None) -> Inputs:
    """Images and (already computed) features of some rows."""
    return Inputs(arrays.images[rows], features, normaliser(arrays.info))


def take(features: Features, at: np.ndarray) -> Features:
    """Features of some positions."""
    rows = torch.from_numpy(at)
    return Features(
        features.pooled[rows],
        features.tokens[rows],
        features.grid,
        tuple(level[rows] for level in features.pyramid),
    )


def weights_name(cell: Cell) -> str:
    """What features are shared by: random weights differ by seed, pre-trained ones do not."""
    if cell.encoder is None:
        return "-"
    which = cell.pretraining.key if cell.pretraining else f"random-{cell.seed}"
    return f"{cell.encoder}|{which}"
