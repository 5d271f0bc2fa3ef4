"""`ecamp data list | info | check | show | split | prepare | pack | audit`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.audit.splits import Finding

COLOURS = {"leak": "red", "error": "yellow", "note": "blue"}


@click.group()
def data() -> None:
    """List, describe, check, convert and audit data sets."""


@data.command("list")
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def list_data(form: str) -> None:
    """List the data sets, one per line."""
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.errors import EcampError
    from ecamp.plugin.host import list_plugins, load_plugin

    rows = []
    for entry in list_plugins("ecamp.datasets"):
        try:
            ref = PluginRef(name=entry.name)
            cls = load_plugin("ecamp.datasets", ref, any_variant=True)
            about = {"summary": cls.summary, "licence": cls.licence}
        except EcampError as error:
            about = {"summary": f"fails: {error.message}", "licence": ""}
        rows.append({"name": entry.name, "package": entry.dist, **about})
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        click.echo(f"{row['name']:{width}}  {row['summary']}")


@data.command()
@click.argument("name")
def info(name: str) -> None:
    """Describe a data set: counts per split, labels, reports, masks, boxes.

    NAME is a data set with its options, such as mimic-cxr?root=/data/mimic or path/to/dataset.yaml.
    Without its required options: how to get it, what its folder must contain, its splits.
    """
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.plugin.host import make_plugin

    ref = PluginRef.parse(name)
    if (help_text := _help_without_data(ref)) is not None:
        click.echo(help_text)
        return
    dataset = make_plugin("ecamp.datasets", ref)
    facts, records = dataset.info, list(dataset.records())
    click.echo(f"{facts.split_id}: {dataset.summary}")
    click.echo(f"licence: {dataset.licence}; cite: {dataset.citation}")
    splits = list(dict.fromkeys(record.split for record in records))
    click.echo(f"{'':16}" + "".join(f"{split:>10}" for split in splits))

    def line(title: str, counts: list[int]) -> None:
        click.echo(f"{title[:15]:16}" + "".join(f"{count:>10,}" for count in counts))

    parts = [[r for r in records if r.split == split] for split in splits]
    line("images", [len(p) for p in parts])
    line("patients", [len({r.patient for r in p}) for p in parts])
    for title, has in (
        ("reports", [[bool(r.report) for r in p] for p in parts]),
        ("distilled", [[bool(r.distilled) for r in p] for p in parts]),
        ("masks known", [[bool(r.has_mask) for r in p] for p in parts]),
        ("boxes known", [[bool(r.has_boxes) for r in p] for p in parts]),
    ):
        if any(map(any, has)):
            line(title, [sum(part) for part in has])
    for k, label in enumerate(facts.labels):
        line(label, [sum(r.labels is not None and r.labels[k] == 1 for r in p) for p in parts])
    for flaw in facts.flaws:
        click.echo(f"flaw: {flaw}")


def _help_without_data(ref: PluginRef) -> str | None:
    """Describe a data set and what it needs, if `ref` lacks required options."""
    from ecamp.api.dataset import Dataset
    from ecamp.plugin.host import load_plugin

    cls = load_plugin("ecamp.datasets", ref, any_variant=True)
    assert issubclass(cls, Dataset)
    required = [key for key, field in cls.Config.model_fields.items() if field.is_required()]
    if set(required) <= set(ref.options):
        return None
    full = f"{ref.name}/{ref.variant or cls.variants()[0]}" if cls.family else ref.name
    options = "&".join(f"{key}=..." for key in required)
    return (
        f"{ref.name}: {cls.summary}\nlicence: {cls.licence}; cite: {cls.citation}\n\n"
        f"{cls.help_text().strip()}\n\nwith the data: ecamp data info '{full}?{options}'"
    )


def _print_bad(messages: Sequence[str]) -> None:
    for text in messages[:20]:
        click.echo(text)


@data.command()
@click.argument("name")
@click.option("--limit", type=click.IntRange(min=1), help="check only the first images")
def check(name: str, limit: int | None) -> int:
    """Load every image with its masks and boxes and list those that are unusable (exit 1 then).

    To check whether the splits can be trusted, see ecamp data audit.
    """
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.cli.logs import LoggedProgress
    from ecamp.data.decoding import check_records, check_sample
    from ecamp.errors import EcampError
    from ecamp.plugin.host import make_plugin

    dataset = make_plugin("ecamp.datasets", PluginRef.parse(name))
    records = list(dataset.records())
    check_records(records, dataset.info)
    selected = records[:limit]
    bad: list[str] = []
    progress = LoggedProgress()
    progress(0, len(selected), "images")
    for done, record in enumerate(selected, 1):
        try:
            check_sample(dataset, record, 224)
        except EcampError as error:
            bad.append(error.message)
        progress(done, len(selected), f"images, {len(bad)} bad")
    _print_bad(bad)
    rest = f" ({len(bad) - 20} more)" if len(bad) > 20 else ""
    click.echo(
        f"{dataset.info.split_id}: {len(selected):,} of {len(records):,} images read, {len(bad)} bad{rest}"
    )
    return 1 if bad else 0


@data.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("sheet.png"),
              show_default=True, help="PNG to write")  # fmt: skip
@click.option("--split", help="only images of this split")
@click.option("--count", type=click.IntRange(min=1, max=200), default=24, show_default=True)
@click.option("--size", type=click.IntRange(min=32), default=256, show_default=True,
              help="side at which a procedural data set renders")  # fmt: skip
def show(name: str, output: Path, split: str | None, count: int, size: int) -> int:
    """Write a contact sheet: images with their masks and boxes, those with truth first.

    Images that cannot be read are listed and replaced by others; exit 1 then.
    """
    import io

    from ecamp.api.plugin_ref import PluginRef
    from ecamp.data.decoding import check_sample
    from ecamp.errors import EcampError, MissingError
    from ecamp.plugin.host import make_plugin
    from ecamp.report.contact_sheet import Tile, contact_sheet
    from ecamp.storage.files import write_bytes

    dataset = make_plugin("ecamp.datasets", PluginRef.parse(name))
    facts = dataset.info
    records = [r for r in dataset.records() if split is None or r.split == split]
    if not records:
        raise MissingError(f"{name}: no image in split '{split}'.", "See ecamp data info.")
    records.sort(key=lambda r: 1 not in r.labels if r.labels else not (r.has_mask or r.has_boxes))
    # One colour per name: masks and boxes of a class share it.
    names = list(dict.fromkeys([*facts.mask_classes, *facts.box_classes]))
    colour = [names.index(name) for name in facts.box_classes]
    tiles: list[Tile] = []
    bad: list[str] = []
    for record in records:
        if len(tiles) == count or len(bad) == 20:
            break
        try:
            sample = check_sample(dataset, record, size)
        except EcampError as error:
            bad.append(error.message)
            continue
        boxes = [] if sample.boxes is None else sample.boxes.tolist()
        classes = [] if sample.box_classes is None else sample.box_classes.tolist()
        positive = [n for n, v in zip(facts.labels, record.labels or (), strict=False) if v == 1]
        tiles.append(
            Tile(
                sample.image, (f"{record.id}  {record.split}", ", ".join(positive)), sample.mask,
                tuple(
                    (x1, y1, x2, y2, colour[k])
                    for (x1, y1, x2, y2), k in zip(boxes, classes, strict=True)
                ),
            )
        )  # fmt: skip
    for text in bad:
        click.echo(text, err=True)
    if not tiles:
        raise MissingError(f"{name}: none of the images can be shown.", "See ecamp data check.")
    sheet = contact_sheet(tiles, names)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(output, buffer.getvalue())
    click.echo(f"{output}: {len(tiles)} images")
    return 1 if bad else 0


@data.command()
@click.argument("name")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="folder to write"
)
@click.option(
    "--fractions", default="1,10", show_default=True, help="percentages of the training images"
)
@click.option("--draws", type=click.IntRange(min=1), default=3, show_default=True,
              help="number of nested families of fractions")  # fmt: skip
def split(name: str, output: Path, fractions: str, draws: int) -> None:
    """Write the splits and label fractions that `ecamp bench` uses as lists of ids, with their hash.

    Seed N of the bench trains on the fractions of draw N: whole patients, nested.
    """
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.data.decoding import check_records
    from ecamp.data.splits import fraction_index, split_hash
    from ecamp.errors import UsageError
    from ecamp.plugin.host import make_plugin
    from ecamp.storage.files import write_bytes

    try:
        percentages = [float(part) for part in fractions.split(",") if part]
    except ValueError:
        raise UsageError(
            f"--fractions '{fractions}' is not a list of percentages.", "Write --fractions 1,10."
        ) from None
    dataset = make_plugin("ecamp.datasets", PluginRef.parse(name))
    records = list(dataset.records())
    check_records(records, dataset.info)
    written: dict[str, list[str]] = {}
    for part in dict.fromkeys(r.split for r in records):
        written[part] = [r.id for r in records if r.split == part]
    train = [r for r in records if r.split == "train"]
    for draw in range(draws):
        for percent in percentages:
            chosen = fraction_index([r.patient for r in train], percent / 100, draw)
            written[f"train_{percent:g}_draw{draw}"] = [train[i].id for i in chosen]
    for title, ids in written.items():
        write_bytes(output / f"{title}.txt", ("\n".join(ids) + "\n").encode())
    digest = split_hash([r.id for r in records], [r.split for r in records])
    write_bytes(output / "SPLIT_ID.txt", f"{dataset.info.split_id} split {digest}\n".encode())
    click.echo(
        f"{output}: {', '.join(f'{t} {len(i):,}' for t, i in written.items())}; split {digest}"
    )


@data.command()
@click.argument("name")
@click.option("--from", "root", type=click.Path(path_type=Path, exists=True, file_okay=False),
              required=True, help="folder of the download")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="folder to write; use it as root afterwards")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="processes; default one per core")
@click.option("--verify", is_flag=True, help="compare existing files by checksum")
@click.option("--truth/--no-truth", default=True, show_default=True,
              help="also write masks as PNG and boxes as COCO JSON, for other tools")  # fmt: skip
def prepare(
    name: str, root: Path, output: Path, workers: int | None, verify: bool, truth: bool
) -> int:
    """Convert the DICOM files of a download to PNG and copy its tables. Exit 1 if some cannot be read.

    Rescale, the first VOI window or LUT, MONOCHROME1 inverted, the range stretched to 8 bits; the size
    stays. manifest.jsonl and truth.jsonl contain the checksums; the same command resumes, and does
    nothing twice.
    """
    import os

    from ecamp.api.plugin_ref import PluginRef
    from ecamp.cli.logs import LoggedProgress
    from ecamp.errors import EcampError, UsageError
    from ecamp.export.ground_truth import write_ground_truth
    from ecamp.export.png import prepare as write
    from ecamp.plugin.host import load_plugin, make_plugin

    cls = load_plugin("ecamp.datasets", PluginRef(name=name), any_variant=True)
    folders = getattr(cls, "prepared", {})
    if not folders:
        raise UsageError(f"{name}: nothing to prepare.", "Its images are used as downloaded.")
    workers = workers or os.cpu_count() or 1
    done = write(
        root, output, folders, getattr(cls, "tables", ()), workers=workers, verify=verify,
        progress=LoggedProgress(),
    )  # fmt: skip
    _print_bad(done.bad)
    click.echo(f"{output}: {done.converted:,} converted, {done.kept:,} kept, {len(done.bad):,} bad")
    bad = list(done.bad)
    if truth:
        ref = PluginRef(name=name, options={"root": str(output)})
        try:
            written = write_ground_truth(
                make_plugin("ecamp.datasets", ref), output, workers=workers, verify=verify,
                progress=LoggedProgress(),
            )  # fmt: skip
        except (
            EcampError
        ) as error:  # the images are written: report it instead of failing as a whole
            click.echo(f"no masks and boxes: {error}\n  Or use --no-truth.")
            return 1
        _print_bad(written.bad)
        bad += written.bad
        click.echo(
            f"{output}: {written.masks:,} masks, {written.boxes:,} boxes, {len(written.bad):,} bad"
        )
    return 1 if bad else 0


@data.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="folder to write")  # fmt: skip
@click.option("--size", type=click.IntRange(min=16), default=224, show_default=True,
              help="side in pixels")  # fmt: skip
@click.option("--on-bad-image", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
              help="skip: pack the other images; the row stays, with the reason")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="processes; default one per core")
def pack(name: str, output: Path, size: int, on_bad_image: str, workers: int | None) -> None:
    """Resize a data set once into memory-mapped files; use it as packed?path=FOLDER.

    The same command resumes after an interruption, and verifies and repairs a finished folder.
    """
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.cli.logs import LoggedProgress
    from ecamp.export.pack import pack as write_pack
    from ecamp.plugin.host import make_plugin, skip_bad_rows

    ref = PluginRef.parse(name)
    if on_bad_image == "skip":
        ref = skip_bad_rows(ref)
    dataset = make_plugin("ecamp.datasets", ref)
    done = write_pack(
        dataset, output, size, on_bad_image=on_bad_image, workers=workers,
        progress=LoggedProgress(),
    )  # fmt: skip
    _print_bad(done.bad)
    click.echo(
        f"{output}: {done.images:,} images at {size} px in {done.shards} shards "
        f"({done.written} written now), {done.bytes / 2**20:,.1f} MiB, {len(done.bad)} bad"
    )


@data.command()
@click.argument("name", required=False)
@click.option("--lists", type=click.Path(path_type=Path),
              help="folder of published list files, instead of a data set")  # fmt: skip
@click.option("--size", default="1024,1024", show_default=True,
              help="with --lists: width,height of the images that boxes refer to")  # fmt: skip
@click.option("--images/--no-images", default=True, help="also read the images")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="cache folder, where fingerprints are kept"
)
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def audit(
    name: str | None, lists: Path | None, size: str, images: bool, cache: Path | None, form: str
) -> int:
    """Find leaks between splits, wrong labels and boxes, copies and shortcuts. Exit 5 on a leak.

    NAME is a data set with its options. With --lists, the list files of ECAMP, MRM, MGCA, BenchX or
    LoVT are read unchanged, without images.
    """
    from ecamp.errors import UsageError

    if (name is None) == (lists is None):
        raise UsageError("ecamp data audit needs a data set, or a folder with --lists.")
    start = time.monotonic()
    if lists is not None:
        findings, source = _audit_lists(lists, size)
    else:
        assert name is not None
        findings, source = _audit_dataset(name, images, cache)
    if form == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    click.echo(f"{source}, {time.monotonic() - start:.1f} s", err=True)
    return 5 if any(finding.severity == "leak" for finding in findings) else 0


def _audit_lists(folder: Path, size: str) -> tuple[list[Finding], str]:
    from ecamp.audit.published_lists import split_lists
    from ecamp.audit.splits import AuditContext, audit_lists
    from ecamp.datasets.published_lists import read_lists
    from ecamp.errors import UsageError

    try:
        width, height = (float(part) for part in size.split(","))
    except ValueError:
        raise UsageError(
            f"--size '{size}' is not width,height.", "Write --size 1024,1024."
        ) from None
    published = read_lists(folder)
    lists, exclusive = split_lists(published)
    findings = audit_lists(lists, AuditContext(exclusive=exclusive, size=(width, height)))
    names = ", ".join(f"{lst.name} {len(lst.rows):,}" for lst in published)
    return findings, f"{folder.name}: {names} rows"


def _audit_dataset(name: str, images: bool, cache: Path | None) -> tuple[list[Finding], str]:
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.audit.dataset import audit_dataset
    from ecamp.cli.logs import LoggedProgress
    from ecamp.plugin.host import make_plugin

    dataset = make_plugin("ecamp.datasets", PluginRef.parse(name))
    findings = audit_dataset(dataset, images=images, cache=cache, progress=LoggedProgress())
    return findings, f"{dataset.info.split_id}: {len(dataset.records()):,} images"


def _print(findings: list[Finding]) -> None:
    if not findings:
        click.echo("nothing found")
    for finding in findings:
        mark = click.style(f"{finding.severity:5}", fg=COLOURS[finding.severity], bold=True)
        click.echo(f"{mark}  {finding.check}: {finding.message}")
        for example in finding.examples:
            click.echo(f"         {example[:150]}")
