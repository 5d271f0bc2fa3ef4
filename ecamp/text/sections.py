"""Sections of a radiology report: FINDINGS, IMPRESSION and the rest, by their headings."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A heading is capitals (and spaces, slashes, brackets) up to a colon, at the start of a line. One of
# the usual headings counts in the middle of a line too, where a report is written in one.
_USUAL = (
    r"(?:CLINICAL |PERTINENT |RADIOGRAPHIC )?(?:FINDINGS?|IMPRESSIONS?|CONCLUSIONS?|INDICATIONS?|"
    r"HISTORY|INFORMATION)|COMPARISONS?|TECHNIQUE|EXAM(?:INATION)?|PROCEDURE|STUDY|DIAGNOSIS|"
    r"REASON FOR (?:THE )?EXAM(?:INATION)?|RECOMMENDATIONS?|NOTIFICATION|ADDENDUM|WET READ"
)
_HEADING = re.compile(  # up to a colon
    rf"(?:^[ \t]*([A-Z][A-Z /()\-]{{2,40}}?)"
    rf"|(?<![\w/-])((?:{_USUAL})(?:(?: AND | ?[/&] ?)(?:{_USUAL}))?))[ \t]*\Z",
    re.MULTILINE,
)
_WINDOW = 120  # characters before a colon in which its heading starts, indentation included
_SPACE = re.compile(r"\s+")
_TOLD = ("finding", "impression", "conclusion")


def section_spans(report: str) -> list[tuple[str, int, int]]:
    """Cut a report at its headings.

    Returns:
        (lower-case heading, start, end) in text order; what stands before the first heading under
        `""`. Spans hold neither the heading nor outer white space; empty sections are left out.
    """
    marks = list(_headings(report))
    names = ["", *((mark.group(1) or mark.group(2)).lower() for mark in marks)]
    starts = [0, *(mark.end() + 1 for mark in marks)]
    ends = [*(mark.start() for mark in marks), len(report)]
    spans = []
    for name, start, end in zip(names, starts, ends, strict=True):
        text = report[start:end]
        if stripped := text.strip():
            start += len(text) - len(text.lstrip())
            spans.append((name, start, start + len(stripped)))
    return spans


def _headings(report: str) -> Iterator[re.Match[str]]:
    """Headings without their colons. Colons are rare: looking back from each is quick."""
    before = 0
    at = report.find(":")
    while at >= 0:
        if mark := _HEADING.search(report, max(before, at - _WINDOW), at):
            yield mark
        before = at + 1
        at = report.find(":", before)


def findings_spans(report: str) -> list[tuple[str, int, int]]:
    """The sections that say what the image shows: findings and impression.

    Some reports name both in one heading (`FINDINGS AND IMPRESSION`), or say `CONCLUSION`. Where
    there is no such heading: what stands before the first heading, else all sections.
    """
    spans = section_spans(report)
    kept = [span for span in spans if any(word in span[0] for word in _TOLD)]
    return kept or [span for span in spans if not span[0]] or spans


def split_sections(report: str) -> dict[str, str]:
    """Sections as texts.

    Returns:
        Text by lower-case heading, in order, white space folded. A heading that stands twice has
        its texts joined.
    """
    parts: dict[str, list[str]] = {}
    for name, start, end in section_spans(report):
        parts.setdefault(name, []).append(_SPACE.sub(" ", report[start:end]))
    return {name: " ".join(texts) for name, texts in parts.items()}


def findings_text(report: str) -> str:
    """The texts of `told_spans`, headings left out, white space folded."""
    return " ".join(_SPACE.sub(" ", report[start:end]) for _, start, end in findings_spans(report))
