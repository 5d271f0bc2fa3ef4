"""One self-contained HTML page of a run."""

from __future__ import annotations

from pathlib import Path

from ecamp.report.summary import COLUMNS, display, read_run, summarise


def write_page(run: Path, baseline: str = "none") -> Path:
    """Write `RUN/report/index.html`; the same run gives the same bytes."""
    from html import escape

    cells, warnings = read_run(run)
    rows = summarise(cells, baseline)
    head = "".join(f"<th>{escape(c)}</th>" for c in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(v)}</td>" for v in display(row)) + "</tr>" for row in rows
    )
    notes = "".join(f"<li>{escape(w)}</li>" for w in warnings)
    page = (
        "<!doctype html><meta charset=utf-8><title>ecamp report</title>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><ul>{notes}</ul>"
    )
    path = run / "report" / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
