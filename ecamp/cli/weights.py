"""`ecamp weights inspect | convert`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ecamp.encoders.weights_card import WeightsCard


@click.group()
def weights() -> None:
    """Inspect files of weights, and convert ViTs to plain timm weights."""


@weights.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def inspect(file: Path, form: str) -> None:
    """Describe FILE, and what an encoder would take from it."""
    from ecamp.encoders.checkpoints import inspect as inspect_file

    info = inspect_file(file)
    if form == "json":
        click.echo(json.dumps(info.as_json(), indent=2))
        return
    ignored = ", ".join(f"{name} ({count})" for name, count in info.ignored.items()) or "nothing"
    rows = {
        "file": info.file,
        "sha256": info.sha256,
        "kind": info.kind,
        "tensors": f"{info.tensors}, {info.parameters / 1e6:.1f} M parameters",
        **(_card_rows(info.card) if info.card else {"encoder": str(info.geometry)}),
        "taken": f"{len(info.taken)} tensors, {info.taken_parameters / 1e6:.1f} M parameters"
        + (f", under '{info.prefix}'" if info.prefix else ""),
        "ignored": ignored,
    }
    for name, value in rows.items():
        click.echo(f"{name:8} {value}")


def _card_rows(card: WeightsCard) -> dict[str, str]:
    """Describe the encoder, its input and its training, from the card of a file of ecamp."""
    stated = card.expected
    normalised = "; ".join(
        f"{n['data']}: mean {n['mean']}, std {n['std']}" for n in card.normalisation
    )
    plugin = card.plugin
    code = f"{plugin['dist']} {plugin['version']} ({plugin['code']})"
    return {
        "encoder": card.encoder,
        "plugin": f"{plugin['name']} of {plugin['group']}, {code}",
        "input": f"{card.image_size} px, channels {card.channels}, fit {stated['fit']}, mean and std "
        + ("of the encoder" if stated["mean"] else "of the data set"),
        "trained": f"{card.pretext}, on {normalised}",
    }


@weights.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path),
              help="file to write, ending in .safetensors")  # fmt: skip
@click.option("--image-size", type=click.IntRange(min=1), help="resize the position table for it")
@click.option("--channels", type=click.Choice(["1", "3"]), help="1: sum the input channels")
def convert(file: Path, out: Path, image_size: int | None, channels: str | None) -> None:
    """Write FILE's encoder under plain timm names, with a JSON file that names its origin."""
    from ecamp.encoders.checkpoints import convert as convert_file

    count = int(channels) if channels else None
    sidecar, changes = convert_file(file, out, image_size=image_size, channels=count)
    for change in changes:
        click.echo(change, err=True)
    click.echo(str(out))
    click.echo(str(sidecar))
