"""Cue files: the words in which a language states, hedges and denies, as data."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from ecamp.api.plugin import PluginConfig
from ecamp.text.language_file import LanguageFile

Direction = Literal["forward", "backward", "either"]
Connective = Literal[
    "comma", "and", "or", "versus", "with", "relative", "clause", "colon", "open", "close"
]
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")


class Cue(PluginConfig):
    """Words that determine the polarity of the entities in their scope."""

    kind: Literal["absent", "possible", "present", "aside"]
    direction: Direction
    words: list[str]


class Predicate(PluginConfig):
    """Words that call a structure or an organ normal or abnormal."""

    kind: Literal["normal", "abnormal"]
    direction: Direction
    words: list[str]


class Organ(PluginConfig):
    """Words that name an organ; its abnormality is an entity (`cardiomegaly`)."""

    words: list[str]
    abnormal: list[str]


class Cues(LanguageFile):
    """Content of a cue file; `ecamp/text/cues/english.yaml` explains its keys."""

    kind: ClassVar[str] = "cues"
    folder: ClassVar[str] = "cues"

    name: str
    version: int
    structures: list[str] = Field(default_factory=list)
    aliases: dict[str, list[str]] = Field(default_factory=dict)
    organs: dict[str, Organ] = Field(default_factory=dict)
    cues: list[Cue]
    predicates: list[Predicate] = Field(default_factory=list)
    joints: dict[Connective, list[str]]
    verbs: dict[Literal["singular", "plural", "other"], list[str]] = Field(default_factory=dict)
    exists: list[str] = Field(default_factory=list)
    fillers: list[str] = Field(default_factory=list)
    ignored: list[str] = Field(default_factory=list)
    descriptors: dict[Literal["severity", "side", "zone", "change", "kind"], list[str]] = Field(
        default_factory=dict
    )


def expand_pattern(pattern: str) -> list[str]:
    """List the phrases of a pattern: `"no (new |)change"` -> `["no new change", "no change"]`.

    Choices may nest.
    """
    choice = _CHOICE.search(pattern)
    if choice is None:
        return [pattern]
    before, after = pattern[: choice.start()], pattern[choice.end() :]
    phrases = (p for part in choice[1].split("|") for p in expand_pattern(before + part + after))
    return list(dict.fromkeys(phrases))
