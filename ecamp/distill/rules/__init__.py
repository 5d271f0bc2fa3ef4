"""The rules distiller: offline, no model, no network; the default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from pydantic import Field, field_validator

from ecamp.api.distiller import Distilled, Distiller, Report, Statement
from ecamp.api.plugin import PluginConfig
from ecamp.distill.rules.cues import load_cues
from ecamp.distill.rules.sentence import Found, read_sentence
from ecamp.distill.rules.tokens import Phrases
from ecamp.text.lexicon import load_lexicon
from ecamp.text.sentences import split_sentences

RULES_VERSION = 1  # bump whenever the same lexicon and cues say something else
_REMEMBERED = 16_384  # sentences; reports repeat many
_REMEMBERED_LENGTH = 400  # characters of the longest; together they bound the memory


class RulesDistillerConfig(PluginConfig):
    """What is looked for, in which words, and where."""

    lexicon: str = Field(default="chest", description="a shipped lexicon's name or a YAML file")
    cues: str = Field(default="english", description="shipped cues' name or a YAML file")
    sections: tuple[str, ...] = Field(
        default=(), description="only sections whose name holds one of these; all when empty"
    )
    remember: int = Field(
        default=_REMEMBERED, ge=0, description="sentences kept with their statements; 0: none"
    )

    @field_validator("sections", mode="before")
    @classmethod
    def _by_comma(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


class RulesDistiller(Distiller[RulesDistillerConfig]):
    """Lexicon, negation and uncertainty scopes in the NegEx/ConText family.

    A sentence is cut at commas, conjunctions and clause marks (`clauses.py`); cues reach over these
    joints by rules of grammar (`scopes.py`); words and cues are data (`ecamp/text/cues`).
    """

    summary = "lexicon with negation and uncertainty scopes; offline, thousands of reports a second"
    licence = "Apache-2.0"
    citation = (
        "docs/distillation.md; after NegEx (Chapman et al. 2001), ConText (Harkema et al. 2009)"
    )

    def __init__(self, config: Any, variant: str | None = None) -> None:
        super().__init__(config, variant)
        self._lexicon = load_lexicon(config.lexicon)
        self._cues = load_cues(config.cues)
        self._phrases = Phrases(self._lexicon, self._cues)
        self._remembered = lru_cache(config.remember)(self._read)

    def identity_fields(self) -> dict[str, Any]:
        return {
            "rules": RULES_VERSION,
            "lexicon": self._lexicon.digest(),
            "cues": self._cues.digest(),
            "sections": sorted(name.lower() for name in self.config.sections),
        }

    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        for report in reports:
            yield Distilled(report.id, tuple(self._statements(report)))

    def _statements(self, report: Report) -> Iterator[Statement]:
        wanted = [name.lower() for name in self.config.sections]
        for section in report.sections:
            if wanted and not any(name in section.name for name in wanted):
                continue
            text = report.text[section.start : section.end]
            for start, end in split_sentences(text):
                sentence = text[start:end]
                short = len(sentence) <= _REMEMBERED_LENGTH
                at = section.start + start
                for entity, polarity, first, stop, descriptors in (
                    self._remembered(sentence) if short else self._read(sentence)
                ):
                    yield Statement(
                        entity, polarity, at + first, at + stop, section.name, descriptors
                    )

    def _read(self, sentence: str) -> tuple[Found, ...]:
        return read_sentence(sentence, self._phrases)
