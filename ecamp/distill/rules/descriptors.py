"""Assigns descriptors (severity, side, zone, size, change, kind) to the entities of a sentence."""

from __future__ import annotations

from collections.abc import Callable

from ecamp.distill.rules.clauses import Item, Part
from ecamp.distill.rules.tokens import Token

Descriptor = tuple[str, str]  # kind, words
_UNITS = frozenset(("mm", "cm", "millimeter", "millimeters", "centimeter", "centimeters",
                    "millimetre", "millimetres", "centimetre", "centimetres"))  # fmt: skip
_TIMES = frozenset(("x", "by"))
_PLACE_WORDS = frozenset(("in", "at", "of", "within", "over", "overlying", "on", "along", "near", "about",
                      "behind", "involving", "measuring", "to", "from", "by"))  # fmt: skip
_ARTICLES = frozenset(("the", "a", "an", "both"))
_LISTING = frozenset(("", "comma", "and", "or"))
_MAX_SIZE_WORDS = 8  # the longest size: "2.5 cm x 1.8 cm x 3 cm"


def describe(
    parts: list[Part], words: list[Token], text: str, stated: Callable[[Item], bool]
) -> dict[int, list[Descriptor]]:
    """Assign each descriptor to an entity near it.

    It belongs to the next entity in its part of the sentence ("small left effusion"), or to the one
    before if a preposition leads to it ("opacity in the left base") or no entity follows ("effusion,
    unchanged").

    Args:
        parts: Parts of the sentence, after the walks over its scopes.
        words: Words of the sentence.
        text: The sentence.
        stated: Decides whether an item makes a statement.

    Returns:
        Index of the first word of an item -> its descriptors, in text order.
    """
    assigned: dict[int, list[Descriptor]] = {}
    # Descriptor, first word of the item that contains it (or -1), whether it is denied.
    pending: list[tuple[Descriptor, int, bool]] = []
    last = -1  # first word of the last entity in this clause
    sizes = _sizes(words)
    for number, part in enumerate(parts):
        if part.connective in ("clause", "colon"):
            pending, last = [], -1
        entity_here = False  # in this part
        placed, reach = (
            False,
            -1,
        )  # whether the descriptor that ends at `reach` follows a preposition
        stop = parts[number + 1].start if number + 1 < len(parts) else len(words)
        for first, end, item in _events(part, sizes, stop):
            kinds = item.phrase.descriptors if item is not None else ("size",)
            names = item is not None and item.phrase.names
            named = item is not None and names and stated(item)
            if named:
                assigned.setdefault(first, []).extend(pair for pair, _, _ in pending)
                pending, last, entity_here = [], first, True
            elif item is not None and names and not item.is_location:
                pending = []  # "stable mediastinal contours": belongs to an item without statement
            if not kinds:
                continue
            after_place = _follows_place_word(words, first) or (placed and reach == first)
            placed = entity_here and not named and after_place
            reach = end
            pairs = [(kind, text[words[first][1] : words[end - 1][2]].lower()) for kind in kinds]
            if placed:
                assigned[last] += pairs
            else:
                denied = item is not None and item.forward == "absent"
                pending += [(pair, first if named else -1, denied) for pair in pairs]
        if last >= 0:
            assigned[last] += [
                pair
                for pair, owner, denied in pending
                if owner != last and (entity_here or not denied)
            ]
        if last >= 0 or reach != stop or part.connective not in _LISTING:
            pending = []  # only "small, left effusion" continues into the next part
    return assigned


def _events(
    part: Part, sizes: list[tuple[int, int]], stop: int
) -> list[tuple[int, int, Item | None]]:
    """Merge the items of a part with the sizes before `stop`, which are removed from `sizes`."""
    events: list[tuple[int, int, Item | None]] = [(i.first, i.end, i) for i in part.items]
    if sizes and sizes[-1][0] < stop:
        while sizes and sizes[-1][0] < stop:
            first, end = sizes.pop()
            events.append((first, end, None))
        events.sort(key=lambda event: event[0])
    return events


def _follows_place_word(words: list[Token], index: int) -> bool:
    """Decide whether a preposition of place precedes a word, articles aside."""
    if index and words[index - 1][0] in _ARTICLES:
        index -= 1
    return index > 0 and words[index - 1][0] in _PLACE_WORDS


def _sizes(words: list[Token]) -> list[tuple[int, int]]:
    """Find numbers with their unit ("2.5 x 1.8 cm") as (first, end) word spans, last one first."""
    sizes: list[tuple[int, int]] = []
    for index, (word, _, _) in enumerate(words):
        if word not in _UNITS:
            continue
        first, floor = index, max(sizes[-1][1] if sizes else 0, index - _MAX_SIZE_WORDS)
        while first > floor and (
            words[first - 1][0][0].isdigit() or words[first - 1][0] in _TIMES or words[first - 1][0] in _UNITS
        ):  # fmt: skip
            first -= 1
        while first < index and not words[first][0][0].isdigit():
            first += 1
        if first < index:
            sizes.append((first, index + 1))
    return sizes[::-1]
