"""One self-contained HTML page of a run: no script, no network, the same run gives the same bytes."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from ecamp.report.encoder_cost import read_costs
from ecamp.report.pictures import bars, galleries
from ecamp.report.ranks import rank_models
from ecamp.report.summary import COLUMNS, Row, display, metric_label, read_run, summarise
from ecamp.storage.files import write_bytes


def write_page(run: Path, baseline: str = "none") -> Path:
    """Write `RUN/report/index.html`.

    Returns:
        Its path.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    cells, warnings = read_run(run)
    rows = summarise(cells, baseline)
    warnings += sorted({w for cell in cells for w in cell.result.warnings})
    names = short_names(rows)
    charts = [
        {"title": " · ".join((names[split], *rest)), "svg": Markup(bars(list(group)))}
        for (split, *rest), group in groupby(
            rows, lambda r: (r.split_label, f"{r.task} {metric_label(r)}", r.protocol, r.encoder)
        )
    ]
    ranks, settings = rank_models(cells)
    template = Environment(
        loader=PackageLoader("ecamp", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True,
    ).get_template("page.html.j2")  # fmt: skip
    page = template.render(
        title=run.resolve().name,
        cells=len(cells),
        baseline=baseline,
        findings=findings(rows, baseline),
        warnings=warnings,
        charts=charts,
        columns=COLUMNS,
        rows=[_table_row(row, rows[i - 1] if i else None) for i, row in enumerate(rows)],
        ranks=ranks,
        settings=settings,
        costs=[cost.display() for cost in read_costs(cells)],
        galleries=galleries(run, cells),
        protocol=_protocol(rows),
        command=_command(run),
    )
    path = run / "report" / "index.html"
    write_bytes(path, page.encode())
    return path


def short_names(rows: list[Row]) -> dict[str, str]:
    """Name each split by its data set alone where the run has one split of it."""
    datasets = {row.split_label: row.dataset for row in rows}
    names = list(datasets.values())
    return {split: name if names.count(name) == 1 else split for split, name in datasets.items()}


def findings(rows: list[Row], baseline: str) -> list[str]:
    """Write one sentence per pretext: where it was better or worse than the baseline, or tied."""
    out = []
    names = short_names(rows)
    prefix = {split: "" if len(names) == 1 else f"{name} " for split, name in names.items()}
    for pretext in dict.fromkeys(row.pretext for row in rows if row.pretext != baseline):
        compared = [row for row in rows if row.pretext == pretext and row.delta is not None]
        if not compared:
            continue
        parts = []
        for verdict, word in (
            ("better", "better than"),
            ("worse", "worse than"),
            ("tie", "tied with"),
        ):
            differences = [
                f"{prefix[r.split_label]}{r.task} at {100 * r.fraction:g} % ({r.delta:+.3f})"
                for r in compared
                if r.verdict == verdict
            ]
            if differences:
                parts.append(f"{word} {baseline} on {', '.join(differences)}")
        out.append(f"{pretext}: {'; '.join(parts)}.")
    below = sum(row.below_floor for row in rows)
    if below:
        out.append(
            f"{below} of {len(rows)} scores do not beat their trivial floor and mean little."
        )
    return out


def _table_row(row: Row, before: Row | None) -> dict[str, Any]:
    first = before is None or (row.split_label, row.task, row.protocol, row.fraction) != (
        before.split_label, before.task, before.protocol, before.fraction,
    )  # fmt: skip
    css = " ".join(filter(None, ["first" if first else "", "below" if row.below_floor else ""]))
    return {"cells": display(row), "css": css, "verdict": row.verdict}


def _protocol(rows: list[Row]) -> list[str]:
    seen = {
        f"{r.dataset}: splits {r.split_id}, hash {r.split_hash}{r.data_mark}; {r.task}: {r.test} test images, "
        f"{r.seeds} seed{'s' if r.seeds != 1 else ''}"
        for r in rows
    }
    return sorted(seen)


def _command(run: Path) -> str:
    try:
        return str(json.loads((run / "plan.json").read_text(encoding="utf-8"))["command"])
    except (OSError, ValueError, KeyError):
        return "ecamp bench"
