"""Run-length masks of SIIM-ACR Pneumothorax and of Kaggle: by columns, top to bottom.

A mask is a list of pairs `start length`. SIIM counts each start from the end of the previous run
(`relative`); Kaggle's other competitions count from the first pixel, which is 1 (`absolute`).
"""

from __future__ import annotations

import numpy as np

from ecamp.errors import DataError


def decode_rle(
    text: str, height: int, width: int, *, relative: bool, location: str = ""
) -> np.ndarray:
    """Decode the runs of one mask.

    Args:
        text: Numbers separated by white space; empty or `-1` = an empty mask.
        relative: Whether starts count from the end of the previous run.
        location: File and row, for the message.

    Returns:
        bool (height, width).

    Raises:
        DataError: Not pairs of whole numbers, or a run that leaves the image.
    """
    words = text.split()
    if words in ([], ["-1"]):
        return np.zeros((height, width), bool)
    try:
        numbers = np.array([int(word) for word in words], np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{location}: run lengths are not whole numbers: {text[:60]}") from error
    if len(numbers) % 2:
        raise DataError(f"{location}: {len(numbers)} numbers are not pairs of start and length.")
    starts, lengths = numbers[::2], numbers[1::2]
    starts = np.cumsum(starts) + np.r_[0, np.cumsum(lengths)[:-1]] if relative else starts - 1
    size = height * width
    if (lengths < 0).any() or (starts < 0).any() or (starts + lengths > size).any():
        raise DataError(
            f"{location}: a run leaves the image of {width}x{height}.",
            f"Are these {'absolute' if relative else 'relative'} starts, or another image size?",
        )
    flat = np.zeros(size, bool)
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        flat[start : start + length] = True
    return flat.reshape(width, height).T


def encode_rle(mask: np.ndarray, *, relative: bool) -> str:
    """Encode a mask as the fewest runs; an empty mask is `-1`.

    Args:
        mask: bool (height, width).
    """
    flat = np.ascontiguousarray(mask.T).ravel()
    edges = np.flatnonzero(np.diff(np.r_[False, flat, False].astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return "-1"
    encoded = starts - np.r_[0, ends[:-1]] if relative else starts + 1
    return " ".join(
        f"{s} {n}" for s, n in zip(encoded.tolist(), (ends - starts).tolist(), strict=True)
    )
