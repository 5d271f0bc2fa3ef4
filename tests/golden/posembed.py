"""posembed.npz: the published position tables, and their bicubic resizing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ecamp.encoders.position import resize_table
from ecamp.published.pretraining.image import published_table
from tests.golden.check import FLOAT32, FLOAT64, ROUNDED, Check, Vectors, compare

FILE = "posembed.npz"
TABLE = re.compile(r"d(\d+)_g(\d+)_(cls|nocls)(@f64_rows)?")


def checks(folder: Path) -> Iterator[Check]:
    """Check every table whose name contains its size."""
    vectors = Vectors(folder / FILE)
    for name in vectors.names("d"):
        match = TABLE.fullmatch(name)
        if match is None:
            continue
        width, grid = int(match[1]), int(match[2])
        table = published_table(width, grid, grid, torch.float64)
        table = table if match[3] == "cls" else table[1:]
        recorded = vectors[name]
        if match[4]:
            table = table[[0, 1, 2, 15, 100, len(table) - 1]]
        tolerance = FLOAT64 if recorded.dtype == np.float64 else ROUNDED
        yield compare(f"{FILE}/{name}", table, recorded, tolerance)
    if "interpolate/in" in vectors:
        given, expected = vectors.tensor("interpolate/in"), vectors["interpolate/out"]
        side = round((expected.shape[1] - 1) ** 0.5)
        resized = resize_table(given, side, side)
        yield compare(f"{FILE}/interpolate/out", resized, expected, FLOAT32)
    yield from vectors.unread()
