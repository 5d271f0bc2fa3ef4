"""`ecamp report RUN`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-f", "--format", "form", type=click.Choice(["table", "json", "csv", "md"]),
              default="table", show_default=True)  # fmt: skip
@click.option("--baseline", default="none", show_default=True, help="pretext to compare with")
@click.option("--no-html", is_flag=True, help="only the table")
def report(run: Path, form: str, baseline: str, no_html: bool) -> None:
    """Print the table of a run and write its HTML page."""
    from ecamp.errors import MissingError
    from ecamp.report.encoder_cost import format_costs, read_costs
    from ecamp.report.page import write_page
    from ecamp.report.ranks import format_ranks, rank_models
    from ecamp.report.summary import format_rows, read_run, summarise

    if not (run / "cells").is_dir():
        raise MissingError(
            f"{run}: no run folder (it has no cells).", "Name the folder given to --run."
        )
    cells, warnings = read_run(run)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(format_rows(summarise(cells, baseline=baseline), form))
    for lines in (format_ranks(*rank_models(cells)), format_costs(read_costs(cells))):
        if form == "table" and lines:
            click.echo("\n" + "\n".join(lines))
    if not no_html:
        click.echo(f"report: {write_page(run, baseline=baseline)}", err=True)
