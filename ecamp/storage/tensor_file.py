"""A safetensors file that is filled in place, so that its tensors are never in memory as a whole.

The safetensors library can only write tensors that are in memory; features of a large data set may not
fit. Reading uses the library. The format: 8 bytes little-endian length, a JSON header padded with spaces
to a multiple of 8, then the bytes of the tensors.

Why: docs/decisions.md#features-in-a-mapped-file-of-our-own.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from torch import Tensor

Specs = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}


def total_bytes(specs: Specs) -> int:
    """Count the bytes of all tensors."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in specs.values())


def create_tensors(path: Path, specs: Specs, metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Create a file of zeros and map it: writing to the tensors writes to the file.

    Args:
        specs: dtype (float32 or bfloat16) and shape by name; wider types first, for alignment.

    Raises:
        OSError: No disk space; all of it is allocated at once, so that filling it cannot fail.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offsets, end = {}, 0
    for name, (dtype, shape) in specs.items():
        start, end = end, end + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": (start, end)}
        offsets[name] = start, end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.flush()
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, begin + end)
        else:  # macOS
            file.truncate(begin + end)
    storage = torch.UntypedStorage.from_file(str(path), shared=True, nbytes=begin + end)
    content = torch.empty(0, dtype=torch.uint8).set_(cast(torch.UntypedStorage, storage))
    return {
        name: content[begin + start : begin + stop].view(specs[name][0]).view(specs[name][1])
        for name, (start, stop) in offsets.items()
    }


def map_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map the tensors of a file and read its metadata; pages are read when they are touched.

    Writing to the tensors does not change the file.
    """
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def sync(path: Path) -> None:
    """Wait until a file is on disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def separate_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor contiguous memory of its own, as safetensors asks; tied weights get a copy each."""
    separate: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in state.items():
        memory = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone().contiguous() if memory in taken else tensor.contiguous()
        taken.add(memory)
    return separate
