"""Writes a small complete plugin package from the templates next to this file."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template

from ecamp.errors import UsageError
from ecamp.plugin.host import list_plugins

TEMPLATES = Path(__file__).parent / "templates"
# Files of a package; `$module` stands for its module in their paths.
FILES = {
    "pyproject.toml": "pyproject.toml.template",
    "README.md": "README.md.template",
    "src/$module/__init__.py": "init.py.template",
    "src/$module/plugin.py": "$kind.py.template",
    "tests/test_contract.py": "test_contract.py.template",
}


@dataclass(frozen=True)
class Kind:
    """What differs by kind of plugin.

    Attributes:
        suffix: Ends the name of the class.
        dependencies: What its code imports next to ecamp.
        use: A command that uses the plugin.
    """

    group: str
    suffix: str
    dependencies: tuple[str, ...]
    use: str


KINDS = {
    "encoder": Kind(
        "ecamp.encoders", "Encoder", ("pydantic", "torch"),
        "ecamp bench --encoders $name --pretext none --run runs/$name",
    ),
    "pretext": Kind(
        "ecamp.pretext", "Pretext", ("pydantic", "torch"),
        "ecamp bench --pretext none,$name --run runs/$name",
    ),
    "dataset": Kind(
        "ecamp.datasets", "Dataset", ("numpy", "pydantic"),
        "ecamp bench --datasets $name --pretext none --run runs/$name",
    ),
    "task": Kind(
        "ecamp.tasks", "Task", ("numpy", "pydantic", "torch"),
        "ecamp bench --tasks $name --pretext none --run runs/$name",
    ),
    "distiller": Kind(
        "ecamp.distillers", "Distiller", ("pydantic",),
        "ecamp distill reports.csv -o distilled.csv --with $name",
    ),
}  # fmt: skip


def write_package(name: str, kind: str, output: Path) -> Path:
    """Write a package with one plugin, its test and a README.

    Args:
        name: Of the package and of the plugin.
        kind: One of `KINDS`.
        output: Folder in which the package's folder is made.

    Returns:
        The folder of the package.

    Raises:
        UsageError: A name that cannot be used, or a folder that exists.
    """
    facts = KINDS[kind]
    module = _check_name(name, facts.group)
    folder = output / name
    if folder.exists():
        raise UsageError(f"{folder} exists.", "Choose another name, or another --output.")
    words = {
        "name": name, "module": module, "kind": kind, "group": facts.group,
        "class_name": "".join(map(str.capitalize, name.split("-"))) + facts.suffix,
        "dependencies": ", ".join(f'"{item}"' for item in ("ecamp", *facts.dependencies)),
        "use": Template(facts.use).substitute(name=name),
    }  # fmt: skip
    for path, template in FILES.items():
        source = TEMPLATES / Template(template).substitute(words)
        target = folder / Template(path).substitute(words)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = Template(source.read_text(encoding="utf-8")).substitute(words)
        target.write_text(text, encoding="utf-8")
    return folder


def _check_name(name: str, group: str) -> str:
    """Return the name of the module.

    Raises:
        UsageError: A name that is no module, or is taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(
            f"'{name}' is not a name of a plugin.",
            "Write lower-case letters and digits, with single hyphens between: my-encoder.",
        )
    module = name.replace("-", "_")
    spec = find_spec(module)
    installed = spec is not None and spec.origin is not None  # any folder here is a module without
    if installed or keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise UsageError(
            f"A module '{module}' is there already.", f"Choose another name: my-{name}."
        )
    for entry in list_plugins(group):
        if entry.name == name:
            raise UsageError(f"{entry.dist} has a plugin '{name}'.", f"Choose another: my-{name}.")
    return module
