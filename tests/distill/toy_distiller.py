"""A distiller of a dozen lines, for tests of the code around distillers.

A word of `WORDS` is found in each sentence of the sections; `no` before it denies, `may` hedges.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field

from ecamp.api.distiller import Distilled, Distiller, Report, Statement
from ecamp.api.plugin import PluginConfig
from ecamp.text.sentences import split_sentences

WORDS = ("effusion", "nodule", "pneumonia")


class Plugin(Distiller):
    summary = "three words, for tests"
    licence = "Apache-2.0"

    class Config(PluginConfig):
        hedge: bool = Field(default=True, description="know `may`")
        fails: str | int = Field(default="", description="id of a report without answer")
        breaks: str = Field(default="", description="`order`, `lost` or `id`: leave the protocol")
        ahead: int = Field(default=1, description="reports read before the first is answered")

    done = 0

    def counts(self) -> Mapping[str, int]:
        return {"asked": self.done}

    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        held: list[Report] = []
        for report in reports:
            held.append(report)
            if len(held) >= self.config.ahead:
                yield self._one(held.pop(0))
        if self.config.breaks != "lost":
            yield from map(self._one, held)

    def _one(self, report: Report) -> Distilled:
        if report.id == os.environ.get("TOY_HALTS_AT"):
            time.sleep(3600)
        self.done += 1
        if report.id == str(self.config.fails):
            return Distilled(report.id, error="no answer")
        identifier = "other" if self.config.breaks == "id" else report.id
        statements = [s for part in report.sections for s in self._in(report, part)]
        dropped = {"a zebra": 1} if "zebra" in report.text else {}
        return Distilled(identifier, tuple(sorted(statements, key=lambda s: s.start)), dropped)

    def _in(self, report, part):
        text = report.text[part.start : part.end]
        for first, last in split_sentences(text):
            sentence = text[first:last].lower()
            for word in WORDS:
                position = sentence.find(word)
                if position >= 0:
                    polarity = "absent" if "no " in sentence[:position] else "present"
                    if self.config.hedge and "may " in sentence[:position]:
                        polarity = "possible"
                    start = part.start + first + position
                    yield Statement(word, polarity, start, start + len(word), part.name)
