"""Films without a header: nothing but the digitiser's numbers, so their form must be known beforehand.

Why: docs/decisions.md#raw-films-of-jsrt-keep-their-scale.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecamp.errors import DataError


def read_optical_density(
    path: Path, width: int, height: int, bits: int, row: str = ""
) -> np.ndarray:
    """Read optical densities: rows of big-endian 16-bit numbers, of which `bits` are used.

    A dense spot of the film is a dark one, behind air; it is turned around, so that bone is white. The
    whole range of the digitiser becomes 0 to 255, alike for each film: exposures stay comparable.

    Args:
        width, height: In pixels.
        row: Where the path stands in its table, for the message.

    Returns:
        uint8 (height, width, 1).

    Raises:
        DataError: No such file; another number of bytes; values that look little-endian.
    """
    where = f"{path}" + (f" ({row})" if row else "")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{where}: no such image, or closed to you.", "Check root, or unpack the film again."
        ) from error
    if len(data) != 2 * width * height:
        raise DataError(
            f"{where}: {len(data):,} bytes; {width:,} x {height:,} pixels of 2 bytes are "
            f"{2 * width * height:,}.",
            "Unpack the film again; one that was saved in another form needs that form's suffix (.png).",
        )
    values = np.frombuffer(data, ">u2").reshape(height, width)
    top = 2**bits - 1
    # Bytes in the other order put nearly all values far above the top; single ones are clipped.
    if np.median(values) > top:
        raise DataError(
            f"{where}: most values are above {top:,}, the largest of {bits} bits.",
            "The bytes seem to stand in the other order (little-endian); take the file as published.",
        )
    light = top - np.minimum(values, top).astype(np.uint32)
    result: np.ndarray = ((light * 255 + top // 2) // top).astype(np.uint8)[..., None]
    return result
