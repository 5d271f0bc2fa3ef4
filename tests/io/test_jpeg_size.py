"""Sizes inside compressed streams against Pillow's, and what is no stream."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import assume, given
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


@given(st.binary(max_size=60))
def test_other_bytes_have_no_size(data: bytes) -> None:
    begins = data[:2] == b"\xff\xd8" or data[:4] == b"\xff\x4f\xff\x51" or data[4:8] == b"jP  "
    assume(not begins)
    assert encoded_size(data) is None


@pytest.mark.parametrize(("form", "options"), [("JPEG", {}), ("JPEG2000", {"no_jp2": True})])
def test_a_stream_cut_before_its_frame_has_no_size(form: str, options: dict[str, object]) -> None:
    """However far it is cut: the size, or nothing; never another size."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((7, 9), np.uint8)).save(buffer, form, **options)
    whole = buffer.getvalue()
    sizes = [encoded_size(whole[:length]) for length in range(len(whole) + 1)]
    first = sizes.index((9, 7))
    assert first > 8
    assert sizes == [None] * first + [(9, 7)] * (len(sizes) - first)


@given(st.binary(max_size=60), st.sampled_from([b"\xff\xd8", b"\xff\x4f\xff\x51", b"    jP  "]))
def test_noise_after_a_head_is_read_as_plainly_as_possible(rest: bytes, head: bytes) -> None:
    """A loop over markers written again, without shortcuts, for JPEG; the others by their offsets."""
    data = head + rest
    expected: tuple[int, int] | None = None
    if head == b"\xff\xd8":
        expected = _markers(data)
    else:
        start = data.find(b"jp2c") + 4 if head[4:] == b"jP  " else 0
        box = data[start:] if start != 3 else b""
        if box[:4] == b"\xff\x4f\xff\x51" and len(box) >= 24:
            right, bottom, left, top = (int.from_bytes(box[k : k + 4]) for k in (8, 12, 16, 20))
            expected = (right - left, bottom - top)
    assert encoded_size(data) == expected


def _markers(data: bytes) -> tuple[int, int] | None:
    """ITU-T T.81 B.1.1: walk from marker to marker until a frame header."""
    frames = [*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7]
    index = 2
    while index + 4 <= len(data) and data[index] == 0xFF:
        marker = data[index + 1]
        if marker in frames:
            size = data[index + 5 : index + 9]
            height, width = int.from_bytes(size[:2]), int.from_bytes(size[2:])
            return (width, height) if len(size) == 4 and height else None
        if marker == 0xFF:
            index += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            index += 2
        else:
            index += 2 + int.from_bytes(data[index + 2 : index + 4])
    return None


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
