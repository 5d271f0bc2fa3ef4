"""The weight recipe of the golden folder: float32 weights from a parameter's name, shape and a seed.

Source: the golden README, "Conventions". Bit-exact on any IEEE machine, so that a model of 183 M
parameters can be checked without storing its weights.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

KINDS = ("ln", "vec", "emb", "mat")
_EMBEDDING_WORDS = ("embeddings", "token", "pos_embed")


def kind_of(name: str, shape: Sequence[int]) -> str:
    """Which of `KINDS` a parameter is, by its full published name and its shape.

    Batch norm's running variance counts as "ln" (around 1), its running mean as "vec" (around 0).
    """
    if len(shape) == 1:
        return "ln" if name.endswith((".weight", "running_var")) else "vec"
    return "emb" if any(word in name for word in _EMBEDDING_WORDS) else "mat"


def make(name: str, shape: Sequence[int], seed: int, kind: str | None = None) -> np.ndarray:
    """One array.

    Args:
        name: Full published parameter name in the module in question.
        kind: One of `KINDS`; by default found from the name.

    Returns:
        float32 array of `shape`: computed in float64, rounded once.

    Raises:
        ValueError: For an unknown kind.
    """
    state = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    uniform = 2 * state.random_sample(tuple(shape)) - 1
    kind = kind or kind_of(name, shape)
    if kind == "ln":
        value = 1 + 0.2 * uniform
    elif kind == "vec":
        value = 0.1 * uniform
    elif kind == "emb":
        value = 0.3 * uniform
    elif kind == "mat":
        value = uniform * (2 / math.sqrt(math.prod(shape[1:])))
    else:
        raise ValueError(f"weight recipe: kind '{kind}'; known: {', '.join(KINDS)}")
    return np.asarray(value, np.float32)


def weights(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, np.ndarray]:
    """Every array of a module by the recipe.

    Args:
        shapes: Published name -> shape. Leave out what the recipe does not make: position tables
            of the pre-training model, and batch norm's batch counters.
    """
    return {name: make(name, shape, seed) for name, shape in shapes.items()}


def digest(value: np.ndarray) -> str:
    """sha256 of an array's bytes, as meta.json records it."""
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
