"""What of a report a model reads: its told sections, redacted where asked, with the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ecamp.api.distiller import Report, Section
from ecamp.distill.llm.quote_match import NormalizedText
from ecamp.distill.redact import Redacted, cover, private_spans

# Other headings can hold anything, a name too, and are not sent.
_HEADINGS = {"finding": "FINDINGS", "impression": "IMPRESSION", "conclusion": "CONCLUSION"}


@dataclass(frozen=True)
class Passage:
    """One section as it is sent; `sent.original_span` leads back to the report."""

    section: Section
    sent: Redacted

    @cached_property
    def text(self) -> NormalizedText:
        """Its text, to look for words in."""
        return NormalizedText(self.sent.text)


def passages(report: Report, redacting: bool) -> list[Passage]:
    """The sections of a report that are not empty; names and dates are looked for in all of it."""
    spans = private_spans(report.text) if redacting else []
    return [
        Passage(section, cover(report.text, spans, section.start, section.end))
        for section in report.sections
        if report.text[section.start : section.end].strip()
    ]


def prompt_of(parts: Sequence[Passage]) -> str:
    """The text that a prompt gets."""
    texts = []
    for part in parts:
        said = [heading for word, heading in _HEADINGS.items() if word in part.section.name]
        texts.append(": ".join([*filter(None, [" AND ".join(said)]), part.sent.text]))
    return "\n".join(texts)
