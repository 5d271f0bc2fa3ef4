"""Loads the compiled kernels once, if they are there; everything works without them.

Why: docs/decisions.md#everything-works-without-a-compiler.
"""

from __future__ import annotations

import os
import warnings
from ctypes import CDLL
from functools import cache
from pathlib import Path

import torch

LIBRARY = "_C.so"


def library_path() -> Path:
    """Find the compiled library: in the package, or named by ECAMP_LIBRARY (for tests)."""
    override = os.environ.get("ECAMP_LIBRARY")
    return Path(override) if override else Path(__file__).resolve().parent.parent / LIBRARY


# Called while tracing instead of being traced.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def load_extension() -> bool:
    """Load the kernels. One warning when they are missing, none when they are switched off.

    Returns:
        Whether native kernels are registered. False with `ECAMP_DISABLE_EXT=1`.
    """
    return _load()


@cache
def _load() -> bool:
    if os.environ.get("ECAMP_DISABLE_EXT") == "1":
        return False
    path = library_path()
    if not path.exists():
        warnings.warn(
            "ecamp: no compiled kernels, using the slower references. With cmake, ninja and a C++ "
            "compiler: ECAMP_EXT=require pip install --no-build-isolation .",
            stacklevel=3,
        )
        return False
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        warnings.warn(
            f"ecamp: compiled kernels do not load, using references: {error}", stacklevel=3
        )
        return False
    return True


def kernel_notes() -> list[str]:
    """Load the kernels and return the text of their warnings, for a command to print itself."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_extension()
    return [str(warning.message).removeprefix("ecamp: ") for warning in caught]


def cpu_lane(lane: int = -1) -> str:
    """Name the instruction set that CPU kernels use: `baseline`, `v3` (AVX2) or `v4` (AVX-512).

    Args:
        lane: 0, 1 or 2 sets it, for tests; capped by the machine's best.
    """
    path = library_path()
    return ("baseline", "v3", "v4")[CDLL(str(path)).ecamp_cpu_lane(lane)]
