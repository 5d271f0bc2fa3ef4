"""What one sentence says."""

from __future__ import annotations

from ecamp.distill.rules.clauses import Item, parts
from ecamp.distill.rules.descriptors import Descriptor, describe
from ecamp.distill.rules.scopes import mark_choices, walk_backward, walk_forward
from ecamp.distill.rules.tokens import Phrases, tokens

# entity, polarity, characters of the sentence, descriptors
Found = tuple[str, str, int, int, tuple[Descriptor, ...]]


def read_sentence(text: str, phrases: Phrases) -> tuple[Found, ...]:
    """Find what a sentence says of the entities of a lexicon.

    Returns:
        In text order; the characters are those of the words that name the entity.
    """
    words = tokens(text)
    found = parts(words, phrases)
    if not any(part.names for part in found):
        return ()
    walk_forward(found)
    walk_backward(found)
    mark_choices(found)
    said = [
        (item, entity, polarity)
        for part in found
        for item in part.items
        if item.phrase.names
        for entity, polarity in _said(item)
    ]
    if not said:
        return ()
    stated = {item.first for item, _, _ in said}
    notes = describe(found, words, text, lambda item: item.first in stated)
    result = []
    for item, entity, polarity in said:
        first, end = _span(item, entity)
        descriptors = tuple(notes.get(item.first, ()))
        result.append((entity, polarity, words[first][1], words[end - 1][2], descriptors))
    return tuple(sorted(result, key=lambda one: (one[2], one[3])))


def _said(item: Item) -> list[tuple[str, str]]:
    """(entity, polarity) of what a phrase names; empty when it is only a place, or an aside."""
    said = []
    if item.phrase.findings:
        polarity = _polarity(item)
        if polarity == "present" and item.choice:
            polarity = "possible"
        said = [(entity, polarity) for entity in item.phrase.findings]
    if item.predicate is not None and not item.place:
        phrase = item.predicate.phrase
        entities = item.phrase.structures
        if phrase.predicate == "normal":
            polarity, entities = "absent", entities + item.phrase.organs
        else:
            polarity = _polarity(item.predicate)
            entities = tuple(e for e in item.phrase.organs if e in phrase.enlarges) or entities
        said += [(entity, polarity) for entity in entities]
    return [pair for pair in said if pair[1]]


def _polarity(item: Item) -> str:
    """Denial from either side counts before a hedge; an aside is no statement."""
    cues = (item.forward, item.backward)
    if "aside" in cues:
        return ""
    return "absent" if "absent" in cues else "possible" if "possible" in cues else "present"


def _span(item: Item, entity: str) -> tuple[int, int]:
    """Words that name the entity; an abnormal organ with what it is called ("heart is enlarged")."""
    said = item.predicate
    if said is None or entity not in said.phrase.enlarges or item.part != said.part:
        return item.first, item.end
    return min(item.first, said.first), max(item.end, said.end)
