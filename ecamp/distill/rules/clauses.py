"""A sentence as parts between commas, conjunctions and clause marks, each with what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecamp.distill.rules.tokens import Phrase, Phrases, Token


@dataclass(slots=True, eq=False)
class Item:
    """A known phrase at its place.

    Attributes:
        first, end: Its words.
        part: Number of its part in the sentence.
        ahead: Whether an entity or predicate follows in its part.
        forward, backward: Kind of the cue whose scope it lies in, from either side.
        place: Only the place of a finding; not itself spoken of.
        predicate: What calls this structure or organ normal or abnormal.
        used: This predicate has found what it speaks of behind it.
        choice: One of two that are named as alternatives.
    """

    phrase: Phrase
    first: int
    end: int
    part: int
    ahead: bool = False
    forward: str = ""
    backward: str = ""
    place: bool = False
    predicate: Item | None = None
    used: bool = False
    choice: bool = False


@dataclass(slots=True, eq=False)
class Part:
    """What stands between two joints.

    Attributes:
        joint: What parts it from the part before; empty at the start.
        first, start: First word behind the joint, and of the joint.
        verb: `singular`, `plural` or `other` when it has a finite verb.
        opens: It starts with a verb, or behind `and` with what looks back: what it speaks of stands in
            the part before ("is stable and mildly enlarged").
        exists: Says that something is seen.
        told: Holds a severity, as new findings do.
        cue, names: Whether it holds a cue, an entity.
        listed: Belongs to a list whose last members are joined by `and`, `or`.
    """

    joint: str
    start: int
    first: int
    items: list[Item] = field(default_factory=list)
    verb: str = ""
    opens: bool = False
    exists: bool = False
    told: bool = False
    cue: bool = False
    names: bool = False
    listed: bool = False

    @property
    def asserts(self) -> bool:
        """Whether it says something of its own, rather than going on with a list.

        "..., effusion or mass is seen" goes on; "..., heart size is normal" and "..., small effusion
        is seen" do not.
        """
        if self.verb and not self.exists:
            return True
        return self.told and (self.exists or bool(self.verb))


def parts(words: list[Token], phrases: Phrases) -> list[Part]:
    """Cut a sentence at its joints; a joint of several words in a row counts as its strongest_polarity.

    Returns:
        At least one part; the items of all parts are those of the sentence, in order.
    """
    part = Part("", 0, 0)
    found = [part]
    waiting: list[Item] = []  # those that nothing follows yet in their part
    lead = 0  # where a first word that opens a part could stand
    for phrase, first, end in phrases.scan(words):
        if phrase.joint:
            if part.items or part.joint in _SINGLE or phrase.joint in _SINGLE or first > part.first:
                part = Part(phrase.joint, first, end)
                found.append(part)
            else:  # ", and": one joint
                part.joint, part.first = _stronger(part.joint, phrase.joint), end
            waiting, lead = [], end
            if not phrase.cue:
                continue
        item = Item(phrase, first, end, len(found))
        if phrase.names or phrase.predicate or phrase.enlarges:
            for before in waiting:
                before.ahead = True
            waiting = []
        if phrase.cue or phrase.predicate or phrase.enlarges:
            waiting.append(item)
        if first == lead:
            if phrase.filler or "severity" in phrase.descriptors:
                lead = end
            else:
                part.opens = _looks_back(phrase, part.joint)
        _note(part, item)
    listed = False
    for part in reversed(found):
        listed = part.joint in _CONJUNCTIONS or (listed and part.joint == "comma")
        part.listed = listed
    return found


def _looks_back(phrase: Phrase, joint: str) -> bool:
    """Whether a phrase that comes first in a part speaks of what stands in the part before."""
    if phrase.names or phrase.verb:
        return not phrase.names
    return joint == "and" and (
        bool(phrase.predicate) or phrase.cue_direction in ("backward", "either")
    )


def _note(part: Part, item: Item) -> None:
    """Add an item to its part."""
    phrase = item.phrase
    part.items.append(item)
    part.cue = part.cue or bool(phrase.cue)
    part.names = part.names or phrase.names
    part.verb = part.verb or phrase.verb
    part.exists = part.exists or phrase.exists
    part.told = part.told or "severity" in phrase.descriptors


_SINGLE = frozenset(("open", "close", "colon", ""))
_CONJUNCTIONS = frozenset(("and", "or", "versus"))
_STRENGTH = ("comma", "and", "or", "versus", "with", "relative", "clause")


def _stronger(one: str, other: str) -> str:
    return max(one, other, key=_STRENGTH.index)
