"""`ecamp pretrain`."""

from __future__ import annotations

import shutil
from pathlib import Path

import click


@click.command()
@click.option(
    "--encoder", required=True, help="vit-micro, timm/vit_small_patch16_224?image_size=224"
)
@click.option("--pretext", required=True, help="mae, ecamp?weight_mlm=2, ...")
@click.option(
    "--data", default="phantom", show_default=True, help="data set with images (and reports)"
)
@click.option("--steps", type=int, help="optimiser steps")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/pretrain"),
              show_default=True, help="folder for weights and metrics")  # fmt: skip
@click.option("--cache", type=click.Path(path_type=Path), help="decoded images and checkpoints")
@click.option("--on-bad-image", type=click.Choice(["fail", "skip"]), default="fail")
def pretrain(
    encoder: str, pretext: str, data: str, steps: int | None, seed: int, out: Path,
    cache: Path | None, on_bad_image: str,
) -> None:  # fmt: skip
    """Pre-train one encoder; the same command resumes an interrupted one."""
    from ecamp.bench.features import run_pretraining
    from ecamp.bench.plan import make_plan
    from ecamp.cli.bench import _Progress
    from ecamp.config import BenchSpec, validate
    from ecamp.data.store import atomic_path
    from ecamp.errors import UsageError

    spec = validate(
        BenchSpec,
        {
            "tasks": ["cls"], "encoders": encoder, "pretext": pretext, "pretrain_data": data,
            "pretrain_seed": seed, "pretrain": {} if steps is None else {"steps": steps},
        },
        "command line",
    )  # fmt: skip
    plan = make_plan(spec)
    trained = [item for item in plan.pretrainings if item.file is None]
    if not trained:
        raise UsageError(f"pretext '{pretext}' trains nothing.", "Name mae or ecamp.")
    for item in trained:
        folder = run_pretraining(
            item, on_bad_image, cache, lambda text: click.echo(text, err=True), _Progress()
        )
        for name in ("weights.safetensors", "pretrain.json", "metrics.jsonl"):
            with atomic_path(out / name) as temporary:
                shutil.copyfile(folder / name, temporary)
        click.echo(str(out / "weights.safetensors"))
