"""Builds the extension with CMake; everything else stands in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

WANTED = os.environ.get("ECAMP_EXT", "auto")


class CMakeBuild(build_ext):
    """A build of `ecamp/_C.so` with CMake and ninja against the installed torch.

    ECAMP_EXT=auto (default) installs without kernels, and says so, where they cannot be built;
    `require` fails instead, `off` does not try. ECAMP_CUDA=auto|on|off, ECAMP_CUDA_ARCHS.
    """

    def get_ext_filename(self, fullname: str) -> str:
        # Stable ABI, loaded by torch and not by Python: one name on every Python version.
        return str(Path(*fullname.split("."))) + ".so"

    def run(self) -> None:
        try:
            self.build()
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            if WANTED == "require":
                raise SystemExit(f"ecamp: kernels cannot be built: {error}") from error
            print(f"ecamp: WARNING: installing without kernels: {error}", file=sys.stderr)
            # Nothing to copy or to list as output, and no library of an earlier build either.
            self.extensions = []
            self.distribution.ext_modules = []
            self.library().unlink(missing_ok=True)

    def build(self) -> None:
        torch = find_spec("torch")
        if torch is None or torch.origin is None:
            raise RuntimeError("no torch here; install it first, then use --no-build-isolation")
        for tool in ("cmake", "ninja"):
            if not _tool(tool):
                raise RuntimeError(f"no {tool}; pip install {tool}")
        home, root = Path(torch.origin).parent, Path(__file__).resolve().parent
        folder = root / "build" / "cmake"
        cuda = os.environ.get("ECAMP_CUDA", "auto")
        with_cuda = cuda == "on" or (cuda == "auto" and shutil.which("nvcc") is not None)
        archs = os.environ.get("ECAMP_CUDA_ARCHS", "80-real;90")
        subprocess.run(
            [
                _tool("cmake"), "-S", str(root), "-B", str(folder), "-G", "Ninja", "--fresh",
                f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
                f"-DECAMP_TORCH_INCLUDE={home / 'include'}",
                f"-DECAMP_TORCH_LIB={home / 'lib'}",
                f"-DECAMP_WITH_CUDA={'ON' if with_cuda else 'OFF'}",
                f"-DCMAKE_CUDA_ARCHITECTURES={archs}",
            ],
            check=True,
        )  # fmt: skip
        subprocess.run([_tool("cmake"), "--build", str(folder)], check=True)
        target = self.library()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "_C.so", target)

    def library(self) -> Path:
        """Where the library goes: into the build, or beside the sources of an editable install."""
        return Path(self.get_ext_fullpath("ecamp._C"))


class TaggedWheel(bdist_wheel):
    """A wheel for every Python 3: the library uses torch's stable ABI and none of Python's.

    `py3-none-<platform>` with kernels, `py3-none-any` without.
    """

    def get_tag(self) -> tuple[str, str, str]:
        # Only after the build is it known whether there are kernels.
        self.root_is_pure = not self.distribution.ext_modules
        return "py3", "none", "any" if self.root_is_pure else super().get_tag()[2]


def _tool(name: str) -> str:
    """A build tool of this environment, else of the machine; empty when there is none."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name) or ""


setup(
    ext_modules=[] if WANTED == "off" else [Extension("ecamp._C", [], optional=True)],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": TaggedWheel},
)
