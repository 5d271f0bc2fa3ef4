"""`ecamp kernels`: which ops have compiled kernels here, and what rate they reach."""

from __future__ import annotations

import json
from typing import Any

import click


@click.group()
def kernels() -> None:
    """Compiled kernels of this installation."""


@kernels.command("list")
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def list_kernels(form: str) -> None:
    """Name every op and where it is compiled."""
    from ecamp.ops._inventory import list_ops

    rows = list_ops()
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        where = [name for name in ("cpu", "cuda") if row[name]]
        click.echo(f"{row['op']:28} {', '.join(where) or 'reference only'}")


@kernels.command("bench")
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def bench_kernels(form: str) -> None:
    """Measure each kernel once against what this machine can move and multiply."""
    from ecamp.ops._inventory import measure_ops

    measured = measure_ops()
    if form == "json":
        click.echo(json.dumps(measured, indent=2))
        return
    limits: dict[str, Any] = measured["limits"]
    click.echo(
        f"limits here: copy {limits['gigabytes_per_second']:.1f} GB/s, "
        f"matrix product {limits['gigaflops']:.0f} GFLOP/s; "
        f"{measured['device']}, {measured['threads']} threads, {measured['lane']}"
    )
    click.echo(f"{'op':22} {'shape':34} {'ms':>8} {'rate':>14} {'of limit':>9}")
    for row in measured["ops"]:
        rate = f"{row['rate']:.1f} {row['unit']}"
        click.echo(
            f"{row['op']:22} {row['shape']:34} {row['ms']:8.3f} {rate:>14} {row['share']:8.0%}"
        )
