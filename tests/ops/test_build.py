"""The compiled library: only stable symbols, and CUDA code without spills."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "ecamp" / "_C.so"
# C++ names of torch itself change between releases; the C++ standard library may be used.
# Most registers a thread of any kernel of an op takes; more needs a reason and a new number here.
REGISTERS = {
    "attention": 64,
    "crop_resize": 64,
    "dropout_rows": 32,
    "mask_tokens": 48,
    "masked_mse": 40,
    "patch_select": 32,
    "residual_norm": 48,
    "rows": 32,
    "select_rows": 24,
    "weighted_ce": 40,
    "window_mse": 32,
}
UNSTABLE = re.compile(r"^_Z.*(2at|3c10|5torch)")


@pytest.mark.skipif(not LIBRARY.exists(), reason="the extension is not built on this machine")
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm (binutils)")
def test_only_stable_symbols_are_needed() -> None:
    out = subprocess.run(["nm", "-D", "--undefined-only", str(LIBRARY)], capture_output=True, text=True,
                         check=True).stdout  # fmt: skip
    names = [line.split()[-1].split("@")[0] for line in out.splitlines()]
    assert not [n for n in names if UNSTABLE.match(n)]
    assert not [n for n in names if n.startswith("cuda")], "cudart must be linked statically"
    assert any(n.startswith("aoti_torch_") or n.startswith("torch_") for n in names)


@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm (binutils)")
def test_lanes_share_no_inline_function() -> None:
    """A weak symbol would let the linker give an old processor a function compiled for a new one."""
    objects = list(ROOT.glob("build/cmake/CMakeFiles/lane_*.dir/**/cpu.cpp.o"))
    if not objects:
        pytest.skip("the extension was not built in this folder")
    for path in objects:
        out = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True)
        weak = [line for line in out.stdout.splitlines() if " W " in line or " V " in line]
        assert not weak, f"{path}: {weak}"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
@pytest.mark.parametrize("source", sorted(ROOT.glob("csrc/**/*.cu")), ids=lambda p: p.parent.name)
def test_cuda_code_compiles_without_spills(source: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["nvcc", "-std=c++17", "-O3", "--fmad=false", f"-I{ROOT / 'csrc'}", "-Xptxas", "-v", "-gencode",
         "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=sm_90",
         "-c", str(source), "-o", str(tmp_path / "out.o")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", done.stderr)
    assert spills
    assert set(spills) == {"0"}
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", done.stderr)]
    assert max(registers) <= REGISTERS[source.parent.name]
