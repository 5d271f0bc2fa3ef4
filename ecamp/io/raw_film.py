"""Films without a header: raw values of the digitiser, whose form must be known beforehand.

Why: docs/decisions.md#raw-films-of-jsrt-keep-their-scale.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecamp.errors import DataError


def read_optical_density(
    path: Path, width: int, height: int, bits: int, row: str = ""
) -> np.ndarray:
    """Read optical densities: rows of big-endian 16-bit numbers that use `bits` bits.

    A high optical density is dark film, behind air; values are inverted, so that bone is white. The
    whole range of the digitiser is mapped to 0..255, the same way for each film: exposures stay comparable.

    Args:
        width, height: Of the film in pixels.
        row: Location of the path in its table, for the message.

    Returns:
        uint8 (height, width, 1).

    Raises:
        DataError: No such file; another number of bytes; values that look little-endian.
    """
    location = f"{path}" + (f" ({row})" if row else "")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{location}: no such image, or no permission to read it.",
            "Check root, or unpack the film again.",
        ) from error
    if len(data) != 2 * width * height:
        raise DataError(
            f"{location}: {len(data):,} bytes; {width:,} x {height:,} pixels of 2 bytes are "
            f"{2 * width * height:,}.",
            "Unpack the film again; a film saved in another format needs that format's suffix (.png).",
        )
    values = np.frombuffer(data, ">u2").reshape(height, width)
    top = 2**bits - 1
    # In the other byte order nearly all values are far above the maximum; single ones are clipped.
    if np.median(values) > top:
        raise DataError(
            f"{location}: most values are above {top:,}, the largest of {bits} bits.",
            "The bytes seem to be little-endian; use the file as published.",
        )
    brightness = top - np.minimum(values, top).astype(np.uint32)
    result: np.ndarray = ((brightness * 255 + top // 2) // top).astype(np.uint8)[..., None]
    return result
