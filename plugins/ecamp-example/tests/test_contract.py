"""The only test that a plugin package needs: each plugin keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecamp.testing.contract import check_plugin


@pytest.mark.parametrize(
    ("group", "name"),
    [("ecamp.encoders", "tiny-conv"), ("ecamp.encoders", "tiny-conv?width=16&image_size=48"),
     ("ecamp.datasets", "shapes"), ("ecamp.tasks", "extent"),
     ("ecamp.pretext", "two-views"), ("ecamp.distillers", "words")],
)  # fmt: skip
def test_contract(group: str, name: str, tmp_path: Path) -> None:
    check_plugin(group, name, tmp_path)
