"""Lexicons: entities with their surface forms, and negation templates."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import yaml
from pydantic import Field
from tokenizers import Tokenizer

from ecamp.api.plugin import PluginConfig
from ecamp.config import Model, identity, validate
from ecamp.errors import MissingError, UsageError, did_you_mean

FOLDERS = {"lexicon": "lexicons", "cues": "cues"}


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
    return load_named(Lexicon, "lexicon", name)


def load_named(model: type[Model], kind: str, name: str) -> Model:
    """Read a file of language data: one shipped in the folder of its kind, or a user's.

    Args:
        kind: `lexicon` (folder `lexicons`) or `cues`; for messages too.
        name: Of a shipped file, or a path that ends in .yaml or .yml.

    Raises:
        MissingError, UsageError: As `load_lexicon`.
    """
    folder = resources.files("ecamp.text") / FOLDERS[kind]
    shipped = sorted(item.name.removesuffix(".yaml") for item in folder.iterdir())
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise MissingError(
                f"{path}: no such {kind}.", f"Name a file, or {' or '.join(shipped)}."
            )
        data, where = path.read_bytes(), str(path)
    else:
        if name not in shipped:
            raise MissingError(
                f"No {kind} '{name}'.", f"{did_you_mean(name, shipped)} Or a .yaml file."
            )
        data, where = (folder / f"{name}.yaml").read_bytes(), f"{kind} {name}"
    try:
        value = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: not YAML: {error}.") from error
    if not isinstance(value, dict):
        keys = ", ".join(key for key, field in model.model_fields.items() if field.is_required())
        raise UsageError(f"{where}: this is a mapping with {keys}.")
    return validate(model, value, where)


def form_tokens(tokenizer: Tokenizer, form: str) -> tuple[int, ...]:
    """The tokens of a surface form; empty when it holds an unknown one and can never match."""
    tokens = tuple(tokenizer.encode(form, add_special_tokens=False).ids)
    return () if tokenizer.token_to_id("[UNK]") in tokens else tokens
