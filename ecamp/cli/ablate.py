"""`ecamp ablate`: ECAMP against itself with one part changed at a time.

Why: docs/decisions.md#each-seed-of-an-ablation-pre-trains-anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

PARTS = (
    "ecamp-uniform-masking,ecamp-no-rebalance,ecamp-loss-on-all,ecamp-global-fusion,ecamp-fine-fusion,"
    "ecamp-no-super-resolution,ecamp-random-window,ecamp-small-window,ecamp-no-text,ecamp-published,"
    "mrm-like,mae,none"
)


@click.command()
@click.option(
    "--parts", default=PARTS, show_default=True, help="pretexts to compare with --baseline"
)
@click.option("--baseline", default="ecamp", show_default=True, help="the whole method")
@click.option(
    "--data", default="phantom", show_default=True, help="pre-training data; comma-separated"
)
@click.option("--datasets", default="phantom", show_default=True, help="evaluation data")
@click.option("--encoder", default="vit-micro", show_default=True)
@click.option("--tasks", default="cls,seg,det", show_default=True)
@click.option("--fractions", default="0.1", show_default=True, help="shares of the training labels")
@click.option("--seeds", default="0,1,2", show_default=True,
              help="each seeds a pre-training of its own, its label draw and its heads")  # fmt: skip
@click.option("--steps", type=int, help="steps of every pre-training")
@click.option("--run", "run_path", type=click.Path(path_type=Path), default=Path("runs/ablate"),
              show_default=True, help="run folder; an interrupted run resumes")  # fmt: skip
@click.option("--cache", type=click.Path(path_type=Path), help="decoded images and weights")
@click.option("--budget", metavar="TIME", help="start nothing that would end later: 90s, 30m, 2h")
@click.option("--dry-run", is_flag=True, help="show the cells and what they may cost; run none")
@click.option(
    "--no-estimate", is_flag=True, help="with --dry-run: only the cells, nothing measured"
)
@click.option("-f", "--format", "form", type=click.Choice(["table", "json", "csv", "md"]),
              default="table", show_default=True)  # fmt: skip
def ablate(**options: Any) -> None:
    """Say what each part of ECAMP is worth: one pre-training a part and seed, all tasks.

    Unlike in `ecamp bench`, each seed pre-trains anew, so that the spread over seeds holds the luck
    of the pre-training too.
    """
    from ecamp.cli.bench import execute, parse_list
    from ecamp.config import BenchSpec, validate

    values = {
        "tasks": options["tasks"].split(","),
        "datasets": options["datasets"],
        "encoders": options["encoder"],
        "pretext": f"{options['baseline']},{options['parts']}",
        "pretrain_data": options["data"],
        "pretrain": {} if options["steps"] is None else {"steps": options["steps"]},
        "pretrain_seed": "cell",
        "fractions": parse_list(float, "fractions", options["fractions"]),
        "seeds": parse_list(int, "seeds", options["seeds"]),
    }
    execute(validate(BenchSpec, values, "command line"), options)
