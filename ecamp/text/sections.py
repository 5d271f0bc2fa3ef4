"""Sections of a radiology report (FINDINGS, IMPRESSION and others), cut at their headings."""

from __future__ import annotations

import re
from collections.abc import Iterator

# A heading consists of capitals (and spaces, slashes, brackets) up to a colon, at the start of a
# line. The common headings count in the middle of a line too: some reports are a single line.
_COMMON = (
    r"(?:CLINICAL |PERTINENT |RADIOGRAPHIC )?(?:FINDINGS?|IMPRESSIONS?|CONCLUSIONS?|INDICATIONS?|"
    r"HISTORY|INFORMATION)|COMPARISONS?|TECHNIQUE|EXAM(?:INATION)?|PROCEDURE|STUDY|DIAGNOSIS|"
    r"REASON FOR (?:THE )?EXAM(?:INATION)?|RECOMMENDATIONS?|NOTIFICATION|ADDENDUM|WET READ"
)
_HEADING = re.compile(  # up to a colon
    rf"(?:^[ \t]*([A-Z][A-Z /()\-]{{2,40}}?)"
    rf"|(?<![\w/-])((?:{_COMMON})(?:(?: AND | ?[/&] ?)(?:{_COMMON}))?))[ \t]*\Z",
    re.MULTILINE,
)
_WINDOW = 120  # a heading with its indentation starts at most this many characters before its colon
_SPACE = re.compile(r"\s+")
_FINDINGS = ("finding", "impression", "conclusion")


def section_spans(report: str) -> list[tuple[str, int, int]]:
    """Cut a report at its headings.

    Returns:
        (lower-case heading, start, end) in text order, in characters; text before the first heading
        under `""`. Spans contain neither the heading nor outer white space; empty sections are left
        out.
    """
    headings = list(_headings(report))
    names = ["", *((heading.group(1) or heading.group(2)).lower() for heading in headings)]
    starts = [0, *(heading.end() + 1 for heading in headings)]
    ends = [*(heading.start() for heading in headings), len(report)]
    spans = []
    for name, start, end in zip(names, starts, ends, strict=True):
        text = report[start:end]
        if stripped := text.strip():
            start += len(text) - len(text.lstrip())
            spans.append((name, start, start + len(stripped)))
    return spans


def _headings(report: str) -> Iterator[re.Match[str]]:
    """Find headings, without their colons. Colons are rare, so looking back from each is fast."""
    searched = 0
    colon = report.find(":")
    while colon >= 0:
        if heading := _HEADING.search(report, max(searched, colon - _WINDOW), colon):
            yield heading
        searched = colon + 1
        colon = report.find(":", searched)


def findings_spans(report: str) -> list[tuple[str, int, int]]:
    """Find the findings and impression sections.

    One heading may name both (`FINDINGS AND IMPRESSION`); `CONCLUSION` counts as well. Without such
    a heading: the text before the first heading, or all sections where there is none.

    Returns:
        As `section_spans`.
    """
    spans = section_spans(report)
    findings = [span for span in spans if any(word in span[0] for word in _FINDINGS)]
    return findings or [span for span in spans if not span[0]] or spans


def split_sections(report: str) -> dict[str, str]:
    """Map headings to section texts.

    Returns:
        Lower-case heading -> text, in order, runs of white space replaced by one space. The texts
        under a repeated heading are joined.
    """
    parts: dict[str, list[str]] = {}
    for name, start, end in section_spans(report):
        parts.setdefault(name, []).append(_SPACE.sub(" ", report[start:end]))
    return {name: " ".join(texts) for name, texts in parts.items()}


def findings_text(report: str) -> str:
    """Join the texts of `findings_spans`, runs of white space replaced by one space."""
    return " ".join(_SPACE.sub(" ", report[start:end]) for _, start, end in findings_spans(report))
