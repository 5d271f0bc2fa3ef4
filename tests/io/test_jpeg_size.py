"""Sizes inside compressed streams against Pillow's, and what is no stream."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

from ecamp.io.jpeg_size import encoded_size


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "comment": b"a comment", "exif": b"Exif" * 9}),
        ("JPEG2000", {"no_jp2": True}),
        ("JPEG2000", {}),
    ],
)
@given(st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_sizes_are_those_of_pillow(
    form: str, options: dict[str, object], width: int, height: int, colour: bool
) -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(np.zeros((height, width, 3) if colour else (height, width), np.uint8))
    image.save(buffer, form, **options)
    assert encoded_size(buffer.getvalue()) == Image.open(buffer).size == (width, height)


def test_jpeg_ls_has_a_frame_of_its_own() -> None:
    # ITU-T T.87 C.2.2: SOI, SOF55 of 11 bytes: precision, height, width, one component.
    stream = bytes.fromhex("ffd8 ffff fff7 000b 08 0040 0030 01 01 11 00".replace(" ", ""))
    assert encoded_size(stream) == (0x30, 0x40)


@pytest.mark.parametrize(("marker", "bits"), [(0xC1, 12), (0xC3, 16)])
def test_frames_of_more_than_8_bit_which_pillow_refuses(marker: int, bits: int) -> None:
    """Lossy JPEG of 12 bit and lossless JPEG, as DICOM has them."""
    frame = struct.pack(">BBHBHHB", 0xFF, marker, 11, bits, 64, 48, 1) + b"\x01\x11\x00"
    stream = b"\xff\xd8" + frame + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + bytes(20) + b"\xff\xd9"
    assert encoded_size(stream) == (48, 64)
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(stream))


def test_a_jp2_file_has_the_size_of_its_codestream() -> None:
    """Decoders allocate that, whatever the header box claims; Pillow reports the box."""
    buffer = io.BytesIO()
    Image.new("L", (40, 30)).save(buffer, "JPEG2000")
    content = buffer.getvalue()
    start = content.index(b"ihdr") + 4
    lying = content[:start] + struct.pack(">2I", 3, 4) + content[start + 8 :]
    assert encoded_size(lying) == (40, 30)
    assert Image.open(io.BytesIO(lying)).size == (4, 3)


@given(
    st.binary(max_size=60), st.sampled_from([b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"    jP  "])
)
def test_anything_else_has_no_size_or_one(rest: bytes, head: bytes) -> None:
    size = encoded_size(head + rest)
    assert size is None or (len(size) == 2 and head != b"")
    assert encoded_size(b"\xff\xd8") is None
