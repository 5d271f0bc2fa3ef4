"""A weak second truth: terms that an indexer gave to whole reports (Open-i, column `Problems`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from ecamp.api.distiller import Distiller, Report, strongest_polarity
from ecamp.errors import DataError, did_you_mean
from ecamp.text.reports import cell, column_names, read_rows

COLUMN, NORMAL = "Problems", "normal"


@dataclass(frozen=True)
class WeakLabelRecall:
    """Reports with a term, and how many of them the distiller answers accordingly."""

    reports: int
    agreeing: int

    @property
    def share(self) -> float:
        """Of the reports with the term."""
        return self.agreeing / self.reports


def load_mapping() -> dict[str, str]:
    """Term -> entity."""
    source = resources.files("ecamp.distill") / "iu_problems.yaml"
    mapping: dict[str, str] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return mapping


def read_terms(path: Path, id_column: str) -> dict[str, tuple[str, ...]]:
    """Report id -> terms, of a table with a column `Problems` (terms apart by `;`).

    Raises:
        DataError: A column is missing.
    """
    names = column_names(path)
    for name in (COLUMN, id_column):
        if name not in names:
            raise DataError(f"{path}: no column '{name}'.", did_you_mean(name, names))
    return {
        cell(row, id_column, path).strip(): tuple(
            term.strip() for term in cell(row, COLUMN, path).split(";") if term.strip()
        )
        for row in read_rows(path)
    }


def weak_recall(
    terms: Mapping[str, Sequence[str]],
    mapping: Mapping[str, str],
    reports: Iterable[Report],
    distiller: Distiller,
) -> dict[str, WeakLabelRecall]:
    """In how many reports the distiller states (present or possible) what an indexer found.

    Args:
        terms: Report id -> terms; other reports are left out.
        mapping: Term -> entity; other terms are left out.

    Returns:
        By entity, most reports first. `normal`: reports that are indexed so, and agreement where
        none of the mapped entities is stated.
    """
    wanted, agreeing = Counter[str](), Counter[str]()
    for result in distiller.distill(report for report in reports if report.id in terms):
        polarities = strongest_polarity((s.entity, s.polarity) for s in result.statements)
        stated = {entity for entity, polarity in polarities.items() if polarity != "absent"}
        expected = {mapping[term] for term in terms[result.id] if term in mapping}
        wanted.update(expected)
        agreeing.update(expected & stated)
        if list(terms[result.id]) == [NORMAL]:
            wanted[NORMAL] += 1
            agreeing[NORMAL] += not stated & set(mapping.values())
    return {name: WeakLabelRecall(count, agreeing[name]) for name, count in wanted.most_common()}
