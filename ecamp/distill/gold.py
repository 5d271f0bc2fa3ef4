"""Labelled sentences by reference: a gold file contains ids, offsets and labels, but no text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecamp.api.distiller import POLARITIES, Report, Statement
from ecamp.errors import DataError, MissingError

_DIGITS = 12


@dataclass(frozen=True)
class GoldSentence:
    """A labelled sentence of a report.

    Attributes:
        report: Id of the report.
        section: Column or heading that offsets refer to; empty: the whole text.
        start: First character, counted in the section.
        end: End of the sentence, counted in the section.
        digest: `sentence_digest` of the sentence; empty where unknown.
        labels: Statements of the sentence; their spans are counted in the section.
        row: Location in the gold file, for messages.
    """

    report: str
    section: str
    start: int
    end: int
    digest: str
    labels: tuple[Statement, ...]
    row: str


@dataclass(frozen=True)
class PlacedSentence:
    """A labelled sentence located in its report.

    Attributes:
        report: The report.
        start: First character, counted in the report's text.
        end: End of the sentence, counted in the report's text.
        labels: Statements of the sentence; their spans are counted in the report's text.
    """

    report: Report
    start: int
    end: int
    labels: tuple[Statement, ...]

    @property
    def text(self) -> str:
        """The words of the sentence."""
        return self.report.text[self.start : self.end]


def sentence_digest(sentence: str) -> str:
    """Hash a sentence, so that a changed source is noticed."""
    return hashlib.sha256(sentence.encode()).hexdigest()[:_DIGITS]


def read_gold(path: Path) -> list[GoldSentence]:
    """Read a gold file: JSON lines with id, section, start, end, sha256, labels.

    Raises:
        MissingError: There is no such file.
        DataError: A line is not a labelled sentence (names line and field), or there is none.
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such file.")
    sentences = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            row = f"{path.name} line {number}"
            try:
                sentences.append(_sentence(json.loads(line), row))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path} line {number}: not a labelled sentence: {type(error).__name__}: {error}.",
                    "It needs id, section, start, end, and labels with entity, polarity, start, end.",
                ) from error
    if not sentences:
        raise DataError(f"{path}: contains no labelled sentence.")
    return sentences


def _sentence(value: Any, row: str) -> GoldSentence:
    start, end = int(value["start"]), int(value["end"])
    labels = []
    for label in value["labels"]:
        polarity = label["polarity"]
        if polarity not in POLARITIES:
            raise ValueError(f"polarity '{polarity}' is not one of {', '.join(POLARITIES)}")
        first, last = int(label["start"]), int(label["end"])
        if not start <= first < last <= end:
            raise ValueError(f"label {first}..{last} lies outside its sentence {start}..{end}")
        labels.append(Statement(str(label["entity"]), polarity, first, last, value["section"]))
    digest = str(value.get("sha256", ""))
    return GoldSentence(str(value["id"]), value["section"], start, end, digest, tuple(labels), row)


def place_gold(gold: Iterable[GoldSentence], reports: Iterable[Report]) -> list[PlacedSentence]:
    """Locate labelled sentences in their reports, in the order of the gold file.

    Args:
        gold: Labelled sentences.
        reports: Streamed; those without a labelled sentence are not kept.

    Raises:
        DataError: A report or section is missing, or the words of a sentence differ from those that
            were labelled; names the line of the gold file.
    """
    gold = list(gold)
    labelled = {sentence.report for sentence in gold}
    reports_by_id = {report.id: report for report in reports if report.id in labelled}
    return [_placed(sentence, reports_by_id) for sentence in gold]


def _placed(sentence: GoldSentence, reports: dict[str, Report]) -> PlacedSentence:
    report = reports.get(sentence.report)
    if report is None:
        raise DataError(
            f"{sentence.row}: no report '{sentence.report}'.",
            "Are these the reports that were labelled? --id-column selects another column of ids.",
        )
    base = 0
    if sentence.section:
        starts = [part.start for part in report.sections if part.name == sentence.section]
        if not starts:
            raise DataError(
                f"{sentence.row}: report '{report.id}' has no section '{sentence.section}'.",
                f"It has: {', '.join(part.name for part in report.sections) or 'none'}.",
            )
        base = starts[0]
    start, end = base + sentence.start, base + sentence.end
    if sentence.digest and sentence_digest(report.text[start:end]) != sentence.digest:
        raise DataError(
            f"{sentence.row}: report '{report.id}', {sentence.section} {sentence.start}.."
            f"{sentence.end}: the words differ from those that were labelled.",
            "Use the edition of the reports that was labelled; with another one, scores would be wrong.",
        )
    labels = tuple(
        Statement(label.entity, label.polarity, base + label.start, base + label.end, label.section)
        for label in sentence.labels
    )
    return PlacedSentence(report, start, end, labels)
