"""Lexicons: entities with their surface forms, and negation templates."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import yaml
from pydantic import Field
from tokenizers import Tokenizer

from ecamp.config import identity, validate
from ecamp.errors import MissingError, UsageError, did_you_mean
from ecamp.plugin.protocols import PluginConfig


class Lexicon(PluginConfig):
    """Entities with their surface forms, and negation templates; all lower case."""

    name: str
    version: int
    entities: dict[str, list[str]]
    templates: list[str] = Field(default_factory=list)

    def digest(self) -> str:
        """Hash of the content: another list of forms masks other words."""
        return identity(self.model_dump())


def load_lexicon(name: str) -> Lexicon:
    """Read a shipped lexicon by name, or a user's YAML file by path.

    Raises:
        MissingError: No such lexicon.
        UsageError: Not UTF-8 YAML, wrong keys or types; names them.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise MissingError(f"{path}: no such lexicon.", "Name a file, or chest or fundus.")
        data, where = path.read_bytes(), str(path)
    else:
        folder = resources.files("ecamp.text") / "lexicons"
        source = folder / f"{name}.yaml"
        if not source.is_file():
            known = [item.name.removesuffix(".yaml") for item in folder.iterdir()]
            raise MissingError(
                f"No lexicon '{name}'.", f"{did_you_mean(name, known)} Or a .yaml file."
            )
        data, where = source.read_bytes(), f"lexicon {name}"
    try:
        value = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: not YAML: {error}.") from error
    if not isinstance(value, dict):
        raise UsageError(f"{where}: a lexicon is a mapping with name, version, entities.")
    return validate(Lexicon, value, where)


def form_tokens(tokenizer: Tokenizer, form: str) -> tuple[int, ...]:
    """The tokens of a surface form; empty when it holds an unknown one and can never match."""
    tokens = tuple(tokenizer.encode(form, add_special_tokens=False).ids)
    return () if tokenizer.token_to_id("[UNK]") in tokens else tokens
