"""References to plugins as users write them. Imports nothing heavy."""

from __future__ import annotations

import json
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ecamp.errors import UsageError


class PluginRef(BaseModel):
    """A plugin, its variant and its options: `[dist:]name[/variant][?key=value&key=value]`.

    Examples: `phantom`, `timm/resnet18`, `vit-micro?depth=6`, `my-package:retina?root=/data`,
    `path/to/dataset.yaml`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    variant: str | None = None
    dist: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> PluginRef:
        """Read the one-line form. A path that ends in .yaml or .yml is the `folder` data set.

        Raises:
            UsageError: When the text is empty or an option has no `=`.
        """
        body, _, query = text.strip().partition("?")
        if not body:
            raise UsageError(
                f"'{text}' names no plugin.", "Write name, name/variant or name?key=value."
            )
        options: dict[str, Any] = {}
        for pair in filter(None, query.split("&")):
            key, equals, value = pair.partition("=")
            if not equals:
                raise UsageError(f"Option '{pair}' of '{text}' has no value.", "Write key=value.")
            options[key] = yaml.safe_load(value)
        if body.endswith((".yaml", ".yml")):
            return cls(name="folder", options={"path": body, **options})
        dist, colon, rest = body.rpartition(":")
        name, _, variant = rest.partition("/")
        return cls(
            name=name, variant=variant or None, dist=dist if colon else None, options=options
        )

    def __str__(self) -> str:
        if self.name == "folder" and "path" in self.options:
            body = str(self.options["path"])
            options = {k: v for k, v in self.options.items() if k != "path"}
        else:
            body = f"{self.dist}:" if self.dist else ""
            body += self.name + (f"/{self.variant}" if self.variant else "")
            options = self.options
        query = "&".join(f"{key}={_option_text(value)}" for key, value in sorted(options.items()))
        return f"{body}?{query}" if query else body


def _option_text(value: Any) -> str:
    """YAML flow text of an option value, so that `parse(str(ref)) == ref`."""
    return value if isinstance(value, str) else json.dumps(value)
