"""Finds plugins through entry points and loads them one at a time.

stevedore's own listing is cached on disk for minutes, loses the distribution of cached entries,
misses duplicate names that are not adjacent, and would import a whole namespace at once. So the
manager here reads `importlib.metadata` afresh, sorted, and loads exactly one name.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from stevedore import NamedExtensionManager

from ecamp.api.origin import Origin, code_version
from ecamp.api.plugin import GROUPS, Plugin
from ecamp.api.plugin_ref import PluginRef
from ecamp.config import typed_options, validate
from ecamp.errors import MissingError, UsageError, did_you_mean

OWN = "ecamp"  # distribution that wins a bare name

_log = logging.getLogger(__name__)

# Base class of each group, imported when a plugin is loaded: a listing needs no torch.
BASES = {
    "ecamp.encoders": "ecamp.api.encoder:EncoderPlugin",
    "ecamp.pretext": "ecamp.api.pretext:PretextPlugin",
    "ecamp.datasets": "ecamp.api.dataset:Dataset",
    "ecamp.tasks": "ecamp.api.task:TaskPlugin",
    "ecamp.distillers": "ecamp.api.distiller:Distiller",
}


@dataclass(frozen=True)
class PluginEntry:
    """One registered name; its module is not imported.

    Attributes:
        value: `module:Class`.
    """

    group: str
    name: str
    dist: str
    version: str
    value: str


def _entry_points(group: str) -> list[metadata.EntryPoint]:
    """List all entry points of a group, by name and distribution.

    An editable install and a build folder can both describe one distribution; equal entries of
    one distribution count once.
    """
    points: dict[tuple[str, str, str], metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=group):
        dist = point.dist.name if point.dist else ""
        points.setdefault((point.name, dist, point.value), point)
    return [points[key] for key in sorted(points)]


class PluginManager(NamedExtensionManager):  # type: ignore[type-arg]
    """stevedore's manager for one entry point, without its cache."""

    def __init__(self, group: str, point: metadata.EntryPoint) -> None:
        self._point = point
        self.failure: BaseException | None = None
        super().__init__(
            group,
            [point.name],
            on_load_failure_callback=self._failed,
        )

    def list_entry_points(self) -> list[metadata.EntryPoint]:
        """Return the one requested entry point."""
        return [self._point]

    def _failed(self, manager: Any, point: Any, error: BaseException) -> None:
        self.failure = error


def list_plugins(group: str) -> list[PluginEntry]:
    """List the plugins registered in a group, sorted by name and distribution; imports nothing."""
    return [
        PluginEntry(
            group,
            point.name,
            point.dist.name if point.dist else "",
            point.dist.version if point.dist else "",
            point.value,
        )
        for point in _entry_points(group)
    ]


@dataclass(frozen=True)
class LoadedPlugin:
    """The class of a plugin, and where it comes from."""

    cls: type[Plugin]
    origin: Origin

    def make(self, ref: PluginRef) -> Any:
        """Make the plugin with the options of a reference.

        Raises:
            UsageError: Unknown or wrong options.
        """
        ref = ref.model_copy(update={"options": typed_options(self.cls.Config, ref.options)})
        config = validate(self.cls.Config, ref.options, f"options of {ref}")
        plugin = self.cls(config, ref.variant)
        plugin.ref, plugin.origin = ref, self.origin
        return plugin


def find_plugin(group: str, ref: PluginRef, *, any_variant: bool = False) -> LoadedPlugin:
    """Import the class of one plugin.

    A name that `ecamp` and another distribution register means that of `ecamp`, with a warning, so
    that installing a package changes no result; the other is reached as `distribution:name`.

    Args:
        any_variant: A family may be named without a variant, to describe it.

    Raises:
        MissingError: Unknown name, or the plugin fails on import (named with its distribution).
        UsageError: Two other distributions with the name; a variant missing, unknown or out of
            place; a class that does not implement the group's protocol.
    """
    if group not in GROUPS:
        raise UsageError(f"No plugin group '{group}'.", did_you_mean(group, GROUPS))
    kind = group.removeprefix("ecamp.")
    points = _entry_points(group)
    named = [p for p in points if p.name == ref.name and (not ref.dist or _dist(p) == ref.dist)]
    if not named:
        hint = did_you_mean(ref.name, [point.name for point in points])
        raise MissingError(f"{kind}: no plugin '{ref.name}'.", hint)
    if len(named) > 1:
        named = _choose(kind, ref.name, named)
    cls = _check(kind, group, ref, _load(kind, group, named[0]), any_variant)
    version = named[0].dist.version if named[0].dist else ""
    origin = Origin(group, ref.name, _dist(named[0]), version, code_version(cls))
    return LoadedPlugin(cls, origin)


def _choose(kind: str, name: str, points: list[metadata.EntryPoint]) -> list[metadata.EntryPoint]:
    owners = [_dist(point) or point.value for point in points]
    ours = [point for point in points if _dist(point) == OWN]
    if len(ours) != 1:
        raise UsageError(
            f"{kind}: '{name}' is registered by {' and '.join(owners)}.",
            f"Write {owners[0]}:{name} to pick one, or uninstall the other.",
        )
    other = next(owner for owner in owners if owner != OWN)
    _log.warning(
        "%s: '%s' is registered by %s too; the one of %s is used. For the other write %s:%s.",
        kind, name, other, OWN, other, name,
    )  # fmt: skip
    return ours


def load_plugin(group: str, ref: PluginRef, *, any_variant: bool = False) -> type[Plugin]:
    """Import the class of one plugin; arguments and errors as `find_plugin`."""
    return find_plugin(group, ref, any_variant=any_variant).cls


def skip_bad_rows(ref: PluginRef) -> PluginRef:
    """Add the option to skip unusable rows, where the data set has it and the user gave none.

    `--on-bad-image skip` means both: for a user, an unusable row and an unreadable file are the same.

    Raises:
        MissingError, UsageError: As `load_plugin`.
    """
    fields = load_plugin("ecamp.datasets", ref, any_variant=True).Config.model_fields
    if "on_bad_row" not in fields or "on_bad_row" in ref.options:
        return ref
    return ref.model_copy(update={"options": {**ref.options, "on_bad_row": "skip"}})


def _dist(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist else ""


def _load(kind: str, group: str, point: metadata.EntryPoint) -> Any:
    manager = PluginManager(group, point)
    if manager.failure is not None or not manager.extensions:
        version = point.dist.version if point.dist else "?"
        raise MissingError(
            f"{kind}: plugin '{point.name}' of {_dist(point)} {version} fails on import: "
            f"{type(manager.failure).__name__}: {manager.failure}",
            f"Fix or uninstall {_dist(point)}; other plugins are not affected.",
        )
    return manager.extensions[0].plugin


def _check(kind: str, group: str, ref: PluginRef, cls: Any, any_variant: bool) -> type[Plugin]:
    module, _, name = BASES[group].partition(":")
    base: type[Plugin] = getattr(import_module(module), name)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise UsageError(
            f"{kind}: '{ref.name}' is not a subclass of {base.__name__}.",
            "Derive the class from it.",
        )
    if cls.family and not ref.variant and not any_variant:
        raise UsageError(
            f"{kind}: '{ref.name}' is a family.",
            f"Write {ref.name}/VARIANT, e.g. {_examples(cls)}.",
        )
    if ref.variant and not cls.family:
        raise UsageError(f"{kind}: '{ref.name}' has no variants; drop '/{ref.variant}'.")
    if ref.variant and cls.variants() and ref.variant not in cls.variants():
        close = did_you_mean(ref.variant, cls.variants())
        # A family can have a thousand members: only the closest is named.
        raise MissingError(
            f"{kind}: '{ref.name}' has no variant '{ref.variant}'.", close.split(" Known:")[0][:200]
        )
    return cls


def _examples(cls: type[Plugin]) -> str:
    names: Sequence[str] = cls.variants()
    return ", ".join(names[:3]) or "as its documentation says"


def make_plugin(group: str, ref: PluginRef) -> Any:
    """Load a plugin and configure it.

    Raises:
        MissingError, UsageError: As `find_plugin`; also for unknown or wrong options.
    """
    return find_plugin(group, ref).make(ref)
