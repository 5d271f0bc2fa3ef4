"""`ecamp cache`: what is kept between runs, and what of it can go."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ecamp.storage.cache import Entry

KINDS = ("arrays", "pretrain", "features")  # as in ecamp.storage.cache, which imports numpy


@click.group()
def cache() -> None:
    """Decoded images, pre-trained weights and features: list, collect, verify."""


_root = click.option("--cache", "root", type=click.Path(path_type=Path),
                     help="cache folder; default $ECAMP_CACHE or ~/.cache/ecamp")  # fmt: skip
_kind = click.option(
    "--kind", type=click.Choice(KINDS), multiple=True, help="only this; repeatable"
)


@cache.command("ls")
@_root
@_kind
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table",
              show_default=True)  # fmt: skip
def list_(root: Path | None, kind: tuple[str, ...], form: str) -> None:
    """What is kept: kind, key, size, last use, and what it is."""
    from ecamp.storage.cache import list_entries
    from ecamp.storage.files import cache_root

    entries = list_entries(cache_root(root), kind or KINDS)
    if form == "json":
        totals = {k: sum(e.bytes for e in entries if e.kind == k) for k in kind or KINDS}
        value = {"cache": str(cache_root(root)), "entries": [_plain(e) for e in entries],
                 "bytes": totals, "total_bytes": sum(totals.values())}  # fmt: skip
        click.echo(json.dumps(value, indent=2))
        return
    for entry in entries:
        click.echo(_line(entry))
    for name in kind or KINDS:
        mine = [entry for entry in entries if entry.kind == name]
        click.echo(f"{name:8} {len(mine):5} entries {_size(sum(e.bytes for e in mine))}")
    click.echo(f"{'total':8} {len(entries):5} entries {_size(sum(e.bytes for e in entries))}  "
               f"in {cache_root(root)}")  # fmt: skip


@cache.command()
@_root
@_kind
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS",
              help="what was not used for so long")  # fmt: skip
@click.option("--max-size", type=click.FloatRange(min=0), metavar="GB",
              help="the least recently used, until the rest takes no more")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="say what would go, delete nothing")
def gc(
    root: Path | None,
    kind: tuple[str, ...],
    older_than: float | None,
    max_size: float | None,
    dry_run: bool,
) -> None:
    """Delete entries by age and size, never one in use; stale_files of killed processes go too."""
    from ecamp.storage.cache import clear, list_entries, remove, select_for_eviction, stale_files
    from ecamp.storage.files import cache_root

    folder, kinds = cache_root(root), kind or KINDS
    if older_than is None and max_size is None:
        click.echo("neither --older-than nor --max-size: only stale_files are collected", err=True)
    chosen = select_for_eviction(
        list_entries(folder, kinds),
        older_than=None if older_than is None else older_than * 86_400,
        max_bytes=None if max_size is None else max_size * 1e9,
        now=time.time(),
    )
    gone = 0
    for entry in chosen:
        if dry_run or remove(entry.folder):
            gone += entry.bytes
            click.echo(_line(entry))
        else:
            click.echo(f"{entry.folder}: in use by now, kept", err=True)
    left = stale_files(folder, kinds)
    for path in left:
        click.echo(f"leftover {path.relative_to(folder)}")
        if not dry_run:
            clear(path)
    verb = "would go" if dry_run else "deleted"
    click.echo(f"{len(chosen)} entries,{_size(gone)}, and {len(left)} stale_files {verb}", err=True)


@cache.command()
@_root
@_kind
@click.option("--delete", is_flag=True, help="delete what is damaged; it is made again when needed")
def verify(root: Path | None, kind: tuple[str, ...], delete: bool) -> None:
    """Check every entry against its hashes; exit 1 when some are damaged."""
    from ecamp.storage.cache import list_entries, remove
    from ecamp.storage.cache import verify as verify_entry
    from ecamp.storage.files import cache_root

    entries = list_entries(cache_root(root), kind or KINDS)
    bad = 0
    for entry in entries:
        problem = verify_entry(entry)
        if problem is None:
            continue
        bad += 1
        done = ""
        if delete:
            done = "; deleted" if remove(entry.folder) else "; in use, kept"
        click.echo(f"{entry.folder}: {problem}{done}")
    click.echo(f"{len(entries)} entries checked, {bad} damaged", err=True)
    if bad:
        sys.exit(1)


def _plain(entry: Entry) -> dict[str, Any]:
    return {"kind": entry.kind, "key": entry.key, "label": entry.label, "bytes": entry.bytes,
            "last_used": round(entry.used), "in_use": entry.busy}  # fmt: skip


def _line(entry: Entry) -> str:
    used = (
        "in use now" if entry.busy else time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    )
    return f"{entry.kind:8} {entry.key} {_size(entry.bytes)}  {used:16}  {entry.label}"


def _size(count: float) -> str:
    """Bytes in the unit that gives one to three digits before the point; 9 characters."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:6.0f} {unit:2}" if unit == "B" else f"{count:6.1f} {unit}"
        count /= 1000
    return f"{count:6.1f} GB"
