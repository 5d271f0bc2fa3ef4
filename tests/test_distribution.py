"""The distribution: it contains the files of git, and the metadata agree with it."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import ecamp

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_source_distribution_holds_what_git_holds(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tracked = {name for name in listing.split("\0") if name and (ROOT / name).is_file()}
    script = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, check=True
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {m.name.split("/", 1)[1] for m in tar.getmembers() if m.isfile()}
    made = {n for n in held if n in {"PKG-INFO", "setup.cfg"} or n.startswith("ecamp.egg-info/")}
    assert sorted(tracked - held) == []
    # Files that are not committed yet may be there; outputs of a build may not.
    unwanted = {".so", ".pyc", ".o", ".whl"}
    assert not [n for n in held - made - tracked if Path(n).suffix in unwanted or "/build/" in n]


def test_the_installation_is_of_this_pyproject() -> None:
    """A forgotten `pip install` after a change of entry points would hide a plugin from tests."""
    assert ecamp.__version__ == PROJECT["version"]
    installed = {
        (point.group, point.name, point.value)
        for point in metadata.distribution("ecamp").entry_points
    }
    written = {
        (group, name, value)
        for group, points in PROJECT["entry-points"].items()
        for name, value in points.items()
    }
    written |= {("console_scripts", name, value) for name, value in PROJECT["scripts"].items()}
    assert installed == written, "install again: make .venv/ready"


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{citation['version']}] - {citation['date-released']}" in changes


def test_an_unknown_attribute_of_the_package_is_named() -> None:
    with pytest.raises(AttributeError, match="no attribute 'version'"):
        ecamp.version  # type: ignore[attr-defined]  # noqa: B018
