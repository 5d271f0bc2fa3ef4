"""Films without a header, against a plain loop over struct."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.errors import DataError
from ecamp.io.raw_film import read_optical_density


def oracle(data: bytes, width: int, height: int, bits: int) -> list[list[int]]:
    """0 is the brightest, the top is black; halves go up."""
    top = 2**bits - 1
    values = struct.unpack(f">{width * height}H", data)
    grey = [int((top - min(v, top)) * 255 / top + 0.5) for v in values]
    return [grey[y * width : (y + 1) * width] for y in range(height)]


@given(st.integers(1, 7), st.integers(1, 7), st.sampled_from([8, 10, 12, 16]), st.data())
def test_it_is_what_struct_reads(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    bits: int,
    data: st.DataObject,
) -> None:
    number = st.integers(0, 2**bits - 1)
    values = data.draw(st.lists(number, min_size=width * height, max_size=width * height))
    path = tmp_path_factory.mktemp("raw") / "a.IMG"
    path.write_bytes(struct.pack(f">{len(values)}H", *values))
    got = read_optical_density(path, width, height, bits)
    assert got.dtype == np.uint8
    assert got[..., 0].tolist() == oracle(path.read_bytes(), width, height, bits)


def test_air_is_dark_and_single_values_above_the_top_are_clipped(tmp_path: Path) -> None:
    path = tmp_path / "a.IMG"
    path.write_bytes(struct.pack(">6H", 4095, 0, 2048, 1, 4094, 5000))
    assert read_optical_density(path, 3, 2, 12)[..., 0].tolist() == [[0, 255, 127], [255, 0, 0]]


def test_a_file_of_another_length_or_order_is_named(tmp_path: Path) -> None:
    path = tmp_path / "JPCLN001.IMG"
    path.write_bytes(b"\0" * 8_388_607)
    with pytest.raises(
        DataError, match=r"JPCLN001\.IMG \(row 3\): 8,388,607 bytes; 2,048 x .* are 8,388,608"
    ):
        read_optical_density(path, 2048, 2048, 12, "row 3")
    path.write_bytes(struct.pack("<4H", 700, 1800, 2500, 3100))
    with pytest.raises(DataError, match=r"(?s)most values are above 4,095.*little-endian"):
        read_optical_density(path, 2, 2, 12)
    with pytest.raises(DataError, match="no such image"):
        read_optical_density(tmp_path / "b.IMG", 2, 2, 12)
