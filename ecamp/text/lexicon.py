"""Lexicons: entities with their surface forms, and negation templates."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from tokenizers import Tokenizer

from ecamp.text.language_file import LanguageFile


class Lexicon(LanguageFile):
    """Entities with their surface forms, and negation templates; all lower case.

    Attributes:
        name: Name of the lexicon.
        version: Raised when its content changes.
        entities: Canonical name -> surface forms.
        templates: Set phrases of denial (`no evidence of`).
    """

    kind: ClassVar[str] = "lexicon"
    folder: ClassVar[str] = "lexicons"

    name: str
    version: int
    entities: dict[str, list[str]]
    templates: list[str] = Field(default_factory=list)


def form_tokens(tokenizer: Tokenizer, form: str) -> tuple[int, ...]:
    """Encode a surface form; empty when it contains an unknown token and can never match."""
    tokens = tuple(tokenizer.encode(form, add_special_tokens=False).ids)
    return () if tokenizer.token_to_id("[UNK]") in tokens else tokens
