"""Import rules: the rooms form one strict order, and some of them never import torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ecamp"

# Ground first. A room imports from rooms before it in this list, never from those after it, under
# TYPE_CHECKING too: a reader meets foundations first. `ecamp/api/__init__.py`, the door of
# plugin authors, re-exports from many rooms and is imported by none, so it comes last.
ORDER = (
    "errors", "progress", "api", "config", "ops", "metrics", "storage", "io", "plugin", "data", "encoders",
    "text", "distill", "train", "pretext", "export", "datasets", "published", "tasks", "bench",
    "audit", "testing", "report", "cli", "__main__", "door",
)  # fmt: skip
FREE = {"__init__"}  # `ecamp/__init__.py` holds the version and imports nothing of ecamp


def _modules() -> dict[str, Path]:
    """Every module of the package by dotted name."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = path
    return names


MODULES = _modules()


def _room(module: str) -> str:
    if module == "ecamp.api":
        return "door"
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _imports(path: Path) -> set[str]:
    """Modules of ecamp that a file imports, lazily or for types only included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name == "ecamp" or name.startswith("ecamp.")}


GRAPH = {module: _imports(path) - {module} for module, path in MODULES.items()}


def test_every_room_has_a_place_in_the_order() -> None:
    assert {_room(module) for module in MODULES} == {*ORDER, *FREE}


def test_the_order_is_that_of_the_docs() -> None:
    text = (ROOT.parent / "docs" / "index.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `ecamp/(\w+)` \|", text, re.MULTILINE)
    assert rooms == [room for room in reversed(ORDER) if room not in ("door", "__main__")]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_from_rooms_below_it(module: str) -> None:
    room = _room(module)
    if room in FREE:
        assert not GRAPH[module]
        return
    above = {
        name
        for name in GRAPH[module]
        if _room(name) not in {room, *FREE} and ORDER.index(_room(name)) > ORDER.index(room)
    }
    assert not above, f"{module} imports from above: {sorted(above)}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


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
        "import ecamp.config, ecamp.errors, ecamp.api.plugin, ecamp.plugin.host",
        "from ecamp.api import Dataset, DatasetInfo, PluginConfig, Record, Sample, TaskPlugin",
        "import ecamp.report.summary, ecamp.report.page",
        "import ecamp.bench.run_folder",
        "import ecamp.tasks.classification, ecamp.tasks.segmentation, ecamp.tasks.detection",
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


PLUGINS = sorted((ROOT.parent / "plugins").rglob("*.py"))


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: str(path.relative_to(ROOT.parent)))
def test_plugins_import_through_the_public_door_only(path: Path) -> None:
    public = ("ecamp.api", "ecamp.ops", "ecamp.testing")
    private = {
        name
        for name in _imports(path)
        if name not in public and not name.startswith(("ecamp.ops.", "ecamp.testing."))
    }
    assert not private, f"imports behind the door: {sorted(private)}"
