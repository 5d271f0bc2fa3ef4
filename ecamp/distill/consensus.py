"""The `consensus` distiller: two distillers on the same reports, and what becomes of differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import tee
from typing import Any, ClassVar, Literal

from pydantic import Field

from ecamp.api.distiller import Distilled, Distiller, Report, strongest_polarity, sum_counts
from ecamp.api.plugin import PluginConfig
from ecamp.api.plugin_ref import PluginRef
from ecamp.plugin.host import make_plugin

DIFFERS, ONLY_FIRST, ONLY_SECOND = "polarity differs", "only first", "only second"


class ConsensusConfig(PluginConfig):
    """The two, and what is kept."""

    first: str = Field(description="a distiller: rules, or published?path=FILE")
    second: str = Field(description="another one; an & in it needs --with-option")
    policy: Literal["agree", "first", "union"] = Field(
        default="agree",
        description="agree: entities with one polarity in both; first: all of the first; "
        "union: of the first, and entities that only the second names",
    )


class Consensus(Distiller[ConsensusConfig]):
    """Compares by report and entity: the polarity that decides the inserted text.

    A model's evidence seldom has the very span of another's, so that spans are not compared; a
    statement keeps the span, and the descriptors, of the distiller that it is taken from.
    """

    summary: ClassVar[str] = "what two distillers agree on; counts where they differ"
    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = "this project, docs/distillation.md"

    def __init__(self, config: Any, variant: str | None = None) -> None:
        super().__init__(config, variant)
        self._counts: Counter[str] = Counter()

    @cached_property
    def _both(self) -> tuple[Distiller, Distiller]:
        first, second = (
            make_plugin("ecamp.distillers", PluginRef.parse(text))
            for text in (self.config.first, self.config.second)
        )
        return first, second

    def identity_fields(self) -> dict[str, Any]:
        """Policy, and what decides each of the two."""
        names = (self.config.first, self.config.second)
        pairs = [
            [PluginRef.parse(name).name, one.identity_fields()]
            for name, one in zip(names, self._both, strict=True)
        ]
        return {"policy": self.config.policy, "distillers": pairs}

    def counts(self) -> Mapping[str, int]:
        """Entities of reports, by agreement; then the counts of the two."""
        inner = {
            f"{name}: {key}": value
            for name, one in zip(("first", "second"), self._both, strict=True)
            for key, value in one.counts().items()
        }
        return {**self._counts, **inner}

    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        """One result a report; what is left out is counted as dropped, with the reason."""
        ours, theirs = tee(reports)  # holds only what one of the two has read ahead
        first, second = self._both
        for one, two in zip(first.distill(ours), second.distill(theirs), strict=True):
            yield self._join(one, two)

    def _join(self, one: Distilled, two: Distilled) -> Distilled:
        if one.error or two.error:
            return self._with_error(one, two)
        mine, yours = (
            strongest_polarity((s.entity, s.polarity) for s in each.statements)
            for each in (one, two)
        )
        verdicts = {entity: _verdict(entity, mine, yours) for entity in {**mine, **yours}}
        self._counts.update(verdict or "agree" for verdict in verdicts.values())
        policy = self.config.policy
        kept = [s for s in one.statements if policy != "agree" or not verdicts[s.entity]]
        if policy == "union":
            kept += [s for s in two.statements if verdicts[s.entity] == ONLY_SECOND]
        named = {s.entity for s in kept}
        lost = Counter(v for entity, v in verdicts.items() if v and entity not in named)
        kept.sort(key=lambda s: (s.start, s.end))
        return Distilled(one.id, tuple(kept), sum_counts([one.dropped, two.dropped, lost]))

    def _with_error(self, one: Distilled, two: Distilled) -> Distilled:
        self._counts["one without answer"] += 1
        if self.config.policy != "agree" and not one.error:
            return one
        if self.config.policy == "union" and not two.error:
            return two
        return Distilled(one.id, error=one.error or two.error)


def _verdict(entity: str, mine: Mapping[str, str], yours: Mapping[str, str]) -> str:
    """How the two differ on an entity; empty where they agree."""
    if entity not in yours:
        return ONLY_FIRST
    if entity not in mine:
        return ONLY_SECOND
    return "" if mine[entity] == yours[entity] else DIFFERS
