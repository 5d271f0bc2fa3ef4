"""Sentence boundaries of clinical reports, by rules; only the standard library.

A full stop is only a candidate; the rules below decide whether it ends a sentence. Labels stay with
their sentence: the number of a list item, a bullet, a section heading. Spans have no outer white
space, and splitting the text of a span again gives that one span.
"""

from __future__ import annotations

import re

# Where a sentence might end: a run of stops with closing quotes or brackets, an item number that
# ends in a bracket, a colon (of a heading), a line break.
# The leading set lets the regex engine skip quickly; the text before it is checked afterwards. Group
# 1 is the common case, which needs no check of the word before: a stop after six letters that are
# not the end of an abbreviation, one space, a capital.
_CANDIDATE = re.compile(
    r"""[.?!\u2026:)\r\n](?:
        ((?<=[a-z]{6}\.)(?<!approx\.)[ ](?=[A-Z]))
        | (?<=[.?!\u2026])(?<![.?!\u2026]{2})[.?!\u2026]*+["'\u2019\u201d\u00bb)\]}]*+(?=\s|[A-Z])
        | (?<=\d\))(?=\s)
        | (?<=:)(?=\s)
        | (?<=[\r\n])\s*+
    )""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_OPENING = "([{\"'\u2018\u201c\u00ab"
# After a stop without a space ("effusion.The"): a capitalised word or a de-identification mark.
_CAPITALISED = re.compile(r"[A-Z](?:[a-z]|\s)|XXX")
_ITEM = re.compile(r"\d{1,2}[.)](?=\s|[A-Z])")
_ITEM_NUMBER = re.compile(r"(?<!\S)\d{1,2}\Z")
_BULLET = re.compile(r"[-*\u2022\u00b7](?=\s)")
_HEADING = re.compile(r"(?<!\S)[A-Z][A-Z/&-]*(?: [A-Z/&-]+)*\Z")
_HEADING_WORD = re.compile(r"(?!X+\b)[A-Z]{4,}")
_LABEL = re.compile(r"\d{1,2}[.)]|[-*\u2022\u00b7]")
_BULLET_ONLY = re.compile(r"[-*\u2022\u00b7]")
_DOTTED = re.compile(r"[a-z](?:\.[a-z])+")  # p.m, u.s
_HEADING_LENGTH, _WORD_LENGTH = 48, 16  # how far back rules look, in characters


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Abbreviations whose stop never ends a sentence, whatever follows.
_NEVER_LAST = _words("dr drs mr mrs ms prof st vs approx fig figs cf viz incl dept e.g i.e")
# ... when a number follows: "No. 3", "Jan. 5".
_BEFORE_NUMBER = _words("no nos vol pp p jan feb mar apr jun jul aug sep sept oct nov dec")
# ... unless a capitalised word follows: "3 mm. in size" against "3 mm. The heart".
_SELDOM_LAST = _words(
    "etc al jr sr cm mm ml kg lt rt bilat lat sup inf ant post med ext int pt pts hx hr hrs min"
    " sec wk wks mo mos yr yrs max temp avg est dx tx sx rx"
)
# A capital after one of these belongs to a name ("type B."); it is not an initial ("J. Smith").
_BEFORE_LETTER = _words(
    "type grade stage class group hepatitis vitamin segment zone series image part level"
)
# A number after one of these belongs to the sentence and does not start a list item.
_BEFORE_COUNT = _BEFORE_LETTER | _words(
    "rib ribs lobe vertebra number of and or to than by about approximately at in is was the no"
    " measures measuring least only"
)
# Words that never end a sentence: a line break after one is only a line break.
_JOINING = _words(
    "a an the of and or with without to in for from by at on than as is are was were no"
)


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Find the sentences of a report.

    Args:
        text: Any text; line breaks may occur within sentences or between them.

    Returns:
        (start, end) spans in characters, in order and without overlap; only white space lies
        between them.
    """
    spans: list[tuple[int, int]] = []
    start = _after_space(text, 0)
    next_item = 0  # number of the next list item; 0 outside a list
    for match in _CANDIDATE.finditer(text):
        position = match.start()
        if position <= start:
            continue
        if match.lastindex:
            spans.append((start, position + 1))
            start = position + 2
            continue
        mark = text[position]
        numbered = mark in ".)" and text[position - 1].isdigit()
        number = _item_number(text, start, position) if numbered else None
        if number and _is_labelled(text, start, number.start()):
            next_item = int(number[0]) + 1
            continue
        if number and int(number[0]) == next_item and _opens_item(text, start, number.start()):
            next_item += 1
            end = number.start()
        elif mark in "\r\n":
            end = position if _line_ends(text, start, position, match.end()) else start
        elif mark == ":":
            end = _heading_start(text, start, position)
        else:
            stops = mark != ")" and _stops(text, start, position, match.end())
            end = match.end() if stops else start
        if end > start:
            spans.append((start, start + len(text[start:end].rstrip())))
            start = _after_space(text, end)
    if start < len(text):
        spans.append((start, start + len(text[start:].rstrip())))
    return spans


def _after_space(text: str, position: int) -> int:
    """Return the position after the white space that starts at `position`."""
    space = _SPACE.match(text, position)
    assert space is not None
    return space.end()


def _last_word(text: str, start: int, position: int) -> str:
    """Return the word before a position; empty at the start of the span. Long words are cut."""
    words = text[max(start, position - _WORD_LENGTH) : position].split()
    return words[-1].lstrip(_OPENING) if words else ""


def _stops(text: str, start: int, stop: int, end: int) -> bool:
    """Decide whether the run of stops `stop .. end` ends a sentence that began at `start`."""
    following = _after_space(text, end)
    if following == len(text):
        return False
    word = _last_word(text, start, stop)
    if following == end:
        return (
            text[max(start, stop - 2) : stop].isalpha()
            and word.lower() not in _NEVER_LAST
            and _CAPITALISED.match(text, end) is not None
        )
    first = text[following]
    if first in _OPENING and following + 1 < len(text):
        first = text[following + 1]
    if text[stop] in "?!":  # in "? pneumonia" the mark is a question, not an end
        return not (text[stop - 1].isspace() and first.islower())
    if text[stop] == "\u2026" or text.startswith("...", stop):
        return not first.islower()
    if len(word) >= _WORD_LENGTH or not word:
        return True
    capital = first.isupper() and not text.startswith("XXX", following)
    return _ends_after(word, text, start, stop, capital, following)


def _ends_after(word: str, text: str, start: int, stop: int, capital: bool, following: int) -> bool:
    """Decide whether a full stop after `word` ends the sentence: not after an abbreviation."""
    key = word.lower()
    if key in _NEVER_LAST:
        return False
    if key in _BEFORE_NUMBER:
        return not text[following].isdigit()
    if key in _SELDOM_LAST or _DOTTED.fullmatch(key):
        return capital or _ITEM.match(text, following) is not None
    if len(word) == 1 and word.isupper():  # an initial, unless it closes a name ("type B.")
        before = _last_word(text, start, stop - 1)
        if not before:
            return False
        is_name = before[0].isupper() or before[-1] == "." or before.lower() == "by"
        return before.lower() in _BEFORE_LETTER or not is_name
    return True


def _line_ends(text: str, start: int, position: int, following: int) -> bool:
    """Decide whether the line break at `position` ends a sentence; a wrapped line continues."""
    if following == len(text):
        return False
    word = _last_word(text, start, position)
    if word.endswith(":") or _LABEL.fullmatch(text[start : min(position, start + 8)].rstrip()):
        return False
    gap = text[position:following]
    if (gap.count("\n") or gap.count("\r")) > 1 or _BULLET.match(text, following):
        return True
    if word.endswith((",", "-", "/")):
        return False
    if _ITEM.match(text, following):
        return word.lower() not in _BEFORE_COUNT
    return word.lower() not in _JOINING and _CAPITALISED.match(text, following) is not None


def _heading_start(text: str, start: int, colon: int) -> int:
    """Return the start of the heading in capitals that ends at `colon`; `start` without one."""
    heading = _HEADING.search(text, max(start, colon - _HEADING_LENGTH), colon)
    if heading is None or not _HEADING_WORD.search(heading[0]):
        return start
    label = text[start : min(heading.start(), start + 8)].rstrip()
    return start if _LABEL.fullmatch(label) else heading.start()


def _item_number(text: str, start: int, position: int) -> re.Match[str] | None:
    return _ITEM_NUMBER.search(text, max(start, position - 2), position)


def _is_labelled(text: str, start: int, number: int) -> bool:
    """Decide whether a number comes first in its sentence, or after a heading or bullet."""
    before = text[max(start, number - _WORD_LENGTH) : number].rstrip()
    return number == start or before.endswith(":") or _BULLET_ONLY.fullmatch(before) is not None


def _opens_item(text: str, start: int, number: int) -> bool:
    return _last_word(text, start, number).lower() not in _BEFORE_COUNT
