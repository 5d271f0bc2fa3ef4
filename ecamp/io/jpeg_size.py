"""Size of a compressed image, read from its stream without decoding.

It is the size that a decoder allocates, so it is checked before decoding. Pillow cannot serve here: it
refuses JPEG of 12 and 16 bit and JPEG-LS, and of a JP2 file it reports the size in the box `ihdr`, which
decoders ignore.

Why: docs/decisions.md#sizes-are-read-before-decoding.
"""

from __future__ import annotations

import struct

_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG frames and JPEG-LS; not DHT, JPG, DAC
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def encoded_size(data: bytes) -> tuple[int, int] | None:
    """Read width and height of a JPEG, JPEG-LS or JPEG 2000 stream (also within a JP2 file).

    Sources: ITU-T T.81 B.2.2, T.87 C.2.2, T.800 A.5.1 and I.4.

    Returns:
        (width, height); None if the stream is none of these, is truncated, or defers its height (DNL).
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[4:8] == b"jP  ":
            data = data[data.index(b"jp2c") + 4 :]
        if data[:4] == b"\xff\x4f\xff\x51":
            right, bottom, left, top = struct.unpack_from(">4I", data, 8)
            return right - left, bottom - top
    except (struct.error, ValueError):
        pass
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _STANDALONE:
            position += 2
        elif marker in _SOF:
            height, width = struct.unpack_from(">2H", data, position + 5)
            return (width, height) if height else None
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None
