"""What a distiller reads and finds: reports with their sections, statements with their evidence.

Only the standard library: every distiller, reader and writer shares these words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# By rank: where a report says several things of one entity, the first of these counts.
POLARITIES = ("present", "possible", "absent")
SENTENCES = {
    "present": "There is {}.",
    "possible": "There may be {}.",
    "absent": "There is no {}.",
}  # the published answers, METHOD section 1
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
        sections: What distillers read, in order (findings and impression where named, else all).
        row: Where it stands in its source, for messages (`reports.csv line 17`).
    """

    id: str
    text: str
    sections: tuple[Section, ...]
    row: str = ""


@dataclass(frozen=True)
class Statement:
    """One thing that a report says of one entity.

    Attributes:
        entity: Canonical name in the lexicon (`effusion`).
        polarity: One of `POLARITIES`.
        start, end: The words that name the entity, characters of the report's text.
        section: Name of the section that they stand in.
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
    """What a distiller makes of one report.

    Attributes:
        id: That of the report.
        statements: In text order.
        dropped: Reason -> number of answers that were refused (`span not in report`).
        error: Why there is no answer; empty when there is one.
    """

    id: str
    statements: tuple[Statement, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    error: str = ""

    @property
    def text(self) -> str:
        """The text that the method inserts: one template sentence an entity, in text order."""
        return template_text((s.entity, s.polarity) for s in self.statements)

    def as_json(self, report: Report) -> dict[str, Any]:
        """One row of a distilled file; `evidence` repeats the words of the span."""
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


def strongest(said: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Entity -> polarity of a whole report: present before possible before absent.

    Args:
        said: (entity, polarity) pairs.

    Returns:
        Entities in the order in which they are first named.
    """
    found: dict[str, str] = {}
    for entity, polarity in said:
        before = found.get(entity)
        if before is None or POLARITIES.index(polarity) < POLARITIES.index(before):
            found[entity] = polarity
    return found


def template_text(said: Iterable[tuple[str, str]]) -> str:
    """The published answer to a report: `There is X. There may be Y. There is no Z.`"""
    return " ".join(SENTENCES[p].format(entity) for entity, p in strongest(said).items())


def merged(drops: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Counts of several reports in one."""
    total: dict[str, int] = {}
    for drop in drops:
        for reason, count in drop.items():
            total[reason] = total.get(reason, 0) + count
    return total
