"""The `consensus` distiller: combines the answers of two distillers to the same reports."""

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
    """Options: the two distillers, and which statements are kept."""

    first: str = Field(description="first distiller: rules, or published?path=FILE")
    second: str = Field(
        description="second distiller; one with & in its options needs --with-option"
    )
    policy: Literal["agree", "first", "union"] = Field(
        default="agree",
        description="agree: entities with the same polarity in both; first: all of the first; "
        "union: all of the first, and entities that only the second names",
    )


class Consensus(Distiller[ConsensusConfig]):
    """Distiller that compares two others by report and entity, on the strongest polarity.

    Two models seldom quote exactly the same span as evidence, so spans are not compared; a
    statement keeps the span and the descriptors of the distiller that it is taken from.
    """

    summary: ClassVar[str] = "statements on which two distillers agree; counts their differences"
    licence: ClassVar[str] = "Apache-2.0"
    citation: ClassVar[str] = "this project, docs/distillation.md"

    def __init__(self, config: Any, variant: str | None = None) -> None:
        super().__init__(config, variant)
        self._counts: Counter[str] = Counter()

    @cached_property
    def _distillers(self) -> tuple[Distiller, Distiller]:
        first, second = (
            make_plugin("ecamp.distillers", PluginRef.parse(text))
            for text in (self.config.first, self.config.second)
        )
        return first, second

    def identity_fields(self) -> dict[str, Any]:
        """Return the policy and the identities of both distillers."""
        distillers = [distiller.identity for distiller in self._distillers]
        return {"policy": self.config.policy, "distillers": distillers}

    def counts(self) -> Mapping[str, int]:
        """Return the number of entities by agreement, then the counts of both distillers."""
        inner = {
            f"{name}: {key}": value
            for name, distiller in zip(("first", "second"), self._distillers, strict=True)
            for key, value in distiller.counts().items()
        }
        return {**self._counts, **inner}

    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        """Yield one result per report; omitted entities are counted as dropped, with the reason."""
        first_reports, second_reports = tee(reports)  # keeps only reports that one has read ahead
        first, second = self._distillers
        for one, two in zip(
            first.distill(first_reports), second.distill(second_reports), strict=True
        ):
            yield self._join(one, two)

    def _join(self, first: Distilled, second: Distilled) -> Distilled:
        if first.error or second.error:
            return self._with_error(first, second)
        polarities, others = (
            strongest_polarity((s.entity, s.polarity) for s in result.statements)
            for result in (first, second)
        )
        differences = {
            entity: _difference(entity, polarities, others) for entity in {**polarities, **others}
        }
        self._counts.update(difference or "agree" for difference in differences.values())
        policy = self.config.policy
        kept = [s for s in first.statements if policy != "agree" or not differences[s.entity]]
        if policy == "union":
            kept += [s for s in second.statements if differences[s.entity] == ONLY_SECOND]
        named = {s.entity for s in kept}
        omitted = Counter(d for entity, d in differences.items() if d and entity not in named)
        kept.sort(key=lambda s: (s.start, s.end))
        dropped = sum_counts([first.dropped, second.dropped, omitted])
        return Distilled(first.id, tuple(kept), dropped)

    def _with_error(self, first: Distilled, second: Distilled) -> Distilled:
        self._counts["one without answer"] += 1
        if self.config.policy != "agree" and not first.error:
            return first
        if self.config.policy == "union" and not second.error:
            return second
        return Distilled(first.id, error=first.error or second.error)


def _difference(entity: str, first: Mapping[str, str], second: Mapping[str, str]) -> str:
    """Describe how two sets of polarities differ on an entity; empty where they agree."""
    if entity not in second:
        return ONLY_FIRST
    if entity not in first:
        return ONLY_SECOND
    return "" if first[entity] == second[entity] else DIFFERS
