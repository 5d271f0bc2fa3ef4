"""The CPU kernels under the address and undefined-behaviour sanitizers, driven by their own tests.

The whole library is built again with the sanitizers and loaded in place of the usual one, so each
read or write outside a tensor that any test provokes ends the run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.cmake import ROOT, build

# Builds of their own, and arrays too large for twice the memory.
OTHERS = ("test_build.py", "test_sanitizers.py", "test_headers.py", "test_huge.py")
# Child processes without the library, compilers, and double-precision checks of references gain
# nothing from sanitizers and take long.
LEFT_OUT = "not compiles and not opcheck and not switched_off and not without_the_library and not gradcheck"


def runtime(name: str) -> str:
    out = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True)
    return out.stdout.strip()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif(os.environ.get("ECAMP_DISABLE_EXT") == "1", reason="kernels are switched off")
@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers are preloaded as on Linux")
@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_the_kernels_are_clean_under_sanitizers(tmp_path: Path) -> None:
    libraries = [runtime("libasan.so"), runtime("libubsan.so")]
    if not all(os.path.isabs(path) for path in libraries):
        pytest.skip("this gcc comes without sanitizer libraries")
    build(tmp_path, "-DECAMP_SANITIZE=ON")
    tests = [str(p) for p in sorted((ROOT / "tests/ops").glob("test_*.py")) if p.name not in OTHERS]
    environment = {
        **os.environ,
        "ECAMP_LIBRARY": str(tmp_path / "_C.so"),
        "LD_PRELOAD": ":".join(libraries),
        # Python and torch keep memory until the end on purpose.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-s", "-p", "no:cacheprovider", "-k", LEFT_OUT, *tests],
        capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, "\n".join(
        line
        for line in (done.stdout + done.stderr).splitlines()
        if "error" in line or "csrc" in line
    )[:6000]
