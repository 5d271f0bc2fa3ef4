"""Cuts a sentence into parts at its connectives: commas, conjunctions and clause marks."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecamp.distill.rules.tokens import Phrase, Phrases, Token


@dataclass(slots=True, eq=False)
class Item:
    """A known phrase in a sentence.

    Attributes:
        phrase: Meanings of the phrase.
        first: Index of its first word.
        end: Index after its last word.
        part: Number of its part in the sentence.
        followed_by_target: Whether an entity or predicate follows in its part.
        forward: Kind of the cue before it whose scope it lies in; empty without.
        backward: Kind of the cue after it whose scope it lies in; empty without.
        is_location: Whether it only locates a finding and makes no statement of its own.
        predicate: Item that calls this structure or organ normal or abnormal.
        used: Whether this predicate already applies to an item after it.
        choice: Whether it is one of several alternatives.
    """

    phrase: Phrase
    first: int
    end: int
    part: int
    followed_by_target: bool = False
    forward: str = ""
    backward: str = ""
    is_location: bool = False
    predicate: Item | None = None
    used: bool = False
    choice: bool = False


@dataclass(slots=True, eq=False)
class Part:
    """A part of a sentence between two connectives.

    Attributes:
        connective: Kind of the connective before it; empty at the start of the sentence.
        start: Index of the first word of that connective.
        first: Index of the first word after that connective.
        items: Known phrases in it, in order.
        verb: `singular`, `plural` or `other` if it has a finite verb; empty without.
        elliptic: Whether its subject is in the part before: it starts with a verb, or after `and` with a
            predicate or a cue that applies backward ("is stable and mildly enlarged").
        exists: Whether it states that something is seen.
        has_severity: Whether it contains a severity, as new findings do.
        cue: Whether it contains a cue.
        names: Whether it names an entity.
        listed: Whether it belongs to a list whose last members are joined by `and` or `or`.
    """

    connective: str
    start: int
    first: int
    items: list[Item] = field(default_factory=list)
    verb: str = ""
    elliptic: bool = False
    exists: bool = False
    has_severity: bool = False
    cue: bool = False
    names: bool = False
    listed: bool = False

    @property
    def asserts(self) -> bool:
        """Whether it makes a statement of its own, rather than continuing a list.

        "..., effusion or mass is seen" continues a list; "..., heart size is normal" and "..., small
        effusion is seen" do not.
        """
        if self.verb and not self.exists:
            return True
        return self.has_severity and (self.exists or bool(self.verb))


def split_parts(words: list[Token], phrases: Phrases) -> list[Part]:
    """Cut a sentence at its connectives; of several in a row, the strongest one counts.

    Returns:
        At least one part; the items of all parts are those of the sentence, in order.
    """
    part = Part("", 0, 0)
    parts = [part]
    pending: list[Item] = []  # cues and predicates that no target follows yet in their part
    lead = 0  # index at which a phrase would be the first of its part
    for phrase, first, end in phrases.scan(words):
        if phrase.connective:
            single = part.connective in _SINGLE or phrase.connective in _SINGLE
            if part.items or single or first > part.first:
                part = Part(phrase.connective, first, end)
                parts.append(part)
            else:  # ", and": one connective
                part.connective = _stronger(part.connective, phrase.connective)
                part.first = end
            pending, lead = [], end
            if not phrase.cue:
                continue
        item = Item(phrase, first, end, len(parts))
        if phrase.names or phrase.predicate or phrase.enlarges:
            for before in pending:
                before.followed_by_target = True
            pending = []
        if phrase.cue or phrase.predicate or phrase.enlarges:
            pending.append(item)
        if first == lead:
            if phrase.filler or "severity" in phrase.descriptors:
                lead = end
            else:
                part.elliptic = _is_elliptic(phrase, part.connective)
        _add(part, item)
    listed = False
    for part in reversed(parts):
        listed = part.connective in _CONJUNCTIONS or (listed and part.connective == "comma")
        part.listed = listed
    return parts


def _is_elliptic(phrase: Phrase, connective: str) -> bool:
    """Decide whether a part that starts with a phrase has its subject in the part before."""
    if phrase.names or phrase.verb:
        return not phrase.names
    return connective == "and" and (
        bool(phrase.predicate) or phrase.cue_direction in ("backward", "either")
    )


def _add(part: Part, item: Item) -> None:
    """Add an item to its part."""
    phrase = item.phrase
    part.items.append(item)
    part.cue = part.cue or bool(phrase.cue)
    part.names = part.names or phrase.names
    part.verb = part.verb or phrase.verb
    part.exists = part.exists or phrase.exists
    part.has_severity = part.has_severity or "severity" in phrase.descriptors


_SINGLE = frozenset(("open", "close", "colon", ""))
_CONJUNCTIONS = frozenset(("and", "or", "versus"))
_STRENGTH = ("comma", "and", "or", "versus", "with", "relative", "clause")


def _stronger(first: str, second: str) -> str:
    return max(first, second, key=_STRENGTH.index)
