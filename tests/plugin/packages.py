"""Packages of strangers for tests: installed by pip, or faked by the metadata that pip writes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

EXAMPLE = Path(__file__).parents[2] / "plugins" / "ecamp-example"


class Said(NamedTuple):
    """Result of a command."""

    code: int
    out: str
    err: str


def install(source: Path, site: Path) -> None:
    """Install a package afresh into a folder."""
    shutil.rmtree(site, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target",
         str(site), str(source)], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def run_ecamp(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, which finds the packages in `site`."""
    return run_python(site, "-m", "ecamp", *args)


def run_python(site: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages in `site`."""
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip


def fake_package(site: Path, dist: str, group: str, name: str, body: str) -> None:
    """Write a package with one plugin, called `Plugin`, and the metadata that pip installs."""
    module = dist.replace("-", "_")
    sys.modules.pop(module, None)
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(body)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:Plugin\n")
