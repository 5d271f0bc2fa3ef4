"""Search for quotes in a text, ignoring case and white space."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from ecamp.text.lexicon import Lexicon


class NormalizedText:
    """A text and its normalised form: case-folded, with single spaces.

    Args:
        source: The text. It is normalised on first use.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    @cached_property
    def _normalized(self) -> tuple[str, list[int]]:
        """Normalised text, and the index in the source of each of its characters."""
        pieces: list[str] = []
        origin: list[int] = []
        for index, letter in enumerate(self.source):
            piece = " " if letter.isspace() else letter.casefold()
            if piece == " " and pieces and pieces[-1] == " ":
                continue
            pieces.append(piece)
            origin += [index] * len(piece)  # one letter can fold to several
        return "".join(pieces), origin

    @property
    def text(self) -> str:
        """The normalised text."""
        return self._normalized[0]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Map a span of the normalised text to the source; `start < end`."""
        origin = self._normalized[1]
        return origin[start], origin[end - 1] + 1


def normalize(words: str) -> str:
    """Case-fold a text, with single spaces and none at its ends."""
    return " ".join(words.casefold().split())


def find_quote(quote: str, text: NormalizedText) -> tuple[int, int] | None:
    """Find a quote in a text: verbatim, or else ignoring case and white space.

    A match must not cut a word: `mass` is not found in `massive`.

    Returns:
        Span in characters of the source; None if the quote is not in the text.
    """
    quote = quote.strip()
    if not quote:
        return None
    if (start := _find_words(quote, text.source)) >= 0:
        return start, start + len(quote)
    normalized = normalize(quote)
    start = _find_words(normalized, text.text)
    return text.original(start, start + len(normalized)) if start >= 0 else None


def _find_words(words: str, text: str) -> int:
    start = text.find(words)
    while start >= 0 and (_cuts_word(text, start) or _cuts_word(text, start + len(words))):
        start = text.find(words, start + 1)
    return start


def _cuts_word(text: str, index: int) -> bool:
    return 0 < index < len(text) and text[index - 1].isalnum() and text[index].isalnum()


class Forms:
    """Surface forms of a lexicon, matched as whole words, the longest form first."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._entity: dict[str, str] = {}
        self._patterns: dict[str, re.Pattern[str]] = {}
        for entity, forms in lexicon.entities.items():
            normalized = {normalize(form) for form in [entity, *forms]}
            for form in normalized:
                self._entity.setdefault(form, entity)
            self._patterns[entity] = _any_of(normalized)
        self._any_form = _any_of(self._entity)

    def canonical(self, words: str) -> str | None:
        """Return the entity that these words name; None if they are not a form of any."""
        return self._entity.get(normalize(words))

    def named_in(self, phrase: str) -> Iterator[str]:
        """Yield the entities of the forms in a phrase, in its order."""
        for match in self._any_form.finditer(normalize(phrase)):
            yield self._entity[match[0]]

    def first(self, entity: str, text: NormalizedText) -> tuple[int, int] | None:
        """Find the first form of an entity in a text; the span is in characters of the source."""
        match = self._patterns[entity].search(text.text)
        return text.original(*match.span()) if match else None


def _any_of(forms: set[str] | dict[str, str]) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(form) for form in sorted(forms, key=lambda f: (-len(f), f)))
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)")
