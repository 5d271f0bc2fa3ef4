"""Slices of big tensors as meta.json writes them: `[:, [0,1,7,48], ::16]`."""

from __future__ import annotations

import re

import numpy as np

from ecamp.errors import DataError

_PART = re.compile(r"\[[\d,\s-]*\]|[^,\[\]]+")
_RANGE = re.compile(r"(-?\d*):(-?\d*)(?::(-?\d*))?")


def take(array: np.ndarray, text: str) -> np.ndarray:
    """Apply a written slice, axis by axis.

    Raises:
        DataError: When the text is no slice.
    """
    parts = (part.strip() for part in _PART.findall(text.strip()[1:-1]))
    for axis, part in enumerate(part for part in parts if part):
        match = _RANGE.fullmatch(part)
        index: slice | list[int]
        if match:
            index = slice(*(int(n) if n else None for n in match.groups()))
        elif re.fullmatch(r"\[[\d,\s-]+\]", part):
            index = [int(n) for n in part[1:-1].split(",")]
        else:
            raise DataError(f"golden vectors: '{text}' is no slice.")
        array = array[(slice(None),) * axis + (index,)]
    return array
