"""The size that stands inside a compressed image: what its decoder would allocate, read without decoding.

Why: docs/decisions.md#sizes-are-read-before-decoding.
"""

from __future__ import annotations

import struct

_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # JPEG frames and JPEG-LS; not DHT, JPG, DAC
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def encoded_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG, JPEG-LS or JPEG 2000 stream (also within a JP2 file).

    Sources: ITU-T T.81 B.2.2, T.87 C.2.2, T.800 A.5.1 and I.4.

    Returns:
        None where the stream is none of them, is cut short, or leaves its height open (DNL).
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
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _SOF:
            height, width = struct.unpack_from(">2H", data, at + 5)
            return (width, height) if height else None
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None
