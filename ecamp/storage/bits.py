"""Boolean arrays as bits."""

from __future__ import annotations

import numpy as np


def pack_bits(array: np.ndarray) -> np.ndarray:
    """Pack bool (n, ...) into uint8 (n, ceil(k / 8)), k = values per row."""
    return np.packbits(array.reshape(len(array), -1), axis=1)


def unpack_bits(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo `pack_bits`.

    Args:
        bits: uint8 (n, ceil(k / 8)).
        shape: Shape of the array that was packed, (n, ...).
    """
    count = int(np.prod(shape[1:]))
    return np.unpackbits(bits, axis=1, count=count).astype(bool).reshape(shape)
