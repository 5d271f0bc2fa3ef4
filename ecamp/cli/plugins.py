"""`ecamp plugins list | describe | check | new`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ecamp.api.plugin_ref import PluginRef

KINDS = ("encoder", "pretext", "dataset", "task", "distiller")  # what `new` writes
GROUP_HELP = "encoders, pretext, datasets, tasks or distillers"


@click.group()
def plugins() -> None:
    """List, describe, check and begin plugins."""


def _group(name: str | None) -> str | None:
    """Read the name of a group, with or without `ecamp.`; None stays None."""
    from ecamp.api.plugin import GROUPS
    from ecamp.errors import UsageError, did_you_mean

    if name is None:
        return None
    kinds = [group.removeprefix("ecamp.") for group in GROUPS]
    if name.removeprefix("ecamp.") not in kinds:
        raise UsageError(f"No plugin group '{name}'.", did_you_mean(name, kinds))
    return f"ecamp.{name.removeprefix('ecamp.')}"


@plugins.command("list")
@click.option("--group", "kind", help=GROUP_HELP)
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def list_command(kind: str | None, form: str) -> None:
    """Name every registered plugin; nothing is imported."""
    from ecamp.api.plugin import GROUPS
    from ecamp.plugin.host import list_plugins

    wanted = _group(kind)
    entries = [e for group in GROUPS if wanted in (None, group) for e in list_plugins(group)]
    if form == "json":
        rows = [
            {"group": e.group[6:], "name": e.name, "dist": e.dist, "version": e.version}
            for e in entries
        ]
        click.echo(json.dumps(rows, indent=2))
        return
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        click.echo(f"{entry.group[6:]:10} {entry.name:{width}}  {entry.dist} {entry.version}")


@plugins.command()
@click.argument("words", nargs=-1, required=True, metavar="[GROUP] NAME")
@click.option("--group", "kind", help=GROUP_HELP)
def describe(words: tuple[str, ...], kind: str | None) -> None:
    """Show what a plugin is, where it comes from, its licence and citation, and its options."""
    from ecamp.api.plugin import GROUPS
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.errors import MissingError, UsageError, did_you_mean
    from ecamp.plugin.host import list_plugins

    if len(words) > 2:
        raise UsageError(f"'{' '.join(words)}' is not a plugin.", "Write [GROUP] NAME.")
    name = words[-1]
    wanted = _group(words[0] if len(words) == 2 else kind)
    ref = PluginRef.parse(name)
    entries = [e for group in GROUPS if wanted in (None, group) for e in list_plugins(group)]
    groups = dict.fromkeys(entry.group for entry in entries if entry.name == ref.name)
    if not groups:
        known = [entry.name for entry in entries]
        raise MissingError(f"No plugin '{name}'.", did_you_mean(ref.name, known))
    for group in groups:
        _describe(group, ref)


def _describe(group: str, ref: PluginRef) -> None:
    from ecamp.plugin.host import find_plugin
    from ecamp.plugin.options import list_options

    loaded = find_plugin(group, ref, any_variant=True)
    cls = loaded.cls
    click.echo(f"{group[6:]} {ref.name}: {cls.summary}")
    click.echo(f"  package   {loaded.origin}")
    click.echo(f"  licence   {cls.licence or 'not stated'}")
    click.echo(f"  citation  {cls.citation or 'not stated'}")
    if cls.family:
        variants = cls.variants()
        click.echo(f"  variants  {len(variants)}, e.g. {', '.join(variants[:4])}")
    options = list(list_options(cls.Config))
    name_width = max((len(option.name) for option in options), default=0)
    width = min(max((len(option.default) for option in options), default=0), 24)
    for option in options:
        text = f"{option.description} [{option.takes}]".lstrip()
        click.echo(f"  {option.name:{name_width}}  {option.default:>{width}}  {text}")


@plugins.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--group", "kind", help=GROUP_HELP)
@click.option("--cache", type=click.Path(path_type=Path), help="folder of decoded images")
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def check(names: tuple[str, ...], kind: str | None, cache: Path | None, form: str) -> int:
    """Check that installed plugins keep what a bench relies on; exit 1 where one does not.

    NAME is a plugin with its options; without any, all plugins of other packages are checked. What
    lacks an option or its data is skipped, with the reason; exit 4 where a NAME is.
    """
    from ecamp.testing.installed import check_installed, choose_plugins

    chosen = choose_plugins(names, _group(kind))
    results = []
    for group, ref in chosen:
        for result in check_installed(group, ref, cache):
            results.append(result)
            if form == "table":
                reason = f": {result.reason}" if result.reason else ""
                click.echo(
                    f"{result.status}  {result.group} {result.plugin}  {result.part}{reason}"
                )
    if form == "json":
        click.echo(json.dumps([result.as_json() for result in results], indent=2))
    counts = {s: sum(r.status == s for r in results) for s in ("pass", "fail", "skip")}
    counted = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    plural = "s" * (len(chosen) != 1)
    total = f"{len(chosen)} plugin{plural}: {counted}" if chosen else "no plugins of other packages"
    click.echo(total, err=True)
    if counts["fail"]:
        return 1
    return 4 if names and counts["skip"] else 0


@plugins.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="what the plugin is")
@click.option("--output", type=click.Path(path_type=Path), default=Path(),
              help="folder in which the package's folder is made")  # fmt: skip
def new(name: str, kind: str, output: Path) -> None:
    """Write a small complete package with one plugin that works: to change and to install."""
    from ecamp.plugin.new import write_package

    folder = write_package(name, kind, output)
    click.echo((folder / "README.md").read_text(encoding="utf-8"))
    click.echo(f"{folder} is written", err=True)
