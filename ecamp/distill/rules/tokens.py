"""Splits a sentence into words and finds the longest known phrase at each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ecamp.distill.rules.cues import Cues, expand_pattern
from ecamp.errors import UsageError
from ecamp.text.lexicon import Lexicon

# A number, a word with its apostrophes, or a mark that divides sentences. A hyphen between words is a
# space, a lone one is a dash; other characters are not tokens.
_TOKEN = re.compile(
    r"\d+(?:\.\d+)?|\w+(?:['\u2019]\w+)*|[,;:()\[\]/?&\u2014]|(?<!\S)(?:--?|\u2013)(?!\S)"
)

Token = tuple[str, int, int]  # lower-case word, its characters in the sentence


def tokens(text: str) -> list[Token]:
    """Split a text into lower-case words with their spans."""
    return [(m[0].lower(), m.start(), m.end()) for m in _TOKEN.finditer(text)]


@dataclass(slots=True)
class Phrase:
    """Meanings of a known phrase; often several at once.

    Attributes:
        findings: Entities of the lexicon that it names, structures aside.
        structures: Entities that it names and that are always there (`structures` of the cues).
        organs: Entities whose organ it names (`organs` of the cues).
        cue: Kind of the cue; empty if it is none.
        cue_direction: Direction of the cue's scope.
        predicate: `normal`, `abnormal`, or empty.
        predicate_direction: Direction in which the predicate applies.
        enlarges: Entities whose organ is abnormal when called this.
        connective: Kind of the connective; empty if it is none.
        verb: `singular`, `plural`, `other`, or empty.
        exists: Whether it only states that something is there (`seen`).
        filler: Whether it may precede the first phrase of a part (`grossly`).
        descriptors: Kinds of descriptor.
    """

    findings: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    organs: tuple[str, ...] = ()
    cue: str = ""
    cue_direction: str = ""
    predicate: str = ""
    predicate_direction: str = ""
    enlarges: tuple[str, ...] = ()
    connective: str = ""
    verb: str = ""
    exists: bool = False
    filler: bool = False
    descriptors: tuple[str, ...] = ()

    @property
    def names(self) -> bool:
        """Whether it names an entity."""
        return bool(self.findings or self.structures or self.organs)


class Phrases:
    """Trie over the words of all phrases of a lexicon and of cues.

    Scanning takes time linear in the number of words: the length of phrases is bounded.

    Raises:
        UsageError: A phrase of the cues has two meanings of one kind, or no words.
    """

    def __init__(self, lexicon: Lexicon, cues: Cues) -> None:
        self._root: dict[str | None, Any] = {}
        self._source = f"cues {cues.name}"
        for number, words in cues.verbs.items():  # first: other phrases contain them
            self._add(words, verb=number)
        for entity, forms in lexicon.entities.items():
            meaning = "structures" if entity in cues.structures else "findings"
            self._add([*forms, *cues.aliases.get(entity, ())], **{meaning: (entity,)})
        for entity, organ in cues.organs.items():
            if entity in lexicon.entities:
                self._add(organ.words, organs=(entity,))
                self._add(organ.abnormal, enlarges=(entity,), predicate_direction="either")
        for predicate in cues.predicates:
            self._add(
                predicate.words,
                predicate=predicate.kind,
                predicate_direction=predicate.direction,
            )
        for connective, words in cues.joints.items():
            self._add(words, connective=connective)
        for cue in cues.cues:
            self._add(cue.words, cue=cue.kind, cue_direction=cue.direction)
        self._add(cues.exists, exists=True)
        self._add(cues.fillers, filler=True)
        self._add(cues.ignored)
        for kind, words in cues.descriptors.items():
            self._add(words, descriptors=(kind,))

    def _add(self, patterns: list[str], **meaning: Any) -> None:
        """Add a meaning to phrases, in addition to those that they have.

        Raises:
            UsageError: A phrase would have two meanings of one kind.
        """
        for text in (text for pattern in patterns for text in expand_pattern(pattern)):
            node, verb = self._root, ""
            for word, _, _ in tokens(text):
                single_word = self._root.get(word, {}).get(None)
                verb = verb or (single_word.verb if single_word else "")
                node = node.setdefault(word, {})
            if node is self._root:
                raise UsageError(f"{self._source}: '{text}' contains no word.")
            phrase = node.setdefault(None, Phrase())
            phrase.verb = phrase.verb or verb  # "cannot be excluded" contains one
            for name, value in meaning.items():
                present = getattr(phrase, name)
                if isinstance(value, tuple):
                    value = present + tuple(entity for entity in value if entity not in present)
                elif present and value and present != value:
                    raise UsageError(
                        f"{self._source}: '{text}' has two meanings: {present} and {value}.",
                        "Remove it from one of the two lists.",
                    )
                setattr(phrase, name, value)

    def scan(self, words: list[Token]) -> Iterator[tuple[Phrase, int, int]]:
        """Yield known phrases from left to right, the longest at each word: (phrase, first, end)."""
        root, first, count = self._root, 0, len(words)
        while first < count:
            node = root.get(words[first][0])
            if node is None:
                first += 1
                continue
            best, end = node.get(None), first + 1
            reach = end
            while reach < count and (node := node.get(words[reach][0])) is not None:
                reach += 1
                if (longer := node.get(None)) is not None:
                    best, end = longer, reach
            if best is not None:
                yield best, first, end
            first = end
