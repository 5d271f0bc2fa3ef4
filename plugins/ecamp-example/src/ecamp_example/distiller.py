"""A distiller that looks for words; `no` earlier in the sentence denies them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pydantic import Field

from ecamp.api import Distilled, Distiller, PluginConfig, Report, Section, Statement

SENTENCE = re.compile(r"[^.;!?]+")
DENIAL = re.compile(r"\b(no|without)\b")


class WordsConfig(PluginConfig):
    """Words to look for."""

    words: list[str] = Field(
        default=["effusion", "nodule", "pneumonia"],
        min_length=1,
        description="entities, lower case",
    )


class Words(Distiller[WordsConfig]):
    """Each word of a list is an entity; the statements of a report depend on that report alone."""

    summary = "a list of words, denied by `no` or `without` before them"
    licence = "Apache-2.0"
    citation = "this package"

    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        for report in reports:
            found = [s for part in report.sections for s in self._statements(report, part)]
            yield Distilled(report.id, tuple(sorted(found, key=lambda s: s.start)))

    def _statements(self, report: Report, section: Section) -> Iterator[Statement]:
        text = report.text[section.start : section.end].lower()
        for sentence in SENTENCE.finditer(text):
            denial = DENIAL.search(sentence[0])
            for word in self.config.words:
                for match in re.finditer(rf"\b{re.escape(word)}\b", sentence[0]):
                    start = section.start + sentence.start() + match.start()
                    absent = denial is not None and denial.start() < match.start()
                    polarity = "absent" if absent else "present"
                    yield Statement(word, polarity, start, start + len(word), section.name)
