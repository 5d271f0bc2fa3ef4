"""The rules distiller: offline, no model, no network; the default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from pydantic import Field, field_validator

from ecamp.api.distiller import Distilled, Distiller, Report, Statement
from ecamp.api.plugin import PluginConfig
from ecamp.distill.rules.cues import Cues
from ecamp.distill.rules.sentence import Finding, read_sentence
from ecamp.distill.rules.tokens import Phrases
from ecamp.text.lexicon import Lexicon
from ecamp.text.sentences import split_sentences

RULES_VERSION = 1  # raise it whenever the same lexicon and cues give other statements
_CACHED_SENTENCES = 16_384  # reports repeat many sentences
_CACHED_LENGTH = 400  # characters of the longest cached sentence; together they bound the memory


class RulesDistillerConfig(PluginConfig):
    """Options: lexicon, cues and sections."""

    lexicon: str = Field(default="chest", description="name of a shipped lexicon, or a YAML file")
    cues: str = Field(default="english", description="name of shipped cues, or a YAML file")
    sections: tuple[str, ...] = Field(
        default=(), description="read only sections whose name contains one of these; empty: all"
    )
    remember: int = Field(
        default=_CACHED_SENTENCES,
        ge=0,
        description="number of sentences whose statements are cached; 0: none",
    )

    @field_validator("sections", mode="before")
    @classmethod
    def _by_comma(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value


class RulesDistiller(Distiller[RulesDistillerConfig]):
    """Distiller with a lexicon and scopes of negation and uncertainty, as in NegEx and ConText.

    A sentence is cut at commas, conjunctions and clause marks (`clauses.py`); scopes of cues cross these
    connectives by rules of grammar (`scopes.py`); words and cues are data (`ecamp/text/cues`).
    """

    summary = (
        "lexicon with negation and uncertainty scopes; offline, thousands of reports per second"
    )
    licence = "Apache-2.0"
    citation = (
        "docs/distillation.md; after NegEx (Chapman et al. 2001), ConText (Harkema et al. 2009)"
    )

    def __init__(self, config: Any, variant: str | None = None) -> None:
        super().__init__(config, variant)
        self._lexicon = Lexicon.load(config.lexicon)
        self._cues = Cues.load(config.cues)
        self._phrases = Phrases(self._lexicon, self._cues)
        self._read_cached = lru_cache(config.remember)(self._read)

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
        selected = [name.lower() for name in self.config.sections]
        for section in report.sections:
            if selected and not any(name in section.name for name in selected):
                continue
            text = report.text[section.start : section.end]
            for start, end in split_sentences(text):
                sentence = text[start:end]
                short = len(sentence) <= _CACHED_LENGTH
                offset = section.start + start
                for entity, polarity, first, last, descriptors in (
                    self._read_cached(sentence) if short else self._read(sentence)
                ):
                    yield Statement(
                        entity, polarity, offset + first, offset + last, section.name, descriptors
                    )

    def _read(self, sentence: str) -> tuple[Finding, ...]:
        return read_sentence(sentence, self._phrases)
