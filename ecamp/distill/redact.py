"""Redaction of report text before it leaves the machine; only the standard library.

Names, dates, times, ids, phone numbers, network addresses and ages over 89 are replaced by marks that
name their kind (`[DATE]`), following the identifiers listed by HIPAA's safe harbour (45 CFR
164.514(b)(2)). Measurements are kept. Redaction works by rules, so a name that nothing announces
("Smith agrees") is missed: see docs/distillation.md.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ecamp.distill.person_names import name_spans

# Where spans of two kinds overlap, the mark names the kind that comes first here.
KINDS = ("EMAIL", "URL", "PHONE", "DATE", "TIME", "ID", "NAME", "AGE")

_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = r"(?:0?[1-9]|1[0-2])"
_YEAR = r"(?:19|20)\d\d"
# "may" and "MAY" occur in every report: alone they are a month only when capitalised.
_NAMED = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|(?-i:May)|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_NTH = rf"{_DAY}(?:st|nd|rd|th)?\b"
# Not followed by a unit: the number is not a measurement.
_FREE = (
    r"(?!\s*(?:(?:mm|cm|m|ml|cc|mg|mgy|kg|hu|kv|kvp|mas|suv|x|degrees?|percent|weeks?|days?|months?)\b"
    r"|[%\u00d7\u00b0]))"
)
_NUMBER = r"(?:number|no\.?|#)"
_ALONE = r"(?![\w/-]|\.\d)"

_PATTERNS = [
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("EMAIL", r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"),
        ("URL", r"(?<!\w)(?:(?:https?|ftp)://|www\.)[^\s<>\"\[\]]+(?<![.,;:!?)])"),
        ("PHONE", r"(?<![\w.])(?:\+?\d{1,3}[-. ])?(?:\(\d{3}\)[ ]?|\d{3}[-. ])\d{3}[-. ]\d{4}" + _ALONE),
        ("PHONE", r"(?<![\w.])\+\d(?:[-. ()]{0,2}\d){7,14}" + _ALONE),
        ("PHONE", rf"(?<![\w.-])[2-9]\d\d-\d{{4}}{_ALONE}{_FREE}"),
        ("PHONE", r"\b(?:phone|telephone|tel|fax|pager|beeper|cell|mobile|ext(?:ension)?)\b\.?"
                  rf"\s*+{_NUMBER}?\s*+:?\s*+(?P<hide>(?>\d(?:[() -]{{0,2}}\d){{3,14}})){_ALONE}{_FREE}"),
        ("DATE", rf"(?<![\w./-])(?:{_MONTH}([/-]){_DAY}\1|{_DAY}([/-]){_MONTH}\2)"
                 rf"(?:{_YEAR}|\d\d){_ALONE}{_FREE}"),
        ("DATE", rf"(?<![\w./-])(?:{_DAY}\.{_MONTH}\.{_YEAR}|\d\d\.(?:0[1-9]|1[0-2])\.\d\d){_ALONE}{_FREE}"),
        ("DATE", rf"(?<![\w./-]){_YEAR}([-/.]){_MONTH}\1{_DAY}(?![\d/-]|\.\d)"),
        ("DATE", rf"(?<![\w./-]){_MONTH}/{_YEAR}{_ALONE}"),
        ("DATE", r"(?<!\d)(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)"),
        ("DATE", rf"\b{_NAMED}\s+{_NTH}(?:,?\s+{_YEAR}\b)?(?![\w/-]|\.\d){_FREE}"),
        ("DATE", rf"(?<![\w./-]){_NTH}(?:\s+of)?[\s-]+{_NAMED}(?:[\s,-]+(?:{_YEAR}|'?\d\d)\b{_FREE})?"),
        ("DATE", rf"\b{_NAMED},?\s+(?:of\s+)?{_YEAR}\b"),
        ("DATE", rf"\bmay\s+{_NTH},?\s+{_YEAR}\b|(?<![\w./-]){_NTH}[\s-]+may[\s,-]+{_YEAR}\b"),
        ("DATE", r"\b(?:(?:on|dated?|since|comparison|compared\s+(?:to|with)|performed|obtained)"
                 r"|(?:study|exam(?:ination)?|radiographs?|films?|x-?rays?|ct|cxr|mri?)\s+(?:of|from|on|dated))"
                 rf"(?:\s*+:)?\s++(?:the\s+)?(?P<hide>{_MONTH}/{_DAY}){_ALONE}{_FREE}"),
        ("TIME", r"(?<![\w:.])(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?:\s*[ap]\.?m\b)?"
                 r"(?![\w:])(?!\s*(?:o'?clock|position))"),
        ("TIME", r"(?<![\w.])(?:0?[1-9]|1[0-2])\s*[ap](?:m\b|\.m\.)"),
        ("TIME", r"(?<![\w.])(?:[01]\d|2[0-3])[0-5]\d\s*(?:hours|hrs|h)\b"),
        ("ID", rf"\b(?:mrn|medical\s+record(?:\s+{_NUMBER})?|accession(?:\s+{_NUMBER})?|acc\.?\s*#|ssn"
               rf"|social\s+security(?:\s+{_NUMBER})?|(?:patient|study|exam|order|visit|unit)\s+(?:id|{_NUMBER})"
               rf"|(?:account|encounter)\s+{_NUMBER})(?!\w)\s*+[:#=]?\s*+(?:is\s++)?"
               r"(?P<hide>(?=[a-z_-]{0,12}\d)[\w-]+)"),
        ("ID", r"(?<![\w.])(?:[a-z]{1,6}[-_]?\d{6,}+|\d{7,}+|\d{3}-\d\d-\d{4})(?!\.\d)\w*"),
        ("ID", r"(?<![\w.])\d+(?:\.\d+){3,}(?!\w)"),
        ("AGE", r"(?<![\w./-])(?P<hide>9\d|1[0-4]\d)"
                r"(?:[\s-]*(?:years?|yrs?)\b|\s*y\.?\s?/?o\b|\s*y\.\s?o\.|[\s-]+(?:male|female|man|woman)\b)"),
        ("AGE", r"\b(?:age|aged)\b\s*+:?\s*+(?P<hide>9\d|1[0-4]\d)" + _ALONE),
    )
]  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """One mark, and the span that it replaces.

    Attributes:
        kind: One of `KINDS`.
        start: First character of the span in the original text.
        end: End of the span in the original text.
        mark_start: First character of the mark in the redacted text.
    """

    kind: str
    start: int
    end: int
    mark_start: int

    @property
    def mark_end(self) -> int:
        """End of the mark in the redacted text."""
        return self.mark_start + len(self.kind) + 2


@dataclass(frozen=True)
class Redacted:
    """A redacted text, or a part of one, that maps spans back to the original.

    Attributes:
        text: Redacted text, which may leave the machine.
        marks: Marks in text order.
        start: First character of the part in the original text.
    """

    text: str
    marks: tuple[Mark, ...] = ()
    start: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> number of marks."""
        return dict(Counter(mark.kind for mark in self.marks))

    def original_span(self, start: int, end: int) -> tuple[int, int] | None:
        """Map a span of the redacted text to the original text.

        A span may contain whole marks, which map to the words that they hide; a span that cuts a mark
        has no original: None.
        """
        first, last = self._original(start), self._original(end)
        if first[0] != first[1] or last[0] != last[1]:
            return None
        return first[0], last[0]

    def widened_span(self, start: int, end: int) -> tuple[int, int]:
        """Map a span as `original_span` does, but widen it to whole marks where it cuts one."""
        return self._original(start)[0], self._original(end)[1]

    def _original(self, position: int) -> tuple[int, int]:
        """Map a position to the original text; within a mark, to both ends of the hidden span."""
        index = bisect_right(self.marks, position, key=lambda mark: mark.mark_start) - 1
        if index < 0:
            return (self.start + position,) * 2
        mark = self.marks[index]
        if mark.mark_start < position < mark.mark_end:
            return mark.start, mark.end
        if position == mark.mark_start:
            return mark.start, mark.start
        return (mark.end + position - mark.mark_end,) * 2


Span = tuple[int, int, str]  # start, end, kind


def redact(text: str) -> Redacted:
    """Replace everything that could identify the patient by marks."""
    return cover(text, private_spans(text))


def cover(text: str, spans: Sequence[Span], start: int = 0, end: int | None = None) -> Redacted:
    """Replace spans of a text by marks, and take the part `start .. end` of it.

    Args:
        text: The whole text.
        spans: Result of `private_spans` on the whole text; spans that reach out of the part are cut.
        start: First character of the part.
        end: End of the part; None: end of the text.
    """
    end = len(text) if end is None else end
    pieces, marks, length, covered = [], [], 0, start  # length: of the redacted text so far
    for first, last, kind in spans:
        first, last = max(first, start), min(last, end)
        if first >= last:
            continue
        length += first - covered
        pieces += [text[covered:first], f"[{kind}]"]
        marks.append(Mark(kind, first, last, length))
        length, covered = marks[-1].mark_end, last
    return Redacted("".join([*pieces, text[covered:end]]), tuple(marks), start)


def private_spans(text: str) -> list[Span]:
    """Find the spans of a text that must not leave the machine, in order and without overlap.

    The redacted text is searched again until nothing more is found, since a mark changes the context
    of its neighbours. Names come last, when the rest is hidden: an address may contain one in lower
    case, which would then count as a common word.
    """
    spans: list[Span] = []
    while True:
        redacted = cover(text, spans)
        matches = list(_matches(redacted.text))
        matches = matches or [(*span, "NAME") for span in name_spans(redacted.text)]
        originals = [(*redacted.widened_span(start, end), kind) for start, end, kind in matches]
        merged = _merged([*spans, *originals])
        if merged == spans:
            return spans
        spans = merged


def _matches(text: str) -> Iterator[Span]:
    for kind, pattern in _PATTERNS:
        group = "hide" if "hide" in pattern.groupindex else 0
        for match in pattern.finditer(text):
            yield (*match.span(group), kind)


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end, kind in sorted(spans):
        if merged and start < merged[-1][1]:
            before = merged.pop()
            start, end = before[0], max(before[1], end)
            kind = min(before[2], kind, key=KINDS.index)
        merged.append((start, end, kind))
    return merged
