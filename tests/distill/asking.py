"""Reports, a distiller and scripts of the fake endpoint, for the tests of `llm`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ecamp.api.distiller import Distilled, Report, Section
from ecamp.distill.llm import LLMDistiller
from tests.distill.fake_server import FakeServer, Script, Turn

SAID = {"entity": "effusion", "polarity": "present", "evidence": "effusion", "descriptors": []}
GOOD = json.dumps({"statements": [SAID]})


def one(number: int, text: str = "Small effusion, case {}.") -> Report:
    text = text.format(number)
    return Report(str(number), text, (Section("", 0, len(text)),))


def good(report: str) -> str:
    return GOOD


def make(folder: Path, url: str, **options: Any) -> LLMDistiller:
    values = {"model": "m", "cache": str(folder), "backoff": 0.01, "endpoint": url, **options}
    return LLMDistiller(LLMDistiller.Config(**values))


def run(
    folder: Path, server: FakeServer, reports: Iterable[Report], **options: Any
) -> tuple[list[Distilled], dict[str, int]]:
    distiller = make(folder, server.url, **options)
    return list(distiller.distill(reports)), dict(distiller.counts())


def always(turn: Turn) -> Script:
    return lambda report, time: turn


def first(turn: Turn) -> Script:
    """Script a turn for the first request of each report."""
    return lambda report, time: turn if time == 1 else Turn()


def where(mark: str, turn: Turn) -> Script:
    """Script a turn for the reports that contain a mark."""
    return lambda report, time: turn if mark in report else Turn()


def found(row: Distilled) -> list[tuple[str, int, int]]:
    return [(s.entity, s.start, s.end) for s in row.statements]
