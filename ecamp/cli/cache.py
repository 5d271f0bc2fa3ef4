"""`ecamp cache`: list, evict and verify what is kept between runs."""

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
    """List, delete or verify decoded images, pre-trained weights and features."""


_root = click.option("--cache", "root", type=click.Path(path_type=Path),
                     help="cache folder; default $ECAMP_CACHE or ~/.cache/ecamp")  # fmt: skip
_kind = click.option(
    "--kind", type=click.Choice(KINDS), multiple=True, help="only this kind; repeatable"
)


@cache.command("ls")
@_root
@_kind
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table",
              show_default=True)  # fmt: skip
def list_(root: Path | None, kind: tuple[str, ...], form: str) -> None:
    """List the entries: kind, key, size, last use, description."""
    from ecamp.storage.cache import list_entries
    from ecamp.storage.files import cache_root

    entries = list_entries(cache_root(root), kind or KINDS)
    if form == "json":
        totals = {k: sum(e.bytes for e in entries if e.kind == k) for k in kind or KINDS}
        value = {"cache": str(cache_root(root)), "entries": [_as_json(e) for e in entries],
                 "bytes": totals, "total_bytes": sum(totals.values())}  # fmt: skip
        click.echo(json.dumps(value, indent=2))
        return
    for entry in entries:
        click.echo(_line(entry))
    for name in kind or KINDS:
        of_kind = [entry for entry in entries if entry.kind == name]
        click.echo(f"{name:8} {len(of_kind):5} entries {_size(sum(e.bytes for e in of_kind))}")
    click.echo(f"{'total':8} {len(entries):5} entries {_size(sum(e.bytes for e in entries))}  "
               f"in {cache_root(root)}")  # fmt: skip


@cache.command()
@_root
@_kind
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS",
              help="delete entries not used for DAYS")  # fmt: skip
@click.option("--max-size", type=click.FloatRange(min=0), metavar="GB",
              help="delete the least recently used until GB are left")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="list what would be deleted, delete nothing")
def gc(
    root: Path | None,
    kind: tuple[str, ...],
    older_than: float | None,
    max_size: float | None,
    dry_run: bool,
) -> None:
    """Delete entries by age and size, never one in use, and leftovers of killed processes."""
    from ecamp.storage.cache import (
        list_entries,
        remove,
        remove_stale,
        select_for_eviction,
        stale_files,
    )
    from ecamp.storage.files import cache_root

    folder, kinds = cache_root(root), kind or KINDS
    if older_than is None and max_size is None:
        click.echo("neither --older-than nor --max-size: only leftovers are deleted", err=True)
    chosen = select_for_eviction(
        list_entries(folder, kinds),
        older_than=None if older_than is None else older_than * 86_400,
        max_bytes=None if max_size is None else max_size * 1e9,
        now=time.time(),
    )
    freed = 0
    for entry in chosen:
        if dry_run or remove(entry.folder):
            freed += entry.bytes
            click.echo(_line(entry))
        else:
            click.echo(f"{entry.folder}: in use now, kept", err=True)
    leftovers = stale_files(folder, kinds)
    for path in leftovers:
        click.echo(f"leftover {path.relative_to(folder)}")
        if not dry_run:
            remove_stale(path)
    verb = "would be deleted" if dry_run else "deleted"
    click.echo(
        f"{len(chosen)} entries,{_size(freed)}, and {len(leftovers)} leftovers {verb}", err=True
    )


@cache.command()
@_root
@_kind
@click.option(
    "--delete", is_flag=True, help="delete damaged entries; they are created again when needed"
)
def verify(root: Path | None, kind: tuple[str, ...], delete: bool) -> None:
    """Check every entry against its hashes; exit 1 if some are damaged."""
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
        outcome = ""
        if delete:
            outcome = "; deleted" if remove(entry.folder) else "; in use, kept"
        click.echo(f"{entry.folder}: {problem}{outcome}")
    click.echo(f"{len(entries)} entries checked, {bad} damaged", err=True)
    if bad:
        sys.exit(1)


def _as_json(entry: Entry) -> dict[str, Any]:
    return {"kind": entry.kind, "key": entry.key, "label": entry.label, "bytes": entry.bytes,
            "last_used": round(entry.last_used), "in_use": entry.in_use}  # fmt: skip


def _line(entry: Entry) -> str:
    used = (
        "in use now"
        if entry.in_use
        else time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
    )
    return f"{entry.kind:8} {entry.key} {_size(entry.bytes)}  {used:16}  {entry.label}"


def _size(count: float) -> str:
    """Format bytes in 9 characters, in the unit that gives one to three digits before the point."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:6.0f} {unit:2}" if unit == "B" else f"{count:6.1f} {unit}"
        count /= 1000
    return f"{count:6.1f} GB"
