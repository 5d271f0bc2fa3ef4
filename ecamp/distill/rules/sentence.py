"""Finds the statements of one sentence."""

from __future__ import annotations

from ecamp.distill.rules.clauses import Item, split_parts
from ecamp.distill.rules.descriptors import Descriptor, describe
from ecamp.distill.rules.scopes import mark_choices, walk_backward, walk_forward
from ecamp.distill.rules.tokens import Phrases, tokens

# entity, polarity, characters of the sentence, descriptors
Finding = tuple[str, str, int, int, tuple[Descriptor, ...]]


def read_sentence(text: str, phrases: Phrases) -> tuple[Finding, ...]:
    """Find the statements of a sentence about the entities of a lexicon.

    Returns:
        In text order; the span is that of the words that name the entity.
    """
    words = tokens(text)
    parts = split_parts(words, phrases)
    if not any(part.names for part in parts):
        return ()
    walk_forward(parts)
    walk_backward(parts)
    mark_choices(parts)
    statements = [
        (item, entity, polarity)
        for part in parts
        for item in part.items
        if item.phrase.names
        for entity, polarity in _statements(item)
    ]
    if not statements:
        return ()
    stated = {item.first for item, _, _ in statements}
    descriptors = describe(parts, words, text, lambda item: item.first in stated)
    result = []
    for item, entity, polarity in statements:
        first, end = _span(item, entity)
        pairs = tuple(descriptors.get(item.first, ()))
        result.append((entity, polarity, words[first][1], words[end - 1][2], pairs))
    return tuple(sorted(result, key=lambda finding: (finding[2], finding[3])))


def _statements(item: Item) -> list[tuple[str, str]]:
    """List (entity, polarity) of an item; empty if it only locates a finding, or is an aside."""
    pairs = []
    if item.phrase.findings:
        polarity = _polarity(item)
        if polarity == "present" and item.choice:
            polarity = "possible"
        pairs = [(entity, polarity) for entity in item.phrase.findings]
    if item.predicate is not None and not item.is_location:
        phrase = item.predicate.phrase
        entities = item.phrase.structures
        if phrase.predicate == "normal":
            polarity, entities = "absent", entities + item.phrase.organs
        else:
            polarity = _polarity(item.predicate)
            entities = tuple(e for e in item.phrase.organs if e in phrase.enlarges) or entities
        pairs += [(entity, polarity) for entity in entities]
    return [pair for pair in pairs if pair[1]]


def _polarity(item: Item) -> str:
    """Combine the cues of both sides: denial before doubt; empty (no statement) for an aside."""
    cues = (item.forward, item.backward)
    if "aside" in cues:
        return ""
    return "absent" if "absent" in cues else "possible" if "possible" in cues else "present"


def _span(item: Item, entity: str) -> tuple[int, int]:
    """Return the words that name the entity; of an organ, with its predicate ("heart is enlarged")."""
    predicate = item.predicate
    if predicate is None or entity not in predicate.phrase.enlarges or item.part != predicate.part:
        return item.first, item.end
    return min(item.first, predicate.first), max(item.end, predicate.end)
