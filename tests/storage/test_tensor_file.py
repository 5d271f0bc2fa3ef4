"""Our writer against the safetensors library's reader."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ecamp.storage.tensor_file import create_tensors, map_tensors, sync, total_bytes

SPECS = {
    "pooled": (torch.float32, (3, 5)),
    "pyramid.0": (torch.bfloat16, (3, 2, 3, 3)),
    "pyramid.1": (torch.bfloat16, (3, 7, 1, 1)),
}


def test_the_library_reads_the_filled_template(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = create_tensors(path, SPECS, {"grid": "8 8"})
    expected = {n: torch.randn(shape).to(dtype) for n, (dtype, shape) in SPECS.items()}
    for name, value in expected.items():
        assert not tensors[name].any()
        tensors[name].copy_(value)
    del tensors
    sync(path)
    for read in (load_file(path), map_tensors(path)[0]):
        assert read.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(read[name], value)
            assert read[name].dtype == value.dtype
    assert map_tensors(path)[1] == {"grid": "8 8"}
    assert total_bytes(SPECS) == sum(v.nbytes for v in expected.values())


def test_mapped_tensors_are_not_copies_and_cannot_change_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    create_tensors(path, SPECS, {})
    before = path.read_bytes()
    tensors, _ = map_tensors(path)
    if os.path.exists("/proc/self/maps"):
        with open("/proc/self/maps") as maps:
            assert str(path) in maps.read()
    tensors["pooled"].fill_(1.0)
    assert path.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room is not reserved here")
def test_no_room_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    # More than any disk holds: else a write to the mapped file would kill the process later.
    with pytest.raises(OSError):
        create_tensors(tmp_path / "a", {"pooled": (torch.float32, (1 << 28, 1 << 28))}, {})
