"""Weak labels: report-level terms assigned by an indexer (Open-i, column `Problems`)."""

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
    """Agreement of a distiller with one term.

    Attributes:
        reports: Number of reports with the term.
        agreeing: Number of those for which the distiller agrees.
    """

    reports: int
    agreeing: int

    @property
    def fraction(self) -> float:
        """Fraction of the reports with the term for which the distiller agrees."""
        return self.agreeing / self.reports


def load_mapping() -> dict[str, str]:
    """Read the shipped mapping of terms to entities."""
    source = resources.files("ecamp.distill") / "iu_problems.yaml"
    mapping: dict[str, str] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return mapping


def read_terms(path: Path, id_column: str) -> dict[str, tuple[str, ...]]:
    """Read the terms of each report from a table with a column `Problems` (separated by `;`).

    Args:
        path: The table.
        id_column: Column with the report's id.

    Returns:
        Report id -> terms.

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
    """Count the reports in which the distiller states (present or possible) an indexer's terms.

    Args:
        terms: Report id -> terms; other reports are left out.
        mapping: Term -> entity; other terms are left out.
        reports: Streamed.
        distiller: The distiller.

    Returns:
        By entity, most reports first. `normal`: reports indexed as normal, for which the distiller
        agrees if it states none of the mapped entities.
    """
    indexed, agreeing = Counter[str](), Counter[str]()
    for result in distiller.distill(report for report in reports if report.id in terms):
        polarities = strongest_polarity((s.entity, s.polarity) for s in result.statements)
        stated = {entity for entity, polarity in polarities.items() if polarity != "absent"}
        expected = {mapping[term] for term in terms[result.id] if term in mapping}
        indexed.update(expected)
        agreeing.update(expected & stated)
        if list(terms[result.id]) == [NORMAL]:
            indexed[NORMAL] += 1
            agreeing[NORMAL] += not stated & set(mapping.values())
    return {name: WeakLabelRecall(count, agreeing[name]) for name, count in indexed.most_common()}
