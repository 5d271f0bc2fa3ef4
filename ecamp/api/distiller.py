"""Distillers: reports with their sections, statements with their evidence.

Needs no more than the standard library and pydantic.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecamp.api.plugin import ConfigT, Plugin

# By rank: where a report makes several statements about one entity, the first of these counts.
POLARITIES = ("present", "possible", "absent")
SENTENCES = {
    "present": "There is {}.",
    "possible": "There may be {}.",
    "absent": "There is no {}.",
}  # the published answers (arXiv 2312.13316, section 3.2)
DESCRIPTORS = ("severity", "side", "zone", "size", "change", "kind")


@dataclass(frozen=True)
class Section:
    """A part of a report: characters `start .. end` of its text, without the heading itself.

    Attributes:
        name: Lower-case heading (`findings`), or `""` where there is none.
    """

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Report:
    """One report.

    Attributes:
        id: As in the source (`study_id`, `uid`, file name, row number).
        text: All of it; every span of a statement counts characters of this.
        sections: Sections that distillers read, in order (findings and impression where named, else all).
        row: Its location in the source, for messages (`reports.csv line 17`).
    """

    id: str
    text: str
    sections: tuple[Section, ...]
    row: str = ""


@dataclass(frozen=True)
class Statement:
    """One statement of a report about one entity.

    Attributes:
        entity: Canonical name in the lexicon (`effusion`).
        polarity: One of `POLARITIES`.
        start, end: Span of the words that name the entity, in characters of the report's text.
        section: Name of the section that contains them.
        descriptors: (kind, words) pairs, kinds of `DESCRIPTORS`, in text order: `("side", "left")`.
    """

    entity: str
    polarity: str
    start: int
    end: int
    section: str = ""
    descriptors: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Distilled:
    """All statements of one report.

    Attributes:
        id: That of the report.
        statements: In text order.
        dropped: Reason -> number of answers that were refused (`span not in report`).
        error: Why there is no result; empty when there is one.
    """

    id: str
    statements: tuple[Statement, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    error: str = ""

    @property
    def text(self) -> str:
        """The text that the method inserts: one template sentence per entity, in text order."""
        return template_text((s.entity, s.polarity) for s in self.statements)

    def as_json(self, report: Report) -> dict[str, Any]:
        """Return one row of a distilled file; `evidence` repeats the words of the span."""
        statements = [
            {
                "entity": s.entity,
                "polarity": s.polarity,
                "section": s.section,
                "start": s.start,
                "end": s.end,
                "evidence": report.text[s.start : s.end],
                "descriptors": [list(pair) for pair in s.descriptors],
            }
            for s in self.statements
        ]
        row: dict[str, Any] = {"id": self.id, "text": self.text, "statements": statements}
        if self.dropped:
            row["dropped"] = dict(sorted(self.dropped.items()))
        if self.error:
            row["error"] = self.error
        return row


def strongest_polarity(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Reduce statements to one polarity per entity: present before possible before absent.

    Args:
        pairs: (entity, polarity) of every statement.

    Returns:
        Entity -> polarity, in the order in which entities are first named.
    """
    found: dict[str, str] = {}
    for entity, polarity in pairs:
        before = found.get(entity)
        if before is None or POLARITIES.index(polarity) < POLARITIES.index(before):
            found[entity] = polarity
    return found


def template_text(pairs: Iterable[tuple[str, str]]) -> str:
    """Write the published answer for a report: `There is X. There may be Y. There is no Z.`"""
    return " ".join(SENTENCES[p].format(entity) for entity, p in strongest_polarity(pairs).items())


def sum_counts(drops: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Add up the counts of several reports."""
    total: dict[str, int] = {}
    for drop in drops:
        for reason, count in drop.items():
            total[reason] = total.get(reason, 0) + count
    return total


class Distiller(Plugin[ConfigT]):
    """Plugin that turns reports into entity-centred statements (arXiv 2312.13316, section 3.2).

    The statements of a report depend on that report alone, not on other reports or their order.
    """

    @abstractmethod
    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        """Yield one result per report, in the order of the reports.

        Streams: a bounded number of reports is held, so that a million of them fit. A report that
        cannot be distilled gives a result with `error`; the others are not affected.
        """

    def counts(self) -> Mapping[str, int]:
        """Return counts for the summary (requests, retries, cached answers, tokens); empty as here."""
        return {}
