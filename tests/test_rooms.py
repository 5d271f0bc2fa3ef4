"""DESIGN's import rules: a room imports only from below, and some never import torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ecamp"
FLOORS = [
    {"errors"},
    {"ops", "metrics", "plugin", "config"},
    {"text", "data", "encoders"},
    {"pretext", "datasets", "train"},
    {"bench", "tasks"},
    {"testing", "report"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def _imports(path: Path) -> set[str]:
    """Rooms imported at run time; what stands under TYPE_CHECKING names types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("ecamp.")}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_from_its_floor_or_below(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    above = {r for r in _imports(path) if LEVEL[r] > LEVEL[room]}
    assert not above, f"{path.name} (floor {LEVEL[room]}) imports from above: {sorted(above)}"


def _loaded(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import ecamp",
        "import ecamp.config, ecamp.errors, ecamp.plugin.protocols, ecamp.plugin.host",
        "import ecamp.report.summary, ecamp.report.page",
        "import ecamp.bench.store",
        "from ecamp.plugin.host import list_plugins\nlist_plugins('ecamp.encoders')",
    ],
)
def test_light_rooms_load_no_torch(code: str) -> None:
    assert not _loaded(code) & {"torch", "transformers", "timm"}


def test_help_loads_no_heavy_module() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ecamp", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    heavy = {"torch", "numpy", "pydantic", "sklearn", "timm", "stevedore", "yaml", "rich", "PIL"}
    assert not loaded & heavy
    assert "bench" in done.stdout
