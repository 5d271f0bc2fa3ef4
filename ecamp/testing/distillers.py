"""The contract of distillers, part by part (`ecamp.testing.contract`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ecamp.api.distiller import DESCRIPTORS, POLARITIES, Distilled, Report
from ecamp.api.plugin_ref import PluginRef
from ecamp.distill.sources import as_report
from ecamp.plugin.host import make_plugin

DISTILLED = (
    "FINDINGS: There is a small left pleural effusion. No pneumothorax. IMPRESSION: Effusion.",
    "Cardiomegaly, 2.5 cm mass. Pneumonia cannot be excluded. XXXX.\n1. No nodule.",
    "",
    "na\u00efve \u2265 5 \U0001f600 No effusion, No no no effusion versus: ...",
)


def distiller_parts(ref: PluginRef, cache: Path | None) -> Iterator[str]:
    """Check one result per report, in order; spans within the text; the same alone, reordered and twice."""
    reports = [as_report(str(i), text) for i, text in enumerate(DISTILLED)]

    def distil(requested: Sequence[Report]) -> list[Distilled]:
        plugin = make_plugin("ecamp.distillers", ref)
        assert plugin.identity_fields() == make_plugin("ecamp.distillers", ref).identity_fields(), (
            f"{ref}: identity_fields() is not stable"
        )
        return list(plugin.distill(iter(requested)))

    yield "one result per report, in order"
    results = distil(reports)
    assert [result.id for result in results] == [result.id for result in reports], (
        f"{ref}: results and reports"
    )
    yield "statements and their evidence"
    for report, result in zip(reports, results, strict=True):
        starts = [s.start for s in result.statements]
        assert starts == sorted(starts), f"{ref}: statements are not in text order"
        for statement in result.statements:
            assert statement.polarity in POLARITIES, f"{ref}: polarity '{statement.polarity}'"
            assert 0 <= statement.start <= statement.end <= len(report.text), (
                f"{ref}: span outside the text"
            )
            kinds = {kind for kind, _ in statement.descriptors}
            assert kinds <= set(DESCRIPTORS), f"{ref}: descriptors {kinds}"
    yield "a report's answer depends on that report alone"
    assert distil(reports) == results, f"{ref}: asked twice, it answers differently"
    assert distil(reports[::-1]) == results[::-1], f"{ref}: the order of reports matters"
    alone = [distil([report])[0] for report in reports]
    assert alone == results, f"{ref}: a report's answer depends on its neighbours"
