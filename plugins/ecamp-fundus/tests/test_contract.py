"""Every set, in the layout of its release and of the published lists, keeps a plugin's promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecamp.plugin.host import list_plugins
from ecamp.testing.contract import check_plugin

NAMES = ("ffa-ir", "odir", "aptos", "mured", "riga")
installed = {entry.name for entry in list_plugins("ecamp.datasets") if entry.dist == "ecamp-fundus"}
pytestmark = pytest.mark.skipif(not installed, reason="pip install plugins/ecamp-fundus first")


def test_every_set_is_registered() -> None:
    assert installed == set(NAMES)


@pytest.mark.parametrize(
    ("fixture", "options"),
    [
        ("ffa_ir", "language=en"), ("ffa_ir", "language=zh&per_case=2"),
        ("odir", "labels=eye"), ("odir", "labels=patient"), ("odir_lists", "lists=auto"),
        ("odir_lists", "lists=auto&percent=10"),
        ("aptos", "on_bad_row=skip"), ("aptos", "lists={root}/clone"),
        ("mured", "on_bad_row=skip"), ("mured", "lists={root}/clone"),
        ("riga", "on_bad_row=skip"), ("riga", "lists={root}/clone"),
    ],
)  # fmt: skip
def test_contract(
    fixture: str, options: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = request.getfixturevalue(fixture)
    name = {"ffa_ir": "ffa-ir", "odir_lists": "odir"}.get(fixture, fixture)
    given = options.format(root=root)
    check_plugin("ecamp.datasets", f"{name}?root={root}&{given}", tmp_path / "cache")
