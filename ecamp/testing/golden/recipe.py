"""Weights by recipe (golden README): a parameter's values follow from its name, shape and a seed."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Sequence

import numpy as np


def kind_of(name: str, dimensions: int) -> str:
    """Which rule a parameter falls under."""
    if dimensions == 1:
        return "ln" if name.endswith(".weight") else "vec"
    return "emb" if any(word in name for word in ("embeddings", "token", "pos_embed")) else "mat"


def recipe(seed: int, name: str, shape: Sequence[int], kind: str | None = None) -> np.ndarray:
    """Values of one parameter.

    Args:
        seed: `weight_seed` of the model.
        name: Full published name in the module in question.
        kind: `ln`, `vec`, `emb` or `mat`; by name and shape where not given.

    Returns:
        float32 of `shape`, rounded once from float64.
    """
    state = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    u = 2 * state.random_sample(tuple(shape)) - 1
    kind = kind or kind_of(name, len(shape))
    scaled = {
        "ln": lambda: 1 + 0.2 * u,
        "vec": lambda: 0.1 * u,
        "emb": lambda: 0.3 * u,
        "mat": lambda: u * (2 / math.sqrt(math.prod(shape[1:]))),
    }[kind]()
    return np.asarray(scaled, np.float32)


def digest(value: np.ndarray) -> str:
    """sha256 of an array's bytes, as meta.json records it."""
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
