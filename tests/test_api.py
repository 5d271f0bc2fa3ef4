"""The public door: one table of names, imported for types, loaded on first use, and documented."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from pydantic import Field

import ecamp.api
from ecamp.api import EXPORTS, Dataset, PluginConfig, PretextPlugin, PublicConfig, PublicDataset

ROOT = Path(__file__).parents[1]
NAMES = {name for names in EXPORTS.values() for name in names.split()}


def test_every_name_loads_from_the_module_that_is_named() -> None:
    for module, names in EXPORTS.items():
        for name in names.split():
            assert getattr(ecamp.api, name) is getattr(__import__(module, fromlist=[name]), name)
    assert set(dir(ecamp.api)) == NAMES
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = ecamp.api.nothing  # type: ignore[attr-defined]


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "ecamp" / "api" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (node.module, alias.name)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == {(module, name) for module, names in EXPORTS.items() for name in names.split()}


def test_every_public_name_is_documented() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert NAMES - set(re.findall(r"`(\w+)`", text)) == set()


def _example(page: str) -> dict[str, object]:
    """Run the first Python block of a page that defines a class."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    space: dict[str, object] = {"__name__": "example"}
    exec(next(block for block in blocks if "class " in block), space)
    return space


def test_the_example_of_a_pretext_task_runs() -> None:
    import torch

    from ecamp.api import Encoder, PluginRef, make_plugin
    from ecamp.api.dataset import DatasetInfo
    from ecamp.api.pretext import PretextBatch, PretextContext

    plugin_class = _example("docs/add-a-pretext-task.md")["Invariance"]
    assert isinstance(plugin_class, type)
    assert issubclass(plugin_class, PretextPlugin)
    ref = PluginRef.parse("vit-micro?image_size=32&width=32&depth=1&heads=2")
    encoder: Encoder = make_plugin("ecamp.encoders", ref).build(1)
    plugin = plugin_class(plugin_class.Config())
    objective = plugin.build(encoder, PretextContext(DatasetInfo("x", "1"), (), 1))
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(2):
        batch = PretextBatch(
            images, images, torch.arange(4), torch.zeros(4, 4), torch.zeros(4, dtype=torch.bool),
            torch.Generator().manual_seed(1), 0, 0,
        )  # fmt: skip
        losses.append(objective(batch)["loss"])
    losses[0].backward()
    assert losses[0].item() == losses[1].item()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


class _Config(PluginConfig):
    width: int = Field(default=3, description="a number")


def test_the_parameter_of_a_plugin_class_is_its_config() -> None:
    class Plain(Dataset[_Config]):
        pass

    class Heir(Plain):
        pass

    class Public(PublicDataset):
        pass

    class Nested(Dataset):
        Config = _Config

    assert Plain.Config is Heir.Config is Nested.Config is _Config
    assert Public.Config is PublicConfig
    assert Dataset.Config is PluginConfig
