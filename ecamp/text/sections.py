"""Sections of a radiology report: FINDINGS, IMPRESSION and the rest, by their headings."""

from __future__ import annotations

import re

# A heading is capitals (and spaces, slashes, brackets) up to a colon, at the start of a line.
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /()\-]{2,40}?)[ \t]*:", re.MULTILINE)
_SPACE = re.compile(r"\s+")


def split_sections(report: str) -> dict[str, str]:
    """Cut a report at its headings.

    Returns:
        Text by lower-case heading, in order, white space folded; what stands before the first
        heading under `""`. A heading that stands twice has its texts joined.
    """
    marks = list(_HEADING.finditer(report))
    ends = [*(mark.start() for mark in marks), len(report)]
    parts: dict[str, list[str]] = {"": [report[: ends[0]]]}
    for mark, end in zip(marks, ends[1:], strict=True):
        parts.setdefault(mark.group(1).lower(), []).append(report[mark.end() : end])
    joined = {name: _SPACE.sub(" ", " ".join(texts)).strip() for name, texts in parts.items()}
    return {name: text for name, text in joined.items() if text}


def told(report: str) -> str:
    """Findings and impression; where a report has neither heading, its text without headings.

    Some reports name both in one heading (`FINDINGS AND IMPRESSION`), or say `CONCLUSION`.
    """
    sections = split_sections(report)
    kept = [
        text
        for name, text in sections.items()
        if any(word in name for word in ("finding", "impression", "conclusion"))
    ]
    return " ".join(kept or [sections.get("", "") or " ".join(sections.values())]).strip()
