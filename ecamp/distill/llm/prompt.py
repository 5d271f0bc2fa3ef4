"""Prompts: versioned YAML files, shipped or a user's own, filled in with a report."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from ecamp.errors import UsageError
from ecamp.text.language_file import LanguageFile
from ecamp.text.lexicon import Lexicon


class Prompt(LanguageFile):
    """Messages to a model; `{entities}` and `{report}` are filled in.

    Attributes:
        name: First part of the file's name, `name-version.yaml`.
        version: Second part of the file's name.
        answer: `json` (statements with evidence) or `template` (the published sentences).
        system: System message; empty: none is sent.
        user: User message; contains `{report}` once.
    """

    kind: ClassVar[str] = "prompt"
    package: ClassVar[str] = "ecamp.distill.llm"
    folder: ClassVar[str] = "prompts"

    name: str
    version: int
    answer: Literal["json", "template"]
    system: str = ""
    user: str

    def messages(self, report: str, lexicon: Lexicon) -> list[dict[str, str]]:
        """Build the chat of one report. The report is filled in last, so that its text is kept."""
        entities = ", ".join(lexicon.entities)
        texts = (("system", self.system), ("user", self.user))
        return [
            {"role": role, "content": _filled(text.strip(), entities, report)}
            for role, text in texts
            if text.strip()
        ]

    @classmethod
    def load(cls, name: str) -> Self:
        """Read a shipped prompt by name (`statements-1`), or a user's YAML file by path.

        Raises:
            MissingError: There is no such prompt.
            UsageError: It is not UTF-8 YAML, has wrong keys, or no place for the report.
        """
        if name.endswith((".yaml", ".yml")):
            name = str(Path(name).expanduser())
        prompt = super().load(name)
        if prompt.user.count("{report}") != 1:
            raise UsageError(
                f"prompt {name}: `user` must contain {{report}} exactly once.",
                "Put {report} where the text of the report belongs.",
            )
        return prompt


def _filled(text: str, entities: str, report: str) -> str:
    return report.join(part.replace("{entities}", entities) for part in text.split("{report}"))
