"""`ecamp pretrain`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


@click.command()
@click.option(
    "--encoder", required=True, help="vit-micro, timm/vit_small_patch16_224?image_size=224"
)
@click.option("--pretext", required=True, help="mae, ecamp?weight_mlm=2, ecamp-published, ...")
@click.option("--data", help="data sets with images (and reports); comma-separated ones are pooled "
              "[default: phantom]")  # fmt: skip
@click.option("--recipe", help="optimisation: `published`, or a YAML file")
@click.option("--steps", type=int, help="optimiser steps")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE",
              help="one field of the optimisation: --set lr=1e-4 --set accumulate=8")  # fmt: skip
@click.option("--init-from", type=click.Path(path_type=Path), help="encoder weights to start from")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--preview", type=click.IntRange(0, 16), default=0, show_default=True, metavar="N",
              help="draw N samples at the start, each quarter and the end")  # fmt: skip
@click.option("--packed/--padded", default=None,
              help="compute on the tokens of reports only, or on padding too; the same losses")  # fmt: skip
@click.option("--kernels", type=click.Choice(["native", "reference"]), default="native",
              help="compiled kernels, or their slow references; the same losses")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/pretrain"),
              show_default=True, help="folder for weights, metrics and pictures")  # fmt: skip
@click.option("--cache", type=click.Path(path_type=Path), help="decoded images and checkpoints")
@click.option("--on-bad-image", type=click.Choice(["fail", "skip"]), default="fail")
def pretrain(**options: Any) -> None:
    """Pre-train one encoder; the same command resumes an interrupted one."""
    if options["kernels"] == "reference":
        os.environ["ECAMP_DISABLE_EXT"] = "1"  # read once, when the first op runs
    if options["packed"] is not None:
        joint = "&" if "?" in options["pretext"] else "?"
        options["pretext"] += f"{joint}packed={str(options['packed']).lower()}"
    from ecamp.bench.plan import make_plan
    from ecamp.bench.pretraining import copy_pretraining, run_pretraining
    from ecamp.cli.logs import LoggedProgress
    from ecamp.cli.observer import Pictures
    from ecamp.config import BenchSpec, validate
    from ecamp.errors import UsageError
    from ecamp.ops._ext import kernel_notes

    init = options["init_from"]
    spec = validate(
        BenchSpec,
        {
            "encoders": options["encoder"], "pretext": options["pretext"],
            **({} if options["data"] is None else {"pretrain_data": options["data"]}),
            "pretrain_seed": options["seed"],
            "on_bad_image": options["on_bad_image"], "pretrain": _recipe(options),
            "init_from": None if init is None else str(init),
        },
        "command line",
    )  # fmt: skip
    plan = make_plan(spec)
    trained = [item for item in plan.pretrainings if item.file is None]
    if not trained:
        raise UsageError(f"pretext '{options['pretext']}' trains nothing.", "Name mae or ecamp.")
    for note in kernel_notes():
        click.echo(f"note: {note}", err=True)
    for item in trained:
        folder = run_pretraining(
            item, options["on_bad_image"], options["cache"],
            progress=LoggedProgress(), observer=Pictures(options["preview"]),
        )  # fmt: skip
        copy_pretraining(folder, options["out"])
        click.echo(str(options["out"] / "weights.safetensors"))


def _recipe(options: dict[str, Any]) -> dict[str, Any]:
    """Preset, overridden by single fields."""
    import yaml

    from ecamp.errors import UsageError
    from ecamp.train.recipe import load_preset

    values = load_preset(options["recipe"]) if options["recipe"] else {}
    for pair in options["pairs"]:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set '{pair}' has no value.", "Write --set key=value.")
        values[key] = yaml.safe_load(value)
    if options["steps"] is not None:
        values.pop("epochs", None)
        values["steps"] = options["steps"]
    return values
