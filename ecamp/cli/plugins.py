"""`ecamp plugins list | describe`."""

from __future__ import annotations

import json

import click


@click.group()
def plugins() -> None:
    """List and describe plugins."""


@plugins.command("list")
@click.option("--group", "kind", help="encoders, pretext, datasets, tasks or distillers")
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table")
def list_command(kind: str | None, form: str) -> None:
    """Name every registered plugin; nothing is imported."""
    from ecamp.api.plugin import GROUPS
    from ecamp.errors import UsageError, did_you_mean
    from ecamp.plugin.host import list_plugins

    kinds = [group.removeprefix("ecamp.") for group in GROUPS]
    if kind and kind not in kinds:
        raise UsageError(f"No plugin group '{kind}'.", did_you_mean(kind, kinds))
    entries = [e for group in GROUPS if kind in (None, group[6:]) for e in list_plugins(group)]
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
@click.argument("name")
@click.option("--group", "kind", help="encoders, pretext, datasets, tasks or distillers")
def describe(name: str, kind: str | None) -> None:
    """Show what a plugin is, its licence and citation, and its options."""
    from ecamp.api.plugin import GROUPS
    from ecamp.api.plugin_ref import PluginRef
    from ecamp.errors import MissingError, did_you_mean
    from ecamp.plugin.host import list_plugins, load_plugin

    ref = PluginRef.parse(name)
    groups = [g for g in GROUPS if kind in (None, g[6:])]
    found = [g for g in groups if any(e.name == ref.name for e in list_plugins(g))]
    if not found:
        known = [e.name for g in groups for e in list_plugins(g)]
        raise MissingError(f"No plugin '{name}'.", did_you_mean(name, known))
    for group in found:
        cls = load_plugin(group, ref, any_variant=True)
        click.echo(f"{group[6:]} {ref.name}: {cls.summary}")
        click.echo(f"  licence   {cls.licence or 'not stated'}")
        click.echo(f"  citation  {cls.citation or 'not stated'}")
        if cls.family:
            click.echo(f"  variants  {len(cls.variants())}, e.g. {', '.join(cls.variants()[:4])}")
        for key, field in cls.Config.model_fields.items():
            default = (
                "required"
                if field.is_required()
                else repr(field.get_default(call_default_factory=True))
            )
            click.echo(f"  {key:18} {default:>12.40}  {field.description or ''}")
