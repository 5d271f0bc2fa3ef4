"""A distiller called `toy`, installed as a stranger's package would be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def install(folder: Path) -> Path:
    """Write the files that pip installs for a package with the toy distiller."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("toy_distiller.py"), folder)
    info = folder / "toy_distiller-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-distiller\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ecamp.distillers]\ntoy = toy_distiller:Plugin\n")
    return folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the installed package, which is on the path of this process."""
    folder = install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def toy(site: Path):
    """Return a function that makes the distiller with options."""
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.plugin.host import make_plugin

    return lambda **options: make_plugin("ecamp.distillers", PluginRef(name="toy", options=options))
