"""The `published` distiller: looks up the answers that the authors published.

Two layouts: JSON that maps study ids to texts, and the table of their pre-training code with
`img_path, report, llm_output` (the path contains the study: `.../s50414267/...jpg`). A text consists
of template sentences, `There is X. There may be Y. There is no Z.` (arXiv 2312.13316, section 3.1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ecamp.api.distiller import Distilled, Distiller, Report, Section, Statement, sum_counts
from ecamp.api.plugin import PluginConfig
from ecamp.errors import DataError, MissingError
from ecamp.storage.files import content_hash
from ecamp.text.lexicon import Lexicon
from ecamp.text.reports import cell, column_names, read_rows
from ecamp.text.sentences import split_sentences

_POLARITY = {
    "is no": "absent",
    "are no": "absent",
    "may be": "possible",
    "is": "present",
    "are": "present",
}
_SENTENCE = re.compile(r"there\s+(is\s+no|are\s+no|may\s+be|is|are)\s+(.+?)[\s.]*", re.IGNORECASE)
_STUDY = re.compile(r"(?:.*/)?s(\d+)(?:/[^/]*|\.\w+)?")
NO_TEMPLATE, NO_ENTITY = "no template sentence", "no entity of the lexicon"
NO_ANSWER = "no published answer"


class PublishedAnswersConfig(PluginConfig):
    """Options: the file, and the lexicon it is read with."""

    path: str = Field(
        description="file with the answers: JSON of study id -> text, or CSV with img_path, llm_output"
    )
    lexicon: str = Field(default="chest", description="entities: chest, fundus, or a YAML file")


class PublishedAnswers(Distiller[PublishedAnswersConfig]):
    """Distiller that looks up each report's answer by id and locates its entities in the report."""

    summary: ClassVar[str] = "the authors' published answers, from their file"
    licence: ClassVar[str] = "that of the file (derived from MIMIC-CXR: credentialed)"
    citation: ClassVar[str] = "Wang et al., ECAMP, Medical Image Analysis 105:103690, 2025"

    def identity_fields(self) -> dict[str, Any]:
        """Return the hashes of the file and of the lexicon."""
        return {
            "file": content_hash(Path(self.config.path).expanduser()),
            "lexicon": Lexicon.load(self.config.lexicon).digest(),
        }

    @cached_property
    def _answers(self) -> dict[str, str]:
        return read_answers(Path(self.config.path).expanduser())

    @cached_property
    def _entities(self) -> dict[str, str]:
        """Surface form -> entity."""
        entities = Lexicon.load(self.config.lexicon).entities
        return {form: name for name, forms in entities.items() for form in (name, *forms)}

    @cached_property
    def _forms(self) -> re.Pattern[str]:
        longest = sorted(self._entities, key=lambda form: (-len(form), form))
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)", re.IGNORECASE)

    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        """Yield one result per report; a report that is not in the file gives an error."""
        for report in reports:
            answer = self._answers.get(report.id.removeprefix("s"))
            if answer is None:
                yield Distilled(report.id, error=NO_ANSWER)
            else:
                yield self._read(report, answer)

    def _read(self, report: Report, answer: str) -> Distilled:
        mentions = self._first_mentions(report)
        statements, drops = [], []
        for start, end in split_sentences(answer):
            match = _SENTENCE.fullmatch(answer, start, end)
            forms = self._forms.findall(match[2]) if match else []
            if match is None:
                drops.append({NO_TEMPLATE: 1})
            elif not forms:
                drops.append({NO_ENTITY: 1})
            else:
                polarity = _POLARITY[" ".join(match[1].lower().split())]
                for entity in dict.fromkeys(self._entities[form.lower()] for form in forms):
                    first, last, section = mentions.get(entity, (0, 0, ""))
                    statements.append(Statement(entity, polarity, first, last, section))
        # A stable sort: entities that the report does not name keep their order, before the others.
        statements.sort(key=lambda statement: statement.start)
        return Distilled(report.id, tuple(statements), sum_counts(drops))

    def _first_mentions(self, report: Report) -> Mapping[str, tuple[int, int, str]]:
        """Find where the report first names each entity: (start, end, section).

        The file contains no evidence, so this is a guess; an entity in words that the lexicon does
        not list is not found, and its statement gets an empty span at 0.
        """
        mentions: dict[str, tuple[int, int, str]] = {}
        for part in report.sections or (Section("", 0, len(report.text)),):
            for match in self._forms.finditer(report.text, part.start, part.end):
                mention = (match.start(), match.end(), part.name)
                mentions.setdefault(self._entities[match[0].lower()], mention)
        return mentions


def read_answers(path: Path) -> dict[str, str]:
    """Read the published answers.

    Returns:
        Study number (without `s`) -> text.

    Raises:
        MissingError: There is no such file.
        DataError: The file has neither of the two layouts; names the line.
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such file.", "The authors' repository links to it.")
    if path.suffix != ".json":
        return _read_table(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: must be a JSON object that maps study ids to texts.")
    return {str(key).removeprefix("s"): str(text) for key, text in value.items()}


def _read_table(path: Path) -> dict[str, str]:
    names = column_names(path)
    for name in ("img_path", "llm_output"):
        if name not in names:
            raise DataError(
                f"{path}: no column '{name}'.", f"The file has: {', '.join(names) or 'none'}."
            )
    texts: dict[str, str] = {}
    for row in read_rows(path):
        study = _STUDY.fullmatch(cell(row, "img_path", path).strip())
        if study is None:
            raise DataError(
                f"{path} line {row.number}: no study in 'img_path'.",
                "The path must contain /s<number>/.",
            )
        texts[study[1]] = cell(row, "llm_output", path)
    return texts
