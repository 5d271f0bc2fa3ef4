"""Finds names of people in a report by their context: a title, a label, a phrase, a degree.

Capitals alone are not enough evidence in a report (Kerley, Swan-Ganz, Hodgkin), so no name is guessed
from them. A name that was announced once is found wherever it appears again in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_TITLE = re.compile(
    r"\b(?:(?:Dr|Drs|Mr|Mrs|Ms|Prof)\b\.?|(?:DR|DRS|MR|MRS|MS|PROF)\.|Miss\b|[Dd]octor\b|[Pp]rofessor\b"
    r"|[Nn]urse\b)(?:[ \t]+and)?[ \t]*"
)
_ACTION = (
    r"(?:dictated|signed|transcribed|interpreted|reviewed|read|approved|verified|performed)\s+by"
)
_LABEL = re.compile(
    r"\b(?:(?:patient(?:'s)?[ \t]+)?name|patient|(?:referring|ordering|attending|requesting)(?:[ \t]+\w+)?"
    rf"|physician|provider|radiologist|resident|technologist|{_ACTION})[ \t]*:[ \t]*",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    rf"\b(?:patient(?:[ \t]+named)?|{_ACTION}|(?:discussed|communicated|reviewed|spoke|spoken)[ \t]+(?:with|to)"
    r"|(?:reported|conveyed|relayed|called|telephoned|paged)[ \t]+to|notified|informed|paged)[ \t]+",
    re.IGNORECASE,
)
_DEGREE = re.compile(r"(?<=[\w.]),?[ \t]{1,3}(?:M\.?D\.?|Ph\.?D\.?|MBBS|FRCR|RN)(?!\w)")


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PARTICLES = _word_set("al bin da de del den der di du el ibn la le van von")
# Capitalised words that follow an announcement and are not names.
_NOT_NAMES = _word_set(
    "a an and are at by chest department ed emergency er examination exam findings for has heart he"
    " his her history icu id impression in is it left lung lungs mrn name no not nurse of on or patient"
    " position positioned radiology right rotated rotation she stable status supine the there this to team"
    " unit upright was were with"
    " doctor dr drs miss mr mrs ms prof professor"
)
_MAX_WORDS, _LOOK_BACK = 4, 80  # words of a name; characters before a degree
# Separators between the words of a name; after a label also "DOE, JOHN".
_GAP, _GAP_INITIAL, _GAP_LABEL = (re.compile(p) for p in (r"[ \t]+", r"\.?[ \t]*", r"[.,]?[ \t]+"))


def name_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of names, in characters; they may overlap and are not in order."""
    announced = list(_announced(text))
    yield from announced
    words = list(_WORD.finditer(text)) if announced else []
    # After "Dr. White", "White matter" is not a person if the report also contains "white".
    common = {word[0] for word in words if word[0].islower()}
    names = {
        _stem(word[0]).casefold()
        for start, end in announced
        for word in _WORD.finditer(text[start:end])
        if len(word[0]) > 2 and word[0][0].isupper() and word[0].lower() not in common
    }
    for word in words:
        if word[0][0].isupper() and _stem(word[0]).casefold() in names:
            yield word.start(), word.start() + len(_stem(word[0]))


def _stem(word: str) -> str:
    """Strip the genitive ending of a word."""
    return re.sub(r"['\u2019][sS]?\Z", "", word)


def _announced(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of names next to a title, label, phrase or degree."""
    for pattern, capitals in ((_TITLE, True), (_LABEL, True), (_PHRASE, False)):
        for match in pattern.finditer(text):
            end = _name_end(text, match.end(), capitals, commas=pattern is _LABEL)
            if end > match.end():
                yield match.end(), end
    for match in _DEGREE.finditer(text):
        start = _name_start(text, match.start())
        if start < match.start():
            yield start, match.start()


def _is_name(text: str, word: re.Match[str], capitals: bool) -> bool:
    """Whether a word can be part of a name; `capitals`: also one in capitals throughout."""
    letters = word[0]
    if len(letters) == 1 and text.startswith(".", word.end()):
        return letters.isupper()  # an initial
    return (
        letters[0].isupper()
        and (capitals or not letters.isupper())
        and letters.casefold() not in _NOT_NAMES
        and not (len(letters) > 1 and set(letters) == {"X"})  # de-identified in the source
    )


def _name_end(text: str, start: int, capitals: bool, commas: bool) -> int:
    """Return the end of the name that begins at `start`; `start` without one.

    Args:
        capitals: Whether words in capitals count as names. commas: Whether "DOE, JOHN" is one name.
    """
    end = position = start
    for _ in range(_MAX_WORDS):
        word = _WORD.match(text, position)
        if word is None:
            break
        if word[0].casefold() in _PARTICLES and not word[0].isupper():
            position = word.end() + 1
            if not text.startswith((" ", "\t"), word.end()):
                break
            continue
        if not _is_name(text, word, capitals):
            break
        end = word.end()
        gap = _GAP_LABEL if commas else _GAP_INITIAL if len(word[0]) == 1 else _GAP
        following = gap.match(text, end)
        if following is None:
            break
        position = following.end()
    return end


def _name_start(text: str, end: int) -> int:
    """Return the start of the name that ends at `end`; `end` without one."""
    base = max(0, end - _LOOK_BACK)
    start = end
    for word in reversed(list(_WORD.finditer(text, base, end))[-_MAX_WORDS:]):
        gap = text[word.end() : start]
        if gap not in ("", " ", ". ") or not _is_name(text, word, True):
            break
        if gap == ". " and len(word[0]) > 1:  # a stop after a whole word ends a sentence
            break
        start = word.start()
    return start
