"""Each entry point that pyproject.toml declares is of a group that the host reads, and loads.

That the installation has just these is a test of test_distribution.py.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ecamp.api.plugin import GROUPS
from ecamp.api.plugin_ref import PluginRef
from ecamp.plugin.host import load_plugin

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
DECLARED = [
    (group, name, value)
    for group, points in PROJECT.get("entry-points", {}).items()
    for name, value in points.items()
]


def test_every_group_is_one_that_the_host_reads() -> None:
    assert {group for group, _, _ in DECLARED} == set(GROUPS)


@pytest.mark.parametrize(("group", "name", "value"), DECLARED)
def test_a_declared_plugin_loads(group: str, name: str, value: str) -> None:
    loaded = load_plugin(group, PluginRef(name=name, dist="ecamp"), any_variant=True)
    assert loaded.__qualname__ == value.partition(":")[2]
