"""`ecamp bench`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecamp.cli.run_options import RunOptions, run_options

if TYPE_CHECKING:
    from ecamp.bench.plan import Plan
    from ecamp.config import BenchSpec


@click.command()
@click.option("-c", "--config", "recipe", type=click.Path(path_type=Path), help="YAML recipe")
@click.option("--tasks", help="tasks: cls,seg,det")
@click.option("--datasets", help="phantom, or path/to/dataset.yaml; comma-separated")
@click.option("--encoders", help="encoders: vit-micro, timm/resnet18?image_size=64, ...")
@click.option("--pretext", help="pretext tasks: none,mae,ecamp; the first is the baseline")
@click.option("--pretrain-data", help="data set to pre-train on")
@click.option("--pretrain-steps", type=int, help="steps of every pre-training")
@click.option("--protocols", help="evaluation protocols: linear,frozen,finetune,published,...")
@click.option("--fractions", help="fractions of the training labels: 0.01,0.1,1")
@click.option("--seeds", help="seeds of the label draws and heads: 0,1,2")
@click.option("--bootstrap", type=int, help="resamples of the test patients")
@click.option("--on-bad-image", type=click.Choice(["fail", "skip"]),
              help="skip: leave unreadable images out, and count them")  # fmt: skip
@run_options("runs/bench")
def bench(options: RunOptions, **recipe: Any) -> None:
    """Run encoders x pretexts x data sets x tasks and report what helped."""
    execute(_spec(recipe), options)


def execute(spec: BenchSpec, options: RunOptions) -> None:
    """Plan, run and summarise a recipe; the first pretext is the baseline."""
    from ecamp.bench.budget import Budget, parse_duration
    from ecamp.bench.plan import make_plan
    from ecamp.bench.run_folder import RunFolder, command_line
    from ecamp.bench.runner import Runner
    from ecamp.cli.logs import LoggedProgress
    from ecamp.cli.observer import Pictures
    from ecamp.ops._ext import kernel_notes

    budget = Budget(parse_duration(options.budget) if options.budget else None)
    plan = make_plan(spec)
    for note in [*plan.notes, *kernel_notes()]:
        click.echo(f"note: {note}", err=True)
    if options.dry_run:
        _show(plan, options)
        return
    run = RunFolder(options.run_path)
    run.open(plan.spec, {**plan.as_json(), "command": command_line()})
    began = time.monotonic()
    runner = Runner(
        plan, run, cache=options.cache, budget=budget,
        progress=LoggedProgress(), observer=Pictures(4, only_last=True),
    )  # fmt: skip
    outcome = runner.execute()
    _summarise(run.path, options.form, spec.pretext[0])
    click.echo(f"{outcome.done} cells done, {outcome.reused} reused, {len(outcome.failed)} failed "
               f"in {time.monotonic() - began:.0f} s", err=True)  # fmt: skip
    if outcome.left:
        click.echo(f"the budget of {options.budget} is spent: {outcome.left} of {len(plan.cells)} "
                   "cells are left; the same command continues", err=True)  # fmt: skip
    if outcome.failed or outcome.left:
        sys.exit(3)


def _spec(options: dict[str, Any]) -> BenchSpec:
    """Read the recipe file, overridden by the given options."""
    from ecamp.config import BenchSpec, load_recipe, validate

    values = load_recipe(options["recipe"]) if options["recipe"] else {}
    lists = {"protocols": str, "fractions": float, "seeds": int}
    for name, kind in lists.items():
        if options[name] is not None:
            values[name] = parse_list(kind, name, options[name])
    for name in (
        "tasks",
        "datasets",
        "encoders",
        "pretext",
        "pretrain_data",
        "bootstrap",
        "on_bad_image",
    ):
        if options[name] is not None:
            values[name] = options[name]
    if options["pretrain_steps"] is not None:
        values["pretrain"] = {**values.get("pretrain", {}), "steps": options["pretrain_steps"]}
    return validate(BenchSpec, values, str(options["recipe"] or "command line"))


def parse_list(kind: type, name: str, text: str) -> list[Any]:
    """Split a comma-separated option into its parts."""
    from ecamp.errors import UsageError

    try:
        return [kind(part.strip()) for part in text.split(",") if part]
    except ValueError:
        raise UsageError(f"--{name}: '{text}' is not a list of numbers.") from None


def _show(plan: Plan, options: RunOptions) -> None:
    import json

    from ecamp.bench.estimate import estimate_cost, format_cost

    known = plan.as_json()
    if options.form != "json":
        for pretraining in plan.pretrainings:
            click.echo(f"pretrain {pretraining.key}  {pretraining.encoder.ref} {pretraining.pretext.ref} "
                       f"seed {pretraining.recipe.seed}")  # fmt: skip
        for cell in plan.cells:
            click.echo(f"{cell.kind:8} {cell.key}  {cell.label}")
    if not options.no_estimate:
        cost = estimate_cost(plan, options.run_path, options.cache)
        known["estimate"] = cost.as_json()
        if options.form != "json":
            click.echo("\n" + "\n".join(format_cost(cost)))
    if options.form == "json":
        click.echo(json.dumps(known, indent=2))
    click.echo(f"{len(plan.cells)} cells, {len(plan.pretrainings)} pre-trainings", err=True)


def _summarise(path: Path, form: str, baseline: Any) -> None:
    from ecamp.report.page import write_page
    from ecamp.report.summary import format_rows, read_run, summarise

    cells, warnings = read_run(path)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    rows = summarise(cells, baseline=str(baseline))
    click.echo(format_rows(rows, form))
    click.echo(f"report: {write_page(path, baseline=str(baseline))}", err=True)
