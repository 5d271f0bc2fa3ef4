"""Prompts: versioned YAML files, shipped or a user's own, filled with a report."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Literal

import yaml

from ecamp.api.plugin import PluginConfig
from ecamp.config import identity, validate
from ecamp.errors import MissingError, UsageError, did_you_mean
from ecamp.text.lexicon import Lexicon


class Prompt(PluginConfig):
    """What a model is asked. `{entities}` and `{report}` are filled in.

    Attributes:
        name, version: Together they name the file, `name-version.yaml`.
        answer: `json` (statements with evidence) or `template` (the published sentences).
        system, user: The two messages; without a system text all goes into the user's message.
    """

    name: str
    version: int
    answer: Literal["json", "template"]
    system: str = ""
    user: str

    def messages(self, report: str, lexicon: Lexicon) -> list[dict[str, str]]:
        """The chat of one report. The report is filled in last, so that nothing in it is filled."""
        entities = ", ".join(lexicon.entities)
        texts = (("system", self.system), ("user", self.user))
        return [
            {"role": role, "content": _filled(text.strip(), entities, report)}
            for role, text in texts
            if text.strip()
        ]

    def digest(self) -> str:
        """Hash of the content."""
        return identity(self.model_dump())


def _filled(text: str, entities: str, report: str) -> str:
    return report.join(part.replace("{entities}", entities) for part in text.split("{report}"))


def load_prompt(name: str) -> Prompt:
    """Read a shipped prompt by name (`statements-1`), or a user's YAML file by path.

    Raises:
        MissingError: No such prompt.
        UsageError: Not UTF-8 YAML, wrong keys, or no place for the report; names the file.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise MissingError(f"{path}: no such prompt.", "Name a file, or statements-1.")
        data, where = path.read_bytes(), str(path)
    else:
        folder = resources.files(__package__) / "prompts"
        source = folder / f"{name}.yaml"
        if "/" in name or not source.is_file():
            known = [item.name.removesuffix(".yaml") for item in folder.iterdir()]
            raise MissingError(
                f"No prompt '{name}'.", f"{did_you_mean(name, known)} Or a .yaml file."
            )
        data, where = source.read_bytes(), f"prompt {name}"
    try:
        value = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: not YAML: {error}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"{where}: a prompt is a mapping with name, version, answer, user.")
    prompt = validate(Prompt, value, where)
    if prompt.user.count("{report}") != 1:
        raise UsageError(f"{where}: user has no {{report}}, or two.", "Say where the report goes.")
    return prompt
