"""Descriptors: severity, side, zone, size, change and kind of what a sentence names."""

from __future__ import annotations

from collections.abc import Callable

from ecamp.distill.rules.clauses import Item, Part
from ecamp.distill.rules.tokens import Token

Descriptor = tuple[str, str]  # kind, words
_UNITS = frozenset(("mm", "cm", "millimeter", "millimeters", "centimeter", "centimeters",
                    "millimetre", "millimetres", "centimetre", "centimetres"))  # fmt: skip
_TIMES = frozenset(("x", "by"))
_PLACING = frozenset(("in", "at", "of", "within", "over", "overlying", "on", "along", "near", "about",
                      "behind", "involving", "measuring", "to", "from", "by"))  # fmt: skip
_ARTICLES = frozenset(("the", "a", "an", "both"))
_LISTING = frozenset(("", "comma", "and", "or"))
_SPAN = 8  # words of the longest size: "2.5 cm x 1.8 cm x 3 cm"


def describe(
    parts: list[Part], words: list[Token], text: str, stated: Callable[[Item], bool]
) -> dict[int, list[Descriptor]]:
    """Give each descriptor to what it stands near.

    It belongs to what is named next in its part of the sentence ("small left effusion"), or before it
    when a word of place leads to it ("opacity in the left base") or nothing is named behind it
    ("effusion, unchanged").

    Args:
        stated: Whether an item is what a statement is made of.

    Returns:
        First word of an item -> its descriptors, in text order.
    """
    given: dict[int, list[Descriptor]] = {}
    waiting: list[
        tuple[Descriptor, int, bool]
    ] = []  # with the item that it is part of, or -1; denied
    last = -1  # first word of what was named last in this clause
    sizes = _sizes(words)
    for number, part in enumerate(parts):
        if part.joint in ("clause", "colon"):
            waiting, last = [], -1
        here = False  # named in this part
        placed, reach = False, -1  # whether the descriptor that ends at `reach` tells a place
        stop = parts[number + 1].start if number + 1 < len(parts) else len(words)
        for first, end, item in _events(part, sizes, stop):
            kinds = item.phrase.descriptors if item is not None else ("size",)
            names = item is not None and item.phrase.names
            named = item is not None and names and stated(item)
            if named:
                given.setdefault(first, []).extend(pair for pair, _, _ in waiting)
                waiting, last, here = [], first, True
            elif item is not None and names and not item.place:
                waiting = []  # "stable mediastinal contours": theirs, and they say nothing
            if not kinds:
                continue
            placed = here and not named and (_leads(words, first) or (placed and reach == first))
            reach = end
            found = [(kind, text[words[first][1] : words[end - 1][2]].lower()) for kind in kinds]
            if placed:
                given[last] += found
            else:
                denied = item is not None and item.forward == "absent"
                waiting += [(pair, first if named else -1, denied) for pair in found]
        if last >= 0:
            given[last] += [
                pair for pair, owner, denied in waiting if owner != last and (here or not denied)
            ]
        if last >= 0 or reach != stop or part.joint not in _LISTING:
            waiting = []  # only "small, left effusion" goes on
    return given


def _events(
    part: Part, sizes: list[tuple[int, int]], stop: int
) -> list[tuple[int, int, Item | None]]:
    """Items of a part and the sizes before `stop`, in text order; takes those sizes away."""
    events: list[tuple[int, int, Item | None]] = [(i.first, i.end, i) for i in part.items]
    if sizes and sizes[-1][0] < stop:
        while sizes and sizes[-1][0] < stop:
            first, end = sizes.pop()
            events.append((first, end, None))
        events.sort(key=lambda event: event[0])
    return events


def _leads(words: list[Token], at: int) -> bool:
    """Whether a word of place stands before position `at`."""
    if at and words[at - 1][0] in _ARTICLES:
        at -= 1
    return at > 0 and words[at - 1][0] in _PLACING


def _sizes(words: list[Token]) -> list[tuple[int, int]]:
    """Numbers with their unit ("2.5 x 1.8 cm") as (first, end), the last first."""
    found: list[tuple[int, int]] = []
    for at, (word, _, _) in enumerate(words):
        if word not in _UNITS:
            continue
        first, floor = at, max(found[-1][1] if found else 0, at - _SPAN)
        while first > floor and (
            words[first - 1][0][0].isdigit() or words[first - 1][0] in _TIMES or words[first - 1][0] in _UNITS
        ):  # fmt: skip
            first -= 1
        while first < at and not words[first][0][0].isdigit():
            first += 1
        if first < at:
            found.append((first, at + 1))
    return found[::-1]
