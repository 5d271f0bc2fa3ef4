"""Words of a sentence, and the longest known phrase at each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ecamp.distill.rules.cues import Cues, spelled_out
from ecamp.errors import UsageError
from ecamp.text.lexicon import Lexicon

# A number, a word with its apostrophes, or a mark that parts sentences. A hyphen between words is a
# space, a lone one is a dash; other signs are no tokens.
_TOKEN = re.compile(
    r"\d+(?:\.\d+)?|\w+(?:['\u2019]\w+)*|[,;:()\[\]/?&\u2014]|(?<!\S)(?:--?|\u2013)(?!\S)"
)

Token = tuple[str, int, int]  # lower-case word, its characters in the sentence


def tokens(text: str) -> list[Token]:
    """Words with their spans, lower case."""
    return [(m[0].lower(), m.start(), m.end()) for m in _TOKEN.finditer(text)]


@dataclass(slots=True)
class Phrase:
    """What a known phrase can be, often several things at once.

    Attributes:
        findings, structures, organs: Entities that it names, by what they are (`cues.py`).
        cue, cue_direction: What becomes of entities in its scope.
        predicate, predicate_direction: `normal`, `abnormal`, or empty.
        enlarges: Organs that are abnormal when called this.
        joint: How it parts a sentence.
        verb: `singular`, `plural`, `other`, or empty.
        exists: Says only that something is there (`seen`).
        filler: May stand before what opens a part (`grossly`).
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
    joint: str = ""
    verb: str = ""
    exists: bool = False
    filler: bool = False
    descriptors: tuple[str, ...] = ()

    @property
    def names(self) -> bool:
        """Whether it names an entity."""
        return bool(self.findings or self.structures or self.organs)


class Phrases:
    """All phrases of a lexicon and its cues as a trie over words.

    Scanning takes time linear in the words: a phrase is at most `longest` words.
    """

    def __init__(self, lexicon: Lexicon, cues: Cues) -> None:
        self._root: dict[str | None, Any] = {}
        self._where = f"cues {cues.name}"
        for number, words in cues.verbs.items():  # first: other phrases hold them
            self._add(words, verb=number)
        for entity, forms in lexicon.entities.items():
            kind = "structures" if entity in cues.structures else "findings"
            self._add([*forms, *cues.aliases.get(entity, ())], **{kind: (entity,)})
        for entity, organ in cues.organs.items():
            if entity in lexicon.entities:
                self._add(organ.words, organs=(entity,))
                self._add(organ.abnormal, enlarges=(entity,), predicate_direction="either")
        for said in cues.predicates:
            self._add(said.words, predicate=said.kind, predicate_direction=said.direction)
        for joint, words in cues.joints.items():
            self._add(words, joint=joint)
        for cue in cues.cues:
            self._add(cue.words, cue=cue.kind, cue_direction=cue.direction)
        self._add(cues.exists, exists=True)
        self._add(cues.fillers, filler=True)
        self._add(cues.ignored)
        for kind, words in cues.descriptors.items():
            self._add(words, descriptors=(kind,))

    def _add(self, patterns: list[str], **meaning: Any) -> None:
        """Give phrases a meaning, beside those they have.

        Raises:
            UsageError: A phrase would have two of a kind.
        """
        for text in (text for pattern in patterns for text in spelled_out(pattern)):
            node, verb = self._root, ""
            for word, _, _ in tokens(text):
                known = self._root.get(word, {}).get(None)
                verb = verb or (known.verb if known else "")
                node = node.setdefault(word, {})
            if node is self._root:
                raise UsageError(f"{self._where}: '{text}' holds no word.")
            phrase = node.setdefault(None, Phrase())
            phrase.verb = phrase.verb or verb  # "cannot be excluded" has one
            for name, value in meaning.items():
                before = getattr(phrase, name)
                if isinstance(value, tuple):
                    value = before + tuple(one for one in value if one not in before)
                elif before and value and before != value:
                    raise UsageError(f"{self._where}: '{text}' is {before} and {value}.")
                setattr(phrase, name, value)

    def scan(self, words: list[Token]) -> Iterator[tuple[Phrase, int, int]]:
        """The longest known phrase at each word that is in none before: (phrase, first, end)."""
        root, at, count = self._root, 0, len(words)
        while at < count:
            node = root.get(words[at][0])
            if node is None:
                at += 1
                continue
            best, end = node.get(None), at + 1
            reach = end
            while reach < count and (node := node.get(words[reach][0])) is not None:
                reach += 1
                if (longer := node.get(None)) is not None:
                    best, end = longer, reach
            if best is not None:
                yield best, at, end
            at = end
