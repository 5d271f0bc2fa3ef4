"""Sentences with labels, by reference: a gold file holds ids, offsets and labels, and no text."""

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
        section: Column or heading in which `start .. end` count; empty = the whole text.
        start, end: Characters of the section.
        digest: Of the sentence, by `sentence_digest`; empty where it is not known.
        labels: Spans count as those of the sentence.
        row: Where it stands, for messages.
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
    """A labelled sentence found in its report; all spans count characters of the report's text."""

    report: Report
    start: int
    end: int
    labels: tuple[Statement, ...]

    @property
    def text(self) -> str:
        """Its words."""
        return self.report.text[self.start : self.end]


def sentence_digest(sentence: str) -> str:
    """Short hash by which a changed source is noticed."""
    return hashlib.sha256(sentence.encode()).hexdigest()[:_DIGITS]


def read_gold(path: Path) -> list[GoldSentence]:
    """Read a gold file: JSON lines with id, section, start, end, sha256, labels.

    Raises:
        MissingError: No such file. DataError: Names line and field.
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
                    f"{path} line {number}: no labelled sentence: {type(error).__name__}: {error}.",
                    "It needs id, section, start, end, and labels with entity, polarity, start, end.",
                ) from error
    if not sentences:
        raise DataError(f"{path}: no sentence.")
    return sentences


def _sentence(value: Any, row: str) -> GoldSentence:
    start, end = int(value["start"]), int(value["end"])
    labels = []
    for label in value["labels"]:
        polarity = label["polarity"]
        if polarity not in POLARITIES:
            raise ValueError(f"polarity '{polarity}' is none of {', '.join(POLARITIES)}")
        first, last = int(label["start"]), int(label["end"])
        if not start <= first < last <= end:
            raise ValueError(f"label {first}..{last} lies outside its sentence {start}..{end}")
        labels.append(Statement(str(label["entity"]), polarity, first, last, value["section"]))
    digest = str(value.get("sha256", ""))
    return GoldSentence(str(value["id"]), value["section"], start, end, digest, tuple(labels), row)


def place_gold(gold: Iterable[GoldSentence], reports: Iterable[Report]) -> list[PlacedSentence]:
    """Find the sentences in their reports, in the order of the gold file.

    Args:
        reports: Streamed; those without a labelled sentence are let go.

    Raises:
        DataError: A report or section is missing, or the sentence has other words than when it was
            labelled; names the line of the gold file.
    """
    gold = list(gold)
    wanted = {sentence.report for sentence in gold}
    known = {report.id: report for report in reports if report.id in wanted}
    return [_placed(sentence, known) for sentence in gold]


def _placed(sentence: GoldSentence, known: dict[str, Report]) -> PlacedSentence:
    report = known.get(sentence.report)
    if report is None:
        raise DataError(
            f"{sentence.row}: no report '{sentence.report}'.",
            "Are these the reports that were labelled? --id-column names another column of ids.",
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
            f"{sentence.end} has other words than when it was labelled.",
            "The reports are of another edition; labels would be misjudged.",
        )
    labels = tuple(
        Statement(one.entity, one.polarity, base + one.start, base + one.end, one.section)
        for one in sentence.labels
    )
    return PlacedSentence(report, start, end, labels)
