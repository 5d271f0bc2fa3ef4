"""`ecamp ablate`: ECAMP against itself with one part changed at a time.

Why: docs/decisions.md#each-seed-of-an-ablation-pre-trains-anew.
"""

from __future__ import annotations

from typing import Any

import click

from ecamp.cli.run_options import RunOptions, run_options

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
@click.option("--data", help="pre-training data; comma-separated [default: phantom]")
@click.option("--datasets", help="evaluation data [default: phantom]")
@click.option("--encoder", help="encoder [default: vit-micro]")
@click.option("--tasks", help="tasks [default: cls,seg,det]")
@click.option(
    "--fractions", default="0.1", show_default=True, help="fractions of the training labels"
)
@click.option("--seeds", default="0,1,2", show_default=True,
              help="each with its own pre-training, label draw and heads")  # fmt: skip
@click.option("--steps", type=int, help="steps of every pre-training")
@run_options("runs/ablate")
def ablate(options: RunOptions, **recipe: Any) -> None:
    """Measure what each part of ECAMP contributes: one pre-training per part and seed, all tasks.

    Unlike in `ecamp bench`, each seed pre-trains anew, so that the deviation over seeds includes
    the luck of the pre-training.
    """
    from ecamp.cli.bench import execute, parse_list
    from ecamp.config import BenchSpec, validate

    asked = {
        "tasks": recipe["tasks"],
        "datasets": recipe["datasets"],
        "encoders": recipe["encoder"],
        "pretrain_data": recipe["data"],
    }
    values = {
        **{name: value for name, value in asked.items() if value is not None},
        "pretext": f"{recipe['baseline']},{recipe['parts']}",
        "pretrain": {} if recipe["steps"] is None else {"steps": recipe["steps"]},
        "pretrain_seed": "cell",
        "fractions": parse_list(float, "fractions", recipe["fractions"]),
        "seeds": parse_list(int, "seeds", recipe["seeds"]),
    }
    execute(validate(BenchSpec, values, "command line"), options)
