"""Sentences that name the classes in protocol `zero-shot`. Imports no torch."""

from __future__ import annotations

from pydantic import Field, field_validator

from ecamp.api.plugin import PluginConfig


class Prompts(PluginConfig):
    """Templates of sentences; `{}` is replaced by a name of the class."""

    positive: tuple[str, ...] = Field(
        default=("{}", "There is {}.", "Findings of {}.", "Image showing {}."),
        min_length=1, description="sentences that affirm a class",
    )  # fmt: skip
    negative: tuple[str, ...] = Field(
        default=("no {}", "There is no {}.", "No evidence of {}.", "Image without {}."),
        min_length=1, description="sentences that deny it; for labels that are not mutually exclusive",
    )  # fmt: skip
    names: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="class -> names to use; by default the class name as words",
    )

    @field_validator("positive", "negative")
    @classmethod
    def _has_one_slot(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for template in value:
            if template.count("{}") != 1:
                raise ValueError(f"'{template}' must contain {{}} once")
        return value

    def of(self, name: str, templates: tuple[str, ...]) -> list[str]:
        """Write all sentences of a class."""
        class_name = " ".join(name.replace("_", " ").split()).lower()
        return [t.replace("{}", n) for n in self.names.get(name, (class_name,)) for t in templates]
