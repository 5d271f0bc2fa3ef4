"""Text of a report in a prompt: findings and impression, redacted on request, with offsets kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ecamp.api.distiller import Report, Section
from ecamp.distill.llm.quote_match import NormalizedText
from ecamp.distill.redact import Redacted, cover, private_spans

# Other headings may contain anything, even a name, and are not sent.
_HEADINGS = {"finding": "FINDINGS", "impression": "IMPRESSION", "conclusion": "CONCLUSION"}


@dataclass(frozen=True)
class Passage:
    """One section as it is sent.

    Attributes:
        section: Section of the report.
        sent: Its text as sent; `sent.original_span` maps spans back to the report.
    """

    section: Section
    sent: Redacted

    @cached_property
    def text(self) -> NormalizedText:
        """The text as sent, prepared for quote search."""
        return NormalizedText(self.sent.text)


def passages(report: Report, redacting: bool) -> list[Passage]:
    """List the sections of a report that are not empty.

    Args:
        report: The report.
        redacting: Whether to redact; the whole report is searched, so that a name in another section
            is recognised in these.
    """
    spans = private_spans(report.text) if redacting else []
    return [
        Passage(section, cover(report.text, spans, section.start, section.end))
        for section in report.sections
        if report.text[section.start : section.end].strip()
    ]


def prompt_text(parts: Sequence[Passage]) -> str:
    """Join passages to the text that is filled into a prompt."""
    texts = []
    for part in parts:
        headings = [heading for word, heading in _HEADINGS.items() if word in part.section.name]
        texts.append(": ".join([*filter(None, [" AND ".join(headings)]), part.sent.text]))
    return "\n".join(texts)
