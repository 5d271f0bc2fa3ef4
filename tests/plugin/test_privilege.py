"""No room names our tasks, data sets or encoders: what is said of one holds for a stranger's too."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("bench", "report", "metrics", "testing", "storage", "plugin", "cli")
FILES = [path for room in ROOMS for path in sorted((ROOT / "ecamp" / room).rglob("*.py"))]
POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
NAMES = {name for kind in ("tasks", "datasets", "encoders") for name in POINTS[f"ecamp.{kind}"]}
NAMED = re.compile(rf"(^|,\s*)({'|'.join(map(re.escape, sorted(NAMES)))})(?=$|[?/,])")
# Words that are something else there.
OTHER = {
    ("cli/doctor.py", "timm"),  # the distribution, whose version is shown
    ("bench/run_folder.py", "timm"),
    ("cli/pretrain.py", "packed"),  # the option --packed
}


def _texts(tree: ast.AST) -> set[str]:
    """Literals of a file, without docstrings and help texts."""
    free: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "help":
            free |= {id(part) for part in ast.walk(node.value)}
        if isinstance(node, ast.Expr):
            free.add(id(node.value))
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in free
    }


def test_the_search_finds_a_name() -> None:
    assert _texts(ast.parse("'doc'\nf(help='seg')\nx = 'cls,seg?a=1'")) == {"cls,seg?a=1"}
    assert NAMED.search("cls,seg?a=1")
    assert NAMED.search("timm/resnet18")
    assert not NAMED.search("segment")
    assert len(FILES) > 50


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "ecamp")))
def test_no_room_names_a_plugin_of_ours(path: Path) -> None:
    name = str(path.relative_to(ROOT / "ecamp"))
    named = {
        found[2]
        for text in _texts(ast.parse(path.read_text(encoding="utf-8")))
        for found in NAMED.finditer(text)
        if (name, found[2]) not in OTHER
    }
    assert not named, (
        f"{name} names {sorted(named)}: take the recipe's defaults, or the plugin's own word"
    )
