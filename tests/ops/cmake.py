"""Building the C++ side for a test, as setup.py does, with other options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def build(folder: Path, *options: str, target: str = "all") -> None:
    """Configure and build into `folder`; skip without the tools, fail with the compiler's words."""
    home, tools = Path(torch.__file__).parent, Path(sys.executable).parent
    cmake, ninja = (
        shutil.which(t, path=f"{tools}:{os.environ['PATH']}") for t in ("cmake", "ninja")
    )
    if not cmake or not ninja:
        pytest.skip("needs cmake and ninja")
    configure = [
        cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}",
        f"-DECAMP_TORCH_INCLUDE={home / 'include'}", f"-DECAMP_TORCH_LIB={home / 'lib'}", *options,
    ]  # fmt: skip
    for command in (configure, [cmake, "--build", str(folder), "--target", target]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
