"""`ecamp rescore RUN`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--bootstrap", type=click.IntRange(min=20),
              help="resamples; without it as many as the run had")  # fmt: skip
def rescore(run: Path, bootstrap: int | None) -> int:
    """Compute the metrics of a run again from its stored predictions; no model is run.

    For a run made by an older ecamp, or to draw more resamples.
    """
    from ecamp.bench.rescore import rescore as rescore_run

    total, changed, failed = rescore_run(run, bootstrap)
    click.echo(f"{total} cells, {changed} changed")
    for text in failed:
        click.echo(f"ecamp: {text}", err=True)
    return 3 if failed else 0
