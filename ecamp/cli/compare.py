"""`ecamp compare A B`."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ecamp.report.compare import Difference

HEAD = ("data set", "metric", "labels", "seeds", "A", "B", "B - A", "95 % interval", "p (Holm)",
        "DeLong", "McNemar", "Wilcoxon", "B is")  # fmt: skip


@click.command()
@click.argument("first")
@click.argument("second")
@click.option("--metric", "metrics", multiple=True,
              help="one more metric (repeatable); * for all that were resampled")  # fmt: skip
@click.option("--fail-on", "conditions", multiple=True, metavar="CONDITION",
              help="exit 5 where a difference meets it (repeatable): "
              "'cls.auroc<-0.005', 'seg.hd95 worse by 2'")  # fmt: skip
@click.option("-f", "--format", "form", type=click.Choice(["table", "json", "csv", "md"]),
              default="table", show_default=True)  # fmt: skip
def compare(
    first: str, second: str, metrics: tuple[str, ...], conditions: tuple[str, ...], form: str
) -> int:
    """Paired differences of two runs, B minus A, on the same test images.

    A and B are run folders, or parts of one: RUN:pretext=mae,fraction=0.1.
    """
    from ecamp.report.compare import Condition
    from ecamp.report.compare import compare as compare_cells
    from ecamp.report.selection import Selection

    wanted = [Condition.parse(text) for text in conditions]
    named = [c.metric for c in wanted]
    rows, warnings = compare_cells(
        Selection.parse(first), Selection.parse(second), [*metrics, *named]
    )
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    _print(rows, form)
    failed = [(c, row) for c in wanted for row in c.met_by(rows)]
    for condition, row in failed:
        value = "undefined" if row.delta is None else f"{row.delta:+.4f}"
        click.echo(
            f"ecamp: {condition.text}: {row.dataset} {row.task} at {100 * row.fraction:g} % is {value}.",
            err=True,
        )
    return 5 if failed else 0


def _print(rows: list[Difference], form: str) -> None:
    if form == "json":
        click.echo(json.dumps([asdict(row) for row in rows], indent=2, allow_nan=False))
        return
    if form == "csv":
        writer = csv.DictWriter(sys.stdout, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        return
    lines = [_cells(row) for row in rows]
    if form == "md":
        for line in (HEAD, tuple("---" for _ in HEAD), *lines):
            click.echo("| " + " | ".join(line) + " |")
        return
    widths = [max(map(len, column)) for column in zip(HEAD, *lines, strict=True)]
    for line in (HEAD, *lines):
        click.echo("  ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)).rstrip())


def _cells(row: Difference) -> tuple[str, ...]:
    def number(value: float | None, form: str = ".3f") -> str:
        return "-" if value is None else f"{value:{form}}"

    def chance(value: float | None) -> str:
        return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"

    between = "-" if row.low is None else f"{row.low:+.3f} to {number(row.high, '+.3f')}"
    direction = "" if row.higher_is_better else " (lower is better)"
    name = f"{row.task} {row.metric}{direction}" + (f" ({row.model})" if row.model else "")
    return (
        row.dataset, name, f"{row.protocol} {100 * row.fraction:g} %", str(row.seeds),
        number(row.first), number(row.second), number(row.delta, "+.3f"), between,
        chance(row.p_holm if row.main else row.p), chance(row.delong), chance(row.mcnemar),
        chance(row.wilcoxon), row.verdict,
    )  # fmt: skip
