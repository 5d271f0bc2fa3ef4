"""Words found in a text whatever their case and white space, with their place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from ecamp.text.lexicon import Lexicon


class NormalizedText:
    """A text, and the same in lower case with single spaces; folded when first asked for."""

    def __init__(self, source: str) -> None:
        self.source = source

    @cached_property
    def _folded(self) -> tuple[str, list[int]]:
        """The folded text, and where each of its characters came from."""
        pieces: list[str] = []
        origin: list[int] = []
        for at, letter in enumerate(self.source):
            piece = " " if letter.isspace() else letter.casefold()
            if piece == " " and pieces and pieces[-1] == " ":
                continue
            pieces.append(piece)
            origin += [at] * len(piece)  # one letter can fold to several
        return "".join(pieces), origin

    @property
    def text(self) -> str:
        """The folded text."""
        return self._folded[0]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The span of the source behind a span of the folded text; `start < end`."""
        origin = self._folded[1]
        return origin[start], origin[end - 1] + 1


def fold(words: str) -> str:
    """Lower case, single spaces, none outside."""
    return " ".join(words.casefold().split())


def find_quote(quote: str, text: NormalizedText) -> tuple[int, int] | None:
    """Where a quote stands in a text: as it is, else whatever its case and white space.

    It counts where it does not cut a word: `mass` is not in `massive`.
    """
    quote = quote.strip()
    if not quote:
        return None
    if (at := _place(quote, text.source)) >= 0:
        return at, at + len(quote)
    folded = fold(quote)
    at = _place(folded, text.text)
    return text.original(at, at + len(folded)) if at >= 0 else None


def _place(words: str, text: str) -> int:
    at = text.find(words)
    while at >= 0 and (_cuts_word(text, at) or _cuts_word(text, at + len(words))):
        at = text.find(words, at + 1)
    return at


def _cuts_word(text: str, at: int) -> bool:
    return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()


class Forms:
    """The surface forms of a lexicon: whole words, the longest form first."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._entity: dict[str, str] = {}
        self._of: dict[str, re.Pattern[str]] = {}
        for entity, forms in lexicon.entities.items():
            said = {fold(form) for form in [entity, *forms]}
            for form in said:
                self._entity.setdefault(form, entity)
            self._of[entity] = _any(said)
        self._all = _any(self._entity)

    def canonical(self, words: str) -> str | None:
        """The entity that these words name."""
        return self._entity.get(fold(words))

    def named_in(self, phrase: str) -> Iterator[str]:
        """Entities of which a form stands in a phrase, in its order."""
        for match in self._all.finditer(fold(phrase)):
            yield self._entity[match[0]]

    def first(self, entity: str, text: NormalizedText) -> tuple[int, int] | None:
        """Where a form of the entity first stands in a text."""
        match = self._of[entity].search(text.text)
        return text.original(*match.span()) if match else None


def _any(forms: set[str] | dict[str, str]) -> re.Pattern[str]:
    either = "|".join(re.escape(form) for form in sorted(forms, key=lambda f: (-len(f), f)))
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)")
